"""The metrics against the ledger they count, the tables they measure, and real scrapes."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics
from prometheus_client.registry import Collector

from tests.support.bench import bench, empty_room, reply, value
from tests.support.clock import SettableClock
from tests.support.running import APP_ID, SECRET, eventually
from tests.support.running import Application as Backend
from tests.support.time_travel import World
from tests.support.tools import program
from watchdog.cli.checks.http import check_http
from watchdog.cli.checks.installation import check_configuration
from watchdog.clock import SystemClock
from watchdog.config.loader import load
from watchdog.config.settings import Config
from watchdog.core.callbacks import IDLE_AUTO_STOP, Seal, TaskException
from watchdog.core.model import Ending, Evidence, Outcome, Reason, Source
from watchdog.daemon.lifecycle import Service
from watchdog.daemon.metrics import PREFIX, SHOWN, Exposition, Metrics
from watchdog.errors import ConfigError
from watchdog.services.claims import Claimed
from watchdog.services.figures import EVERY_SECONDS, DatabaseFigures
from watchdog.store.records import DETAIL_LEASE_EXPIRED, Intent
from watchdog.store.replays import use_of
from watchdog.wiring import database as opening

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
TOKEN = "not-a-real-token-é"
LEASE = 20.0


def counted(metrics: Metrics) -> dict[tuple[str, str], int]:
    """Return attempts_total without its zeros."""
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == PREFIX + "attempts_total" and sample.value:
                found[sample.labels["outcome"], sample.labels["reason"]] = int(sample.value)
    return found


def ledger(world: World) -> dict[tuple[str, str], int]:
    """Return how many rows of each outcome and reason there are, but for those that are under way."""
    rows = world.app.rows(
        "SELECT outcome, reason, count(*) AS number FROM zego_stop_attempts WHERE outcome <> 'sent'"
        " GROUP BY outcome, reason"
    )
    return {(row["outcome"], row["reason"]): row["number"] for row in rows}


class TestAttempts:
    async def test_every_outcome_is_counted_once_as_it_stands_in_the_ledger(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics) as it:
            for task, answer in (
                ("stopped", reply(0)),
                ("gone", reply(410001002)),
                ("retry", reply(410000001)),
                ("rejected", reply(410000003)),
                ("unknown", httpx.ReadError("gone")),
                ("never", reply(0)),
            ):
                if task == "never":
                    world.app.start(task, task, user_count=0)
                    await it.sweep()
                else:
                    await empty_room(it, task, task)
                it.vendor.stop_replies.append(answer)
                await it.after(90)
            assert counted(metrics) == ledger(world)
            assert counted(metrics).keys() >= {
                ("stopped", "empty_room"),
                ("gone", "empty_room"),
                ("retry", "empty_room"),
                ("rejected", "empty_room"),
                ("unknown", "empty_room"),
                ("stopped", "never_joined"),
            }

            await it.after(300)  # the retried one and the unknown one come to their ends
            it.vendor.stop_replies.append(reply(100000005))
            await empty_room(it, "blocked", "blocked")
            await it.after(45)
            assert counted(metrics)["blocked", "empty_room"] == 1
            assert value(metrics, "apps_blocked") == 1
            await it.after(60)
            assert value(metrics, "apps_blocked") == 0
            assert counted(metrics) == ledger(world)

    async def test_what_was_not_sent_is_counted_once_for_each_spell_and_not_for_each_look(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics) as it:
            it.vendor.people["full"] = 3
            await empty_room(it, "spared", "full")
            await it.after(45)
            it.vendor.count_replies += [httpx.ConnectError("down") for _ in range(20)]
            await empty_room(it, "withheld", "elsewhere")
            for _ in range(10):
                await it.after(8)
            assert counted(metrics) == ledger(world) == {("spared", "empty_room"): 1, ("withheld", "empty_room"): 1}
            assert value(metrics, "vendor_replies_total", operation="user_counts", **{"class": "not_sent"}) == 20 - len(
                it.vendor.count_replies
            )

    async def test_observing(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics, policy={"mode": "observe"}) as it:
            await empty_room(it)
            for _ in range(3):
                await it.after(60)
            assert counted(metrics) == ledger(world) == {("would_stop", "empty_room"): 1}

    async def test_a_miss_that_a_request_found_and_one_that_a_callback_told(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics) as it:
            await empty_room(it, "found", "found")
            world.app.start("told", "told", app_id=1, user_count=0)
            it.vendor.stop_replies.append(reply(410001002))
            world.advance(160)
            # Not planned anew: its room has been empty since long ago.
            await it.sweep()
            now = world.now.timestamp()
            event = TaskException(Seal(1, now, str(now), "123456", "0" * 40), "told", "told", IDLE_AUTO_STOP, "idle")
            assert await it.parts.callbacks._take(event, use_of(event, b"1")) == "accepted"
            assert await it.parts.callbacks._take(event, use_of(event, b"1")) == "ignored"
            assert counted(metrics) == ledger(world)
            assert sum(number for (outcome, _), number in counted(metrics).items() if outcome == "auto_stopped") == 2

    async def test_what_a_dead_daemon_left_behind_is_counted_by_whoever_closes_it(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics) as it:
            for task in ("taken over", "reaped"):
                await empty_room(it, task, task)
            world.advance(45)
            _, claims = world.tasks.claim("dead/1", limit=2, lease_seconds=LEASE, default_app=1)
            for claim in claims:
                seen = Evidence(0, world.now, Source.API)
                (sent,) = world.ledger.intend([Intent(claim, 1, Reason.EMPTY_ROOM, seen, None)])
                assert sent is not None
            world.app.execute("DELETE FROM zego_tasks WHERE task_id = 'reaped'")
            world.advance(LEASE + 1)
            it.vendor.stop_replies.append(reply(410001002))
            await it.sweep()
            assert world.ledger.reap(LEASE) == [Reason.EMPTY_ROOM]
            metrics.attempt(Outcome.UNKNOWN, Reason.EMPTY_ROOM)  # as the daemon does; see TestTheDaemon
            assert counted(metrics) == ledger(world)
            assert counted(metrics) == {("unknown", "empty_room"): 2, ("stopped_earlier", "empty_room"): 1}

    async def test_an_answer_after_the_lease_is_not_counted_twice(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics, stop={"request_timeout_seconds": 8}) as it:
            await empty_room(it)

            def die() -> None:
                world.advance(LEASE + 1)
                assert world.ledger.reap(LEASE) == [Reason.EMPTY_ROOM]

            it.vendor.before_stop = die
            await it.after(45)
            assert [row["outcome"] for row in world.attempts("t")] == ["stopped"], "its own answer has completed it"
            assert counted(metrics) == {}, "whoever closed it has counted it, as unknown"

    async def test_an_operators_own_attempts_are_counted_by_the_daemon_that_runs_longest(self, world: World) -> None:
        async with bench(world, Metrics()) as command, daemons(world, 2) as ((elder, eldest), (younger, _)):
            await settle(world, eldest, 4 * EVERY_SECONDS)
            for task, people in (("stopped", 0), ("spared", 3)):
                await empty_room(command, task, task)
                command.vendor.people[task] = people
                claim = world.tasks.claim_one(task, f"command/{task}", lease_seconds=LEASE)
                assert claim is not None
                held = Claimed(claim, 1, world.clock.monotonic() + LEASE, manual=True)
                await command.parts.stopper.work(held)
            await settle(world, eldest, 4 * EVERY_SECONDS)
            assert counted(elder) == {("stopped", "manual"): 1, ("spared", "manual"): 1} == ledger(world)
            assert counted(younger) == {}


@asynccontextmanager
async def daemons(world: World, number: int) -> AsyncIterator[list[tuple[Metrics, list[DatabaseFigures]]]]:
    """So many daemons that do nothing but to look at the database; the first has been alive for longest."""
    found: list[tuple[Metrics, list[DatabaseFigures]]] = []
    everyone: list[DatabaseFigures] = []
    async with AsyncExitStack() as stack:
        for _ in range(number):
            metrics = Metrics()
            parts = (await stack.enter_async_context(bench(world, policy={"mode": "observe"}))).parts
            world.heartbeats.beat(parts.daemon, 60, fresh=True)
            everyone.append(DatabaseFigures(parts.storage.figures, parts.storage.clock, metrics, world.clock))
            found.append((metrics, everyone))
            world.advance(1)
        yield found


async def settle(world: World, gauges: list[DatabaseFigures], seconds: float) -> None:
    """Let so much time pass while everybody reads and is alive."""
    until = world.clock.monotonic() + seconds
    while world.clock.monotonic() < until:
        world.app.execute("UPDATE zego_daemons SET seen_at = ?", world.now)
        for one in gauges:
            while await one.run_once() == 0:
                pass
        world.advance(EVERY_SECONDS / 3)


class TestTimes:
    async def test_lateness_margin_requests(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics) as it:
            await empty_room(it)
            it.vendor.stop_replies.append(reply(410000001))
            await it.after(45 + 3)  # 3 s late, 102 s before the auto-stop
            await it.after(20)  # the retry: not late once more
        history = world.history("t")
        assert history["outcome"] == "stopped"
        assert value(metrics, "stop_lateness_seconds_count") == 1
        assert value(metrics, "stop_lateness_seconds_sum") == 3
        early = history["seconds_before_auto_stop"]
        assert value(metrics, "stop_margin_seconds_count") == 1
        assert [value(metrics, "stop_margin_seconds_bucket", le=f"{bound:.1f}") for bound in (75, 90)] == [
            float(early <= bound) for bound in (75, 90)
        ]
        assert value(metrics, "vendor_request_seconds_count", operation="stop") == 2
        for reply_class in ("ok", "transient"):
            assert value(metrics, "vendor_replies_total", operation="stop", **{"class": reply_class}) == 1

    async def test_slot_seconds_are_those_of_the_view(self, world: World) -> None:
        metrics = Metrics()
        async with bench(world, metrics, stop={"request_timeout_seconds": 8}) as it:
            await empty_room(it, "in time", "in time")
            await it.after(48)
            await empty_room(it, "bots", "bots")
            it.vendor.admins["bots"] = 1
            await it.after(48)
            await empty_room(it, "late", "late")
            it.vendor.stop_replies.append(httpx.ReadError("gone"))
            it.vendor.stop_replies.append(reply(410001002))
            await it.after(48)
            await it.after(30)
        assert {world.task(task)["status"] for task in ("in time", "bots", "late")} == {"stopped"}
        (row,) = world.app.rows("SELECT stops, slot_seconds_freed, no_auto_stop FROM zego_savings")
        assert (row["stops"], row["no_auto_stop"]) == (3, 1)
        assert row["slot_seconds_freed"] > 100
        assert value(metrics, "slot_seconds_freed_total") == row["slot_seconds_freed"]

    async def test_the_daemon_that_runs_longest_counts_the_empty_spells(self, world: World) -> None:
        world.app.start("before", "before", user_count=0)
        world.app.people("before", 1)
        async with daemons(world, 2) as ((elder, eldest), (younger, _)):
            await settle(world, eldest, 4 * EVERY_SECONDS)
            for task in ("returned", "unknown", "released"):
                world.app.start(task, task, user_count=0)
            world.app.people("returned", 2)
            world.app.people("unknown", None)
            world.app.execute("DELETE FROM zego_tasks WHERE task_id = 'released'")
            for _ in range(2):
                await settle(world, eldest, 4 * EVERY_SECONDS)
            world.app.people("returned", 0)
            world.app.people("returned", 2)
            await settle(world, eldest, 4 * EVERY_SECONDS)
        spells = {ending: value(elder, "empty_spells_total", ending=ending) for ending in Ending}
        expected = {Ending.RETURNED: 2, Ending.UNKNOWN: 1, Ending.RELEASED: 1}
        assert spells == dict.fromkeys(Ending, 0) | expected
        assert {value(younger, "empty_spells_total", ending=ending) for ending in Ending} == {0}

    async def test_the_pace_in_force(self, sqlite_world: World) -> None:
        metrics = Metrics()
        async with bench(sqlite_world, metrics, stop={"requests_per_second": 10}) as it:
            it.parts.paces["stop"].throttled(2)
            it.parts.paces["stop"].set_share(0.5)
            assert value(metrics, "pace_requests_per_second", pace="stop", app_id="1") == 5
            assert value(metrics, "pace_requests_per_second", pace="stop", app_id="2") == 2.5
            assert value(metrics, "pace_requests_per_second", pace="occupancy", app_id="1") == float("inf")


# Over real HTTP


def configured(url: str, **sections: Any) -> Config:
    app = {"app_id": APP_ID, "server_secret": SECRET}
    return Config.model_validate(
        {
            "database": {"url": url, "statement_timeout_seconds": 0.3},
            "zego": {"apps": [app], "asr_url": "http://127.0.0.1:1/", "rtc_url": "http://127.0.0.1:1/"},
            "schedule": {"poll_seconds": 0.2, "occupancy_poll_seconds": 0},
            "http": {"listen": "127.0.0.1:0"} | sections.get("http", {}),
        }
    )


@asynccontextmanager
async def daemon(url: str, **sections: Any) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """A daemon on a migrated database, and a client that speaks to its HTTP server."""
    config = configured(url, **sections)
    service = Service(config, SystemClock(), opening.engine(config.database))
    await service.start()
    assert service.http is not None
    client = httpx.AsyncClient(base_url=service.http.url, trust_env=False, timeout=10)
    try:
        yield service, client
    finally:
        await client.aclose()
        await service.stop(asyncio.Event())


def samples(page: str) -> dict[str, float]:
    """Return every sample of the text format that has no labels."""
    families = plain_metrics(page)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


class TestTheDaemon:
    async def test_a_scrape_tells_what_goes_on(self, database_url: str) -> None:
        backend = Backend(database_url)
        for number in range(3):
            backend.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 1)", str(number), "r")
        async with daemon(database_url) as (service, client):
            await eventually(
                "all has been read", lambda: service.metrics.registry.get_sample_value(PREFIX + "unknown_rooms") == 0
            )
            reply = await client.get("/metrics")
            assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            found = samples(reply.text)
            assert found[PREFIX + "daemons_alive"] == found[PREFIX + "database_up"] == 1
            assert found[PREFIX + "feed_dead"] == 0
            assert found[PREFIX + "sweep_seconds_count"] >= 1
            assert abs(found[PREFIX + "last_sweep_timestamp_seconds"] - SystemClock().time()) < 30
            assert found["process_open_fds"] > 0
            assert f'{PREFIX}tasks{{status="active"}} 3.0' in reply.text

            open_format = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
            assert open_format.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            families = open_metrics(open_format.text)  # type: ignore[no-untyped-call]  # the library has no types here
            assert PREFIX + "attempts" in {family.name for family in families}

    async def test_reaped_attempts_are_counted(self, sqlite_url: str) -> None:
        backend = Backend(sqlite_url)
        for number in range(2):
            backend.execute(
                "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance, sent_at)"
                " VALUES (?, 'asr', 'r', 'bots_only', 'sent', 'dead', '2026-01-01 00:00:00.000000')",
                str(number),
            )
        async with daemon(sqlite_url) as (service, _):
            await eventually("they are closed", lambda: counted(service.metrics) == {("unknown", "bots_only"): 2})
        assert {row["detail"] for row in backend.attempts()} == {DETAIL_LEASE_EXPIRED}

    async def test_not_ready_while_the_database_is_away(self, database_url: str) -> None:
        backend = Backend(database_url)
        async with daemon(database_url) as (service, client):

            async def page() -> dict[str, float]:
                await SystemClock().sleep(1)  # as old as a page may be
                return samples((await client.get("/metrics")).text)

            assert (await client.get("/readyz")).status_code == 200
            await asyncio.to_thread(backend.execute, "ALTER TABLE zego_daemons RENAME TO zego_away")
            await eventually("it is noticed", lambda: service._outage.is_on, seconds=10)
            # The sweeps go on without that table. They must not hide that other jobs cannot.
            before = value(service.metrics, "sweep_seconds_count") or 0
            await eventually("swept", lambda: (value(service.metrics, "sweep_seconds_count") or 0) > before)
            refused = await client.get("/readyz")
            assert refused.status_code == 503
            assert "the database is away" in refused.text
            assert (await client.get("/healthz")).status_code == 200
            found = await page()
            assert found[PREFIX + "database_up"] == 0
            assert found[PREFIX + "database_errors_total"] >= 1
            await asyncio.to_thread(backend.execute, "ALTER TABLE zego_away RENAME TO zego_daemons")
            await eventually("it is back", lambda: not service._outage.is_on)
            assert (await client.get("/readyz")).status_code == 200
            assert (await page())[PREFIX + "database_up"] == 1

    async def test_a_missing_right_is_told_from_a_database_that_is_away(self, postgresql_url: str) -> None:
        backend = Backend(postgresql_url)
        grant = "ALL ON ALL TABLES IN SCHEMA public"
        for statement in ("DROP ROLE IF EXISTS bounded", "CREATE ROLE bounded", f"GRANT {grant} TO bounded"):
            backend.execute(statement)
        async with daemon(f"{postgresql_url}&options=-c%20role%3Dbounded") as (service, client):
            assert (await client.get("/readyz")).status_code == 200
            await asyncio.to_thread(backend.execute, "REVOKE UPDATE ON zego_daemons FROM bounded")
            await eventually("it is noticed", lambda: service._outage.is_refused, seconds=10)
            assert not service._outage.is_on
            refused = await client.get("/readyz")
            assert (refused.status_code, refused.text) == (
                503,
                "the database refuses a statement: see the daemon's log\n",
            )
            assert "permission denied for table zego_daemons" in service._status_line()
            assert value(service.metrics, "database_up") == 0
            await asyncio.to_thread(backend.execute, "GRANT UPDATE ON zego_daemons TO bounded")
            await eventually("it is allowed", lambda: not service._outage.is_refused)
            assert (await client.get("/readyz")).status_code == 200
        backend.execute(f"REVOKE {grant} FROM bounded")
        backend.execute("DROP ROLE bounded")

    async def test_rights_on_events_that_an_upgrade_did_not_give_keep_no_daemon_from_its_sweeps(
        self, postgresql_url: str
    ) -> None:
        backend = Backend(postgresql_url)
        grant = "ALL ON ALL TABLES IN SCHEMA public"
        new = "ALL ON zego_events, zego_event_types FROM bounded"
        for statement in ("CREATE ROLE bounded", f"GRANT {grant} TO bounded", f"REVOKE {new}"):
            backend.execute(statement)
        async with daemon(f"{postgresql_url}&options=-c%20role%3Dbounded") as (service, _client):
            await eventually("swept", lambda: (value(service.metrics, "sweep_seconds_count") or 0) > 0)
            await eventually("the missing right is told", lambda: service._outage.is_refused, seconds=10)
            assert "permission denied for table zego_event" in service._status_line()
        backend.execute(f"REVOKE {grant} FROM bounded")
        backend.execute("DROP ROLE bounded")

    async def test_a_hundred_scrapes_at_once_delay_neither_sweeps_nor_callbacks(self, sqlite_url: str) -> None:
        Backend(sqlite_url)
        async with daemon(sqlite_url) as (service, client):
            collected = 0

            class Counting(Collector):
                def collect(self) -> Iterator[Metric]:
                    nonlocal collected
                    collected += 1
                    return iter(())

            service.metrics.registry.register(Counting())
            clock = SystemClock()

            async def callbacks(until: asyncio.Task[Any]) -> list[float]:
                took = []
                while not until.done():
                    began = clock.monotonic()
                    assert (await client.post("/callbacks/zego", content=b"{}")).status_code == 400
                    took.append(clock.monotonic() - began)
                    await clock.sleep(0.05)
                return took

            assert service.http is not None
            collected, began = 0, clock.monotonic()
            before = value(service.metrics, "sweep_seconds_count") or 0
            scraping = asyncio.create_task(scrape_from_another_process(service.http.url, connections=100, seconds=4))
            waits = await callbacks(scraping)
            took, scrapes = clock.monotonic() - began, await scraping
            swept = (value(service.metrics, "sweep_seconds_count") or 0) - before
        assert scrapes >= 100, "each of them at least once"
        assert collected <= took + 1
        assert median(waits) < took / 2, "one that waits for all scrapes takes as long as they do"
        assert swept >= took / 2, "five a second, less where the machine has other work"


SCRAPER = """
import http.client, sys, threading, time
address, connections, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
until, scrapes = time.monotonic() + seconds, []
def scrape():
    connection = http.client.HTTPConnection(address, timeout=10)
    while time.monotonic() < until:
        connection.request("GET", "/metrics")
        reply = connection.getresponse()
        assert reply.status == 200 and len(reply.read()) > 1000
        scrapes.append(1)
