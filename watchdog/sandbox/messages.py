"""Requests to the vendor's API and its answers, without HTTP. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import parse_qs

from watchdog.sandbox.actions import STOPS, Action
from watchdog.sandbox.codes import Code
from watchdog.sandbox.kinds import Kind

Query = Mapping[str, Sequence[str]]
Result = tuple[Code, Mapping[str, Any] | None]
"""A return code and the ``Data`` of the answer."""

_ACTIONS: Final = {action.value: action for action in Action}
_MISSING: Final = ("",)


def _app_id(text: str) -> int | None:
    # uint32; the length check comes first, because int() refuses thousands of digits.
    number = int(text) if len(text) <= 10 and text.isascii() and text.isdigit() else None
    return number if number is not None and number < 1 << 32 else None


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; only the query is signed.

    ``action`` and ``app_id`` are None if they are missing or invalid.
    """

    method: str
    query: Query
    body: bytes
    action: Action | None
    app_id: int | None

    @classmethod
    def read(cls, method: str, query_string: str, body: bytes) -> Self:
        """Parse a request; faults in it are reported later."""
        query = parse_qs(query_string, keep_blank_values=True)
        action = _ACTIONS.get(query.get("Action", _MISSING)[0])
        return cls(method, query, body, action, _app_id(query.get("AppId", _MISSING)[0]))

    def parameter(self, name: str) -> str:
        """Return a query parameter, empty if missing."""
        return self.query.get(name, _MISSING)[0]

    @property
    def json(self) -> dict[str, Any] | None:
        """The body, None if it is not a JSON object."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def stops(self) -> Kind | None:
        """The kind of tasks that it would stop, None if it is no Stop request."""
        product = None if self.action is None else STOPS.get(self.action)
        return None if product is None else product.kind

    @property
    def task_id(self) -> str | None:
        """The id of the task that a Stop request names, None if it has none."""
        product = None if self.action is None else STOPS.get(self.action)
        task_id = (self.json or {}).get("TaskId" if product is None else product.id_field)
        return task_id if isinstance(task_id, str) and task_id else None


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    message: str
    request_id: str
    data: Mapping[str, Any] | None = None
