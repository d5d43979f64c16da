"""The parts of the benchmark, each from what it sets up to its tables."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Final

from benchmarks import (
    callbacks,
    charts,
    commands,
    contenders,
    daemons,
    databases,
    events,
    exodus,
    idle,
    interference,
    lateness,
    migration,
    pace,
    pages,
    report_command,
    spells,
    sweep,
)
from benchmarks.databases import Database
from benchmarks.exodus import Setting as ExodusSetting
from benchmarks.lateness import Setting as LatenessSetting
from benchmarks.report import Section, duration, duration_or_dash, megabytes, percentiles, row, spread, table

KINDS: Final = {"sqlite": databases.sqlite, "postgresql": databases.postgresql}
_CONNECTIONS: Final = 60
_SPELL_TURNS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything."""

    tasks: Sequence[int]
    repeats: int
    emptied: int
    due: int
    idle_seconds: float
    attempts: int
    callback_seconds: float
    lateness: LatenessSetting
    exodus: Sequence[ExodusSetting]
    allowed: Sequence[int]
    pace_seconds: float
    daemons: Sequence[int]
    daemons_setting: ExodusSetting
    command_repeats: int
    interference: interference.Setting
    events: events.Setting


SMALL: Final = Size(
    tasks=(120, 240),
    repeats=2,
    emptied=10,
    due=5,
    idle_seconds=1,
    attempts=200,
    callback_seconds=1,
    lateness=LatenessSetting(rooms=20, spread_seconds=1, grace_seconds=1.5),
    exodus=(ExodusSetting(rooms=40, grace_seconds=2), ExodusSetting(rooms=20, grace_seconds=2, distance_seconds=0.01)),
    allowed=(20,),
    pace_seconds=3,
    daemons=(1, 2),
    daemons_setting=ExodusSetting(rooms=40, grace_seconds=1),
    command_repeats=1,
    interference=interference.Setting(tasks=100, attempts=200, seconds=1, rates=(50,)),
    events=events.Setting(
        delivered=100, backlog=50, seconds=1, exodus=ExodusSetting(rooms=40, grace_seconds=1), rounds=1, claims=5
    ),
)
FULL: Final = Size(
    tasks=(1_000, 100_000, 1_000_000),
    repeats=30,
    emptied=900,  # of the smallest one's rooms 990 have people in them
    due=200,
    idle_seconds=120,
    attempts=1_000_000,
    callback_seconds=15,
    lateness=LatenessSetting(rooms=5_000, spread_seconds=120, grace_seconds=20),
    # As long as the slowest peer needs to be told of all of them, with some to spare.
    exodus=(
        ExodusSetting(rooms=10_000, grace_seconds=90),
        ExodusSetting(rooms=2_000, grace_seconds=20, distance_seconds=0.02),
    ),
    allowed=(10, 100, 500),
    pace_seconds=30,
    daemons=(1, 2, 4),
    daemons_setting=ExodusSetting(rooms=10_000, grace_seconds=5),
    command_repeats=7,
    interference=interference.Setting(tasks=100_000, attempts=1_000_000, seconds=22),
    events=events.Setting(
        delivered=1_000_000,
        backlog=10_000,
        seconds=60,
        exodus=ExodusSetting(rooms=10_000, grace_seconds=10),
        rounds=3,
    ),
)


