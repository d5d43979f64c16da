"""Runs all checks."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from watchdog.cli.checks.database import check_database
from watchdog.cli.checks.findings import Finding, failed
from watchdog.cli.checks.installation import check_configuration, check_installation
from watchdog.cli.checks.vendor import check_vendor
from watchdog.clock import Clock
from watchdog.config import find, load
from watchdog.errors import ConfigError


async def examine(path: Path | None, environ: Mapping[str, str], clock: Clock, *, offline: bool) -> list[Finding]:
    """Run all checks; ``offline`` skips ZEGO, but not the database."""
    findings = [*check_installation()]
    try:
        file = find(path, environ)
        config = load(path, environ)
    except ConfigError as error:
        return [*findings, failed("configuration", error, "correct this, then check again")]
    findings += check_configuration(file, config, environ)
    findings += await asyncio.to_thread(lambda: list(check_database(config, clock)))
    if not offline:
        findings += await check_vendor(config, clock)
    return findings
