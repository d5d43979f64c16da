"""Several daemons on one PostgreSQL: a mass exodus shared by 1, 2 or 4 of them."""

from contextlib import AsyncExitStack

from benchmarks import contenders, databases, exodus, processes, rooms
from benchmarks.contenders import Entry
from benchmarks.exodus import Measured, Setting
from watchdog.clock import SystemClock


async def measure(daemons: int, setting: Setting) -> Measured:
    """Throughput, doubles, and what all daemons and the server cost together."""
    clock = SystemClock()
    with databases.postgresql([0]) as (_, (database,)):
        url = database.engine.url.render_as_string(hide_password=False)
        async with AsyncExitStack() as stack:
            sandbox = await stack.enter_async_context(processes.sandbox())
            vendor = await stack.enter_async_context(rooms.control(sandbox.url))
            tasks = await vendor.start(setting.rooms, people=False)
            contenders.insert_tasks(database, tasks)
            pids = [databases.postmaster(database)]
            for _ in range(daemons):
                daemon = await stack.enter_async_context(processes.daemon(url, sandbox.url, setting.sections()))
                pids.append(daemon.process.pid)
            before = processes.cpu_seconds(pids)
            database.application.execute("UPDATE zego_tasks SET user_count = 0")
            await clock.sleep(setting.grace_seconds)
            await exodus.all_ended(database)
            first, last = exodus.first_and_last(database)
            seconds = last - first
            cost = processes.cpu_seconds(pids) - before, processes.memory_bytes(pids)
            await vendor.read()
    entry = Entry(
        f"{daemons} daemon{'s' if daemons > 1 else ''}", contenders.ENTRIES["postgresql"].start, is_peer=False
    )
    return exodus.measured(entry, vendor, setting.rooms, seconds, cost)
