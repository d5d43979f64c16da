"""Where a SQLite file lies, and in which mode it was left: what keeps its users from seeing each other's writes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")

_OF_SEVERAL_HOSTS: Final = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "afs", "ceph", "lustre", "gpfs", "beegfs"),
    *("ocfs2", "gfs2", "fakeowner", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs", "fuse.rclone"),
    *("fuse.s3fs", "fuse.gcsfuse", "fuse.vmhgfs-fuse", "fuse.grpcfuse", "fuse.osxfs"),
}
"""Types of file systems that other hosts, or the host of this virtual machine, may have open too."""


def is_mount_point(file: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether something is mounted at this very path. ``os.path.ismount`` misses a bind mount of the same disk."""
    return file.resolve() in {place for place, _ in _mounted(mounts)}


def warnings(file: Path, mounts: Path = _MOUNTS) -> list[str]:
    """What may keep the application and the daemon from sharing this file; the next step after the last semicolon."""
    around = [(place, kind) for place, kind in _mounted(mounts) if file.resolve().is_relative_to(place)]
    # The deepest one, and of two at the same place the later one, which hides the other.
    _, kind = max(enumerate(around), key=lambda one: (len(one[1][0].parts), one[0]), default=(0, (None, "")))[1]
    if kind not in _OF_SEVERAL_HOSTS:
        return []
    warning = (
        f"database.url: {file.absolute()} is on a file system of type {kind}, which several hosts may share: SQLite's "
        "locks and its -shm file do not reach other hosts, so their writes are missed or damage the file; use a local "
        "disk, or PostgreSQL"
    )
    return [warning]


def is_of_another_mode(file: Path) -> bool:
    """Whether the database was left in another journal mode than WAL; false if it cannot be read, or is none.

    Not while this process has it open: closing any descriptor of a file drops the process's locks on it. In the header,
    bytes 18 and 19 are 2 in WAL mode: https://sqlite.org/fileformat2.html.
    """
    try:
        with file.open("rb") as stream:
            header = stream.read(20)
    except OSError:
        return False
    return header.startswith(b"SQLite format 3\0") and header[18:] != b"\2\2"


def _mounted(mounts: Path) -> Iterator[tuple[Path, str]]:
    """Each mount point with its type of file system; none where the kernel does not say."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        # The fifth field, with blanks as octal numbers, and the one after the hyphen: proc_pid_mountinfo(5).
        place = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split(" ", 5)[4])
        yield Path(place), line.partition(" - ")[2].partition(" ")[0]
