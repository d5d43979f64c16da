"""docs/kinds.md: its SQL runs on both databases, its commands exist, and its table of lists is that of the program."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.time_travel import World
from watchdog.cli.app.root import app
from watchdog.core.kinds import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text(encoding="utf-8")
LISTS = {kind.name: kind.listing.action for kind in KINDS.values() if kind.listing is not None}


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


def test_its_statements_register_an_agent_with_its_user(world: World) -> None:
    insert, update = [line for line in blocks("sql") if "?" in line]
    assert world.app.execute(insert.rstrip(";"), "instance-1", "room", "helper") == 1
    assert world.app.execute(update.rstrip(";"), "helper-2", "instance-1") == 1
    row = world.task("instance-1")
    assert (row["kind"], row["bot_user_id"], row["status"]) == ("agent", "helper-2", "active")


@pytest.mark.parametrize("statement", [line for line in blocks("sql") if "?" not in line])
def test_its_other_statements_register_a_task(world: World, statement: str) -> None:
    assert world.app.execute(statement.rstrip(";")) == 1


@pytest.mark.parametrize("line", blocks("sh"))
def test_its_commands_exist(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    assert program == "zego-watchdog"
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


def test_the_kinds_that_can_be_listed() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \| [^|]+ \|$", PAGE, re.MULTILINE)) == LISTS
