#!/usr/bin/env bash
# Installs it as the README says, where there is nothing else, and runs it away from the checkout: what an operator gets
# must bring its migrations and its example configuration along.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH PYTHONHOME

# The README's own words, in another place than /opt.
sed -n '/^```bash$/,/^```$/p' README.md | sed -n '2,/^```$/p' | sed "/^\`\`\`/d; s#/opt/zego-watchdog#$work/venv#g" >"$work/install.sh"
grep -q "pip install" "$work/install.sh"
PIP_QUIET=1 bash -euxo pipefail "$work/install.sh"

mkdir "$work/elsewhere"
cd "$work/elsewhere"
package=$("$work/venv/bin/python" -c 'import pathlib, watchdog; print(pathlib.Path(watchdog.__file__).parent)')
case $package in "$work"/venv/*) ;; *) echo "imported $package, not the wheel" >&2; exit 1 ;; esac
cp "$package/config.yaml" .
"$work/venv/bin/zego-watchdog" version
"$work/venv/bin/zego-watchdog" systemd install --root "$work/root" --program /opt/zego-watchdog/bin/zego-watchdog
"$work/venv/bin/zego-watchdog" migrate
"$work/venv/bin/python" - <<'PYTHON'
import sqlite3

with sqlite3.connect("zego-watchdog.db") as database:
    database.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    database.execute("UPDATE zego_tasks SET user_count = 0 WHERE room_id = 'r' AND status = 'active'")
    ((empty_since,),) = database.execute("SELECT empty_since FROM zego_tasks")
assert empty_since, "the wheel's migrations made no triggers"
PYTHON
echo "the wheel works"
