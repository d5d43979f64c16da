"""Steps that change a machine: printed first, run on request. One that fails is named; a repetition does the rest."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import typer

from watchdog.errors import InstallationError

_REPEAT: Final = "repair this, then repeat the command: it goes on with this step"


@dataclass(frozen=True, slots=True)
class Step:
    description: str
    do: Callable[[], None]


def carry_out(steps: Sequence[Step], *, yes: bool) -> None:
    """Print the steps; run them if ``yes``. Raises InstallationError, which names the step that failed."""
    if not steps:
        typer.echo("Nothing to do.")
        return
    for step in steps:
        typer.echo(step.description if yes else f"would {step.description}")
        if yes:
            try:
                step.do()
            except PermissionError as error:
                told = f"could not {step.description}: {error.filename}: {error.strerror}; run it as root"
                raise InstallationError(told) from error
            except OSError as error:
                place = f"{error.filename}: " if error.filename else ""
                told = f"could not {step.description}: {place}{error.strerror}; {_REPEAT}"
                raise InstallationError(told) from error
            except subprocess.CalledProcessError as error:
                told = f"could not {step.description}: exit code {error.returncode}{_look(step)}; {_REPEAT}"
                raise InstallationError(told) from error
    if not yes:
        typer.echo("Nothing was done. Repeat the command with --yes to do it.", err=True)


def command(*words: str) -> Step:
    """The step that runs a command of the system."""
    run = partial(subprocess.run, words, check=True)
    return Step(f"run {' '.join(words)}", lambda: _ignore(run()))


def _ignore(_: object) -> None:
    """Make a function with a result one without."""


def _look(step: Step) -> str:
    """Where the reason is."""
    if "restart zego-watchdog.service" not in step.description:
        return ""
    return "; the reason is in: journalctl --unit zego-watchdog --lines 20"
