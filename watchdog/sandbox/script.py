"""Scripts of joins, leaves, tasks and faults, in YAML or in Python.

    steps:
      - {at: 0, start: {room: lecture, max_idle_seconds: 120}}
      - {at: 0, join: {room: lecture, user: alice}}
      - {at: 30, leave: {room: lecture, user: alice}}

Each step has ``at``, in seconds from the start, and one operation (see ``operations``). Steps run in the order of
``at``; steps of the same time run in file order.
"""

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from watchdog.clock import Clock
from watchdog.errors import ConfigError
from watchdog.sandbox.operations import OPERATIONS, Operation, parse_operation


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, ``at`` seconds after the start; ``number`` is its position in the file, from 1."""

    at: float
    operation: Operation
    number: int = 0

    def __str__(self) -> str:
        return f"step {self.number} (at {self.at:g} s)"


@dataclass(frozen=True, slots=True)
class Script:
    """Steps in the order of their times."""

    steps: tuple[Step, ...]

    @classmethod
    def of(cls, *steps: tuple[float, Operation]) -> Self:
        """Build a script from pairs of time (seconds) and operation."""
        numbered = (Step(at, operation, number) for number, (at, operation) in enumerate(steps, 1))
        return cls(tuple(sorted(numbered, key=lambda step: step.at)))

    @classmethod
    def parse(cls, document: object) -> Self:
        """Build a script from parsed YAML or JSON. Raises ConfigError, which names the step and the key."""
        match document:
            case {"steps": [*steps], **rest}:
                if rest:
                    raise ConfigError(f"script: unknown key {', '.join(map(repr, rest))}; the only key is steps")
                return cls.of(*(_parse_step(number, step) for number, step in enumerate(steps, 1)))
            case _:
                raise ConfigError("script: expected a mapping with a list called steps")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file. Raises ConfigError, which names the file too."""
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"script {path}: cannot be read: {error.strerror}; correct the path") from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"script {path}: cannot be read: {error}") from error
        try:
            return cls.parse(document)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _parse_step(number: int, step: object) -> tuple[float, Operation]:
    if not isinstance(step, Mapping):
        raise ConfigError(f"step {number}: expected a mapping, got {type(step).__name__}")
    at = step.get("at")
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at) or at < 0:
        raise ConfigError(f"step {number}: at: expected seconds from the start, 0 or more, got {at!r}")
    names: Sequence[Any] = [key for key in step if key != "at"]
    if len(names) != 1:
        raise ConfigError(f"step {number}: expected at and one of {', '.join(OPERATIONS)}; got {list(step)}")
    try:
        return float(at), parse_operation(str(names[0]), step[names[0]])
    except ConfigError as error:
        raise ConfigError(f"step {number}: {error}") from error


async def play(
    script: Script, perform: Callable[[Operation], dict[str, Any]], clock: Clock
) -> AsyncIterator[tuple[Step, dict[str, Any]]]:
    """Perform each step at its time, and yield it with its result, such as a new task's ``task_id``.

    Times count from the first iteration, so a slow step does not delay later ones. Raises ConfigError, which names the
    step, if the world does not allow it, such as a leave of an absent user.
    """
    began = clock.monotonic()
    for step in script.steps:
        ahead = began + step.at - clock.monotonic()
        if ahead > 0:
            await clock.sleep(ahead)
        try:
            result = perform(step.operation)
        except ConfigError as error:
            raise ConfigError(f"{step}: {error}") from error
        yield step, result
