"""What the services tell whoever counts; by itself it does nothing, and that is all the commands need.

``metrics`` counts for the daemon. Nothing here knows of Prometheus, so that no command waits for it to be imported.
"""

from collections.abc import Callable, Mapping

from watchdog.core.model import Outcome, Reason

Reading = float | Mapping[tuple[str, ...], float] | None
"""A number, or one for each combination of labels, or None for what is not known yet."""


class Observer:
    """Hears of everything that is counted; called in the event loop only."""

    def attempt(self, outcome: Outcome, reason: Reason) -> None:
        """A row of the ledger got its final outcome, by this process."""

    def sent(self, seconds_after_due: float) -> None:
        """The first request of a task has left."""

    def stopped(self, seconds_before_auto_stop: float) -> None:
        """A stop succeeded, so long before ZEGO's own; negative when it came later."""

    def request(self, operation: str, reply_class: str, seconds: float) -> None:
        """The vendor answered, or did not."""

    def swept(self, seconds: float, at: float) -> None:
        """A sweep is over, at that time of the host's clock."""

    def show(self, name: str, value: Reading | Callable[[], Reading]) -> None:
        """This is what stands under ``name`` from now on, or what to ask for it when somebody looks."""
