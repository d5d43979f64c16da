"""What is written, what is never written, and that a slow reader does not block the daemon."""

import contextlib
import io
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from tests.support.clock import SettableClock
from watchdog import logs
from watchdog.logs import redaction, setup, writer
from watchdog.logs.redaction import scrub
from watchdog.logs.suppression import Repeats

SIGNED_URL = "https://rtc-api.zego.im/?Action=X&Signature=43e5cfcca828314675f91b001390566a&AppId=1"
QUOTED = '43e5cfcc it\'s "é"\\'
PROGRAM = "import structlog; from watchdog import logs"
SECRET_FIELDS: list[dict[str, object]] = [
    {"url": SIGNED_URL},
    {"Signature": "43e5cfcca828314675f91b001390566a"},
    {"query": {"Signature": "43e5cfcca828314675f91b001390566a"}},
    {"url": "postgresql://watch:43e5cfcc-pass@db/zego"},
    {"url": "postgresql://watch:43e5cfcc@p@ss@db/zego"},
    {"dsn": "host=db password=43e5cfcc user=watch"},
    {"headers": [("x", "server_secret=43e5cfcc")]},
    {"deep": [{"list": ("43e5cfcc-registered",)}]},
    {"secret": SecretStr("43e5cfcc-registered")},
    {"error": ValueError(f"cannot connect to {SIGNED_URL}")},
]


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    logs.close()
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def written(log: Callable[[Any], object], format: str = "json", level: str = "info") -> str:  # noqa: A002  # as in configure
    """Return what reaches the stream when ``log`` is called with a logger."""
    stream = io.StringIO()
    logs.configure(format, level, stream)
    log(structlog.get_logger())
    logs.close()
    return stream.getvalue()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_is_one_json_object_with_its_fields() -> None:
    text = written(lambda log: log.info("stopped", task_id="1920370518175780864", code="0", people=0))
    (event,) = events(text)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "stopped",
        "level": "info",
        "task_id": "1920370518175780864",
        "code": "0",
        "people": 0,
    }


def test_the_event_can_be_asserted_as_a_dict() -> None:
    logs.configure("json", "info", io.StringIO())
    with structlog.testing.capture_logs() as captured:
        structlog.get_logger().warning("spared", task_id="7")
    assert captured == [{"event": "spared", "task_id": "7", "log_level": "warning"}]


def test_lines_are_never_broken_by_what_the_vendor_says() -> None:
    text = written(lambda log: log.info("reply", message="成功\nSuccess \udcff"))
    assert text.count("\n") == 1
    assert "成功" in text


def test_levels_below_the_configured_one_are_silent() -> None:
    def log(logger: Any) -> None:
        logger.info("quiet")
        logger.error("loud")
        logging.getLogger("apscheduler").warning("quiet too")

    assert [event["event"] for event in events(written(log, level="error"))] == ["loud"]


def test_libraries_are_written_from_warning_up_through_the_same_processors() -> None:
    def log(_: Any) -> None:
        logging.getLogger("apscheduler.scheduler").info("not this")
        logging.getLogger("apscheduler.scheduler").warning("missed by %s for %s", "3 s", SIGNED_URL)

    (event,) = events(written(log, level="debug"))
    assert event["logger"] == "apscheduler.scheduler"
    assert event["level"] == "warning"
    assert event["event"].startswith("missed by 3 s for https://")
    assert "43e5cfcc" not in event["event"]


def test_a_malformed_record_of_a_library_is_reported_and_raises_nowhere() -> None:
    # In a process of its own: pytest's own log handler does raise.
    program = f"import logging; {PROGRAM}; logs.configure('json', 'info'); logging.getLogger('lib').warning('%d', 'x')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (event,) = events(result.stderr)
    assert (event["event"], event["logger"]) == ("log_record_malformed", "lib")


def test_readable_form_has_no_colours_away_from_a_terminal() -> None:
    text = written(lambda log: log.info("stopped", task_id="7"), format="console")
    assert "stopped" in text
    assert "task_id=7" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_auto_is_readable_on_a_terminal_and_honours_no_color(no_color: str, *, coloured: bool) -> None:
    master, terminal = os.openpty()
    program = f"{PROGRAM}; logs.configure('auto', 'info'); structlog.get_logger().info('stopped', task_id='7')"
    environ = {**os.environ, "NO_COLOR": no_color}
    subprocess.run([sys.executable, "-c", program], stderr=terminal, env=environ, check=True)
    os.close(terminal)
    text = os.read(master, 4096).decode()
    os.close(master)
    assert "stopped" in text
    assert not text.startswith("{")
    assert ("\x1b[" in text) is coloured


