"""The pages as a browser gets them: what they tell, who may read them, and how little they ask of the database."""

import asyncio
import html
import re
import threading
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from urllib.parse import quote

import pytest

from tests.page.conftest import Bench, serving
from tests.support.store_steps import begun, due, empty, plan, send, take, tried
from tests.support.time_travel import World
from watchdog.core.model import Mode, Outcome, Reason
from watchdog.core.policy import RULE_TEXT, Rule
from watchdog.insight.legible import legible
from watchdog.insight.words import OUTCOME_TEXT, REASON_TEXT
from watchdog.page import chinese
from watchdog.page.site import DIFFERENT
from watchdog.page.views import ROWS
from watchdog.services.figures import Known
from watchdog.store.figures import ActiveTasks
from watchdog.store.polling import PollStore
from watchdog.store.records import Instance

HOSTILE = (
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "\N{PILE OF POO}" * 32,
    "a/b?c#d%2Fe&f=g",
    "../../etc/passwd",
    ".",
    "..",
    "a/",
    "new\nline",
    "\"'>x{{ 7*7 }}",
    "שלום",
    "room id with spaces + plus",
)
PATHS = ("/", "/tasks", "/tasks?choice=empty", "/tasks?choice=ended", "/history", "/tasks/task")


def _instance() -> Instance:
    return Instance("host/1", "host", 1, "1.2.3", "enforce")


def links(page: str) -> list[str]:
    """Return the addresses of links to tasks, in their order."""
    return [html.unescape(href) for href in re.findall(r'href="((?:/tasks/|/find\?)[^"]*)"', page)]


def _shown(page: str) -> str:
    """Return the id in the heading, as a reader sees it."""
    return html.unescape(re.findall(r'<h1>Task <bdi class="id">(.*?)</bdi>', page, flags=re.DOTALL)[0])


def body_of(page: str) -> str:
    return page.partition("<main")[2].partition("</main>")[0]


