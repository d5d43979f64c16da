"""Builds the pages for people from the parts of the daemon that serves them."""

import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from watchdog import __version__
from watchdog.clock import Clock
from watchdog.config.addresses import is_loopback
from watchdog.core.policy import Policy
from watchdog.daemon.outage import DatabaseOutage
from watchdog.daemon.reload import Reloader
from watchdog.daemon.report_process import ReportProcess
from watchdog.page.live import Live
from watchdog.page.site import Site
from watchdog.store.aio.reader import READ_SECONDS, Reader
from watchdog.wiring.database import engine
from watchdog.wiring.parts import Parts


def site_of(
    parts: Parts,
    clock: Clock,
    outage: DatabaseOutage,
    is_healthy: Callable[[], bool],
    reloader: Reloader,
    token: Callable[[], str | None],
    passed: Sequence[socket.socket],
) -> Site | None:
    """The pages, if the configuration wants them. Their database connection is beside those of the pool."""
    config = parts.config
    if not config.http.page:
        return None

    def live() -> Live:
        rules = parts.current_policy.rules
        return Live(
            version=__version__,
            instance=parts.daemon.instance,
            mode=rules.mode,
            sweeps=is_healthy(),
            database_trouble=outage.problem,
            is_away=outage.is_on,
            unanswered=() if parts.poller is None else tuple(parts.poller.unanswered),
            feed_is_dead=parts.feed.is_dead,
            webhook_problem=parts.notifier.problem,
            reload_problem=reloader.problem,
            active=parts.feed.active,
            known=parts.figures.known,
            too_old=parts.aging.too_old,
        )

    def policy() -> tuple[Policy, float]:
        return parts.current_policy.rules, parts.feed.silence_seconds

    limit = min(READ_SECONDS, config.database.statement_timeout_seconds)
    own = config.database.model_copy(update={"statement_timeout_seconds": limit, "pool_size": 1})
    listen = () if config.http.address is None else (config.http.address[0].lower(),)
    return Site(
        Reader(engine(own), clock, read_seconds=limit),
        clock,
        live=live,
        policy=policy,
        token=token,
        is_exposed=(
            any(is_reachable(one.family, one.getsockname()) for one in passed) if passed else config.http.is_exposed
        ),
        reports=ReportProcess(config.database) if find_spec("pygal") else None,
        hosts={socket.gethostname().lower(), *listen, *config.http.page_hosts},
    )


def is_reachable(family: int, name: Any) -> bool:
    """Whether other machines can connect to a socket of ``family`` that is bound to ``name``."""
    if family == socket.AF_UNIX:
        return False
    host = ip_address(name[0].partition("%")[0])
    return not is_loopback(str(getattr(host, "ipv4_mapped", None) or host))
