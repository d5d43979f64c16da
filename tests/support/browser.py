"""The machine's own Chromium, without a window and cut off from the network: it reaches one address."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from playwright.async_api import Browser, ConsoleMessage, Page, Request, Route, async_playwright

from tests.support.npm import installed
from tests.support.tools import program

SCREENSHOTS: Final = os.environ.get("SCREENSHOTS")
"""A folder: then the top of each page that is opened is kept there as a picture."""

_AXE: Final = Path(__file__).parents[1] / "page/node"
_WORST: Final = {"serious", "critical"}

Scheme = Literal["light", "dark"]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Skips the test on a machine without it."""
    # Root may not have a sandbox. No name is resolved, so what the browser asks for itself goes nowhere.
    options = [
        "--no-sandbox",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-background-networking",
    ]
    path = program("chromium")
    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=path, args=options)
        yield browser
        await browser.close()


@dataclass
class Visitor:
    """One window. ``left``: requests to other addresses. ``said``: the console's errors and warnings."""

    page: Page
    address: str
    left: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def open(self, path: str) -> None:
        """Open a page of ours, which must be there."""
        answer = await self.page.goto(self.address + path)
        assert answer is not None
        assert answer.ok, await answer.text()

    async def is_too_wide(self) -> bool:
        """Whether the page as a whole is wider than the window."""
        return bool(await self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    async def faults(self) -> list[str]:
        """What axe-core finds that is serious or critical."""
        # Through the protocol of the debugger, which the page's own policy does not hold back.
        script = (installed(_AXE) / "node_modules/axe-core/axe.min.js").read_text()
        session = await self.page.context.new_cdp_session(self.page)
        await session.send("Runtime.evaluate", {"expression": script})
        run = "axe.run(document, {resultTypes: ['violations']}).then(found => JSON.stringify(found.violations))"
        answer: dict[str, Any] = await session.send(
            "Runtime.evaluate", {"expression": run, "awaitPromise": True, "returnByValue": True}
        )
        found = json.loads(answer["result"]["value"])
        return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in _WORST]

    async def keep(self, name: str) -> None:
        """Keep a picture of the page, if somebody wants to look at it."""
        if SCREENSHOTS:
            size = await self.page.evaluate("[innerWidth, Math.min(document.documentElement.scrollHeight, 1700)]")
            top = {"x": 0, "y": 0, "width": size[0], "height": size[1]}
            await self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True, clip=top)


@asynccontextmanager
async def visiting(
    browser: Browser, address: str, *, width: int = 1280, scheme: Scheme = "light", language: str = "en"
) -> AsyncIterator[Visitor]:
    """A window that reaches ``address`` alone."""
    context = await browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, locale=language, java_script_enabled=True
    )
    page = await context.new_page()
    visitor = Visitor(page, address)

    async def decide(route: Route, request: Request) -> None:
        if request.url.startswith(address + "/"):
            await route.continue_()
        else:
            visitor.left.append(request.url)
            await route.abort()

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            visitor.said.append(message.text)

    await context.route("**/*", decide)
    page.on("console", note)
    page.on("pageerror", lambda error: visitor.said.append(str(error)))
    yield visitor
    await context.close()
