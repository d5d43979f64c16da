"""The daemon as process 1 of a container: its own processes and mounts, a read-only root, a user without rights.

There is no image in it: the root is this machine's, under an overlay. The network is this machine's, too.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_ENTER: Final = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$FOLDER"
tree=$FOLDER/tree
mkdir "$FOLDER/upper" "$FOLDER/work" "$tree"
mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$tree"
for place in $NEEDED; do
    mkdir -p "$tree$place"
    mount --bind "$place" "$tree$place"
    while place=$(dirname "$place"); [ "$place" != / ]; do chmod o+x "$tree$place"; done
done
mkdir -p "$tree/opt/zego-watchdog"
mount --bind "$VENV" "$tree/opt/zego-watchdog"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
for place in $HIDDEN; do
    [ ! -d "$tree$place" ] || mount -t tmpfs tmpfs "$tree$place"
done
for place in $VOLUMES; do
    mkdir -p "$tree$place"
    mount --bind "$MOUNTED$place" "$tree$place"
    case " $WRITABLE " in *" $place "*) ;; *) mount -o remount,bind,ro "$tree$place" ;; esac
done
mount -o remount,bind,ro "$tree"
exec chroot --userspec="$USER_ID:$USER_ID" --groups= "$tree" env -i "$@"
"""


class Container:
    """``mounted`` has a folder for each path of ``volumes``; of ``hidden`` folders nothing is seen."""

    def __init__(
        self,
        folder: Path,
        mounted: Path,
        *,
        user: int,
        volumes: Sequence[str],
        writable: Sequence[str],
        hidden: Sequence[str] = (),
    ) -> None:
        folder.mkdir()
        self._process: asyncio.subprocess.Process | None = None
        # The interpreter may be a link that leads out of the virtual environment.
        needed = {str(ROOT), sys.prefix, sys.base_prefix} - {"/usr"}
        self._places = {
            "FOLDER": str(folder),
            "MOUNTED": str(mounted),
            "NEEDED": " ".join(sorted(needed)),
            "VENV": sys.prefix,
            "USER_ID": str(user),
            "VOLUMES": " ".join(volumes),
            "WRITABLE": " ".join(writable),
            "HIDDEN": " ".join(hidden),
        }

    async def start(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Run the command as process 1; the virtual environment of the tests is in /opt/zego-watchdog."""
        self._process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "sh"),
            *(*(f"{name}={value}" for name, value in environ.items()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | self._places,
        )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """To process 1, as a container's runtime does it."""
        assert self._process is not None
        pid = self._process.pid
        (first,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(first), number)

    async def end(self) -> tuple[int, str]:
        """Wait for its end: the exit code, and all that it has said."""
        assert self._process is not None
        assert self._process.stdout is not None
        said = await self._process.stdout.read()
        return await self._process.wait(), said.decode()

    async def kill(self) -> None:
        if self._process is not None and self.alive:
            self._process.kill()
            await self._process.wait()
