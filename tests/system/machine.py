"""A machine with a real systemd: an nspawn container whose disk is an overlay of this machine's own.

It shares the network with the tests, which is a loopback that nobody else has (see run.sh). So what plays ZEGO can stay
outside, and outlive the machine.
"""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from watchdog.clock import SystemClock

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_PAGER": "",
}
# What the distribution starts by itself, and a machine for one service need not have.
_MASKED: Final = (
    "console-getty.service",
    "getty.target",
    "ldconfig.service",
    "remote-fs.target",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-user-sessions.service",
)
BOOT_SECONDS: Final = 60.0

clock = SystemClock()


class CommandFailed(AssertionError):
    """A command in the machine ended with another code than 0."""


def until(what: str, happened: Callable[[], object], *, seconds: float = 30, pause: float = 0.05) -> None:
    """Return as soon as ``happened()`` is true; fail with ``what`` after ``seconds``."""
    deadline = clock.monotonic() + seconds
    while not happened():
        assert clock.monotonic() < deadline, f"after {seconds} s still not: {what}"
        wait(pause)


def wait(seconds: float) -> None:
    """Let real time pass: a real systemd has no other."""
    threading.Event().wait(seconds)


class Machine:
    """One machine; ``boot`` and ``power_off`` as often as wanted, its disk stays until ``discard``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self.tree = folder / "tree"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._console: IO[bytes] | None = None
        self._leader: int | None = None
        folder.mkdir()
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
        layers = [folder / "upper", folder / "work"]
        for each in (*layers, self.tree):
            each.mkdir()
        options = f"lowerdir=/,upperdir={layers[0]},workdir={layers[1]}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, str(self.tree))
        self._strip()

    def _strip(self) -> None:
        """Leave nothing to start but systemd and its journal: the machine boots in a second, and is always the same."""
        units = self.tree / "etc/systemd/system"
        for folder in (*units.glob("*.wants"), *units.glob("*.requires"), *units.glob("*.d")):
            shutil.rmtree(folder)
        for name in ("multi-user.target.wants", "sockets.target.wants"):
            (units / name).mkdir()
        for unit in _MASKED:
            (units / unit).unlink(missing_ok=True)
            (units / unit).symlink_to("/dev/null")
        generators = self.tree / "etc/systemd/system-generators"
        generators.mkdir(exist_ok=True)
        for generator in (self.tree / "usr/lib/systemd/system-generators").iterdir():
            (generators / generator.name).unlink(missing_ok=True)
            (generators / generator.name).symlink_to("/dev/null")
        # The last one has dpkg bring the index of the manual pages up to date, each time.
        for name in ("etc/fstab", "usr/sbin/policy-rc.d", "var/lib/man-db/auto-update"):
            (self.tree / name).unlink(missing_ok=True)
        (self.tree / "etc/machine-id").write_text("ffffffffffffffffffffffffffffff00\n")
        # The journal outlives a reboot.
        shutil.rmtree(self.tree / "var/log/journal", ignore_errors=True)
        (self.tree / "var/log/journal").mkdir()

    def boot(self) -> None:
        """Return when everything that starts by itself has started."""
        self._console = (self._folder / "console.log").open("ab")
        self._nspawn = subprocess.Popen(
            [
                "systemd-nspawn",
                *(f"--directory={self.tree}", f"--machine={self.name}", "--boot", "--console=pipe"),
                *("--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
                "systemd.unit=multi-user.target",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
        )
        until("systemd runs", self._find_leader, seconds=BOOT_SECONDS)
        until("systemd answers", self._is_up, seconds=BOOT_SECONDS)

    def _find_leader(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self.console()
        pid = self._nspawn.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            # Before that it is nspawn itself, still at work.
            if (Path("/proc") / child / "comm").read_text().strip() == "systemd":
                self._leader = int(child)
                return True
        return False

    def _is_up(self) -> bool:
        state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        return state in {"running", "degraded"}

    def run(
        self, *command: str, check: bool = True, seconds: float = 120, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as root. Raises CommandFailed if ``check`` and it fails."""
        done = subprocess.run(
            self.entered(*command),
            env=_ENVIRONMENT | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            raise CommandFailed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def entered(self, *command: str) -> tuple[str, ...]:
        """Return the command that runs ``command`` in the machine."""
        assert self._leader is not None, "the machine is off"
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--cgroup")
        return ("nsenter", f"--target={self._leader}", *namespaces, "--root", "--wd", "--", *command)

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.run("systemctl", *arguments, check=check).stdout.strip()

    def property(self, unit: str, name: str) -> str:
        """Return what systemd knows of a unit under this name."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def main_pid(self, unit: str) -> int:
        """Return the pid of the unit's main process as seen in the machine; 0 if there is none."""
        return int(self.property(unit, "MainPID"))

    def kill(self, unit: str, name: str) -> None:
        """Send a signal to the unit's main process."""
        self.systemctl("kill", "--kill-whom=main", f"--signal={name}", unit)

    def journal(self, unit: str, *arguments: str) -> str:
        """Return what the unit, and systemd about it, have said since the machine exists."""
        return self.run("journalctl", f"--unit={unit}", "--no-pager", "--output=short-precise", *arguments).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file onto the disk."""
        outside = self.path(path)
        outside.parent.mkdir(parents=True, exist_ok=True)
        outside.write_text(text, encoding="utf-8")
        outside.chmod(mode)

    def path(self, path: str) -> Path:
        """Return where a file of the machine lies for us; links that lead out of it are not followed for the caller."""
        return self.tree / path.lstrip("/")

    def console(self) -> str:
        return (self._folder / "console.log").read_text(errors="replace")

    def power_off(self) -> None:
        """Shut down cleanly."""
        assert self._leader is not None
        assert self._nspawn is not None
        # What `machinectl poweroff` sends: SIGRTMIN+4.
        os.kill(self._leader, signal.SIGRTMIN + 4)
        self._ended()

    def cut_power(self) -> None:
        """Kill everything in the machine at once. The disk is in memory: what was written but not synced survives."""
        assert self._leader is not None
        os.kill(self._leader, signal.SIGKILL)
        self._ended()

    def _ended(self) -> None:
        assert self._nspawn is not None
        self._nspawn.wait(timeout=90)
        self._nspawn, self._leader = None, None
        if self._console is not None:
            self._console.close()

    def discard(self) -> None:
        if self._leader is not None:
            self.cut_power()
        _run("umount", "--lazy", str(self.tree))
        _run("umount", "--lazy", str(self._folder))
        self._folder.rmdir()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
