"""``zego-watchdog adopt``: shows what nobody registered, and registers it on demand."""

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx2 as httpx
import pytest

from tests.support.bench import reply
from tests.support.operator import Operator
from tests.support.running import APP_ID, SECRET, Application
from watchdog.cli.app.adopt import adopt
from watchdog.cli.commands.adopt import adopt_tasks
from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.errors import ConfigError
from watchdog.services.adopter import LISTED_KINDS
from watchdog.wiring.from_config import zego_client
from watchdog.zego.client import ZegoClient

PLAYER = {"PlayerId": "p1", "RoomId": "room", "Status": 2, "CreateTime": 1_772_366_000}
RECORDING = {"TaskId": "r1", "RoomId": "lecture", "Status": 2, "RecordBeginTimestamp": 1_772_366_000_000}


class Vendor:
    """ZEGO's lists by action; what is missing is refused."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {
            "DescribePlayers": {"Players": [PLAYER, PLAYER | {"PlayerId": ""}]},
            "DescribeTasks": {"TaskList": [RECORDING]},
            "QueryDigitalHumanStreamTasks": {"TaskList": []},
        }
        self.code = 100000003
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        action = request.url.params["Action"]
        self.asked.append(action)
        return reply(0, Data=self.data[action]) if action in self.data else reply(self.code)

    def connect(self, config: Config, clock: Clock) -> ZegoClient:
        return zego_client(config, clock, httpx.MockTransport(self))


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def application(database_url: str) -> Application:
    return Application(database_url)


class Adopting:
    """The command, with a fake ZEGO."""

    def __init__(self, operator: Operator, vendor: Vendor, capsys: pytest.CaptureFixture[str]) -> None:
        self.operator = operator
        self._vendor = vendor
        self._capsys = capsys

    def does(
        self, *, kind: str | None = None, app_id: int | None = None, apply: bool = False, as_json: bool = False
    ) -> tuple[int, str, str]:
        """Return the exit code, and what is printed to stdout and stderr."""
        code = adopt_tasks(
            self.operator.write(),
            kind=kind,
            app_id=app_id,
            apply=apply,
            as_json=as_json,
            connect=self._vendor.connect,
        )
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err


@pytest.fixture
def adopting(application: Application, tmp_path: Path, vendor: Vendor, capsys: pytest.CaptureFixture[str]) -> Adopting:
    return Adopting(Operator(tmp_path, application.url), vendor, capsys)


def test_it_shows_and_changes_nothing(adopting: Adopting, application: Application) -> None:
    code, out, err = adopting.does()
    assert code == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines()}
    assert lines["p1"][:4] == ["p1", "player", "room", str(APP_ID)]
    assert lines["r1"][:3] == ["r1", "recording", "lecture"]
    assert "2 tasks of these kinds run at ZEGO; these 2 without a row. To register: zego-watchdog adopt --apply" in err
    assert "Left out: 1 listed task without" in err
    assert application.rows("SELECT 1 FROM zego_tasks") == []


def test_it_registers_on_demand_and_once(adopting: Adopting, application: Application) -> None:
    code, out, err = adopting.does(apply=True)
    assert (code, "p1" in out, "these 2 had no row, and a row is there now" in err) == (0, True, True)
    rows = application.rows("SELECT task_id, kind, room_id, app_id, status FROM zego_tasks ORDER BY task_id")
    assert [tuple(row.values()) for row in rows] == [
        ("p1", "player", "room", APP_ID, "active"),
        ("r1", "recording", "lecture", APP_ID, "active"),
    ]
    code, out, _ = adopting.does(apply=True)
    assert (code, out.strip()) == (0, "2 tasks of these kinds run at ZEGO; none of them is unregistered.")
    assert len(application.rows("SELECT 1 FROM zego_tasks")) == 2


def test_one_kind_of_one_app_as_json(adopting: Adopting, vendor: Vendor) -> None:
    code, out, _ = adopting.does(kind="recording", app_id=APP_ID, as_json=True)
    assert (code, vendor.asked) == (0, ["DescribeTasks"])
    assert json.loads(out) == {
        "registered": False,
        "tasks": [
            {
                "task_id": "r1",
                "kind": "recording",
                "room_id": "lecture",
                "app_id": APP_ID,
                "started_at": "2026-03-01T11:53:20Z",
            }
        ],
        "running": 1,
        "unusable": 0,
        "unlisted": [],
    }


@pytest.mark.parametrize(("code", "exit_code"), [(100000003, 78), (350010000, 75)])
def test_a_refused_list_is_named_and_the_others_are_shown(
    adopting: Adopting, vendor: Vendor, code: int, exit_code: int
) -> None:
    vendor.code = code
    del vendor.data["DescribePlayers"]
    found, out, err = adopting.does()
    assert (found, "r1" in out) == (exit_code, True)
    assert f"AppId {APP_ID}: ZEGO answers DescribePlayers with code {code}" in err
    assert "RequestId r" in err
    assert SECRET not in out + err
    _, out, _ = adopting.does(as_json=True)
    assert [(one["app_id"], one["kind"]) for one in json.loads(out)["unlisted"]] == [(APP_ID, "player")]


def test_an_app_that_is_not_configured_is_the_configurations_fault(adopting: Adopting) -> None:
    with pytest.raises(ConfigError, match=r"AppId 7 is not in zego\.apps"):
        adopting.does(app_id=7)
    adopting.operator.sections["zego"]["apps"] = []
    with pytest.raises(ConfigError, match=r"zego\.apps is empty"):
        adopting.does()


def test_the_option_knows_the_kinds_that_zego_lists() -> None:
    named, _ = get_args(get_type_hints(adopt)["kind"])
    assert set(get_args(named)) == set(LISTED_KINDS)
