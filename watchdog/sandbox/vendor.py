"""ZEGO's server API as a pure function of the request, the world and the time, without HTTP.

All of ZEGO's hosts are one here: the ``Action`` tells whose request it is. ``messages`` reads requests, ``products``
has the APIs of tasks. The vendor does not document the order of its checks; here it is AppId, Timestamp, Action,
nonce, signature version, age, signature, rate, body.
"""

import hmac
import re
from collections import Counter, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

from watchdog.core.signing import sign
from watchdog.sandbox import products
from watchdog.sandbox.actions import LISTS, OF_A_KIND, STARTS, STOPS, Action
from watchdog.sandbox.codes import Code
from watchdog.sandbox.messages import Answer, Request, Result
from watchdog.sandbox.products import ROOM_ID
from watchdog.sandbox.world import ADMIN_ROLE, World

__all__ = ["ROOM_ID", "Action", "Answer", "Code", "Limits", "Request", "SlidingSecond", "Vendor"]

TIMESTAMP_TOLERANCE_SECONDS: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests per second and AppId, in a sliding window; 0 is unlimited. Rejected requests do not count.

    ``stop`` is that of ASR tasks, and ``start`` that of each kind. The limits of the room API and of the other kinds'
    Stop and list are the vendor's (docs/zego.md §2); it documents none for ASR, 10 is a related product's.
    """

    start: int = 10
    stop: int = 10
    stop_agent: int = 10
    stop_digital_human: int = 10
    stop_player: int = 20
    stop_recording: int = 50
    list_tasks: int = 10
    user_num: int = 10
    user_list: int = 200
    user_list_per_room: int = 1

    def of(self, action: Action) -> int:
        if action in STARTS:
            return self.start
        if action in LISTS:
            return self.list_tasks
        limits = {
            Action.STOP: self.stop,
            Action.STOP_AGENT: self.stop_agent,
            Action.STOP_DIGITAL_HUMAN: self.stop_digital_human,
            Action.STOP_PLAYER: self.stop_player,
            Action.STOP_RECORDING: self.stop_recording,
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
        if (product := STARTS.get(action)) is not None:
            return products.start(self.world, app_id, product, request, now)
        if (product := STOPS.get(action)) is not None:
            return products.stop(self.world, app_id, product, request, request_id, now), None
        if (product := LISTS.get(action)) is not None:
            return products.listed(self.world, app_id, product, request, now)
        if action is Action.USER_NUM:
            return self._user_num(app_id, request, now)
        return self._user_list(app_id, request, now)

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
            (action is None or action.method != request.method, Code.ACTION_UNSUPPORTED),
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
            return OF_A_KIND[action].too_many_requests if action in OF_A_KIND else Code.APP_RATE
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