class TestPages:
    @pytest.mark.parametrize("language", ["en", "zh"])
    async def test_each_is_there_on_an_empty_database(self, bench: Bench, language: str) -> None:
        for path in PATHS[:-1]:
            page = await bench.text(path, language)
            assert page.startswith("<!doctype html>")
            assert f'<html lang="{ {"en": "en", "zh": "zh-CN"}[language] }">' in page

    async def test_the_first_says_that_it_is_alive_and_what_is_due(self, bench: Bench) -> None:
        bench.world.heartbeats.beat(_instance(), 60, fresh=True)
        empty(bench.world, "left", "room-7")
        plan(bench.world, "left", due=30, auto_stop=135)
        bench.live = replace(
            bench.live, active=1200, known=Known(ActiveTasks(1200, 1000, 150, 50, None, None), bench.world.now, {})
        )
        page = await bench.text("/")
        assert "Alive: abandoned tasks are stopped." in page
        assert "No problem is known." in page
        assert "1,200" in page
        assert "in 30s" in page
        assert links(page) == ["/tasks/left"]
        assert "room-7" in page
        assert REASON_TEXT[Reason.EMPTY_ROOM] in page
        assert "运行正常" in await bench.text("/", "zh")
        bench.world.app.start("new", "room-8", user_count=0)
        plan(bench.world, "new", due=90, auto_stop=150)
        bench.world.advance(60)
        assert REASON_TEXT[Reason.NEVER_JOINED] not in page
        assert REASON_TEXT[Reason.NEVER_JOINED] in await bench.text("/")
        assert chinese.TEXTS["reason.never_joined"] in await bench.text("/", "zh")

    async def test_in_observe_mode_it_says_so(self, bench: Bench) -> None:
        bench.world.heartbeats.beat(_instance(), 60, fresh=True)
        bench.live = replace(bench.live, mode=Mode.OBSERVE)
        assert "Alive, in observe mode" in await bench.text("/")

    async def test_a_problem_comes_first_with_its_next_step(self, bench: Bench) -> None:
        bench.live = replace(bench.live, webhook_problem="the webhook's receiver fails")
        page = await bench.text("/")
        assert "Something is wrong." in page
        assert page.index("No daemon has reported") < page.index("Events do not reach the webhook.")
        assert "journalctl -u zego-watchdog" in page
        assert "the webhook&#39;s receiver fails" in page

    async def test_a_task_has_what_explain_has(self, bench: Bench) -> None:
        due(bench.world, "task")
        bench.world.advance(60)
        page = await bench.text("/tasks/task")
        assert RULE_TEXT[Rule.UNCONFIRMED] in page
        assert "It is due: the daemon asks ZEGO who is in the room, and stops it if it is empty." in page
        assert chinese.TEXTS["rule.unconfirmed"] in await bench.text("/tasks/task", "zh")
        tried(bench.world, "task", request_id="4711", evidence_source="api", replied_at=bench.world.now)
        bench.world.app.change("task", status="stopped")
        bench.world.advance(60)
        page = await bench.text("/tasks/task")
        assert OUTCOME_TEXT[Outcome.STOPPED] in page
        assert REASON_TEXT["empty_room"] in page  # type: ignore[index] # a StrEnum's value
        assert "reported by ZEGO" in page
        assert "4711" in page
        assert "Schedule" not in page

    async def test_a_room_in_which_zego_sees_nobody_is_doubted(self, bench: Bench) -> None:
        bench.world.app.start("task", "typo")
        bench.world.app.people("typo", 2)
        assert "RoomId and AppId right" not in await bench.text("/tasks/task")
        bench.world.advance(20)
        assert "RoomId and AppId right" not in await bench.text("/tasks/task")
        assert PollStore(bench.world.engine).take(10, 15, 1, 1).rooms == ["typo"]
        bench.world.advance(60)
        assert "it was last asked 1m ago. Are RoomId and AppId right?" in await bench.text("/tasks/task")
        assert "最近一次询问：1 分前" in await bench.text("/tasks/task", "zh")

    async def test_a_deleted_task_still_has_its_attempts(self, bench: Bench) -> None:
        tried(bench.world, "gone", Outcome.AUTO_STOPPED)
        page = await bench.text("/tasks/gone")
        assert "has deleted the row" in page
        assert "the room stayed empty for ZEGO" in page

    async def test_a_released_task(self, bench: Bench) -> None:
        bench.world.app.start("task")
        bench.world.app.release("task")
        assert "The application released the task." in await bench.text("/tasks/task")

    async def test_what_is_not_there_leads_on(self, bench: Bench) -> None:
        bench.world.app.start("task-1", "lobby")
        missing = await bench.get("/find?id=lobby")
        assert missing.status_code == 404
        assert links(body_of(missing.text)) == ["/tasks/task-1"]
        assert "lobby is a room" in missing.text
        missing = await bench.get("/tasks/task-9")
        assert (missing.status_code, links(body_of(missing.text))) == (404, ["/tasks/task-1"])
        assert (await bench.get("/tasks/nul%00")).status_code == 404
        assert "Evidence" in await bench.text("/find?id=task-1")

    @pytest.mark.parametrize(
        "path",
        [
            *("/tasks?choice=all", "/tasks?after=x", "/tasks?after=bnVsbA", "/tasks?after=WzksMSwiYSJd"),
            *("/history?outcome=won", "/history?since=ever", "/history?before=-1", "/history?before=x"),
            *("/history?before=99999999999999999999", "/tasks?room=%00", f"/tasks?room={'x' * 999}"),
        ],
    )
    async def test_an_address_that_no_link_has(self, bench: Bench, path: str) -> None:
        answer = await bench.get(path)
        assert answer.status_code == 400
        assert "Begin at the first page." in answer.text
        assert bench.statements == []


