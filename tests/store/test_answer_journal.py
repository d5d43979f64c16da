"""The journal of answers: what is on disk, who may read it, and what becomes of files that are torn or strange."""

import errno
import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from watchdog.core.model import Outcome, Status
from watchdog.store.aio.answer_journal import AnswerJournal, Left, from_json, to_json
from watchdog.store.records import Answer

DATABASE = "sqlite:/somewhere/watchdog.db"
ANSWER = Answer(
    attempt_id=7,
    attempt=1,
    task_id="task",
    room_id="room 🙂",
    app_id=None,
    instance="host-1-abcd",
    token="host-1-abcd/3",
    outcome=Outcome.STOPPED,
    replied_at=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC),
    http_status=200,
    code="0",
    message="Success",
    request_id="003151527792559699732",
    detail=None,
    status=Status.STOPPED,
    wake_seconds=0.5,
)


def answers(*numbers: int) -> list[Answer]:
    return [replace(ANSWER, attempt_id=number, task_id=f"task-{number}") for number in numbers]


def journal(folder: Path, instance: str = "host-1-abcd", *, database: str = DATABASE) -> AnswerJournal:
    return AnswerJournal(folder, database, instance)


def abandoned(folder: Path, *left_behind: Answer, database: str = DATABASE) -> Path:
    """Bring about the file of a process that was killed; its lock went with it."""
    script = (
        "import json, os, sys; from pathlib import Path\n"
        "from watchdog.store.aio.answer_journal import AnswerJournal, from_json\n"
        "journal = AnswerJournal(Path(sys.argv[1]), sys.argv[2], 'host-2-dead')\n"
        "journal.note([from_json(one) for one in json.load(sys.stdin)])\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(folder), database],
        input=json.dumps([to_json(one) for one in left_behind]).encode(),
        check=False,
    )
    (file,) = folder.glob("answers-host-2-dead.*.jsonl")
    return file


@contextmanager
def left(reader: AnswerJournal) -> Iterator[list[Left]]:
    found = reader.left()
    try:
        yield found
    finally:
        for one in found:
            one.release()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


moments = (
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 1, 1), timezones=st.just(UTC)) | st.none()
)
texts = st.text(max_size=20)
numbers = st.integers(min_value=0, max_value=2**63 - 1)