# The same rates as FULL for half of the time, where an hour is too long.
HALF: Final = replace(
    FULL,
    lateness=LatenessSetting(rooms=2_500, spread_seconds=60, grace_seconds=20),
    exodus=(
        ExodusSetting(rooms=5_000, grace_seconds=45),
        ExodusSetting(rooms=1_000, grace_seconds=12, distance_seconds=0.02),
    ),
    interference=interference.Setting(tasks=100_000, attempts=200_000, seconds=11),
    events=events.Setting(
        delivered=200_000, backlog=5_000, seconds=20, exodus=ExodusSetting(rooms=5_000, grace_seconds=6), rounds=3
    ),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to compare: kinds of database, and contenders by their words in ``contenders.ENTRIES``."""

    databases: Sequence[str]
    contenders: Sequence[str]


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def scale(size: Size, chosen: Chosen) -> Section:
    """Sweeps and hints at several numbers of active tasks, an idle daemon, and bytes on disk."""
    lines: list[str] = []
    for kind in chosen.databases:
        _tell(f"scale: {kind}: loading {', '.join(f'{number:,}' for number in size.tasks)} tasks")
        with KINDS[kind](list(size.tasks)) as (described, found):
            _tell(f"scale: {kind}: measuring")
            results = sweep.run(found, size.emptied, size.due, size.repeats)
            idling = [asyncio.run(idle.measure(database, size.idle_seconds)) for database in found]
            bare = asyncio.run(idle.bare_loop(size.idle_seconds))
            ledger = databases.fill_ledger(found[0], size.attempts)
            lines += ["", f"### {described}", "", *_scale(found, results, idling, bare)]
            lines += ["", *_ledger(ledger, size.attempts)]
    return Section(lines)


def _scale(
    found: Sequence[Database], results: dict[str, list[list[float]]], idling: list[idle.Measured], bare: float
) -> list[str]:
    first, most = found[0].size, found[-1].size
    rows = []
    for name, samples in results.items():
        medians = [median(seconds) for seconds in samples]
        rows.append([name, *map(spread, samples), f"**{medians[-1] / medians[0]:.2f}**"])
        if name.startswith("hint"):
            each = [1 / one for one in medians]
            rows.append([f"{name}, a second", *(f"{one:,.0f}" for one in each), f"{each[-1] / each[0]:.2f}"])
    for part in ("table", "indexes"):
        each = [getattr(database.on_disk, part) / database.size for database in found]
        rows.append([f"{part}, bytes per task", *(f"{one:.0f}" for one in each), f"{each[-1] / each[0]:.2f}"])
    shares = [one.share for one in idling]
    rows.append(["idle daemon, of one core", *(f"{share:.2%}" for share in shares), ""])
    rows.append(["a bare event loop, woken once a second", f"{bare:.2%}", *("" for _ in found)])
    memory = [one.resident_bytes for one in idling]
    rows.append(["idle daemon, resident memory", *map(megabytes, memory), f"{memory[-1] / memory[0]:.2f}"])
    header = ["median (min … max)", *(f"{database.size:,} tasks" for database in found), f"{most:,} : {first:,}"]
    return table(header, rows)


def _ledger(size: databases.Size, attempts: int) -> list[str]:
    each = [f"{part / attempts:.0f}" for part in (size.table, size.indexes)]
    return [f"Ledger, with {attempts:,} attempts: {each[0]} bytes per attempt, and {each[1]} in its indexes."]


def flood(size: Size, chosen: Chosen) -> Section:
    """Callbacks as fast as they are answered, and stops meanwhile."""
    lines: list[str] = []
    for kind in chosen.databases:
        _tell(f"callbacks: {kind}")
        with KINDS[kind]([size.tasks[0]]) as (described, found):
            measured = callbacks.measure(found[0], seconds=size.callback_seconds, connections=_CONNECTIONS)
        lines += ["", f"### {described.partition(':')[0]}", "", *callbacks_table(measured)]
    return Section(lines)


def callbacks_table(measured: callbacks.Measured) -> Iterator[str]:
    alone, meanwhile = measured.alone, len(measured.answered) / measured.load_seconds
    yield (
        f"Callbacks over {_CONNECTIONS} connections: {alone:,.0f} a second. Committed one by one:"
        f" {measured.one_by_one:,.0f} a second, so **{alone / measured.one_by_one:.1f} times** as many. The bare"
        f" endpoint: {measured.bare:,.0f} a second, of which the daemon reaches **{alone / measured.bare:.0%}**."
        f" While stops leave: {meanwhile:,.0f} a second, {measured.refused:,} refused."
    )
    yield ""
    yield row(["", "median", "p99", "worst"])
    yield row(["---", *["---:"] * 3])
    for name, seconds in (
        ("callback, sent to answered", measured.answered),
        ("stop, due to arrived, in silence", measured.lateness_quiet),
        ("stop, due to arrived, meanwhile", measured.lateness_loaded),
    ):
        yield row([f"{name} ({len(seconds)})", *map(duration_or_dash, percentiles(seconds))])


def disturbed(size: Size, chosen: Chosen) -> Section:
    """How late stops are while something else is busy."""
    setting = size.interference
    lines = [
        f"{setting.tasks:,} active tasks, {setting.attempts:,} attempts in the ledger; p99 of at most 20 ms wanted."
    ]
    for kind in chosen.databases:
        _tell(f"interference: {kind}: loading")
        with KINDS[kind]([setting.tasks]) as (described, (database,)):
            found = interference.measure(database, setting, partial(_tell_of, f"interference: {kind}"))
        header = ["due to arrived", "p50", "p99", "worst", "stops", "not stopped", "p99 within 20 ms", "meanwhile"]
        lines += ["", f"### {described.partition(':')[0]}", "", *table(header, [disturbed_row(one) for one in found])]
    return Section(lines)


def _tell_of(what: str, row: str) -> None:
    _tell(f"{what}: {row}")


def disturbed_row(one: interference.Measured) -> list[str]:
    middle, p99, worst = percentiles(one.late)
    reached = p99 is not None and p99 <= interference.TARGET_SECONDS and not one.missing
    numbers = [str(len(one.late)), str(one.missing), "reached" if reached else "**missed**"]
    return [one.name, *map(duration_or_dash, (middle, p99, worst)), *numbers, one.came_to]


def told(size: Size, chosen: Chosen) -> Section:
    """Events written and delivered with many in the table, and what they take away from a mass exodus."""
    setting = size.events
    said = (
        f"{setting.delivered:,} delivered events in the table. {setting.backlog:,} are pending when the daemon starts;"
        f" then {setting.rate:,} a second are written for {setting.seconds:g} s."
    )
    lines = [said]
    for kind in chosen.databases:
        _tell(f"events: {kind}")
        with KINDS[kind]([0, 1]) as (described, (empty, full)):
            one = events.measure(empty, full, setting)
        lines += ["", f"### {described.partition(':')[0]}", "", *table(["", ""], events.rows(one))]
        _tell(f"events: {kind}: exodus")
        found = asyncio.run(events.mass_exodus(kind, setting))
        said = f"{setting.exodus.rooms:,} rooms due at once; the best of {setting.rounds}."
        lines += ["", said, "", *events.exodus_table(found)]
    return Section(lines)


def spelled(size: Size, chosen: Chosen) -> Section:
    """What the triggers that write empty spells cost a hint."""
    number, turns = size.tasks[1], min(size.repeats, _SPELL_TURNS)
    few = spells.committed(size.emptied)
    hints = f"{size.emptied:,} hints a turn, {few:,} where each is committed"
    lines = [f"{number:,} active tasks; {hints}; medians of {turns} turns."]
    for kind in chosen.databases:
        _tell(f"spells: {kind}")
        with KINDS[kind]([number, number + 1]) as (described, (bare, full)):
            found = spells.measure(bare, full, min(size.emptied, number // 2), turns)
        header = ["hints a second", "without the triggers", "with them", "lost"]
        lines += ["", f"### {described.partition(':')[0]}", "", *table(header, spells.rows(found))]
    return Section(lines)


def late(size: Size, chosen: Chosen) -> Section:
    """How late stops are, beside the peers."""
    setting = size.lateness
    found = []
    for name in chosen.contenders:
        _tell(f"lateness: {name}")
        found.append(asyncio.run(lateness.measure(contenders.ENTRIES[name], setting)))
    rows = [
        [
            one.name,
            *(f"{1000 * one.at(share):,.1f} ms" for share in (0.5, 0.99, 1)),
            str(one.wrong_stops),
            str(one.left),
            f"{one.cpu_seconds_per_1000:.2f} s",
            megabytes(one.memory_bytes),
        ]
        for one in found
    ]
    header = ["due to sent", "p50", "p99", "worst", "wrong stops", "not stopped", "CPU per 1,000 stops", "memory"]
    said = (
        f"{setting.rooms:,} rooms empty over {setting.spread_seconds:g} s, grace {setting.grace_seconds:g} s,"
        f" {setting.refill:.0%} fill again before it ends."
    )
    plot = charts.distributions(
        "How late stops are sent", "milliseconds after they were due", [(one.name, one.late) for one in found]
    )
    return Section([said, "", *table(header, rows)], {"benchmark-lateness.svg": plot})


def leave(size: Size, chosen: Chosen) -> Section:
    """The mass exodus, beside the limit and the peers: with the vendor on the same machine, and a network away."""
    lines: list[str] = []
    plots: dict[str, str] = {}
    for setting in size.exodus:
        away = f", ZEGO {duration(setting.distance_seconds)} away" if setting.distance_seconds else ""
        said = f"{setting.rooms:,} rooms due at once{away}"
        _tell(f"exodus: {said}")
        found = _exodus(setting, chosen)
        lines += ["", f"{said}, no pace.", "", *_exodus_table(found)]
        name = "benchmark-exodus-far.svg" if away else "benchmark-exodus.svg"
        plots[name] = charts.bars(said, "stops/s", [(one.name, one.rate) for one in found])
    return Section(lines, plots)


def _exodus(setting: ExodusSetting, chosen: Chosen) -> list[exodus.Measured]:
    found = []
    for how in exodus.LIMITS:
        _tell(f"exodus: {how}")
        found.append(asyncio.run(exodus.limit(how, setting)))
    for name in chosen.contenders:
        _tell(f"exodus: {name}")
        found.append(asyncio.run(exodus.measure(contenders.ENTRIES[name], setting)))
    return found


def _exodus_table(found: Sequence[exodus.Measured]) -> list[str]:
    limit = next(one.rate for one in found if one.name == exodus.LIMITS["httpx2"])
    rows = [
        [
            one.name,
            f"{one.rate:,.0f}",
            f"{one.rate / limit:.0%}",
            f"{one.cpu_milliseconds:.2f} ms",
            str(one.left),
            str(one.doubles),
            megabytes(one.memory_bytes),
        ]
        for one in found
    ]
    header = ["", "stops a second", "of the limit", "CPU per stop", "not stopped", "stopped twice", "memory"]
    return table(header, rows)


def paced(size: Size, chosen: Chosen) -> Section:
    """How much of the vendor's limit is used."""
    rows = []
    for name in chosen.databases:
        for allowed in size.allowed:
            _tell(f"pace: {name}: {allowed} a second")
            one = asyncio.run(pace.measure(name, allowed, size.pace_seconds))
            cells = [f"{one.utilisation:.1%}", str(one.stops), str(one.throttled_later), str(one.throttled)]
            rows.append([f"{one.name}: {allowed} a second", *cells])
    return Section(table(["allowed", "used", "stops", "throttled, after 1 s", "throttled in all"], rows))


def together(size: Size, _chosen: Chosen) -> Section:
    """Several daemons on one PostgreSQL."""
    rows = []
    for number in size.daemons:
        _tell(f"daemons: {number}")
        one = asyncio.run(daemons.measure(number, size.daemons_setting))
        cells = [f"{one.rate:,.0f}", f"{one.cpu_milliseconds:.2f} ms", str(one.left), str(one.doubles)]
        rows.append([one.name, *cells, megabytes(one.memory_bytes)])
    header = ["", "stops a second", "CPU per stop", "not stopped", "stopped twice", "memory"]
    return Section([f"{size.daemons_setting.rooms:,} tasks due at once, no pace.", "", *table(header, rows)])


def start(size: Size, chosen: Chosen) -> Section:
    """Commands, with a long ledger."""
    found = {}
    for kind in chosen.databases:
        _tell(f"commands: {kind}: {size.attempts:,} attempts")
        with KINDS[kind]([0]) as (_, (database,)):
            databases.fill_ledger(database, size.attempts)
            found[kind] = commands.measure(database, size.command_repeats)
    rows = [
        [f"`{each[0].command}`", *(spread(one.seconds) for one in each)] for each in zip(*found.values(), strict=True)
    ]
    header = ["median (min … max)", *(contenders.ENTRIES[kind].name.partition(", ")[2] for kind in found)]
    return Section([f"With {size.attempts:,} attempts in the ledger.", "", *table(header, rows)])


def reported(size: Size, chosen: Chosen) -> Section:
    """The report and the pages, with a long ledger."""
    rows, lines = [], []
    for kind in chosen.databases:
        _tell(f"report: {kind}: {size.attempts:,} attempts")
        with KINDS[kind]([size.tasks[0]]) as (described, (database,)):
            databases.fill_ledger(database, size.attempts)
            lines += ["", f"### Pages on {described.partition(':')[0]}", "", *pages.rows(pages.measure(database))]
            rows += [
                [
                    f"{described.partition(':')[0]}, `--since {one.period}`",
                    f"{one.seconds:.1f} s",
                    megabytes(one.memory_bytes),
                    f"{one.file_bytes / 1000:,.0f} kB",
                ]
                for one in report_command.measure(database)
            ]
    header = ["", "time", "memory at most", "file"]
    return Section([f"With {size.attempts:,} attempts in the ledger.", "", *table(header, rows), *lines])


def migrated(size: Size, chosen: Chosen) -> Section:
    """The newest migration, with many tasks and an application that writes."""
    rows = []
    for kind in chosen.databases:
        _tell(f"migration: {kind}: {size.tasks[-1]:,} tasks")
        with databases.empty(kind) as database:
            one = migration.measure(database, size.tasks[-1])
        cells = [f"{one.seconds:.2f} s", duration(one.longest_seconds), f"{one.statements:,}"]
        rows.append([f"{contenders.ENTRIES[kind].name.partition(', ')[2]}", *cells])
    header = ["", "migration", "the application's longest wait", "its statements meanwhile"]
    return Section([f"With {size.tasks[-1]:,} active tasks.", "", *table(header, rows)])


PARTS: Final[dict[str, Callable[[Size, Chosen], Section]]] = {
    "lateness": late,
    "exodus": leave,
    "pace": paced,
    "scale": scale,
    "callbacks": flood,
    "daemons": together,
    "commands": start,
    "interference": disturbed,
    "events": told,
    "spells": spelled,
    "report": reported,
    "migration": migrated,
}