def test_auto_is_json_elsewhere() -> None:
    assert events(written(lambda log: log.info("stopped"), format="auto"))


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize("fields", SECRET_FIELDS, ids=str)
def test_nothing_secret_is_written(fields: dict[str, object], format_: str) -> None:
    redaction.redact("43e5cfcc-registered")
    text = written(lambda log: log.info("x", **fields), format=format_)
    assert "43e5cfcc" not in text
    assert "p@ss" not in text
    assert "***" in text


@pytest.mark.parametrize("format_", ["json", "console"])
def test_nothing_secret_is_written_with_an_exception(format_: str) -> None:
    redaction.redact(QUOTED)

    def log(logger: Any) -> None:
        try:
            try:
                json.loads(QUOTED)
            except ValueError as error:
                raise RuntimeError(f"bad {QUOTED} {QUOTED!r} {SIGNED_URL}") from error
        except RuntimeError:
            logger.exception("failed")
            logging.getLogger("lib").exception("failed")

    text = written(log, format=format_)
    assert text.count("RuntimeError: bad") == 2
    assert text.count("Signature=***") == 2
    assert "43e5cfcc" not in text


def test_prose_and_short_words_stay_readable() -> None:
    redaction.redact("abc")
    prose = "abc: the secret: put it into server_secret_file /run/x; signature wrong at http://h:80/a@b"
    assert scrub(prose) == prose


def test_a_second_configure_replaces_the_first() -> None:
    first = io.StringIO()
    logs.configure("json", "info", first)
    text = written(lambda _: logging.getLogger("lib").warning("once"))
    assert len(events(text)) == 1
    assert first.getvalue() == ""


def test_a_full_pipe_does_not_block_and_the_loss_is_counted() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        logs.configure("json", "info", stream, queue_lines=100)
        log = structlog.get_logger()
        finished = threading.Event()

        def talk() -> None:
            for number in range(5000):
                log.info("event", number=number, padding="x" * 100)
            finished.set()

        threading.Thread(target=talk, daemon=True).start()
        assert finished.wait(20), "logging blocked on a pipe that nobody reads"

        kept: list[int] = []
        dropped = 0
        with os.fdopen(reader) as pipe:
            while len(kept) + dropped < 5000:
                event = json.loads(pipe.readline())
                if event["event"] == "log_lines_dropped":
                    dropped += event["dropped"]
                else:
                    kept.append(event["number"])
    assert len(kept) + dropped == 5000
    assert dropped > 3000
    assert kept == sorted(kept)


def test_a_closed_reader_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        logs.configure("json", "info", stream)
        structlog.get_logger().info("into the void")
        logs.close()


