#!/usr/bin/env bash
# Runs `make test-quick` in a clone of this repository with another Python: tests/other_python.sh 3.12
# Ends with 69 if there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
python=
for candidate in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python "/usr/bin/python$1" "/usr/local/bin/python$1"; do
    [[ -x $candidate ]] && python=$candidate
done
[[ $python ]] || {
    echo "there is no Python $1 here; where Debian has none of this version, pyenv builds one: pyenv install $1" >&2
    exit 69
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-local . "$work/clone"
make -C "$work/clone" --no-print-directory test-quick PYTHON="$python"
