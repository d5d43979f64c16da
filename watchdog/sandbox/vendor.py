"""ZEGO's server API as a pure function of the request, the world and the time, without HTTP.

Codes come from the vendor's return-code pages: https://www.zegocloud.com/docs/cloud-realtime-asr/api-reference/return-codes
and https://www.zegocloud.com/docs/real-time-voice-server/api-reference/return-codes. The vendor does not document
the order of its checks; here it is AppId, Timestamp, Action, nonce, signature version, age, signature, rate, body.
"""

import hmac
import json
import re
from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final, Self, assert_never
from urllib.parse import parse_qs

from watchdog.core.signing import sign
from watchdog.sandbox.world import ADMIN_ROLE, World

TIMESTAMP_TOLERANCE_SECONDS: Final = 600
ROOM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
MAX_IDLE_SECONDS: Final = range(30, 1801)
"""The valid values of ``AdvancedConfig.MaxIdleTime``, seconds."""

Query = Mapping[str, Sequence[str]]
Result = tuple["Code", Mapping[str, Any] | None]
"""A return code and the ``Data`` of the answer."""


class Action(StrEnum):
    START = "StartRealtimeASRTask"
    STOP = "StopRealtimeASRTask"
    USER_NUM = "DescribeUserNum"
    USER_LIST = "DescribeUserList"


_ACTIONS: Final = {action.value: action for action in Action}
_MISSING: Final = ("",)
_METHOD: Final = {Action.START: "POST", Action.STOP: "POST", Action.USER_NUM: "GET", Action.USER_LIST: "GET"}