def test_exit_is_not_held_up_by_a_full_pipe() -> None:
    program = (
        f"{PROGRAM}; logs.configure('json', 'info')\n"
        "for n in range(20000): structlog.get_logger().info('event', padding='x' * 100)\n"
        "print('done')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.read() == "done\n"
        assert process.wait(timeout=setup.CLOSE_SECONDS + 10) == 0


def test_what_was_logged_last_is_written_before_exit() -> None:
    program = f"{PROGRAM}; logs.configure('json', 'info'); structlog.get_logger().info('last words')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [event["event"] for event in events(result.stderr)] == ["last words"]


class Journald:
    """A socket like journald's, which parses entries as the documentation says."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.socket"
        self.socket = self._bind()

    def _bind(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(str(self.path))
        listening.settimeout(10)
        return listening

    def restart(self) -> None:
        self.socket.close()
        self.path.unlink()
        self.socket = self._bind()

    def entry(self) -> dict[str, str]:
        rest, fields = self.socket.recv(1 << 20), list[tuple[str, str]]()
        while rest:
            line, _, after = rest.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if equals:
                rest = after
            else:
                (size,) = struct.unpack_from("<Q", after)
                value, rest = after[8 : 8 + size], after[8 + size :]
                assert rest[:1] == b"\n"
                rest = rest[1:]
            fields.append((name.decode("ascii"), value.decode("utf-8")))
        assert len(dict(fields)) == len(fields)
        return dict(fields)

    def entries(self) -> list[dict[str, str]]:
        self.socket.settimeout(0)
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.entry())
        return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    daemon = Journald(tmp_path)
    yield daemon
    daemon.socket.close()


def journalled(journald: Journald, log: Callable[[Any], object], level: str = "info") -> list[dict[str, str]]:
    """Return the entries that reach the journal; nothing may reach the stream."""
    stream = io.StringIO()
    logs.configure("journal", level, stream, socket=journald.path)
    log(structlog.get_logger())
    logs.close()
    assert stream.getvalue() == ""
    return journald.entries()


def test_the_journal_gets_the_fields_apart(journald: Journald) -> None:
    (entry,) = journalled(
        journald,
        lambda log: log.warning(
            "retry", task_id="1920370518175780864", app_id=1234567890, code="206", message="Too many", due=None, ok=True
        ),
    )
    assert entry == {
        "MESSAGE": 'retry task_id=1920370518175780864 app_id=1234567890 code=206 message="Too many" ok=true',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "zego-watchdog",
        "ZEGO_EVENT": "retry",
        "ZEGO_TASK_ID": "1920370518175780864",
        "ZEGO_APP_ID": "1234567890",
        "ZEGO_CODE": "206",
        "ZEGO_MESSAGE": "Too many",
        "ZEGO_OK": "true",
    }


def test_priorities_are_those_of_syslog(journald: Journald) -> None:
    def log(logger: Any) -> None:
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, level)("x")

    assert [entry["PRIORITY"] for entry in journalled(journald, log, "debug")] == ["7", "6", "4", "3", "2"]


def test_a_value_of_several_lines_cannot_make_up_a_field(journald: Journald) -> None:
    (entry,) = journalled(
        journald, lambda log: log.info("reply", **{"message": "成功\nPRIORITY=0\nX=1 \udcff", "a b-c": 1, "_x": [1]})
    )
    assert entry["PRIORITY"] == "6"
    assert entry["ZEGO_MESSAGE"] == "成功\nPRIORITY=0\nX=1 \\udcff"
    assert (entry["ZEGO_A_B_C"], entry["ZEGO__X"]) == ("1", "[1]")


def test_the_journal_gets_an_exception_with_its_message(journald: Journald) -> None:
    def log(logger: Any) -> None:
        try:
            json.loads("broken")
        except ValueError:
            logger.exception("failed", job="sweep")
            logging.getLogger("lib").exception("failed too")

    ours, theirs = journalled(journald, log)
    assert ours["MESSAGE"].startswith("failed job=sweep\nTraceback ")
    assert "JSONDecodeError: Expecting value" in ours["MESSAGE"]
    assert theirs["ZEGO_LOGGER"] == "lib"
    assert theirs["PRIORITY"] == "3"
    assert "JSONDecodeError: Expecting value" in theirs["MESSAGE"]


@pytest.mark.parametrize("fields", SECRET_FIELDS, ids=str)
def test_nothing_secret_reaches_the_journal(journald: Journald, fields: dict[str, object]) -> None:
    redaction.redact("43e5cfcc-registered")

    def log(logger: Any) -> None:
        logger.info("x", **fields)
        logger.error("failed", exc_info=ValueError(f"cannot connect to {fields}"))

    for entry in journalled(journald, log):
        assert "43e5cfcc" not in str(entry)
        assert "p@ss" not in str(entry)
        assert "***" in entry["MESSAGE"]


def test_a_very_long_value_is_cut(journald: Journald) -> None:
    (entry,) = journalled(journald, lambda log: log.info("x", body="é" * 1_000_000))
    assert len(entry["ZEGO_BODY"]) == 16_384
    assert entry["ZEGO_BODY"].endswith("é…")


def test_what_the_journal_refuses_goes_to_the_stream(journald: Journald) -> None:
    stream = io.StringIO()
    logs.configure("journal", "info", stream, socket=journald.path)
    structlog.get_logger().error("long", **{f"field_{n}": "x" * 10_000 for n in range(50)})
    structlog.get_logger().info("short")
    logs.close()
    assert stream.getvalue().startswith("<3>long field_0=xxx")
    assert [entry["ZEGO_EVENT"] for entry in journald.entries()] == ["short"]


def test_without_a_journal_there_are_lines_with_their_priority(tmp_path: Path) -> None:
    stream = io.StringIO()
    logs.configure("journal", "info", stream, socket=tmp_path / "nothing.socket")
    structlog.get_logger().warning("retry", message="a\nb")
    structlog.get_logger().info("stopped", task_id="7")
    structlog.get_logger().error("failed", exc_info=ValueError("broken"))
    logs.close()
    assert stream.getvalue() == ('<4>retry message="a\\nb"\n<6>stopped task_id=7\n<3>failed\\nValueError: broken\n')


def test_a_restarted_journal_gets_the_rest(journald: Journald) -> None:
    stream = io.StringIO()
    logs.configure("journal", "info", stream, socket=journald.path)
    structlog.get_logger().info("before")
    assert journald.entry()["ZEGO_EVENT"] == "before"
    journald.restart()
    structlog.get_logger().info("after")
    assert journald.entry()["ZEGO_EVENT"] == "after"
    assert stream.getvalue() == ""


def test_a_journal_that_hangs_does_not_block_and_the_loss_is_counted(journald: Journald) -> None:
    before = writer.dropped_lines()
    logs.configure("journal", "info", io.StringIO(), queue_lines=100, socket=journald.path)
    log = structlog.get_logger()
    finished = threading.Event()

    def talk() -> None:
        for number in range(5000):
            log.info("event", number=number, padding="x" * 100)
        finished.set()

    threading.Thread(target=talk, daemon=True).start()
    assert finished.wait(20), "logging blocked on a journal that takes nothing"

    kept: list[int] = []
    dropped = 0
    while len(kept) + dropped < 5000:
        entry = journald.entry()
        if entry["ZEGO_EVENT"] == "log_lines_dropped":
            dropped += int(entry["ZEGO_DROPPED"])
        else:
            kept.append(int(entry["ZEGO_NUMBER"]))
    assert len(kept) + dropped == 5000
    assert dropped > 3000
    assert kept == sorted(kept)
    assert writer.dropped_lines() - before == dropped


@pytest.mark.parametrize(("connected", "sent"), [(True, 1), (False, 0)])
def test_auto_is_the_journal_where_stderr_is(journald: Journald, *, connected: bool, sent: int) -> None:
    # systemd gives a service a socket of the journal's as its stderr, and says which.
    program = (
        f"from pathlib import Path; {PROGRAM}; logs.configure('auto', 'info', socket=Path({str(journald.path)!r}));"
        "structlog.get_logger().info('stopped', task_id='7')"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(theirs.fileno())
        named = f"{status.st_dev}:{status.st_ino + (not connected)}"
        environ = {**os.environ, "JOURNAL_STREAM": named}
        subprocess.run([sys.executable, "-c", program], stderr=theirs.fileno(), env=environ, check=True)
        theirs.close()
        line = ours.recv(65536).decode()
    assert [entry["ZEGO_TASK_ID"] for entry in journald.entries()] == ["7"] * sent
    assert len(events(line)) == 1 - sent


class Talk:
    """What is written, with a clock that the test sets."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self._stream = io.StringIO()
        self._told = writer.suppressed_lines()
        logs.configure("json", "debug", self._stream, clock=self.clock)

    @property
    def suppressed(self) -> int:
        return writer.suppressed_lines() - self._told

    def lines(self) -> list[tuple[str, int | None]]:
        """Return event and number of suppressed ones, after everything is written."""
        logs.close()
        return [(event["event"], event.get("suppressed")) for event in events(self._stream.getvalue())]


def test_an_error_that_repeats_is_written_ten_times_and_then_counted() -> None:
    talk = Talk()
    log = structlog.get_logger()
    for number in range(500):
        log.warning("retry", app_id=1, code="206", task_id=str(number))
    talk.clock.advance_to(59.9)
    log.warning("retry", app_id=1, code="206", task_id="the last of this minute")
    talk.clock.advance_to(60.0)
    log.info("x")
    assert talk.lines() == [*[("retry", None)] * 10, ("x", None), ("retry", 491)]
    assert talk.suppressed == 491


def test_ten_times_are_not_worth_a_summary() -> None:
    talk = Talk()
    for _ in range(10):
        structlog.get_logger().warning("retry")
    assert talk.lines() == [("retry", None)] * 10


def test_a_summary_does_not_count_for_the_next_minute() -> None:
    clock = SettableClock()
    repeats = Repeats(clock.monotonic)
    event = {"level": "warning", "event": "retry"}
    for _ in range(3):
        assert [repeats.admit(event) for _ in range(12)] == [True] * 10 + [False] * 2
        clock.advance(60)
        (summary,) = repeats.ended()
        assert summary == event | {"suppressed": 2}
        assert repeats.admit(summary)


def test_the_summary_does_not_wait_for_the_end() -> None:
    told = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str, /) -> int:
            if '"suppressed": 1' in text:
                told.set()
            return super().write(text)

    clock = SettableClock()
    logs.configure("json", "info", Stream(), clock=clock)
    for _ in range(11):
        structlog.get_logger().warning("retry")
    clock.advance_to(60)
    structlog.get_logger().info("a minute later")
    assert told.wait(10)


