#!/usr/bin/env bash
# Runs the tests of this directory in namespaces of their own: whatever they mount, start or listen on is theirs, and is
# gone when they end. Arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
((EUID == 0)) || missing+=("root")
command -v systemd-nspawn >/dev/null || missing+=("systemd-nspawn (apt install systemd-container)")
command -v systemctl >/dev/null || missing+=("systemd itself (apt install systemd)")
command -v ip >/dev/null || missing+=("ip (apt install iproute2)")
unshare --mount --net --pid --fork true 2>/dev/null || missing+=("the right to make namespaces")
((${#missing[@]} == 0)) || {
    printf 'the tests under systemd boot a container, and that needs: %s\n' "${missing[@]}" >&2
    exit 1
}
# All of them, unless an argument names some.
directory=tests/system
for argument in "$@"; do
    case $argument in tests/system/*) directory= ;; esac
done
# shellcheck disable=SC2016,SC2086  # to be expanded inside; one word or none
exec unshare --mount --net --pid --fork --kill-child --mount-proc -- \
    bash -euc 'ip link set lo up; exec "$@"' bash env SYSTEM_TESTS=1 \
    .venv/bin/python -m pytest -p no:xdist -p no:cacheprovider "$@" $directory
