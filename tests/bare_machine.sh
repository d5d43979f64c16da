#!/usr/bin/env bash
# Runs commands in a clone of this repository on a minimal Debian with nothing but Python (venv), make and git:
#
#     tests/bare_machine.sh bookworm root "make demo" "make test"
#     tests/bare_machine.sh sid somebody "make test-quick"
#
# The suite sets the Python: bookworm 3.11, trixie 3.13, sid 3.14. Needs root, debootstrap and systemd-nspawn. The minimal
# system is made once and kept; all that the commands write is in memory, and goes away. Ends with 69 if it cannot be made.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=$1 user=$2
shift 2

root=${BARE_ROOTS:-/var/tmp/zego-watchdog-bare}/$suite
if [[ ! -e $root.made ]]; then
    rm -rf "$root"
    mkdir -p "$root"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -n 1)
    debootstrap --variant=minbase --include=python3,python3-venv,make,git,ca-certificates "$suite" "$root" $mirror \
        >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; exit 69; }
    touch "$root.made"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-local . "$work/clone"

# How this machine reaches its package registries: pip's configuration, and the certificates.
from_here=()
for path in /etc/pip.conf /etc/xdg/pip /etc/ssl/certs /usr/local/share/ca-certificates ${PIP_FIND_LINKS:-}; do
    [[ -e $path ]] && from_here+=("--bind-ro=$path")
done
for name in "${!PIP_@}"; do from_here+=("--setenv=$name=${!name}"); done

inside='
user=$1; shift
id "$user" >/dev/null 2>&1 || useradd --create-home "$user"
home=$(getent passwd "$user" | cut -d: -f6)
cp -r /source "$home/clone"
chown -R "$user:" "$home/clone"
cd "$home/clone"
for command; do
    began=$SECONDS
    setpriv --reuid="$user" --regid="$user" --init-groups env HOME="$home" USER="$user" bash -c "$command"
    echo "==> $command as $user, $(python3 --version), $(nproc) cores: $((SECONDS - began)) s"
done
'
systemd-nspawn --quiet --directory="$root" --volatile=overlay --register=no --keep-unit --resolv-conf=copy-host \
    --timezone=off --console=pipe --bind-ro="$work/clone:/source" "${from_here[@]}" \
    bash -euc "$inside" bash "$user" "$@" 2> >(grep -v '^Attempted to remove disk file system' >&2)
