"""The APIs of tasks: start, stop and list, for each kind. Pure.

They follow the vendor's pages of these actions. A Start request here needs a room only; fields of the vendor's that
change nothing in the sandbox are ignored.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

from watchdog.sandbox.actions import Action, Path, Product
from watchdog.sandbox.codes import Code
from watchdog.sandbox.kinds import FACTS, Kind
from watchdog.sandbox.messages import Request, Result
from watchdog.sandbox.tasks import Ended, Fate, Task
from watchdog.sandbox.world import World

ROOM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_USER_ID: Final = re.compile(r"[^\s]{1,32}")
_PAGE_SIZES: Final = range(1, 51)
_LOOK_BACK_MILLISECONDS: Final = 3 * 86_400_000
_RUNNING_RECORDINGS, _ENDED_RECORDINGS = 2, 3
_STREAMING: Final = 3
"""``Status`` of a digital human that was created; the sandbox creates at once."""
_PLAYING, _MEDIA_ENDED, _DESTROYED = 4, 7, 8
_DESTROY_REASONS: Final = {Ended.BY_REQUEST: 1, Ended.BY_VENDOR: 2}

Body = Mapping[str, Any]


def start(world: World, app_id: int, product: Product, request: Request, now: float) -> Result:
    """Answer a Start request."""
    body = request.json
    if body is None:
        return product.json_invalid, None
    wrong = product.parameter_invalid, None
    try:
        room_id = _read(body, product.room)
        given = _read(body, product.max_idle)
        user_id = _read(body, product.user)
        stream_id = _read(body, product.stream)
    except TypeError:
        return wrong
    if not (isinstance(room_id, str) and ROOM_ID.fullmatch(room_id)):
        return wrong
    if given is not None and not (_is_integer(given) and given in FACTS[product.kind].max_idle_range):
        return wrong
    if user_id is not None and not (isinstance(user_id, str) and _USER_ID.fullmatch(user_id)):
        return wrong
    texts = {"StreamId": stream_id} | {name: body.get(name) for name in ("PlayerName", "StreamUrl")}
    details = {name: text for name, text in texts.items() if isinstance(text, str)}
    task_id = world.start(
        app_id,
        room_id,
        now,
        kind=product.kind,
        user_id=user_id,
        max_idle_seconds=given,
        details=details,
        via="api",
    )
    return (product.too_many_tasks, None) if task_id is None else (Code.SUCCESS, {product.id_field: task_id})


def stop(world: World, app_id: int, product: Product, request: Request, request_id: str, now: float) -> Code:
    """Answer a Stop request."""
    if request.json is None:
        return product.json_invalid
    task_id = request.task_id
    if task_id is None:
        return product.parameter_invalid
    fate = world.fate(app_id, product.kind, task_id, now)
    if fate is not Fate.RUNNING:
        return product.answers[fate]
    world.stop(app_id, task_id, now, request_id=request_id, via="api")
    return Code.SUCCESS


def listed(world: World, app_id: int, product: Product, request: Request, now: float) -> Result:
    """Answer a request for a list of tasks."""
    # A list without parameters may have no body.
    body = {} if request.action is Action.LIST_DIGITAL_HUMANS and not request.body else request.json
    if body is None:
        return product.json_invalid, None
    data = _LISTS[product.kind](world.tasks(app_id, product.kind, now), body, now)
    return (product.parameter_invalid, None) if data is None else (Code.SUCCESS, data)


def _digital_humans(tasks: list[Task], _body: Body, _now: float) -> Body:
    found = [
        {
            "TaskId": task.task_id,
            "RoomId": task.room_id,
            "StreamId": _stream(task),
            "Status": _STREAMING,
            "CreateTime": int(task.started_at),
        }
        for task in tasks
        if task.ended is None
    ]
    return {"TaskList": found}


def _players(tasks: list[Task], body: Body, _now: float) -> Body | None:
    """All of them, also destroyed ones."""
    size, token = body.get("PageSize", _PAGE_SIZES.stop - 1), body.get("PageToken") or "0"
    if not (
        _is_integer(size) and size in _PAGE_SIZES and isinstance(token, str) and re.fullmatch(r"[0-9]{1,9}", token)
    ):
        return None
    wanted = [
        task
        for task in tasks
        if task.room_id == (body.get("RoomId") or task.room_id)
        and task.task_id == (body.get("PlayerId") or task.task_id)
    ]
    end = int(token) + size
    return {
        "TotalSize": len(wanted),
        "NextPageToken": str(end) if end < len(wanted) else "",
        "Players": [_player(task) for task in wanted[int(token) : end]],
    }


def _player(task: Task) -> Body:
    status = _MEDIA_ENDED if task.media_ended else _PLAYING
    return {
        "PlayerId": task.task_id,
        "RoomId": task.room_id,
        "StreamId": _stream(task),
        "CreateTime": int(task.started_at),
        "PlayTime": int(task.started_at),
        "PlayerName": task.details.get("PlayerName", ""),
        "StreamUrl": task.details.get("StreamUrl", ""),
        "Status": status if task.ended is None else _DESTROYED,
        "DestroyReason": 0 if task.ended is None else _DESTROY_REASONS[task.ended],
    }


def _recordings(tasks: list[Task], body: Body, now: float) -> Body | None:
    """Those that began between ``StartTime`` and ``EndTime``."""
    status, size = body.get("Status"), body.get("PageSize", _PAGE_SIZES.stop - 1)
    since, until, page = body.get("StartTime"), body.get("EndTime"), body.get("PageOffset") or 1
    if not (_is_integer(size) and size in _PAGE_SIZES and _is_integer(page) and page > 0):
        return None
    if not (_is_integer(since) and _is_integer(until) and since < until <= since + _LOOK_BACK_MILLISECONDS):
        return None
    if since < now * 1000 - _LOOK_BACK_MILLISECONDS or status not in (_RUNNING_RECORDINGS, _ENDED_RECORDINGS):
        return None
    wanted = [
        task
        for task in tasks
        if (task.ended is None) is (status == _RUNNING_RECORDINGS)
        and task.room_id == (body.get("RoomId") or task.room_id)
        and since <= _milliseconds(task.started_at) <= until
    ]
    found = [
        {
            "RecordBeginTimestamp": _milliseconds(task.started_at),
            "TaskId": task.task_id,
            "RoomId": task.room_id,
            "Status": status,
        }
        for task in wanted[(page - 1) * size : page * size]
    ]
    return {"PageOffset": page, "PageSize": size, "TotalCount": len(wanted), "TaskList": found}


_LISTS: Final[Mapping[Kind, Callable[[list[Task], Body, float], Body | None]]] = {
    Kind.DIGITAL_HUMAN: _digital_humans,
    Kind.PLAYER: _players,
    Kind.RECORDING: _recordings,
}


def _read(body: Body, path: Path) -> Any:
    """Return what is at ``path``, None if it is missing. Raises TypeError if something on the way is no object."""
    value: Any = body if path else None
    for name in path:
        if not isinstance(value, dict):
            raise TypeError(name)
        value = value.get(name, {} if name != path[-1] else None)
    return value


def _is_integer(value: object) -> TypeGuard[int]:
    # In Python, unlike in JSON, a bool is an int.
    return isinstance(value, int) and not isinstance(value, bool)


def _stream(task: Task) -> str:
    return task.details.get("StreamId", f"{task.user_id}_main")


def _milliseconds(at: float) -> int:
    return round(at * 1000)
