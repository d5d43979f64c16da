#!/usr/bin/env bash
# A second chance, alone, for up to three tests that failed among others: tests/again.sh .venv/bin/python
#
# A shared machine may hold up any test. Who needed this is printed, and is to be mended.
set -euo pipefail
again=$("$1" -m pytest --last-failed --last-failed-no-failures none --collect-only --quiet | grep -c ::) || exit 1
((again <= 3)) || exit 1
echo "==> $again failed among others; again, alone:"
exec "$1" -m pytest --last-failed --last-failed-no-failures none --quiet
