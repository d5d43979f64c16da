"""Every error of the product, by whose fault it is.

    WatchdogError                 exit 1
    ├── ConfigError               exit 78   the operator's: a key, a file, a secret
    │   └── SchemaMismatch        exit 78   the database has another schema version than this program
    ├── DatabaseError             exit 1    a statement failed
    │   └── DatabaseUnavailable   exit 75   nobody's: locked, restarting, unreachable; the same call may succeed later
    ├── RequestError              exit 75   the network's
    │   ├── NotSent                         the request certainly never reached the vendor
    │   └── NoAnswer                        it may have reached the vendor; what came of it is unknown
    ├── InstallationError         exit 1    the machine's: no service can be made of us here, or not as things are
    ├── Busy                      exit 75   nobody's: somebody else has the task in hand at the moment
    └── Refused                   exit 1    ours: the principle forbids what was asked for

Foreign errors become one of these at the edge that meets them, with the original as ``__cause__``.
A message names the thing, the reason and the next step; it never holds a secret.
"""

from typing import ClassVar


class WatchdogError(Exception):
    """The root; ``exit_code`` is what a command that fails with it exits with."""

    exit_code: ClassVar[int] = 1


class ConfigError(WatchdogError):
    """The configuration cannot be used; the message names the key or the file."""

    exit_code = 78


class SchemaMismatch(ConfigError):
    """The database's schema is older or newer than this program's."""


class DatabaseError(WatchdogError):
    """A statement failed for a reason that repeating it will not mend."""


class DatabaseUnavailable(DatabaseError):
    """The database did not answer in time, or is not there at the moment."""

    exit_code = 75


class RowLocked(DatabaseUnavailable):
    """Somebody has held a row for longer than we wait; other rows may be free."""


class RequestError(WatchdogError):
    """A request to the vendor got no reply."""

    exit_code = 75


class NotSent(RequestError):
    """The request never left: no connection, no address, no time."""


class NoAnswer(RequestError):
    """Sent, or partly sent, and no reply came: the vendor may have acted on it."""


class Refused(WatchdogError):
    """What was asked for might destroy a live transcript, so it was not done."""


class InstallationError(WatchdogError):
    """This machine, as it is, cannot run us as a service; the message says what to do."""


class Busy(WatchdogError):
    """Somebody else has the task in hand at the moment."""

    exit_code = 75
