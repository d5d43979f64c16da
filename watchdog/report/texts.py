"""The words of the report in English and Chinese, and how numbers are written, which is the same in both."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

Language = Literal["en", "zh"]
Texts = Mapping[str, str]

_ENGLISH: Final[Texts] = {
    "language": "en",
    "title": "zego-watchdog: report",
    "period": "From {since} to {now}. All times are UTC.",
    "footer": "Written by zego-watchdog {version} from its ledger. Tasks and rooms are those of the application.",
    "table_of": "Table: {name}",
    "nothing": "Nothing of this was recorded in the period.",
    "hour": "hour",
    "day": "day",
    "attempts": "attempts",
    "number": "number",
    "share": "share",
    "total": "total",
    "room": "room",
    "task": "task",
    "app": "AppId",
    "default_app": "default",
    "kind": "kind",
    "from_to": "{low} to {high}",
    "below": "below {high}",
    "from": "{low} or more",
    # Figures at the top
    "stopped": "tasks stopped",
    "missed": "missed",
    "missed_note": "ZEGO's auto-stop came first",
    "spared": "spared",
    "spared_note": "due, but people were in the room",
    "back_60": "back within 60 s",
    "back_60_note": "people returned after our stop",
    "freed": "slot time freed",
    "freed_note": "before ZEGO's auto-stop",
    # Kinds of outcomes
    "is_stopped": "stopped",
    "is_missed": "missed",
    "is_gone": "ended before",
    "is_kept": "kept",
    "is_observed": "observed",
    "is_open": "not stopped",
    # Sections
    "outcomes": "Stops by time and outcome",
    "outcomes_text": (
        "Every row of the ledger, by the time at which it was recorded. Kept: people were in the room, or evidence was "
        "missing. Observed: observe mode would have stopped the task. Not stopped: ZEGO refused, did not answer, or "
        "has not answered yet; most of these tasks are tried again."
    ),
    "outcome": "outcome",
    "kind_of_outcome": "counts as",
    "lateness": "Lateness",
    "lateness_text": (
        "From the time at which a task was due to the time at which its first request left. Retries and operators' "
        "orders are not counted."
    ),
    "late_axis": "after the due time",
    "percentiles": "{count} requests: half of them within {p50}, 99 % within {p99}, all within {worst}.",
    "early": "Seconds before ZEGO's auto-stop",
    "early_text": (
        "How long before ZEGO would have ended the task by itself the stop was confirmed, by the window that the task "
        "or the policy states. Tasks that ZEGO would never have ended are left out."
    ),
    "early_axis": "before the auto-stop",
    "early_summary": "{count} stops: half of them at least {p50} before the auto-stop; {late} came after it.",
    "savings": "Slot time freed",
    "savings_text": (
        "The sum of the times between our stops and ZEGO's auto-stops, by the rule of the view zego_savings, for the "
        "period alone. Stops of rooms in which only bots were left are counted apart: ZEGO would not have ended them, "
        "so nothing can be compared."
    ),
    "hours": "hours",
    "minutes": "minutes",
    "seconds": "seconds",
    "stops": "stops",
    "freed_column": "freed",
    "mean_column": "mean per stop",
    "no_auto_stop": "without auto-stop",
    "back_600": "back within 600 s",
    "returns": "Returns after a stop",
    "returns_text": (
        "Whether people came back to a room after we had stopped its task, and after how long. Only returns within "
        "policy.rejoin_watch_seconds are seen."
    ),
    "returns_summary": "After {stops} stops, people came back to {returned} rooms within the watch ({share}).",
    "returns_axis": "seconds after the stop",
    "returns_share": "share of stops",
    "curve": "When people come back to an empty room",
    "curve_text": (
        "The share of empty rooms to which people have come back after so many seconds, estimated from {spells} empty "
        "spells (Kaplan–Meier); a stop, a release and an auto-stop end the observation of a spell. The dashed lines "
        "are the 95 % confidence limits. zego-watchdog advise compares graces by this curve."
    ),
    "curve_axis": "seconds since the room became empty",
    "curve_share": "people are back",
    "lower": "lower limit",
    "upper": "upper limit",
    "window": "ZEGO's window, measured",
    "window_text": (
        "How long rooms were empty before ZEGO itself ended their tasks (code 1202). Emptiness is noticed late rather "
        "than early, so ZEGO's real window is at least as long."
    ),
    "window_axis": "empty before ZEGO ended the task",
    "window_summary": "{count} tasks: minimum {minimum}, median {median}.",
    "window_faster": "ZEGO is {seconds} faster than configured at the median: lower policy.max_idle_seconds.",
    "codes": "Return codes",
    "codes_text": "What ZEGO answered to our requests, or sent in a callback that ended a task (1202).",
    "codes_more": "{number} more answers had other codes.",
    "code": "code",
    "meaning": "meaning",
    "message": "last message",
    "longest": "Rooms that were empty for the longest time",
    "longest_text": "Of the tasks that ended in the period, and of those that still run.",
    "empty_since": "empty since",
    "empty_for": "empty for",
    "ended": "ended by",
    "still_runs": "still runs",
}

_CHINESE: Final[Texts] = {
    "language": "zh-CN",
    "title": "zego-watchdog 报告",
    "period": "{since} 至 {now}。所有时间均为 UTC。",
    "footer": "由 zego-watchdog {version} 根据停止记录生成。任务与房间属于您的应用。",
    "table_of": "表格：{name}",
    "nothing": "此时间段内没有相关记录。",
    "hour": "小时",
    "day": "日期",
    "attempts": "记录数",
    "number": "数量",
    "share": "占比",
    "total": "合计",
    "room": "房间",
    "task": "任务",
    "app": "AppId",
    "default_app": "默认",
    "kind": "类型",
    "from_to": "{low} 至 {high}",
    "below": "小于 {high}",
    "from": "{low} 及以上",
    "stopped": "已停止的任务",
    "missed": "错过",
    "missed_note": "ZEGO 先自动停止",
    "spared": "保留",
    "spared_note": "到期时房间里有人",
    "back_60": "60 秒内返回",
    "back_60_note": "停止后有人回到房间",
    "freed": "释放的名额时间",
    "freed_note": "早于 ZEGO 自动停止",
    "is_stopped": "已停止",
    "is_missed": "错过",
    "is_gone": "先前已结束",
    "is_kept": "保留",
    "is_observed": "仅观察",
    "is_open": "未停止",
    "outcomes": "按时间和结果统计的停止",
    "outcomes_text": (
        "停止记录中的每一行，按写入时间统计。保留：房间里有人，或缺少依据。仅观察：观察模式下本应停止。"
        "未停止：ZEGO 拒绝、没有答复或尚未答复；其中多数任务会重试。"
    ),
    "outcome": "结果",
    "kind_of_outcome": "计为",
    "lateness": "延迟",
    "lateness_text": "从任务到期到首次请求发出的时间。不包括重试和人工停止。",
    "late_axis": "到期之后",
    "percentiles": "共 {count} 次请求：一半不超过 {p50}，99% 不超过 {p99}，最长 {worst}。",
    "early": "比 ZEGO 自动停止早多少",
    "early_text": (
        "确认停止的时间比 ZEGO 预计自动停止的时间早多少；自动停止时间按任务或策略中的窗口计算。"
        "ZEGO 不会自动停止的任务不计入。"
    ),
    "early_axis": "早于自动停止",
    "early_summary": "共 {count} 次停止：一半至少早 {p50}；{late} 次晚于自动停止。",
    "savings": "释放的名额时间",
    "savings_text": (
        "从我们停止任务到 ZEGO 自动停止之间的时间之和，规则与视图 zego_savings 相同，只统计此时间段。"
        "只剩机器人的房间单独计数：ZEGO 不会停止这些任务，因此无从比较。"
    ),
    "hours": "小时",
    "minutes": "分钟",
    "seconds": "秒",
    "stops": "停止",
    "freed_column": "释放时间",
    "mean_column": "每次平均",
    "no_auto_stop": "无自动停止",
    "back_600": "600 秒内返回",
    "returns": "停止后的返回",
    "returns_text": (
        "我们停止任务后，是否有人回到房间，以及多久之后。只能看到 policy.rejoin_watch_seconds 之内的返回。"
    ),
    "returns_summary": "{stops} 次停止之后，有人回到其中 {returned} 个房间（{share}）。",
    "returns_axis": "停止后的秒数",
    "returns_share": "占停止的比例",
    "curve": "人们何时回到空房间",
    "curve_text": (
        "经过若干秒后，已有人返回的空房间所占的比例，由 {spells} 段空闲时间估计（Kaplan–Meier）；"
        "停止、释放和自动停止会结束对该段的观察。虚线为 95% 置信界限。zego-watchdog advise 用此曲线比较宽限时间。"
    ),
    "curve_axis": "房间变空后的秒数",
    "curve_share": "已有人返回",
    "lower": "下限",
    "upper": "上限",
    "window": "实测的 ZEGO 窗口",
    "window_text": (
        "ZEGO 自行结束任务（代码 1202）之前，房间空了多久。发现房间变空只会偏晚，因此 ZEGO 的实际窗口不短于此值。"
    ),
    "window_axis": "ZEGO 结束任务前的空闲时间",
    "window_summary": "共 {count} 个任务：最短 {minimum}，中位数 {median}。",
    "window_faster": "ZEGO 的中位数比配置快 {seconds}：请调低 policy.max_idle_seconds。",
    "codes": "返回码",
    "codes_text": "ZEGO 对请求的答复，或结束任务的回调（1202）中的代码。",
    "codes_more": "另有 {number} 次答复是其他代码。",
    "code": "代码",
    "meaning": "含义",
    "message": "最近的消息",
    "longest": "空闲时间最长的房间",
    "longest_text": "包括此时间段内结束的任务，以及仍在运行的任务。",
    "empty_since": "变空时间",
    "empty_for": "空闲时长",
    "ended": "结束方式",
    "still_runs": "仍在运行",
}

TEXTS: Final[Mapping[Language, Texts]] = {"en": _ENGLISH, "zh": _CHINESE}


def moment(when: datetime) -> str:
    """``2026-08-21 12:03``: UTC, in whole minutes."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M}"


def length(milliseconds: float) -> str:
    """``3 ms``, ``2.5 s``, ``45 s``, ``2 min 5 s``, ``3 h 4 min``, ``2 d 3 h``: at most two units."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.3g} s"
    left = round(milliseconds / 1000)
    words: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or words:
            words.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in words[:2] if number)


def percent(part: float, whole: float) -> str:
    """``12.5 %``; a dash of nothing."""
    return f"{part / whole:.1%}" if whole else "–"