class TestLists:
    async def test_tasks_go_on_after_the_last_one_whatever_part_it_is_in(self, bench: Bench) -> None:
        world = bench.world
        for number in range(ROWS):
            empty(world, f"planned-{number:03}")
            plan(world, f"planned-{number:03}", due=45)
        for number in range(ROWS):
            empty(world, f"unplanned-{number:03}")
        for number in range(30):
            world.app.start(f"occupied-{number:03}", f"room-{number % 3}", user_count=1)
        seen, path = [], "/tasks"
        while path:
            page = await bench.text(path)
            seen += links(body_of(page))
            (path,) = [html.unescape(href) for href in re.findall(r'href="([^"]*)" rel="next"', page)] or [""]
        assert len(seen) == len(set(seen)) == 2 * ROWS + 30
        assert [href.split("/")[2].partition("-")[0] for href in seen] == (
            ["planned"] * ROWS + ["unplanned"] * ROWS + ["occupied"] * 30
        )

    async def test_choices(self, bench: Bench) -> None:
        empty(bench.world, "empty", "lobby")
        bench.world.app.start("occupied", "hall", user_count=2)
        bench.world.app.start("over", "hall")
        bench.world.app.change("over", status="stopped")

        async def chosen(query: str) -> list[str]:
            return links(body_of(await bench.text(f"/tasks?{query}")))

        assert await chosen("choice=empty") == ["/tasks/empty"]
        assert await chosen("choice=ended") == ["/tasks/over"]
        assert await chosen("room=hall") == ["/tasks/occupied"]
        assert await chosen("choice=ended&room=lobby") == []

    async def test_ended_tasks_go_on(self, bench: Bench) -> None:
        for number in range(ROWS + 2):
            bench.world.app.start(f"t{number:03}")
        bench.world.app.execute("UPDATE zego_tasks SET status = 'released'")
        page = await bench.text("/tasks?choice=ended")
        (following,) = re.findall(r'href="([^"]*)" rel="next"', page)
        assert links(body_of(page))[0] == f"/tasks/t{ROWS + 1:03}"
        assert links(body_of(await bench.text(html.unescape(following)))) == ["/tasks/t001", "/tasks/t000"]

    async def test_history_goes_on_and_is_filtered(self, bench: Bench) -> None:
        for number in range(2 * ROWS + 1):
            tried(bench.world, f"t{number:03}", Outcome.SPARED if number % 2 else Outcome.STOPPED, room_id="lobby")
        seen, path = [], "/history"
        while path:
            page = await bench.text(path)
            seen += links(body_of(page))
            (path,) = [html.unescape(href) for href in re.findall(r'href="([^"]*)" rel="next"', page)] or [""]
        assert seen == [f"/tasks/t{number:03}" for number in reversed(range(2 * ROWS + 1))]
        spared = links(body_of(await bench.text("/history?outcome=spared&room=lobby&since=day")))
        assert spared == [f"/tasks/t{number:03}" for number in reversed(range(2 * ROWS)) if number % 2]
        assert links(body_of(await bench.text("/history?task=t007"))) == ["/tasks/t007"]
        bench.world.advance(2 * 86_400)
        assert "No task has such an attempt." in await bench.text("/history?since=day")


class TestHostileIds:
    @pytest.mark.parametrize("hostile", HOSTILE)
    async def test_it_is_shown_harmlessly_and_its_link_leads_to_it(self, bench: Bench, hostile: str) -> None:
        bench.world.app.start(hostile, hostile, user_count=1)
        tried(bench.world, hostile, Outcome.UNKNOWN, room_id=hostile, message=hostile, detail=hostile, code=hostile)
        bench.world.app.people(hostile, 0)
        pages = [await bench.text(path) for path in ("/tasks", "/history")]
        for listed in tuple(pages):
            (link,) = set(links(body_of(listed)))
            assert link.isascii()
            page = await bench.text(link)
            assert _shown(page) == legible(hostile)
            pages.append(page)
        pages.append((await bench.get(f"/find?id={quote(hostile + 'x', safe='')}")).text)
        pages.append(await bench.text(f"/tasks?room={quote(hostile, safe='')}"))
        for page in pages:
            assert "<script" not in page
            assert "49" not in body_of(page) or "{{" not in hostile
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", page)
            # Nothing leads anywhere else.
            assert all(
                href.startswith(("/", "#content")) for href in re.findall(r'(?:href|action|src)="([^"]*)"', page)
            )