def test_the_summary_names_what_was_the_same() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    for _ in range(12):
        structlog.get_logger().error("blocked", app_id=1, code="100000005", task_id="7")
    logs.close()
    summary = events(stream.getvalue())[-1]
    assert summary.pop("timestamp")
    assert summary == {"event": "blocked", "level": "error", "app_id": 1, "code": "100000005", "suppressed": 2}


def test_the_next_minute_counts_from_zero() -> None:
    talk = Talk()
    log = structlog.get_logger()
    for _ in range(11):
        log.warning("retry")
    talk.clock.advance_to(60.0)
    log.info("a minute later")
    log.warning("retry")
    lines = talk.lines()
    assert lines[:11] == [*[("retry", None)] * 10, ("a minute later", None)]
    # The writer reports it as soon as it can.
    assert sorted(lines[11:], key=str) == [("retry", 1), ("retry", None)]


def test_another_app_another_code_another_level_is_another_matter() -> None:
    talk = Talk()
    for number in range(30):
        structlog.get_logger().warning("retry", app_id=number, code="206")
        structlog.get_logger().warning("retry", app_id=1, code=str(number))
        structlog.get_logger().error("retry")
    assert len([one for one in talk.lines() if one == ("retry", None)]) == 30 + 30 + 10


@pytest.mark.parametrize("level", ["info", "debug"])
def test_what_is_done_to_a_task_is_always_written(level: str) -> None:
    talk = Talk()
    for number in range(3000):
        getattr(structlog.get_logger(), level)("stopped", app_id=1, code="0", task_id=str(number))
    assert len(talk.lines()) == 3000
    assert talk.suppressed == 0