threads = [threading.Thread(target=scrape) for _ in range(connections)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(scrapes))
"""


async def scrape_from_another_process(url: str, *, connections: int, seconds: float) -> int:
    """Return how many scrapes were answered."""
    scraper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRAPER, url.removeprefix("http://"), str(connections), str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await scraper.communicate()
    assert scraper.returncode == 0
    return int(output)


class TestToken:
    @pytest.fixture
    async def guarded(self, sqlite_url: str) -> AsyncIterator[httpx.AsyncClient]:
        Backend(sqlite_url)
        async with daemon(sqlite_url, http={"token": TOKEN}) as (_, client):
            yield client

    @pytest.mark.parametrize("path", ["/metrics", "/readyz"])
    async def test_only_who_has_it_gets_an_answer(self, guarded: httpx.AsyncClient, path: str) -> None:
        raw = TOKEN.encode()
        for given in (b"Bearer " + raw, b"bearer  " + raw):
            assert (await guarded.get(path, headers={b"Authorization": given})).status_code == 200
        for given in (b"", b"Bearer", b"Basic " + raw, raw, b"Bearer " + raw + b"x", b"Bearer \xff\xfe"):
            refused = await guarded.get(path, headers={b"Authorization": given})
            assert refused.status_code == 401, given
            assert refused.headers["WWW-Authenticate"] == 'Bearer realm="zego-watchdog"'
            assert PREFIX not in refused.text
        assert (await guarded.get(path)).status_code == 401
        assert (await guarded.get(f"{path}?token={TOKEN}")).status_code == 401

    async def test_health_and_callbacks_need_none(self, guarded: httpx.AsyncClient) -> None:
        assert (await guarded.get("/healthz")).status_code == 200
        refused = await guarded.post("/callbacks/zego", content=b"{}")
        assert (refused.status_code, refused.headers.get("WWW-Authenticate")) == (400, None)


class TestItsConfiguration:
    def test_the_token_comes_from_a_file_or_from_the_environment(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(TOKEN + "\n")
        (tmp_path / "token").chmod(0o600)
        file = tmp_path / "config.yaml"
        file.write_text("policy: {mode: observe}\nhttp: {token_file: token}")
        token = load(file, {}).http.bearer_token
        assert token is not None
        assert token.get_secret_value() == TOKEN
        with pytest.raises(ConfigError, match="the token is given twice; keep token_file only"):
            load(file, {"ZEGO_WATCHDOG_HTTP__TOKEN": TOKEN})
        file.write_text("policy: {mode: observe}")
        token = load(file, {"ZEGO_WATCHDOG_HTTP__TOKEN": TOKEN}).http.bearer_token
        assert token is not None
        assert token.get_secret_value() == TOKEN
        assert load(file, {}).http.bearer_token is None

    @pytest.mark.parametrize("token", [TOKEN, '""', f"[{TOKEN}]"])
    def test_it_does_not_stand_in_the_file_nor_in_a_message(self, tmp_path: Path, token: str) -> None:
        file = tmp_path / "config.yaml"
        file.write_text(f"policy: {{mode: observe}}\nhttp: {{token: {token}}}", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"http\.token: ") as caught:
            load(file, {})
        assert TOKEN not in str(caught.value)

    @pytest.mark.parametrize(
        ("http", "secret", "begins"),
        [
            ({}, False, []),
            ({"listen": "127.0.0.1:8765"}, False, []),
            ({"listen": "[::1]:8765"}, True, []),
            ({"listen": "localhost:8765"}, True, []),
            ({"listen": "0.0.0.0:8765"}, True, ["http.listen 0.0.0.0:8765 can be reached from other machines"]),
            ({"listen": "[::]:8765"}, True, ["http.listen [::]:8765 can be reached from other machines"]),
            ({"listen": "0.0.0.0:8765", "token": TOKEN}, True, []),
            ({}, True, ["http.listen is empty, and an app has a callback secret"]),
        ],
    )
    def test_warnings(self, http: dict[str, str], *, secret: bool, begins: list[str]) -> None:
        app = {"app_id": 1, "server_secret": SECRET} | ({"callback_secret": "not-a-real-one"} if secret else {})
        warnings = Config.model_validate({"zego": {"apps": [app]}, "http": http}).warnings
        assert [warning[: len(begin)] for warning, begin in zip(warnings, begins, strict=True)] == begins


# What others rely on


def families(metrics: Metrics) -> dict[str, str]:
    """Return the types by name, as a scraper sees them."""
    page = Exposition(metrics.registry, SettableClock()).page("").body.decode()
    return dict(re.findall(r"^# TYPE (\S+) (\w+)$", page, flags=re.MULTILINE))


def test_processes_do_not_share_anything() -> None:
    one, other = Metrics(), Metrics()
    one.attempt(Outcome.STOPPED, Reason.EMPTY_ROOM)
    one.show("due_tasks", 3)
    assert counted(other) == {}
    assert value(other, "due_tasks") is None


def test_only_what_is_known_can_be_shown() -> None:
    with pytest.raises(KeyError, match="there is no metric rooms"):
        Metrics().show("rooms", 1)
    assert len({shown.name for shown in SHOWN}) == len(SHOWN)


def test_a_page_is_made_again_after_a_second_and_kept_in_two_formats() -> None:
    metrics, clock = Metrics(), SettableClock()
    exposition = Exposition(metrics.registry, clock)
    metrics.show("due_tasks", 1)
    page = exposition.page("")
    metrics.show("due_tasks", 2)
    clock.advance(0.9)
    assert exposition.page("text/html") is page
    opened = exposition.page("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8")
    assert opened.body.endswith(b"# EOF\n")
    for forged in ("9.9.9\r\nX: y", "1.0.0-" + "x" * 1000):
        assert exposition.page(f"application/openmetrics-text; version={forged}") is opened
    clock.advance(0.1)
    assert b"due_tasks 2.0" in exposition.page("").body


def test_the_documentation_names_every_metric_with_its_type_and_labels() -> None:
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    }
    metrics = Metrics()
    ours = {name.removeprefix(PREFIX): kind for name, kind in families(metrics).items() if name.startswith(PREFIX)}
    assert {name: kind for name, (kind, _) in documented.items()} == ours
    labels = {shown.name + ("_total" if shown.counts else ""): shown.labels for shown in SHOWN}
    labels |= {
        "attempts_total": ("outcome", "reason"),
        "vendor_replies_total": ("operation", "class"),
        "vendor_request_seconds": ("operation",),
        "config_reloads_total": ("result",),
        "webhook_deliveries_total": ("result",),
        "empty_spells_total": ("ending",),
        "build_info": ("version", "python", "sqlite"),
    }
    assert {name: found for name, (_, found) in documented.items() if found} == {
        name: expected for name, expected in labels.items() if expected
    }


def test_nothing_of_a_room_or_a_task_is_a_label() -> None:
    for family in Metrics().registry.collect():
        for sample in family.samples:
            assert not {"room_id", "task_id", "user_id"} & sample.labels.keys()


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool")


def promtool_says(promtool: str, page: bytes) -> tuple[int, str, str]:
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    return checked.returncode, checked.stdout.decode(), checked.stderr.decode()


async def test_promtool_finds_nothing_wrong_with_a_scrape(sqlite_url: str, promtool: str) -> None:
    Backend(sqlite_url)
    async with daemon(sqlite_url) as (service, client):
        await eventually("all has been read", lambda: value(service.metrics, "unknown_rooms") is not None)
        service.metrics.request("stop", "ok", 0.1)
        service.metrics.attempt(Outcome.STOPPED, Reason.MANUAL)
        page = (await client.get("/metrics")).content
    assert promtool_says(promtool, page) == (0, "", "")


def test_check_says_what_the_server_is_for(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    app = {"app_id": 1, "server_secret": SECRET}

    def found(http: dict[str, str], **more: str) -> list[tuple[str, str]]:
        config = Config.model_validate({"zego": {"apps": [app | more]}, "http": http})
        findings = [*check_configuration(file, config, {}), *check_http(config, [])]
        return [(one.level, one.found) for one in findings if one.subject == "http"]

    assert found({}) == []
    assert found({"listen": "127.0.0.1:0"}) == [
        ("ok", "127.0.0.1:0: /metrics; no callbacks, because no app has a callback secret")
    ]
    assert found({"listen": "127.0.0.1:0", "token": TOKEN}, callback_secret="not-a-real-one") == [
        ("ok", "127.0.0.1:0: /metrics with the token; callbacks of AppId 1")
    ]
    (warning, _) = found({"listen": "0.0.0.0:0"})
    assert warning[0] == "warn"
