"""Where a SQLite file lies, and in which mode it was left."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from watchdog.errors import ConfigError
from watchdog.store import engine as module
from watchdog.store.engine import open_engine
from watchdog.store.sqlite_file import is_mount_point, is_of_another_mode, warnings


def mounted(folder: Path, *places: tuple[Path, str]) -> Path:
    """Write a table of mounts, as the kernel does."""
    file = folder / "mountinfo"
    lines = ["36 35 98:0 / / rw - ext4 /dev/sda rw"]
    for place, kind in places:
        octal = str(place).replace(" ", "\\040")
        lines.append(f"37 36 0:99 /x {octal} rw,noatime shared:1 - {kind} server:/x rw")
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_file_that_is_itself_a_mount_point_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bind mount of one file is in Docker and Kubernetes (subPath): the -wal file would be another one."""
    file = tmp_path / "a b.db"
    file.touch()
    mounts = mounted(tmp_path, (file, "ext4"))
    assert is_mount_point(file, mounts)
    assert not is_mount_point(tmp_path / "b.db", mounts)
    assert not is_mount_point(file)
    monkeypatch.setattr(module, "is_mount_point", lambda path: path == file)
    with pytest.raises(ConfigError, match=r"is itself a mount point.*mount its directory instead"):
        open_engine(f"sqlite:///{file}")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs"])
def test_a_disk_of_several_hosts_is_warned_of(tmp_path: Path, kind: str) -> None:
    (warning,) = warnings(tmp_path / "sub/x.db", mounted(tmp_path, (tmp_path, kind)))
    assert f"of type {kind}" in warning
    assert warning.endswith("; use a local disk, or PostgreSQL")


def test_only_the_innermost_mount_counts(tmp_path: Path) -> None:
    file = tmp_path / "a b" / "x.db"
    assert warnings(file, mounted(tmp_path, (tmp_path, "nfs4"), (file.parent, "ext4"))) == []
    assert warnings(file, mounted(tmp_path, (file.parent, "ext4"), (tmp_path, "nfs4"))) == []
    assert warnings(file, mounted(tmp_path, (file.parent, "ext4"), (file.parent, "nfs4"))) != []
    assert warnings(file, mounted(tmp_path, (tmp_path / "a", "nfs4"))) == []


def test_where_the_kernel_does_not_say_nothing_is_warned_of(tmp_path: Path) -> None:
    assert warnings(tmp_path / "x.db", tmp_path / "none") == []
    assert not is_mount_point(tmp_path / "x.db", tmp_path / "none")


@pytest.mark.parametrize(("mode", "another"), [("wal", False), ("delete", True), ("truncate", True), ("persist", True)])
def test_the_mode_in_which_a_file_was_left(tmp_path: Path, mode: str, *, another: bool) -> None:
    file = tmp_path / "x.db"
    assert not is_of_another_mode(file)
    with closing(sqlite3.connect(file)) as connection:
        assert not is_of_another_mode(file), "empty"
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE x (y)")
        connection.execute(f"PRAGMA journal_mode={mode}")
    assert is_of_another_mode(file) is another
    file.write_text("no database, whatever its name")
    assert not is_of_another_mode(file)
