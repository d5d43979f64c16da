"""The actions of the vendor's API, and what differs between those of its products.

Where the vendor documents no code, a related product's stands here: for an agent too many or over its limit, for a bad
parameter of a digital human or a recording, for a player that does not exist, and for a player or a recording over its
limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from watchdog.sandbox.codes import Code
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.tasks import Fate


class Action(StrEnum):
    """``START`` and ``STOP`` are those of ASR tasks."""

    START = "StartRealtimeASRTask"
    STOP = "StopRealtimeASRTask"
    START_AGENT = "CreateAgentInstance"
    STOP_AGENT = "DeleteAgentInstance"
    START_DIGITAL_HUMAN = "CreateDigitalHumanStreamTask"
    STOP_DIGITAL_HUMAN = "StopDigitalHumanStreamTask"
    LIST_DIGITAL_HUMANS = "QueryDigitalHumanStreamTasks"
    START_PLAYER = "CreatePlayer"
    STOP_PLAYER = "DeletePlayer"
    LIST_PLAYERS = "DescribePlayers"
    START_RECORDING = "StartRecord"
    STOP_RECORDING = "StopRecord"
    LIST_RECORDINGS = "DescribeTasks"
    USER_NUM = "DescribeUserNum"
    USER_LIST = "DescribeUserList"

    @property
    def method(self) -> str:
        return "GET" if self in {Action.USER_NUM, Action.USER_LIST} else "POST"


Path = tuple[str, ...]
"""Where a field is in the body of a request: its name, after those of the objects around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The API of one kind. A path is empty if a Start request has no such field."""

    kind: Kind
    start: Action
    stop: Action
    list: Action | None = None
    id_field: str = "TaskId"
    room: Path = ("RoomId",)
    max_idle: Path
    user: Path = ()
    stream: Path = ()
    json_invalid: Code
    parameter_invalid: Code
    too_many_requests: Code
    too_many_tasks: Code
    answers: Mapping[Fate, Code]
    """What a Stop request for a task that does not run is answered."""


_PRODUCTS: Final = (
    Product(
        kind=Kind.ASR,
        start=Action.START,
        stop=Action.STOP,
        max_idle=("AdvancedConfig", "MaxIdleTime"),
        json_invalid=Code.JSON_INVALID,
        parameter_invalid=Code.PARAMETER_INVALID,
        too_many_requests=Code.APP_RATE,
        too_many_tasks=Code.CONCURRENCY,
        answers=dict.fromkeys((Fate.UNKNOWN, Fate.STOPPING, Fate.ENDED), Code.TASK_NOT_FOUND),
    ),
    Product(
        kind=Kind.AGENT,
        start=Action.START_AGENT,
        stop=Action.STOP_AGENT,
        id_field="AgentInstanceId",
        room=("RTC", "RoomId"),
        max_idle=("AdvancedConfig", "MaxIdleTime"),
        user=("RTC", "AgentUserId"),
        stream=("RTC", "AgentStreamId"),
        json_invalid=Code.JSON_INVALID,
        parameter_invalid=Code.PARAMETER_INVALID,
        too_many_requests=Code.APP_RATE,
        too_many_tasks=Code.NO_RESOURCES,
        answers={
            Fate.UNKNOWN: Code.TASK_NOT_FOUND,
            Fate.STOPPING: Code.INSTANCE_STOPPING,
            Fate.ENDED: Code.TASK_NOT_FOUND,
        },
    ),
    Product(
        kind=Kind.DIGITAL_HUMAN,
        start=Action.START_DIGITAL_HUMAN,
        stop=Action.STOP_DIGITAL_HUMAN,
        list=Action.LIST_DIGITAL_HUMANS,
        room=("RTCConfig", "RoomId"),
        max_idle=("MaxIdleTime",),
        stream=("RTCConfig", "StreamId"),
        json_invalid=Code.INPUT_INVALID,
        parameter_invalid=Code.INPUT_INVALID,
        too_many_requests=Code.DIGITAL_HUMAN_RATE,
        too_many_tasks=Code.DIGITAL_HUMAN_LIMIT,
        answers={
            Fate.UNKNOWN: Code.DIGITAL_HUMAN_NOT_FOUND,
            Fate.STOPPING: Code.DIGITAL_HUMAN_STOPPED,
            Fate.ENDED: Code.DIGITAL_HUMAN_STOPPED,
        },
    ),
    Product(
        kind=Kind.PLAYER,
        start=Action.START_PLAYER,
        stop=Action.STOP_PLAYER,
        list=Action.LIST_PLAYERS,
        id_field="PlayerId",
        max_idle=("MaxIdleTime",),
        user=("UserId",),
        stream=("StreamId",),
        json_invalid=Code.PLAYER_PARAMETER_INVALID,
        parameter_invalid=Code.PLAYER_PARAMETER_INVALID,
        too_many_requests=Code.PLAYER_RATE,
        too_many_tasks=Code.PLAYER_SYSTEM_ERROR,
        answers=dict.fromkeys((Fate.UNKNOWN, Fate.STOPPING, Fate.ENDED), Code.PLAYER_PARAMETER_INVALID),
    ),
    Product(
        kind=Kind.RECORDING,
        start=Action.START_RECORDING,
        stop=Action.STOP_RECORDING,
        list=Action.LIST_RECORDINGS,
        max_idle=("RecordInputParams", "MaxIdleTime"),
        json_invalid=Code.INPUT_INVALID,
        parameter_invalid=Code.INPUT_INVALID,
        too_many_requests=Code.RECORDING_RATE,
        too_many_tasks=Code.RECORDING_SYSTEM_ERROR,
        answers={
            Fate.UNKNOWN: Code.RECORDING_NOT_FOUND,
            Fate.STOPPING: Code.RECORDING_ENDED,
            Fate.ENDED: Code.RECORDING_ENDED,
        },
    ),
)

PRODUCTS: Final[Mapping[Kind, Product]] = MappingProxyType({product.kind: product for product in _PRODUCTS})
STARTS: Final[Mapping[Action, Product]] = MappingProxyType({product.start: product for product in _PRODUCTS})
STOPS: Final[Mapping[Action, Product]] = MappingProxyType({product.stop: product for product in _PRODUCTS})
LISTS: Final[Mapping[Action, Product]] = MappingProxyType(
    {product.list: product for product in _PRODUCTS if product.list is not None}
)
OF_A_KIND: Final[Mapping[Action, Product]] = MappingProxyType({**STARTS, **STOPS, **LISTS})
"""The product of each action that concerns tasks."""