class Code(IntEnum):
    """The return codes of the sandbox; a misbehaviour may return any other."""

    message: str

    def __new__(cls, value: int, message: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.message = message
        return code

    SUCCESS = 0, "Success"
    INPUT_INVALID = 2, "Incorrect input parameter."
    APP_RATE = 206, "Too many requests of this app."
    ROOM_RATE = 207, "Too many requests for this room."
    APP_ID_FORMAT = 100000001, "AppId format error."
    TIMESTAMP_EMPTY = 100000002, "Timestamp is empty."
    TIMESTAMP_FORMAT = 100000003, "Timestamp format error."
    SIGNATURE_EXPIRED = 100000004, "Signature expired."
    SIGNATURE_WRONG = 100000005, "Signature error."
    ACTION_EMPTY = 100000006, "Action is empty."
    ACTION_UNSUPPORTED = 100000007, "Unsupported Action."
    NONCE_EMPTY = 100000008, "SignatureNonce is empty."
    SIGNATURE_EMPTY = 100000009, "Signature is empty."
    NO_SERVER_SECRET = 100000010, "Failed to get ServerSecret."
    SIGNATURE_VERSION_EMPTY = 100000013, "SignatureVersion is empty."
    SIGNATURE_VERSION_UNSUPPORTED = 100000014, "Unsupported SignatureVersion."
    PARAMETER_INVALID = 410000003, "Parameter invalid."
    JSON_INVALID = 410000004, "JSON invalid."
    CONCURRENCY = 410000011, "Concurrency control exceeded."
    TASK_NOT_FOUND = 410001002, "Task not found."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests per second and AppId, in a sliding window; 0 is unlimited. Rejected requests do not count.

    The room API's limits are the vendor's (docs/zego.md §2); it documents none for ASR, 10 is a related product's.
    """

    start: int = 10
    stop: int = 10
    user_num: int = 10
    user_list: int = 200
    user_list_per_room: int = 1

    def of(self, action: Action) -> int:
        limits = {
            Action.START: self.start,
            Action.STOP: self.stop,
            Action.USER_NUM: self.user_num,
            Action.USER_LIST: self.user_list,
        }
        return limits[action]


class SlidingSecond:
    """Counts the admitted requests per key in the last second; old keys are dropped."""

    def __init__(self) -> None:
        self._admitted: deque[tuple[float, Hashable]] = deque()
        self._counts: Counter[Hashable] = Counter()

    def has_room(self, key: Hashable, limit: int, now: float) -> bool:
        """Whether one more stays within ``limit`` per second; 0 is unlimited."""
        while self._admitted and self._admitted[0][0] <= now - 1:
            _, old = self._admitted.popleft()
            self._counts[old] -= 1
            if not self._counts[old]:
                del self._counts[old]
        return limit == 0 or self._counts[key] < limit

    def admit(self, key: Hashable, now: float) -> None:
        self._admitted.append((now, key))
        self._counts[key] += 1


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
    def task_id(self) -> str | None:
        """The TaskId of a Stop request, None if it has none."""
        task_id = (self.json or {}).get("TaskId")
        return task_id if isinstance(task_id, str) and task_id else None


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    message: str
    request_id: str
    data: Mapping[str, Any] | None = None


@dataclass(eq=False, repr=False)
class Vendor:
    """Answers requests: checks the signature, then the rate, then reads or changes the world."""

    world: World
    secrets: Mapping[int, str]
    limits: Limits
    _per_app: SlidingSecond = field(init=False, default_factory=SlidingSecond)
    _per_room: SlidingSecond = field(init=False, default_factory=SlidingSecond)

    def answer(self, request: Request, now: float, *, clock_offset_seconds: float = 0.0) -> Answer:
        """Process the request; ``clock_offset_seconds`` is how far the vendor's clock is ahead."""
        now = self.world.advance(now)
        request_id = self.world.new_id()
        code, data = self._process(request, request_id, now, clock_offset_seconds)
        return Answer(code, code.message, request_id, data)

    def _process(self, request: Request, request_id: str, now: float, clock_offset_seconds: float) -> Result:
        app_id, action = request.app_id, request.action
        refusal = self._check_signature(request, now + clock_offset_seconds)
        if refusal is not None or app_id is None or action is None:
            refusal = Code.ACTION_UNSUPPORTED if refusal is None else refusal
            self._log_refusal("rejected_signature", request, refusal, request_id, now)
            return refusal, None
        refusal = self._check_rate(app_id, action, request, now)
        if refusal is not None:
            self._log_refusal("throttled", request, refusal, request_id, now)
            return refusal, None
        match action:
            case Action.START:
                return self._start(app_id, request, now)
            case Action.STOP:
                return self._stop(app_id, request, request_id, now), None
            case Action.USER_NUM:
                return self._user_num(app_id, request, now)
            case Action.USER_LIST:
                return self._user_list(app_id, request, now)
            case _:
                assert_never(action)

    def _check_signature(self, request: Request, now: float) -> Code | None:
        timestamp = request.parameter("Timestamp")
        nonce = request.parameter("SignatureNonce")
        version = request.parameter("SignatureVersion")
        given = request.parameter("Signature")
        app_id, action = request.app_id, request.action
        # One row per rule; the first that holds decides.
        for holds, code in (
            (app_id is None, Code.APP_ID_FORMAT),
            (not timestamp, Code.TIMESTAMP_EMPTY),
            (not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 18), Code.TIMESTAMP_FORMAT),
            (not request.parameter("Action"), Code.ACTION_EMPTY),
            (action is None or _METHOD[action] != request.method, Code.ACTION_UNSUPPORTED),
            (not nonce, Code.NONCE_EMPTY),
            (not given, Code.SIGNATURE_EMPTY),
            (not version, Code.SIGNATURE_VERSION_EMPTY),
            (version != "2.0", Code.SIGNATURE_VERSION_UNSUPPORTED),
        ):
            if holds:
                return code
        if app_id is None or app_id not in self.secrets:
            return Code.NO_SERVER_SECRET
        if abs(now - int(timestamp)) > TIMESTAMP_TOLERANCE_SECONDS:
            return Code.SIGNATURE_EXPIRED
        expected = sign(app_id, nonce, self.secrets[app_id], int(timestamp))
        return None if hmac.compare_digest(given.encode(), expected.encode()) else Code.SIGNATURE_WRONG

    def _check_rate(self, app_id: int, action: Action, request: Request, now: float) -> Code | None:
        app_key = app_id, action
        room_key = app_id, request.parameter("RoomId")
        if not self._per_app.has_room(app_key, self.limits.of(action), now):
            return Code.APP_RATE
        if action is Action.USER_LIST:
            if not self._per_room.has_room(room_key, self.limits.user_list_per_room, now):
                return Code.ROOM_RATE
            self._per_room.admit(room_key, now)
        self._per_app.admit(app_key, now)
        return None

    def _log_refusal(self, event: str, request: Request, code: Code, request_id: str, now: float) -> None:
        action, nonce = request.parameter("Action"), request.parameter("SignatureNonce")
        fields = {"app_id": request.app_id, "action": action, "nonce": nonce, "code": int(code)}
        self.world.log.append(now, event, **fields, request_id=request_id)

    def _start(self, app_id: int, request: Request, now: float) -> Result:
        body = request.json
        if body is None:
            return Code.JSON_INVALID, None
        room_id = body.get("RoomId")
        advanced = body.get("AdvancedConfig", {})
        if not (isinstance(room_id, str) and ROOM_ID.fullmatch(room_id) and isinstance(advanced, dict)):
            return Code.PARAMETER_INVALID, None
        max_idle = advanced.get("MaxIdleTime", self.world.max_idle_seconds)
        # In Python, unlike in JSON, a bool is an int.
        if isinstance(max_idle, bool) or not isinstance(max_idle, int):
            return Code.PARAMETER_INVALID, None
        if "MaxIdleTime" in advanced and max_idle not in MAX_IDLE_SECONDS:
            return Code.PARAMETER_INVALID, None
        task_id = self.world.start(app_id, room_id, now, max_idle_seconds=max_idle, via="api")
        return (Code.CONCURRENCY, None) if task_id is None else (Code.SUCCESS, {"TaskId": task_id})

    def _stop(self, app_id: int, request: Request, request_id: str, now: float) -> Code:
        if request.json is None:
            return Code.JSON_INVALID
        task_id = request.task_id
        if task_id is None:
            return Code.PARAMETER_INVALID
        stopped = self.world.stop(app_id, task_id, now, request_id=request_id, via="api")
        return Code.SUCCESS if stopped else Code.TASK_NOT_FOUND

    def _user_num(self, app_id: int, request: Request, now: float) -> Result:
        room_ids = request.query.get("RoomId[]", [])
        if not 1 <= len(room_ids) <= 10 or not all(ROOM_ID.fullmatch(room_id) for room_id in room_ids):
            return Code.INPUT_INVALID, None
        counts = []
        for room_id in room_ids:
            users = self.world.users(app_id, room_id, now)
            admins = sum(user.role == ADMIN_ROLE for user in users)
            counts.append({"RoomId": room_id, "UserCount": len(users), "AdminUserCount": admins})
        return Code.SUCCESS, {"UserCountList": counts}

    def _user_list(self, app_id: int, request: Request, now: float) -> Result:
        room_id = request.parameter("RoomId")
        mode = request.parameter("Mode") or "0"
        limit = request.parameter("Limit") or "100"
        marker = request.parameter("Marker")
        if not (
            ROOM_ID.fullmatch(room_id)
            and mode in {"0", "1"}
            and re.fullmatch(r"[0-9]{1,3}", limit)
            and 1 <= int(limit) <= 200
            and re.fullmatch(r"[0-9]{0,18}", marker)
        ):
            return Code.INPUT_INVALID, None
        newest_first = mode == "1"
        users = sorted(self.world.users(app_id, room_id, now), key=lambda user: user.number, reverse=newest_first)
        if marker:
            # The marker is a login number, so joins and leaves between two pages neither skip nor repeat a user.
            after = int(marker)
            users = [user for user in users if (user.number < after if newest_first else user.number > after)]
        page = users[: int(limit)]
        return Code.SUCCESS, {
            "Marker": str(page[-1].number) if len(users) > len(page) else "",
            "UserList": [{"UserId": user.user_id, "UserName": user.name, "UserRole": user.role} for user in page],
        }
