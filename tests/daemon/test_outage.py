"""What the daemon's jobs make of a database that is away, and of one that refuses a statement."""

import structlog

from watchdog.daemon.outage import DatabaseOutage
from watchdog.errors import DatabaseError, DatabaseUnavailable, StatementRefused


async def run(outage: DatabaseOutage, error: DatabaseError | None, job: str = "sweep") -> float:
    async def work() -> float:
        if error is not None:
            raise error
        return 1.0

    return await outage.run(job, work, lambda: 5.0)


async def test_a_refused_statement_is_told_from_an_outage() -> None:
    outage = DatabaseOutage()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert await run(outage, StatementRefused("permission denied for table zego_tasks"), "reap") == 5.0
        assert (outage.is_on, outage.is_refused) == (False, True)
        assert "permission denied" in outage.problem
        assert await run(outage, None, "sweep") == 1.0
        assert outage.is_refused
        assert await run(outage, None, "reap") == 1.0
        assert (outage.is_on, outage.is_refused, outage.problem) == (False, False, "")
    assert [event["event"] for event in logs] == ["statement_refused", "statement_allowed"]
    assert (logs[0]["job"], logs[0]["log_level"]) == ("reap", "error")
    assert "zego-watchdog check" in logs[0]["next_step"]


async def test_both_at_once_are_told_apart() -> None:
    outage = DatabaseOutage()
    with structlog.testing.capture_logs() as logs:
        await run(outage, StatementRefused("refused"), "reap")
        await run(outage, DatabaseUnavailable("gone"), "sweep")
        assert (outage.is_on, outage.is_refused, outage.problem) == (True, True, "gone")
        await run(outage, None, "sweep")
        assert (outage.is_on, outage.is_refused, outage.problem) == (False, True, "refused")
        await run(outage, DatabaseUnavailable("gone"), "reap")
        assert (outage.is_on, outage.is_refused) == (True, False)
    assert [event["event"] for event in logs] == [
        "statement_refused",
        "database_away",
        "database_back",
        "database_away",
    ]
