"""Rules between sections: what contradicts, and what is allowed but may surprise. One line each, naming the keys."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from watchdog.core.capacity import ROOMS_PER_CALL, time_to_wait, verified_at_a_time
from watchdog.core.kinds import DEFAULT_KIND, KINDS
from watchdog.core.model import Mode, OnMaxAge, Verify
from watchdog.core.policy import limits

if TYPE_CHECKING:
    from watchdog.config.settings import Config, NotifyConfig, StopConfig

SHORTEST_ADOPT_SECONDS: Final = 60.0


def conflicts(config: "Config") -> Iterator[str]:
    """Say why the sections contradict each other, and how to correct it."""
    policy, poll = config.policy, config.schedule.poll_seconds
    if policy.mode is Mode.ENFORCE and not config.zego.apps:
        yield (
            "policy.mode is enforce, but zego.apps is empty, so stop requests cannot be signed; "
            "add an app with its server_secret_file to zego.apps, or set policy.mode to observe"
        )
    if policy.verify is not Verify.OFF and not config.zego.rtc_url:
        yield (
            f"policy.verify is {policy.verify}, but zego.rtc_url is empty, so ZEGO cannot be asked who is in a "
            "room; set zego.rtc_url, or set policy.verify to off to rely on the application's hints alone"
        )
    slowest = poll + policy.confirm_seconds + policy.safety_margin_seconds
    if slowest > policy.max_idle_seconds:
        yield (
            f"schedule.poll_seconds {poll:g} + policy.confirm_seconds {policy.confirm_seconds:g} + "
            f"policy.safety_margin_seconds {policy.safety_margin_seconds:g} = {slowest:g} is more than "
            f"policy.max_idle_seconds {policy.max_idle_seconds:g}: ZEGO would end the task first; "
            "lower schedule.poll_seconds"
        )
    yield from _windows(config)
    if policy.gap_seconds < 2 * poll:
        yield (
            f"policy.gap_seconds {policy.gap_seconds:g} is less than twice schedule.poll_seconds {poll:g}, so every "
            f"sweep would follow a gap; raise policy.gap_seconds to {2 * poll:g} or more"
        )
    adopt_seconds = config.schedule.adopt_seconds
    if 0 < adopt_seconds < SHORTEST_ADOPT_SECONDS:
        yield (
            f"schedule.adopt_seconds {adopt_seconds:g} is too often, because ZEGO is asked for all running tasks each "
            f"time; write {SHORTEST_ADOPT_SECONDS:g} or more, or 0 to switch it off"
        )
    if config.http.page and config.http.is_exposed and config.http.bearer_token is None:
        yield (
            f"http.page is true, and http.listen {config.http.listen} can be reached from other machines, but "
            "http.token_file is empty, so everyone could read which rooms are used; set http.token_file, or listen on "
            "127.0.0.1"
        )


def _windows(config: "Config") -> Iterator[str]:
    """Say which limits of other kinds of tasks do not fit their windows. One that is not configured gives way."""
    rules = config.policy.rules
    for name in rules.kinds:
        of = limits(KINDS[name], rules)
        needed = of.grace_seconds + of.safety_margin_seconds
        if of.max_idle_seconds is not None and needed > of.max_idle_seconds:
            yield (
                f"policy.kinds.{name}: grace_seconds {of.grace_seconds:g} + safety_margin_seconds "
                f"{of.safety_margin_seconds:g} = {needed:g} is more than max_idle_seconds {of.max_idle_seconds:g}: "
                "ZEGO would always be first; lower grace_seconds, safety_margin_seconds or both, together to "
                f"{of.max_idle_seconds:g} or less"
            )


def _verification(stop: "StopConfig") -> Iterator[str]:
    """Say which stops cannot be verified in time."""
    stops = stop.requests_per_second
    rooms = ROOMS_PER_CALL * stop.occupancy_requests_per_second or math.inf
    if stops > rooms:
        yield (
            f"stop.requests_per_second {stops:g} is more than the {rooms:g} rooms a second that "
            f"stop.occupancy_requests_per_second {stop.occupancy_requests_per_second:g} can verify, ten a request, so "
            f"no more than {rooms:g} tasks a second are stopped; raise stop.occupancy_requests_per_second to "
            f"{math.ceil(stops / ROOMS_PER_CALL)}"
        )
    wait = time_to_wait(stop.lease_seconds, stop.request_timeout_seconds)
    at_a_time = verified_at_a_time(rooms, stop.lease_seconds, stop.request_timeout_seconds)
    if rooms < math.inf and (wait <= 0 or at_a_time < min(stops, rooms)):
        yield (
            f"stop.lease_seconds {stop.lease_seconds:g} leaves {wait:g} s to wait for the pace beside a verification "
            f"and a stop of stop.request_timeout_seconds {stop.request_timeout_seconds:g} each, so no more than "
            f"{at_a_time:g} tasks at a time are verified; raise stop.lease_seconds to "
            f"{2 * stop.request_timeout_seconds + 4:g} or lower stop.request_timeout_seconds"
        )


def warnings(config: "Config") -> Iterator[str]:
    """Say what is allowed and may still surprise; each line begins with its section."""
    policy, http = config.policy, config.http
    needed = policy.grace_seconds + policy.safety_margin_seconds
    newer = KINDS[DEFAULT_KIND].newer_window_seconds
    if newer is not None and needed > newer:
        yield (
            f"policy.grace_seconds {policy.grace_seconds:g} + policy.safety_margin_seconds "
            f"{policy.safety_margin_seconds:g} = {needed:g} is more than {newer:g}, ZEGO's "
            "newer default window: ZEGO may end tasks started without MaxIdleTime first; lower "
            "policy.grace_seconds, or set max_idle_seconds on each task"
        )
    if policy.on_max_age is not OnMaxAge.ALERT and not policy.max_age_seconds:
        yield f"policy.on_max_age is {policy.on_max_age}, and policy.max_age_seconds is 0: there is no limit; set it"
    if policy.on_max_age is OnMaxAge.STOP_WITH_PEOPLE_INSIDE and policy.max_age_seconds:
        yield (
            f"policy.on_max_age is stop_with_people_inside: a task older than {policy.max_age_seconds:g} s is stopped "
            "while people are in its room; if that is not wanted, set it to stop"
        )
    if policy.verify is not Verify.OFF:
        yield from _verification(config.stop)
    if http.is_exposed and http.bearer_token is None:
        yield (
            f"http.listen {http.listen} can be reached from other machines, and http.token_file is empty: /metrics "
            "and /readyz answer everyone; set http.token_file, or listen on 127.0.0.1"
        )
    if not http.listen and any(app.callback_secrets for app in config.zego.apps):
        yield (
            "http.listen is empty, and an app has a callback secret: no callback is received unless systemd passes a "
            "socket; set http.listen, or remove the app's callback_secret_file"
        )
    if http.page and not http.listen:
        yield (
            "http.page is true, and http.listen is empty: there is no page unless systemd passes a socket; set "
            "http.listen to 127.0.0.1:8765"
        )
    yield from _webhook(config.notify)


def _webhook(notify: "NotifyConfig") -> Iterator[str]:
    if notify.is_in_clear:
        yield (
            f"notify.url leads to {notify.host} without encryption: others on the way can read which rooms are used; "
            "write https://, unless the network between is your own"
        )
    if notify.signing_keys and not notify.host:
        yield "notify has a secret, and notify.url is empty: no event is sent; set notify.url, or remove the secret"