@given(
    st.builds(
        Answer,
        attempt_id=numbers,
        attempt=numbers,
        task_id=texts,
        room_id=texts,
        app_id=numbers | st.none(),
        instance=texts,
        token=texts,
        outcome=st.sampled_from(Outcome),
        replied_at=moments,
        http_status=numbers | st.none(),
        code=texts | st.none(),
        message=texts | st.none(),
        request_id=texts | st.none(),
        detail=texts | st.none(),
        status=st.sampled_from(Status) | st.none(),
        wake_seconds=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_an_answer_comes_back_as_it_was(answer: Answer) -> None:
    assert from_json(json.loads(json.dumps(to_json(answer)))) == answer


@pytest.mark.parametrize("field", sorted(to_json(ANSWER)))
def test_of_anything_else_no_answer_is_made(field: str) -> None:
    values = to_json(ANSWER)
    for changed in (
        values | {field: []},
        values | {field: {}},
        {name: values[name] for name in values if name != field},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
            from_json(changed)


def test_nothing_is_there_before_it_is_needed_nor_afterwards(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    assert files(tmp_path) == []
    mine.note(answers(1, 2))
    (name,) = files(tmp_path)
    file = tmp_path / name
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [json.loads(line)["attempt_id"] for line in file.read_text().splitlines()] == [1, 2]
    mine.forget([1])
    assert file.stat().st_size > 0
    mine.forget([2])
    assert file.stat().st_size == 0
    mine.note(answers(3))
    assert [json.loads(line)["attempt_id"] for line in file.read_text().splitlines()] == [3]
    mine.forget([3])
    mine.close()
    assert files(tmp_path) == []


def test_what_is_not_in_the_database_stays_when_its_process_ends(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.note(answers(1, 2))
    mine.forget([1])
    mine.close()
    with left(journal(tmp_path, "host-3")) as (one,):
        assert one.answers == answers(1, 2), "the first is written once more, which changes nothing"


def test_the_living_are_left_alone(tmp_path: Path) -> None:
    mine, other = journal(tmp_path), journal(tmp_path, "host-3")
    mine.note(answers(1))
    assert other.left() == []
    assert mine.left() == []
    mine.close()
    with left(other) as found:
        assert len(found) == 1
        assert journal(tmp_path, "host-4").left() == [], "one at a time"


def test_the_dead_are_read_once(tmp_path: Path) -> None:
    abandoned(tmp_path, *answers(1, 2, 3))
    with left(journal(tmp_path)) as (one,):
        assert one.answers == answers(1, 2, 3)
    with left(journal(tmp_path)) as (one,):
        assert one.answers == answers(1, 2, 3), "not done with"
        one.done()
    assert journal(tmp_path).left() == []
    assert files(tmp_path) == []


def test_a_torn_last_line_is_said_and_passed_over(tmp_path: Path) -> None:
    file = abandoned(tmp_path, *answers(1, 2))
    file.write_bytes(file.read_bytes()[:-20])
    with structlog.testing.capture_logs() as logs, left(journal(tmp_path)) as (one,):
        assert one.answers == answers(1)
        one.done()
    assert [(event["event"], event["log_level"]) for event in logs] == [("journal_line_torn", "warning")]
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "nonsense", [b"{", b"[1]", b"null", b"\xff\x00", b'{"database": 1}', b"[" * 100_000, b"", b'{"database": "x"} {}']
)
def test_lines_that_are_no_answers_are_kept_aside_and_said_loudly(tmp_path: Path, nonsense: bytes) -> None:
    file = abandoned(tmp_path, *answers(1, 2))
    first, second, _ = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([first, nonsense, second, b""]))
    with structlog.testing.capture_logs() as logs, left(journal(tmp_path)) as (one,):
        assert one.answers == answers(1, 2)
        one.done()
    assert [(event["event"], event["log_level"]) for event in logs] == [("journal_lines_unreadable", "error")]
    (aside,) = tmp_path.iterdir()
    assert aside.suffix == ".bad"
    assert aside.read_bytes() == nonsense + b"\n"
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert journal(tmp_path).left() == []


def test_the_journal_of_another_database_is_left_alone_and_said_once(tmp_path: Path) -> None:
    file = abandoned(tmp_path, *answers(1), database="sqlite:/elsewhere.db")
    before = file.read_bytes()
    reader = journal(tmp_path)
    with structlog.testing.capture_logs() as logs:
        assert reader.left() == []
        assert reader.left() == []
    assert [(event["event"], event["database"]) for event in logs] == [
        ("journal_of_another_database", "sqlite:/elsewhere.db")
    ]
    assert file.read_bytes() == before
    with left(journal(tmp_path, database="sqlite:/elsewhere.db")) as (one,):
        assert one.answers == answers(1)


def test_what_is_no_file_of_ours_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "answers-a.1.jsonl")
    (tmp_path / "answers-b.1.jsonl").symlink_to("/etc/passwd")
    (tmp_path / "answers-c.1.jsonl").mkdir()
    with (tmp_path / "answers-d.1.jsonl").open("wb") as huge:
        huge.truncate(1 << 30)
    with structlog.testing.capture_logs() as logs:
        assert journal(tmp_path).left() == []
    assert {event["event"] for event in logs} == {"journal_unreadable"}
    assert len(list(tmp_path.iterdir())) == 4
    assert journal(tmp_path / "nowhere").left() == []


def test_a_directory_that_is_not_there_is_an_error_and_nothing_is_kept(tmp_path: Path) -> None:
    mine = journal(tmp_path / "later")
    with pytest.raises(FileNotFoundError):
        mine.note(answers(1))
    (tmp_path / "later").mkdir()
    mine.note(answers(2))
    mine.close()
    with left(journal(tmp_path / "later")) as (one,):
        assert one.answers == answers(2)


def test_half_a_line_that_found_no_room_is_overwritten(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.note(answers(1))
    (file,) = tmp_path.iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 50, hard))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at below
            mine.note(answers(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    mine.note(answers(3))
    mine.close()
    with left(journal(tmp_path)) as (one,):
        assert (one.answers, one.bad) == (answers(1, 3), [])


def test_it_does_not_grow_while_one_answer_waits_for_ever(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    mine.note(answers(0))
    largest = 0
    for number in range(1, 5000):
        mine.note(answers(number))
        mine.forget([number])
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert largest < 1_000_000
    assert len(files(tmp_path)) == 1
    mine.close()
    with left(journal(tmp_path)) as (one,):
        assert one.answers[0] == answers(0)[0]
