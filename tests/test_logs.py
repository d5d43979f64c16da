"""What is written, what is never written, and that a reader who has gone to sleep stops nobody."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from watchdog import logs
from watchdog.redaction import scrub

SIGNED_URL = "https://rtc-api.zego.im/?Action=X&Signature=43e5cfcca828314675f91b001390566a&AppId=1"
QUOTED = '43e5cfcc it\'s "é"\\'
PROGRAM = "import structlog; from watchdog import logs"


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


def test_libraries_are_heard_from_warning_up_through_the_same_processors() -> None:
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
@pytest.mark.parametrize(
    "fields",
    [
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
    ],
    ids=str,
)
def test_nothing_secret_is_written(fields: dict[str, object], format_: str) -> None:
    logs.redact("43e5cfcc-registered")
    text = written(lambda log: log.info("x", **fields), format=format_)
    assert "43e5cfcc" not in text
    assert "p@ss" not in text
    assert "***" in text


@pytest.mark.parametrize("format_", ["json", "console"])
def test_nothing_secret_is_written_with_an_exception(format_: str) -> None:
    logs.redact(QUOTED)

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
    logs.redact("abc")
    prose = "abc: the secret: put it into server_secret_file /run/x; signature wrong at http://h:80/a@b"
    assert scrub(prose) == prose


def test_a_second_configure_replaces_the_first() -> None:
    first = io.StringIO()
    logs.configure("json", "info", first)
    text = written(lambda _: logging.getLogger("lib").warning("once"))
    assert len(events(text)) == 1
    assert first.getvalue() == ""


def test_a_full_pipe_blocks_nobody_and_the_loss_is_counted() -> None:
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


def test_a_reader_that_has_gone_away_is_no_error() -> None:
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
        assert process.wait(timeout=logs.CLOSE_SECONDS + 10) == 0


def test_what_was_logged_last_is_written_before_exit() -> None:
    program = f"{PROGRAM}; logs.configure('json', 'info'); structlog.get_logger().info('last words')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [event["event"] for event in events(result.stderr)] == ["last words"]
