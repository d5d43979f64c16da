"""A wall clock that a test sets for whole processes, through LD_PRELOAD.

    clock = WallClock(folder)
    with clock.preloaded(): nursery = Nursery(...)      # this process's children, and theirs
    clock.set_ahead(3600)                               # it jumps while they run

CLOCK_REALTIME, ``time`` and ``gettimeofday`` follow, and with them Python and SQLite; lengths of time (CLOCK_MONOTONIC,
CLOCK_BOOTTIME) do not, and PostgreSQL is another process. Needs a C compiler.
"""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.tools import program

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *ahead;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) ahead = page;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && ahead && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec moment;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &moment)) return -1;
    now->tv_sec = moment.tv_sec;
    now->tv_usec = moment.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec moment;
    if (clock_gettime(CLOCK_REALTIME, &moment)) return -1;
    if (where) *where = moment.tv_sec;
    return moment.tv_sec;
}
"""

_WRITE = """
import json, sqlite3, sys
file, statements = json.load(sys.stdin)
connection = sqlite3.connect(file, timeout=20)
for statement, rows in statements:
    connection.executemany(statement, rows)
connection.commit()
"""


class WallClock:
    """The clock of every process started within ``preloaded``; it is right until it is set."""

    def __init__(self, folder: Path) -> None:
        """Compile the library in ``folder``."""
        source = folder / "wall_clock.c"
        source.write_text(_SOURCE)
        self._library = folder / "wall_clock.so"
        subprocess.run(
            [program("cc"), "-shared", "-fPIC", "-O2", "-o", str(self._library), str(source), "-ldl"],
            check=True,
        )
        self._ahead = folder / "seconds"
        self.seconds = 0
        self._ahead.write_bytes(struct.pack("q", 0))

    def set_ahead(self, seconds: int) -> None:
        """Set the clock that far ahead of the true time; negative is behind."""
        with self._ahead.open("r+b") as file:
            file.write(struct.pack("q", seconds))
        self.seconds = seconds

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to follow this clock."""
        return {"LD_PRELOAD": str(self._library), "FAULTS_CLOCK": str(self._ahead)}

    @contextmanager
    def preloaded(self) -> Iterator[None]:
        """Make the processes that are started meanwhile follow this clock."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def write(self, file: str, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        """Run statements on a SQLite file in a process that follows this clock."""
        subprocess.run(
            [sys.executable, "-c", _WRITE],
            input=json.dumps([file, statements]).encode(),
            env=os.environ | self.environment,
            check=True,
        )
