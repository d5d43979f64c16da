"""Every error of the product, by its cause.

    WatchdogError                 exit 1
    ├── ConfigError               exit 78   the configuration: a key, a file, a secret
    │   └── SchemaMismatch        exit 78   the database has another schema version than this program
    ├── DatabaseError             exit 1    a statement failed
    │   ├── RowReferenced         exit 1    a foreign key of the application's keeps a row
    │   ├── StatementRefused      exit 1    a right is missing: a grant, or permission to write to the file
    │   └── DatabaseUnavailable   exit 75   locked, restarting, unreachable: the same call may succeed later
    │       ├── RowLocked                   a row is locked; other rows may be free
    │       └── TooSlow                     reading took longer than its limit; a narrower question may not
    ├── RequestError              exit 75   the network
    │   ├── NotSent                         the request certainly did not reach the vendor
    │   └── NoAnswer                        it may have reached the vendor; its result is unknown
    ├── InstallationError         exit 1    the machine: the systemd service cannot be installed or removed
    ├── Busy                      exit 75   another process works on the task
    ├── Overloaded                exit 75   more callbacks come than the stops leave time for
    ├── TooFewSpells              exit 75   an estimate needs more empty spells than there are yet
    └── Refused                   exit 1    the action might destroy a live transcript

Foreign errors are mapped to one of these where they first appear, with the original as ``__cause__``.
A message names the object, the reason and the next step; it never contains a secret.
"""

import re
from typing import ClassVar, Final

_FOR_PROGRAMMERS: Final = re.compile(r"\[Errno -?\d+\] |\[[A-Z0-9_]+: [A-Z0-9_]+\] | \(_ssl\.c:\d+\)")


def in_words(error: object) -> str:
    """Return the first line of a foreign error's text without numbers and source lines; its class if it has no text."""
    lines = _FOR_PROGRAMMERS.sub("", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


class WatchdogError(Exception):
    """The root; ``exit_code`` is the exit code of a command that fails with it."""

    exit_code: ClassVar[int] = 1


class ConfigError(WatchdogError):
    """The configuration cannot be used; the message names the key or the file."""

    exit_code = 78


class SchemaMismatch(ConfigError):
    """The database's schema is older or newer than this program's."""


class DatabaseError(WatchdogError):
    """A statement failed; repeating it will not help."""


class StatementRefused(DatabaseError):
    """The database does not allow the statement: it succeeds after somebody has given the right."""


class RowReferenced(DatabaseError):
    """A row cannot be deleted, because a foreign key of another table refers to it. ``constraint`` names the key."""

    def __init__(self, message: str, constraint: str) -> None:
        super().__init__(message)
        self.constraint = constraint


class DatabaseUnavailable(DatabaseError):
    """The database did not answer in time, or cannot be reached now."""

    exit_code = 75


class RowLocked(DatabaseUnavailable):
    """Another transaction holds a row for longer than we wait; other rows may be free."""


class TooSlow(DatabaseUnavailable):
    """Reading took longer than its limit and was broken off; a narrower question may not."""


class RequestError(WatchdogError):
    """A request to the vendor got no reply."""

    exit_code = 75


class NotSent(RequestError):
    """The request was not sent: no connection, no address, no time left."""


class NoAnswer(RequestError):
    """The request was sent, perhaps in part, and got no reply: the vendor may have acted on it."""


class Refused(WatchdogError):
    """The action might destroy a live transcript, so it was not done."""


class InstallationError(WatchdogError):
    """The service cannot be installed or removed on this machine; the message says what to do."""


class Busy(WatchdogError):
    """Another process works on the task at the moment."""

    exit_code = 75


class Overloaded(WatchdogError):
    """The work could not begin soon enough, and was not begun: the sender should repeat it."""

    exit_code = 75


class TooFewSpells(WatchdogError):
    """There are too few empty spells for an estimate; later there may be enough."""

    exit_code = 75
