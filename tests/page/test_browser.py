"""The page in a real browser: nothing leaves, nothing is amiss, and everybody can read it, whatever the screen."""

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser

from tests.daemon.test_pages import daemon
from tests.page.test_site import HOSTILE
from tests.support.browser import Scheme, chromium, visiting
from tests.support.running import Application
from tests.support.tools import needs
from watchdog.insight.legible import legible

pytestmark = needs("chromium")

STOPPED, ACTIVE = "1901234567890123456", "1901234567890129999"
PATHS = {
    "home": "/",
    "tasks": "/tasks",
    "ended": "/tasks?choice=ended",
    "history": "/history",
    "stopped": f"/tasks/{STOPPED}",
    "active": f"/tasks/{ACTIVE}",
    "report": "/report",
}


def busy(application: Application) -> None:
    """Fill the tables with what a working day brings."""
    for number in range(60):
        room = f"meeting-{number % 17}"
        application.execute(
            "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, ?)",
            *(f"19012345678901{number:05}", room, number % 3),
        )
    for task_id in (ACTIVE, STOPPED):
        application.execute(
            "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, 'planning-weekly', 0)", task_id
        )
    for number, hostile in enumerate(HOSTILE):
        application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", hostile, hostile)
        attempt(application, hostile, hostile, "unknown" if number % 2 else "rejected", message=hostile)
    attempt(application, STOPPED, "planning-weekly", "retry", code="410000001", message="internal error")
    attempt(application, STOPPED, "planning-weekly", "stopped", code="0", message="Success", attempt=2)
    for number in range(60):
        outcome = ("stopped", "stopped", "stopped", "spared", "auto_stopped", "gone", "blocked")[number % 7]
        attempt(application, f"18012345678901{number:05}", f"meeting-{number % 17}", outcome, code="0")
    application.execute("UPDATE zego_tasks SET status = 'stopped' WHERE task_id = ?", STOPPED)
    application.execute("UPDATE zego_tasks SET status = 'released' WHERE task_id LIKE '190123456789010001%'")


def attempt(application: Application, task_id: str, room_id: str, outcome: str, **columns: object) -> None:
    values = {
        "task_id": task_id,
        "kind": "asr",
        "app_id": 12345,
        "room_id": room_id,
        "reason": "empty_room",
        "outcome": outcome,
        "instance": "host-1",
        "attempt": 1,
        "request_id": "3151527792559699732",
        "evidence_source": "api",
        "http_status": 200,
        **columns,
    }
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    application.execute(f"INSERT INTO zego_stop_attempts ({names}) VALUES ({marks})", *values.values())


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


# Each width with each language and each scheme.
SCREENS: tuple[tuple[int, Scheme, str], ...] = (
    (1280, "light", "en"),
    (1280, "dark", "zh-CN"),
    (390, "dark", "en"),
    (390, "light", "zh-CN"),
)


async def test_every_page_on_every_screen(sqlite_url: str, browser: Browser) -> None:
    busy(Application(sqlite_url))
    async with daemon(sqlite_url) as (service, _):
        assert service.http is not None
        for width, scheme, language in SCREENS:
            screen = (width, scheme, language)
            async with visiting(browser, service.http.url, width=width, scheme=scheme, language=language) as visitor:
                for name, path in PATHS.items():
                    await visitor.open(path)
                    await visitor.keep(f"{name}-{language}-{width}-{scheme}")
                    assert not await visitor.is_too_wide(), (path, screen)
                    assert await visitor.page.evaluate("document.documentElement.lang") == language
                    assert await visitor.faults() == [], (path, screen)
                assert (visitor.left, visitor.said) == ([], []), screen


async def test_hostile_ids_do_nothing_and_their_links_lead_to_them(sqlite_url: str, browser: Browser) -> None:
    busy(Application(sqlite_url))
    async with daemon(sqlite_url) as (service, _):
        assert service.http is not None
        async with visiting(browser, service.http.url, width=390) as visitor:
            for hostile in HOSTILE:
                await visitor.open(f"/history?{urlencode({'room': hostile})}")
                # By its text, as a person finds it: the browser itself reads the address.
                await visitor.page.click("main table a")
                await visitor.page.wait_for_selector("h1 .id")
                shown = await visitor.page.inner_text("h1 .id")
                assert shown.split() == legible(hostile).split()
                assert not await visitor.is_too_wide(), hostile
                assert await visitor.page.evaluate("document.scripts.length") == 0
            assert (visitor.left, visitor.said) == ([], [])


async def test_a_newcomer_finds_why_a_task_was_stopped(sqlite_url: str, browser: Browser) -> None:
    busy(Application(sqlite_url))
    async with daemon(sqlite_url) as (service, _):
        assert service.http is not None
        async with visiting(browser, service.http.url) as visitor:
            await visitor.open("/")
            await visitor.page.fill('input[name="id"]', STOPPED)
            await visitor.page.press('input[name="id"]', "Enter")
            assert "everybody had left the room" in await visitor.page.inner_text("main")
            await visitor.page.click("text=planning-weekly")
            assert ACTIVE in await visitor.page.inner_text("main")
            await visitor.page.click("nav >> text=History")
            await visitor.page.select_option('select[name="outcome"]', "spared")
            await visitor.page.click("main button")
            outcomes = await visitor.page.locator("main .badge").all_inner_texts()
            assert set(outcomes) == {"spared"}
            assert (visitor.left, visitor.said) == ([], [])
