"""The events that the services report for the metrics. This base class ignores them, which is enough for commands.

``daemon.metrics`` counts them. This module does not import Prometheus, because that would slow down every command.
"""

from collections.abc import Callable, Mapping

from watchdog.core.model import Ending, Outcome, Reason
from watchdog.core.webhook import Result

Reading = float | Mapping[tuple[str, ...], float] | None
"""A number, or one for each combination of labels, or None if not known yet."""


class Observer:
    """Receives everything that is counted; called in the event loop only."""

    def attempt(self, outcome: Outcome, reason: Reason) -> None:
        """This process wrote the final outcome of a row of the ledger."""

    def sent(self, seconds_after_due: float) -> None:
        """The first request of a task was sent."""

    def stopped(self, seconds_before_auto_stop: float) -> None:
        """A stop succeeded, this long before ZEGO's auto-stop; negative if after it."""

    def freed(self, slot_seconds: float) -> None:
        """A stop freed a slot for this long, compared with ZEGO's auto-stop."""

    def spells_ended(self, ending: Ending, number: int) -> None:
        """So many empty spells ended in this way."""

    def request(self, operation: str, reply_class: str, seconds: float) -> None:
        """A request ended, with or without an answer."""

    def swept(self, seconds: float, at: float) -> None:
        """A sweep ended at this time of the host's clock."""

    def delivery(self, result: Result) -> None:
        """An attempt to deliver an event to the webhook ended."""

    def show(self, name: str, value: Reading | Callable[[], Reading]) -> None:
        """Set the gauge ``name``, or set the function that returns its value when it is read."""