def test_libraries_repeat_themselves_too() -> None:
    talk = Talk()
    for number in range(100):
        logging.getLogger("apscheduler").warning("missed by %s s", number)
    lines = talk.lines()
    assert [event for event, _ in lines] == [*[f"missed by {n} s" for n in range(10)], "missed by %s s"]
    assert lines[-1][1] == 90


def test_made_up_keys_do_not_fill_the_memory() -> None:
    repeats = Repeats(SettableClock().monotonic)
    admitted = sum(
        repeats.admit({"level": "warning", "event": f"event {n % 2000}", "code": str(n)}) for n in range(10_000)
    )
    assert admitted == 500 + 10
    assert len(repeats.ended(all_of_them=True)) == 1


def test_the_end_of_a_minute_is_known_in_advance() -> None:
    clock = SettableClock()
    repeats = Repeats(clock.monotonic, limit=1, period_seconds=60)
    assert repeats.next_end() is None
    for at, event in ((0, "a"), (10, "b"), (20, "a"), (30, "b")):
        clock.advance_to(at)
        repeats.admit({"level": "warning", "event": event})
    assert repeats.next_end() == 30
    clock.advance_to(65)
    assert repeats.next_end() == 0
    assert repeats.ended() == [{"level": "warning", "event": "a", "suppressed": 1}]
    assert repeats.next_end() == 5
    clock.advance_to(70)
    assert repeats.ended() == [{"level": "warning", "event": "b", "suppressed": 1}]
    assert repeats.next_end() is None
