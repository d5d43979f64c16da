#!/usr/bin/env bash
# Builds dist/zego-watchdog_VERSION_ARCHITECTURE.deb: the program and its libraries in /opt/zego-watchdog, for Debian's own
# Python. Run it on the Debian release that the package is for. `make deb` calls it; docs/packaging.md describes the
# package.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian's python3, not the first in PATH: the package depends on it and its minor version.
python=/usr/bin/python3
# The development environment's pip, because the package contains none.
pip=${PIP:-.venv/bin/python -m pip}
prefix=/opt/zego-watchdog
stage=$PWD/build/deb
umask 022
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat --format=%Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "the package needs Debian's python3, 3.11 or newer: apt install python3 python3-venv" >&2
    exit 1
}
minor=$($python -c 'import sys; print(sys.version_info.minor)')

echo "Installing zego-watchdog into build/deb"
rm -rf "$stage"
venv=$stage$prefix
mkdir -p "$venv" "$stage/DEBIAN"
$python -m venv --without-pip "$venv"
# From wheels, as in the tests of the pip installation.
rm -rf build/wheels
# shellcheck disable=SC2086  # a command with its arguments
$pip --quiet --python $python wheel --constraint constraints.txt --wheel-dir build/wheels '.[report]' 2>&1 |
    { grep -v "^WARNING: Location" || true; }
# shellcheck disable=SC2086  # the same
$pip --quiet --python "$venv/bin/python" install --no-compile --no-index --find-links build/wheels 'zego-watchdog[report]'

# Keep one command; remove the commands of the libraries.
find "$venv/bin" -mindepth 1 -not -name 'python*' -not -name zego-watchdog -delete
# Remove the build directory from all files.
sed -i "1s|^#!.*|#!$prefix/bin/python|" "$venv/bin/zego-watchdog"
sed -i '/^command = /d' "$venv/pyvenv.cfg"
find "$venv" -name direct_url.json -delete
rm -rf "$venv/include"
library=$venv/lib/python3.$minor/site-packages
# Compile now and never check again, so that nothing is written to /opt at run time.
"$venv/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$stage" -p / "$library"

version=$("$venv/bin/python" -B -c 'import watchdog; print(watchdog.__version__)')
schema=$("$venv/bin/python" -B -c 'from watchdog import SCHEMA_VERSION; print(SCHEMA_VERSION)')
architecture=$(dpkg --print-architecture)

# Put files where systemd, dpkg, man and the shells expect them.
install -D -m 644 -t "$stage/usr/lib/systemd/system" systemd/*.service systemd/*.socket
doc=$stage/usr/share/doc/zego-watchdog
install -D -m 644 -t "$doc/examples" systemd/zego-watchdog.service.d/*.conf systemd/*.sysusers.conf
# In the same places as in the repository, so that the links between them work.
install -D -m 644 -t "$doc" README.md README.zh-CN.md CHANGELOG.md CONTRIBUTING.md config.yaml
install -D -m 644 -t "$doc/docs" docs/*.*
install -D -m 644 -t "$doc/docs/images" docs/images/*
install -D -m 644 -t "$doc/monitoring" monitoring/alerts.yaml monitoring/grafana.json
install -d -m 700 "$stage/etc/zego-watchdog/secrets"
sed 's|^  url: sqlite:///zego-watchdog.db$|  url: sqlite:////var/lib/zego-watchdog/zego-watchdog.db|' config.yaml \
    >"$stage/etc/zego-watchdog/config.yaml"
grep -q '^  url: sqlite:////var/lib/' "$stage/etc/zego-watchdog/config.yaml"
mkdir -p "$stage/usr/bin"
ln -s "$prefix/bin/zego-watchdog" "$stage/usr/bin/zego-watchdog"

mkdir -p "$stage/usr/share/man/man1"
"$venv/bin/python" -B packaging/manual.py | gzip -9n >"$stage/usr/share/man/man1/zego-watchdog.1.gz"
while read -r shell file; do
    mkdir -p "$stage/$(dirname "$file")"
    # zsh needs its mark on the first line, but Typer writes an empty line first. The changed last line makes zsh complete
    # already the first time that it loads the function.
    _ZEGO_WATCHDOG_COMPLETE=source_$shell "$venv/bin/python" -B "$venv/bin/zego-watchdog" |
        sed '1{/^$/d}; s/^compdef \(_zego_watchdog_completion\) zego-watchdog$/\1 "$@"/' >"$stage/$file"
    grep -q ZEGO_WATCHDOG_COMPLETE "$stage/$file"
done <<'SHELLS'
bash usr/share/bash-completion/completions/zego-watchdog
zsh usr/share/zsh/vendor-completions/_zego-watchdog
fish usr/share/fish/vendor_completions.d/zego-watchdog.fish
SHELLS

{
    printf 'zego-watchdog (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n' "$version"
    printf ' -- The zego-watchdog authors <zego-watchdog@localhost>  %s\n' \
        "$(LC_ALL=C date --utc --date "@$SOURCE_DATE_EPOCH" +'%a, %d %b %Y %H:%M:%S +0000')"
} | gzip -9n >"$doc/changelog.Debian.gz"
"$venv/bin/python" -B packaging/copyright.py >"$doc/copyright"

size=$(find "$stage" -path "$stage/DEBIAN" -prune -o -type f -printf '%s\n' | awk '{sum += $1} END {print int(sum / 1024)}')
for file in control preinst postinst prerm postrm; do
    sed -e "s|@VERSION@|$version|g; s|@SCHEMA@|$schema|g; s|@ARCHITECTURE@|$architecture|g; s|@SIZE@|$size|g" \
        -e "s|@PYTHON@|3.$minor|g; s|@NEXT_PYTHON@|3.$((minor + 1))|g" "packaging/deb/$file" >"$stage/DEBIAN/$file"
done
chmod 755 "$stage"/DEBIAN/{preinst,postinst,prerm,postrm}
(cd "$stage" && find etc -type f -printf '/%p\n' | sort >DEBIAN/conffiles)
(cd "$stage" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

if grep --recursive --files-with-matches --fixed-strings -e "$PWD/build" -e "$PWD/.venv" "$stage"; then
    echo "these files contain the build directory" >&2
    exit 1
fi
mkdir -p dist
package=dist/zego-watchdog_${version}_$architecture.deb
# dpkg-deb sets later times to SOURCE_DATE_EPOCH; earlier ones come from the wheels.
find "$stage" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb -Zzstd --root-owner-group --build "$stage" "$package" >/dev/null
echo "$package"
