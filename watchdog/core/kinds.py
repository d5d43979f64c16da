"""The kinds of ZEGO tasks that can be forgotten: one table. Nothing else in the program asks which kind a task is.

All of ZEGO's server APIs share the signature, the envelope of a reply and the codes of the gateway (``core.outcomes``).
What differs is here. Return codes are text, as in a reply. An unlisted code is unexpected: it is never guessed at.
docs/zego.md and docs/kinds.md name the pages and their dates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

DEFAULT_KIND: Final = "asr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The request that lists all tasks of an AppId, page by page.

    ``field`` of ``Data`` has the tasks; ``id_field`` and ``started_field`` are of each, whose room is ``RoomId``.
    ``started_unit`` is that of its Unix time, in seconds. ``running`` are the values of ``Status`` of a task that runs.
    ``next_field`` of ``Data`` has what asks for the next page; without one pages are numbered if ``is_numbered``.
    ``also_field`` is another name of ``field`` on ZEGO's page. ``query`` is what each request asks for, of the last
    ``span_seconds``; None: of all times.
    """

    action: str
    field: str
    id_field: str
    started_field: str
    started_unit: float
    running: frozenset[str]
    next_field: str | None = None
    is_numbered: bool = False
    also_field: str | None = None
    query: tuple[tuple[str, int], ...] = ()
    span_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is particular to one kind of tasks.

    ``action`` with ``id_field`` stops a task, at most ``stops_per_second`` times for each AppId; None: ZEGO names no
    limit. ``window_seconds`` is how long ZEGO lets a room stay empty by default; None: it never looks at the room, and
    the task runs on. ``newer_window_seconds`` is a shorter default that other pages of ZEGO's name.

    ``bots_keep_alive``: users that are no people count for ZEGO, so it never ends the task of a room with bots only.
    ``brings_user``: its tasks are in their rooms as users, whose ids belong into ``bot_user_id``.

    ``grace_seconds`` and ``safety_margin_seconds`` replace those of the policy where its own do not fit the window.
    """

    name: str
    url: str
    action: str
    id_field: str
    window_seconds: float | None
    newer_window_seconds: float | None = None
    grace_seconds: float | None = None
    safety_margin_seconds: float | None = None
    stops_per_second: float | None = None
    bots_keep_alive: bool = False
    brings_user: bool = False
    gone: frozenset[str] = frozenset()
    transient: frozenset[str] = frozenset()
    throttled: frozenset[str] = frozenset()
    credentials: frozenset[str] = frozenset()
    configuration: frozenset[str] = frozenset()
    rejected: frozenset[str] = frozenset()
    listing: Listing | None = None

    @property
    def is_default(self) -> bool:
        """Whether the keys of the configuration that name no kind are about this one."""
        return self.name == DEFAULT_KIND

    @property
    def pace(self) -> str:
        """The name of its pace: in metrics, and in the schedule that daemons share."""
        return "stop" if self.is_default else f"stop_{self.name}"


def _codes(*codes: int) -> frozenset[str]:
    return frozenset(map(str, codes))


_ALL: Final = (
    Kind(
        name=DEFAULT_KIND,
        url="https://cloud-realtime-asr-api.zegotech.cn/",
        action="StopRealtimeASRTask",
        id_field="TaskId",
        window_seconds=150,
        # MaxIdleTime's default since 2026-07-08 (https://doc-zh.zego.im, StartRealtimeASRTask); older pages say 150.
        newer_window_seconds=120,
        bots_keep_alive=True,
        gone=_codes(410001002),
        # System, internal call, no resources, concurrency control; "start failed" is no answer to a stop.
        transient=_codes(410000001, 410000009, 410000010, 410000011, 410001003),
        throttled=_codes(206, 207),
        credentials=_codes(410000005),
        configuration=_codes(410000002, 410000006),
        rejected=_codes(410000003, 410000004),
    ),
    Kind(
        name="agent",
        url="https://aigc-aiagent-api.zegotech.cn/",
        action="DeleteAgentInstance",
        id_field="AgentInstanceId",
        window_seconds=120,
        stops_per_second=10,
        brings_user=True,
        gone=_codes(410001002),
        # 410001041: somebody else's graceful stop is under way.
        transient=_codes(410000001, 410000009, 410000010, 410001005, 410001041),
    ),
    Kind(
        name="digital_human",
        url="https://aigc-digitalhuman-api.zegotech.cn/",
        action="StopDigitalHumanStreamTask",
        id_field="TaskId",
        window_seconds=None,
        stops_per_second=10,
        brings_user=True,
        gone=_codes(400000005, 400000007),
        transient=_codes(400010000, 400010002),
        throttled=_codes(400010009),
        listing=Listing(
            action="QueryDigitalHumanStreamTasks",
            field="TaskList",
            id_field="TaskId",
            started_field="CreateTime",
            started_unit=1,
            running=_codes(1, 3),
        ),
    ),
    Kind(
        name="player",
        url="https://cloud-player-api.zego.im/",
        action="DeletePlayer",
        id_field="PlayerId",
        window_seconds=None,
        stops_per_second=20,
        brings_user=True,
        # 350006009: the player is still being created.
        transient=_codes(350006009, 350010000),
        throttled=_codes(350006001),
        credentials=_codes(350006002),
        # 350006003, "parameter invalid", is not on the page of DeletePlayer: it may mean "no such player".
        configuration=_codes(350006006),
        listing=Listing(
            action="DescribePlayers",
            field="Players",
            id_field="PlayerId",
            started_field="CreateTime",
            started_unit=1,
            running=_codes(1, 2, 3, 4, 5, 6),
            next_field="NextPageToken",
        ),
    ),
    Kind(
        name="recording",
        url="https://cloudrecord-api.zego.im/",
        action="StopRecord",
        id_field="TaskId",
        window_seconds=30,
        # Its window is shorter than the policy's grace and margin for ASR.
        grace_seconds=10,
        safety_margin_seconds=10,
        stops_per_second=50,
        # "No stream": a bot that publishes one keeps it alive.
        bots_keep_alive=True,
        gone=_codes(300001000, 300001001),
        transient=_codes(300010000),
        throttled=_codes(300000003),
        listing=Listing(
            action="DescribeTasks",
            field="TaskList",
            id_field="TaskId",
            started_field="RecordBeginTimestamp",
            started_unit=0.001,
            running=_codes(1, 2, 5),
            is_numbered=True,
            also_field="TaskidList",
            query=(("Status", 2),),
            span_seconds=3 * 86_400,
        ),
    ),
)

KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in _ALL})
"""Every kind by its name in ``zego_tasks.kind``."""
