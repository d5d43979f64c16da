"""``check``."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from watchdog.cli.checks.database import check_database, daemons_alive
from watchdog.cli.checks.findings import Finding, exit_code, failed
from watchdog.cli.checks.http import check_http
from watchdog.cli.checks.installation import check_configuration, check_installation, check_service_user
from watchdog.cli.checks.vendor import check_vendor
from watchdog.cli.view.findings import print_findings
from watchdog.cli.view.output import show_json
from watchdog.clock import Clock, SystemClock
from watchdog.config import find, load
from watchdog.errors import ConfigError


def check_all(path: Path | None, *, as_json: bool, offline: bool) -> int:
    found = asyncio.run(examine(path, os.environ, SystemClock(), offline=offline))
    if as_json:
        show_json([asdict(finding) for finding in found])
    else:
        print_findings(found)
    return exit_code(found)


async def examine(path: Path | None, environ: Mapping[str, str], clock: Clock, *, offline: bool) -> list[Finding]:
    """Run all checks; ``offline`` skips ZEGO, but not the database."""
    findings = [*check_installation()]
    try:
        file = find(path, environ)
        config = load(path, environ)
    except ConfigError as error:
        return [*findings, *failed("configuration", error, "correct this value; the commented config.yaml explains it")]
    findings += check_configuration(file, config, environ)
    # First: it looks at a SQLite file before anything opens it.
    findings += await asyncio.to_thread(lambda: list(check_database(config, clock)))
    findings += await asyncio.to_thread(lambda: check_http(config, daemons_alive(config)))
    findings += await asyncio.to_thread(lambda: list(check_service_user(file, config)))
    return findings if offline else findings + await check_vendor(config, clock)