class TestSecurity:
    async def test_every_page_has_the_headers(self, bench: Bench) -> None:
        for path in ("/", "/tasks", "/history", "/tasks/nobody", "/tasks?after=x"):
            answer = await bench.get(path)
            (style,) = re.findall("<style>(.*?)</style>", answer.text, flags=re.DOTALL)
            digest = b64encode(sha256(style.encode()).digest()).decode()
            assert answer.headers["Content-Security-Policy"] == (
                f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
                "frame-ancestors 'none'"
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert " style=" not in answer.text
            assert " on" not in "".join(re.findall("<[^>]*>", answer.text)).replace(" one", "")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
    async def test_it_can_only_be_read(self, bench: Bench, method: str) -> None:
        answer = await bench.http.request(method, "/tasks")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
        assert bench.statements == []

    async def test_a_name_that_is_not_ours_is_refused(self, bench: Bench) -> None:
        assert (await bench.get("/", Host="evil.example")).status_code == 421
        assert (await bench.get("/", Host="127.0.0.1:8765")).status_code == 200
        assert bench.statements

    async def test_with_a_token_it_asks_for_the_password(self, bench: Bench) -> None:
        bench.token = "pässword"
        asked = await bench.get("/")
        assert asked.status_code == 401
        assert asked.headers["WWW-Authenticate"] == 'Basic realm="zego-watchdog", charset="UTF-8"'
        assert bench.statements == []
        basic = b64encode("anybody:pässword".encode()).decode()
        assert (await bench.get("/", Authorization=f"Basic {basic}")).status_code == 200
        wrong = b64encode(b"anybody:password").decode()
        assert (await bench.get("/", Authorization=f"Basic {wrong}")).status_code == 401

    async def test_where_others_can_reach_it_nobody_reads_without_a_token(self, sqlite_world: World) -> None:
        async with serving(sqlite_world, is_exposed=True) as bench:
            assert (await bench.get("/")).status_code == 403
            bench.token = "t"
            assert (await bench.get("/")).status_code == 401
            assert (await bench.get("/", Authorization="Bearer t")).status_code == 200

    async def test_the_page_writes_nothing_whatever_happens(self, bench: Bench) -> None:
        for path in PATHS:
            await bench.get(path)
        assert {statement.split()[0] for statement in bench.statements} <= {"BEGIN", "SELECT", "WITH"}


class TestLoad:
    async def test_a_hundred_browsers_cost_what_one_does(self, bench: Bench) -> None:
        due(bench.world, "task")
        for path in ("/", "/tasks", "/history", "/tasks/task"):
            bench.statements.clear()
            await bench.text(path)
            alone = len(bench.statements)
            assert alone
            bench.world.advance(100)
            bench.statements.clear()
            pages = await asyncio.gather(*(bench.get(path, "zh" if n % 2 else "en") for n in range(100)))
            assert {page.status_code for page in pages} == {200}
            assert len(bench.statements) == alone
            bench.world.advance(100)

    async def test_more_than_it_can_take_are_told_to_come_again(self, sqlite_bench: Bench) -> None:
        go = threading.Event()
        held = asyncio.ensure_future(sqlite_bench.site._reader.call(lambda _: go.wait(10)))
        asked = await begun(*(sqlite_bench.get(f"/tasks?room={number}") for number in range(DIFFERENT + 3)))
        refused = await asyncio.gather(*asked[DIFFERENT:])
        assert [(answer.status_code, answer.headers["Retry-After"]) for answer in refused] == [(503, "2")] * 3
        # One that is in the making already answers this one, too.
        asked += await begun(sqlite_bench.get("/tasks?room=1"))
        go.set()
        answers = await asyncio.gather(*asked)
        assert await held
        assert [answer.status_code for answer in answers] == [200] * DIFFERENT + [503] * 3 + [200]

    async def test_what_takes_long_is_shown_as_it_was(self, sqlite_bench: Bench) -> None:
        sqlite_bench.world.app.start("first")
        assert "first" in await sqlite_bench.text("/tasks")
        sqlite_bench.world.app.start("later-one")
        sqlite_bench.world.advance(30)
        go = threading.Event()
        held = asyncio.ensure_future(sqlite_bench.site._reader.call(lambda _: go.wait(10)))
        assert "later-one" not in await sqlite_bench.text("/tasks")
        go.set()
        await held

    async def test_it_asks_for_itself_again_unless_it_is_held(self, bench: Bench) -> None:
        bench.world.app.start("task")
        for path in ("/", "/tasks", "/tasks/task", "/history", "/tasks?choice=ended&room=r"):
            answer = await bench.get(path)
            assert answer.headers["Refresh"] == "10"
            (still,) = [html.unescape(href) for href in re.findall(r'href="([^"]*still=[^"]*)"', answer.text)]
            held = await bench.get(still)
            assert "Refresh" not in held.headers
            (again,) = [html.unescape(href) for href in re.findall(r'href="([^"]*)">Resume', held.text)]
            assert (await bench.get(again)).headers["Refresh"] == "10"
            assert body_of(held.text) == body_of(answer.text)

    async def test_a_database_that_is_away_is_said_and_not_asked(self, bench: Bench) -> None:
        bench.live = replace(bench.live, is_away=True, database_trouble="PostgreSQL db: <down>")
        answer = await bench.get("/")
        assert answer.status_code == 503
        assert "The database does not answer" in answer.text
        assert "PostgreSQL db: &lt;down&gt;" in answer.text
        assert answer.headers["Refresh"] == "10"
        assert bench.statements == []
        assert "数据库没有响应" in (await bench.get("/tasks", "zh")).text

    async def test_a_database_that_fails_is_asked_once_a_second(self, sqlite_bench: Bench) -> None:
        file = sqlite_bench.file
        file.rename(f"{file}.away")
        sqlite_bench.world.advance(5)
        answers = await asyncio.gather(*(sqlite_bench.get("/history") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {503}
        file.with_name(f"{file.name}.away").rename(file)
        assert (await sqlite_bench.get("/history")).status_code == 503
        sqlite_bench.world.advance(3)
        assert (await sqlite_bench.get("/history")).status_code == 200


async def test_a_name_that_is_no_task_leads_to_the_history_of_the_room(sqlite_bench: Bench) -> None:
    answer = await sqlite_bench.get("/find?id=a%26b%20c")
    assert answer.status_code == 404
    assert 'href="/history?room=a%26b%20c"' in answer.text


class Made:
    """Makes reports of one sentence."""

    def __init__(self) -> None:
        self.languages: list[str] = []
        self.has_ended = False

    async def make(self, language: str) -> bytes:
        self.languages.append(language)
        return b"<p>report</p>"

    def end(self) -> None:
        self.has_ended = True


class TestReport:
    async def test_there_is_none_unless_somebody_makes_one(self, sqlite_bench: Bench) -> None:
        assert not sqlite_bench.site.serves("/report")
        assert "/report" not in await sqlite_bench.text("/")

    async def test_one_that_is_made_is_kept(self, sqlite_world: World) -> None:
        reports = Made()
        async with serving(sqlite_world, reports=reports) as bench:
            assert bench.site.serves("/report")
            assert 'href="/report"' in await bench.text("/")
            answer = await bench.get("/report", "zh-TW,en;q=0.5")
            assert answer.content == b"<p>report</p>"
            assert "script" not in answer.headers["Content-Security-Policy"]
            assert "style-src 'unsafe-inline'" in answer.headers["Content-Security-Policy"]
            await bench.get("/report", "zh")
            assert reports.languages == ["zh-CN"]
            assert not reports.has_ended
        assert reports.has_ended


async def test_a_fault_of_ours_is_no_page_of_the_framework(
    sqlite_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Made):
        async def make(self, language: str) -> bytes:
            raise ZeroDivisionError(language)

    async with serving(sqlite_world, reports=Broken()) as bench:
        answer = await bench.get("/report")
    assert answer.status_code == 500
    assert "The page has failed" in answer.text
    assert "ZeroDivisionError" not in answer.text
    del caplog


async def test_a_claimed_task_is_shown_with_its_lease(bench: Bench) -> None:
    due(bench.world, "task")
    (claim,) = take(bench.world.tasks)
    send(bench.world, claim)
    page = await bench.text("/tasks/task")
    assert "lease ends in 20s" in page
    assert "the request was sent" in page
