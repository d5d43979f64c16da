"""A finding: the result of one check, with the next step if it is not ok."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from watchdog.errors import ConfigError, RequestError, WatchdogError


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Blame(StrEnum):
    """The cause of a failure; it decides the exit code."""

    CONFIGURATION = "configuration"
    REACHABILITY = "reachability"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Finding:
    """The subject that was checked, the result, and the next step unless it is ok."""

    level: Level
    subject: str
    found: str
    todo: str = ""
    blame: Blame | None = None


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without a failure, 78 for the configuration, 75 if all failures are of reachability, otherwise 1."""
    blames = {finding.blame for finding in findings if finding.level is Level.FAIL}
    if not blames:
        return 0
    if Blame.CONFIGURATION in blames:
        return ConfigError.exit_code
    return RequestError.exit_code if blames == {Blame.REACHABILITY} else WatchdogError.exit_code


def ok(subject: str, found: str) -> Finding:
    return Finding(Level.OK, subject, found)


def warn(subject: str, found: str, todo: str) -> Finding:
    return Finding(Level.WARN, subject, found, todo)


def fail(subject: str, found: str, todo: str, blame: Blame = Blame.OTHER) -> Finding:
    return Finding(Level.FAIL, subject, found, todo, blame)


def split(message: str) -> tuple[str, str]:
    """A message as what was found and the next step; our messages have the step after the last semicolon."""
    found, _, todo = message.rpartition("; ")
    return (found, todo) if found else (message, "")


def failed(subject: str, error: WatchdogError, todo: str) -> list[Finding]:
    """The failures that an exception lists, one a line; its exit code decides the blame.

    ``todo`` is the next step of those that name none.
    """
    blames = {ConfigError.exit_code: Blame.CONFIGURATION, RequestError.exit_code: Blame.REACHABILITY}
    blame = blames.get(error.exit_code, Blame.OTHER)
    lines = [split(line) for line in str(error).split("\n")]
    return [fail(subject, found, step or todo, blame) for found, step in lines]
