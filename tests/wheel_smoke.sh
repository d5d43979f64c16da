#!/usr/bin/env bash
# Installs it as the README says, where there is nothing else, and runs it away from the checkout: what an operator gets
# must bring its migrations and its example configuration along.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH PYTHONHOME

# The README's own words, below another root, and on its own PATH.
sed -n '/^```bash$/,/^```$/p' README.md | sed -n '2,/^```$/p' |
    sed "/^\`\`\`/d; s#/opt/zego-watchdog#$work/venv#g; s#/usr/local/bin#$work/bin#g; s#/etc/zego#$work/etc/zego#g" >"$work/install.sh"
grep -q "pip install" "$work/install.sh"
mkdir "$work/bin"
export PATH=$work/bin:/usr/bin:/bin PIP_QUIET=1
set -x
# shellcheck source=/dev/null
. "$work/install.sh" </dev/null
set +x
package=$("$work/venv/bin/python" -c 'import pathlib, watchdog; print(pathlib.Path(watchdog.__file__).parent)')
case $package in "$work"/venv/*) ;; *) echo "imported $package, not the wheel" >&2; exit 1 ;; esac
cmp "$package/config.yaml" config.yaml
zego-watchdog version
zego-watchdog systemd install --root "$work/root" --program /opt/zego-watchdog/bin/zego-watchdog
zego-watchdog migrate
"$work/venv/bin/python" - <<'PYTHON'
import sqlite3

with sqlite3.connect("zego-watchdog.db") as database:
    database.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    database.execute("UPDATE zego_tasks SET user_count = 0 WHERE room_id = 'r' AND status = 'active'")
    ((empty_since,),) = database.execute("SELECT empty_since FROM zego_tasks")
assert empty_since, "the wheel's migrations made no triggers"

from watchdog.page.rendering import Renderer

assert Renderer().style, "the wheel has no templates of the page"
PYTHON
echo "the wheel works"
