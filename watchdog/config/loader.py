"""Reads the configuration once, from a file and the environment.

    --config  >  $ZEGO_WATCHDOG_CONFIG  >  ./config.yaml  >  /etc/zego-watchdog/config.yaml      which file
    ZEGO_WATCHDOG_<SECTION>__<KEY>  >  that file  >  the defaults in ``settings``                 which value

In both places every scalar is text and is read by the type of its key. So ``verify: off`` is a word and not YAML's
false, and ``grace_seconds: yes`` is an error and not one second.
"""

import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from watchdog.config.addresses import with_driver
from watchdog.config.secret_files import OTHERS, Origin
from watchdog.config.section import Section
from watchdog.config.settings import AppConfig, Config
from watchdog.errors import ConfigError
from watchdog.logs.redaction import scrub

__all__ = ["Config", "find", "load"]

PREFIX: Final = "ZEGO_WATCHDOG_"
PATH_VARIABLE: Final = "ZEGO_WATCHDOG_CONFIG"
DEFAULT_PATHS: Final = (Path("config.yaml"), Path("/etc/zego-watchdog/config.yaml"))


def find(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file that ``load`` would read.

    Raises ConfigError with the places searched, or with the requested file that is missing.
    """
    if path is not None:
        asked, by = path, "--config"
    elif variable := environ.get(PATH_VARIABLE):
        asked, by = Path(variable), f"${PATH_VARIABLE}"
    else:
        for candidate in DEFAULT_PATHS:
            if _exists(candidate):
                return candidate
        places = ", ".join(str(candidate) for candidate in DEFAULT_PATHS)
        raise ConfigError(
            f"no configuration: neither --config nor ${PATH_VARIABLE} is given, and none of these exists: {places}; "
            "copy the commented config.yaml of the distribution to one of these places"
        )
    try:
        exists = asked.exists()
    except OSError as error:
        raise ConfigError(_unreadable(asked, error)) from error
    if not exists:
        raise ConfigError(f"{asked}: there is no such file; it was requested by {by}; correct the path")
    return asked


def _exists(candidate: Path) -> bool:
    try:
        return candidate.exists()
    except OSError:
        # A working directory that this user may not enter, for example: the next place may do.
        return False


def _unreadable(file: Path, error: OSError) -> str:
    return f"{file}: cannot be read: {error.strerror}; correct its path or its permissions"


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ, *, database_only: bool = False) -> Config:
    """Read the configuration; values of the environment override those of the file.

    ``database_only``: read no secret but the database's password; the others are empty. Raises ConfigError with every
    problem found, one line each.
    """
    file = find(path, environ)
    values = _read(file)
    variables, problems = _variables(environ)
    origin = Origin(file, environ, variables, database_only)
    for names, variable in variables.items():
        _put(values, names, _parse(environ[variable], variable) if names[-1] in _LISTS else environ[variable])
    try:
        config = Config.model_validate(values, context=origin)
    except ValidationError as error:
        for details in error.errors():
            problems += _explain(details, origin)
    else:
        problems += _exposed_password(config, origin)
        if not problems:
            return config
    raise ConfigError("\n".join(problems))


class _Loader(yaml.BaseLoader):
    """YAML with text as the only scalar, and without duplicate keys."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def _parse(text: str, name: str) -> object:
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a BaseLoader: it builds text, lists and mappings, nothing else
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        # The scanner and the parser often notice a mistake only on the line below it.
        todo = (
            "correct this line"
            if isinstance(error, yaml.constructor.ConstructorError)
            else "correct the indentation or the punctuation of this line or the one above"
        )
        # Not chained: the exception quotes the line, which may hold a secret.
        raise ConfigError(f"{place}: {error.problem or 'not YAML'}; {todo}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: contains characters that YAML does not allow; remove them") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(_unreadable(file, error)) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    values = _parse(text, str(file))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: must have sections such as policy: and database:; see the commented example")
    return values


def _put(values: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Set the key at ``path``, unless something else is where its section should be: that is an error of its own."""
    *sections, key = path
    for section in sections:
        inside = values.get(section) or {}
        if not isinstance(inside, dict):
            return
        # A copy: the sections of the file stay as they were read.
        values[section] = values = dict(inside)
    values[key] = value


def _keys() -> dict[tuple[str, ...], str]:
    """Every key with a value, and the variable that overrides it."""
    return {path: PREFIX + "__".join(path).upper() for path in _paths(Config)}


def _paths(section: type[Section]) -> Iterator[tuple[str, ...]]:
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from ((key, *rest) for rest in _paths(field.annotation))
        else:
            yield (key,)


# What Kubernetes and Docker set for a service or a container whose name begins like this program's:
# ZEGO_WATCHDOG_SERVICE_HOST, ZEGO_WATCHDOG_METRICS_PORT_9090_TCP_ADDR ...
_OF_A_SERVICE: Final = re.compile(
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)


def _variables(environ: Mapping[str, str]) -> tuple[dict[tuple[str, ...], str], list[str]]:
    """The keys that the environment overrides, and a line for each unknown variable."""
    keys = {variable: key for key, variable in _keys().items()}
    found: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    for name in environ:
        if name in keys:
            found[keys[name]] = name
        elif name.upper().startswith(PREFIX) and name != PATH_VARIABLE and not _is_of_a_service(name):
            near = difflib.get_close_matches(name.upper(), (*keys, PATH_VARIABLE), n=1)
            hint = f"did you mean {near[0]}?" if near else f"the form is {PREFIX}SECTION__KEY; unset it"
            problems.append(f"{name}: unknown variable; {hint}")
    return found, problems


def _is_of_a_service(name: str) -> bool:
    return "__" not in name and _OF_A_SERVICE.search(name) is not None


_LISTS: Final = frozenset({"apps", "bot_user_ids", "events", "allowed_networks", "page_hosts"})
"""Keys whose values are lists: a variable has them as JSON, or as YAML writes them in one line."""

_UNSHOWN: Final = frozenset({"url", "server_secret", "callback_secret", "token", "secret", "apps"})
"""Keys whose values may contain a secret."""


def _explain(details: ErrorDetails, origin: Origin) -> list[str]:
    """Rewrite one of pydantic's findings for operators: place, value, reason, next step."""
    location = details["loc"]
    label = _label(location, origin)
    error = details.get("ctx", {}).get("error")
    if details["type"] == "value_error" and error is not None:
        return [f"{label}: {line}" for line in str(error).splitlines()]
    if details["type"] == "extra_forbidden":
        return [f"{label}: unknown key; {_nearest(location)}"]
    if details["type"] == "missing":
        return [f"{label}: is missing; add it"]
    if details["type"] in {"model_type", "model_attributes_type"}:
        return [f"{label}: must have keys and values, indented below it"]
    value = details["input"]
    if isinstance(value, str | int | float) and isinstance(location[-1], str) and location[-1] not in _UNSHOWN:
        return [f"{label}: {scrub(str(value))!r} is refused; {_wanted(details)}{_default(location)}"]
    return [f"{label}: is refused; {_wanted(details)}"]


_WANTED: Final[Mapping[str, str]] = {
    "greater_than_equal": "write {ge} or more",
    "greater_than": "write more than {gt}",
    "less_than_equal": "write {le} or less",
    "less_than": "write less than {lt}",
    "enum": "write {expected}",
    "literal_error": "write {expected}",
    "string_too_short": "write at least {min_length} characters",
    "string_too_long": "write at most {max_length} characters",
    "finite_number": "write a finite number",
    **dict.fromkeys(("float_parsing", "float_type"), "write a number"),
    **dict.fromkeys(("int_parsing", "int_parsing_size", "int_type", "int_from_float"), "write a whole number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "write true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "write a list"),
    "string_type": "write a text",
}
"""What to write instead, by pydantic's type of an error."""


def _wanted(details: ErrorDetails) -> str:
    numbers = {name: f"{n:g}" if isinstance(n, float) else n for name, n in details.get("ctx", {}).items()}
    return _WANTED.get(details["type"], "write what the commented config.yaml explains").format(**numbers)


def _label(location: tuple[str | int, ...], origin: Origin) -> str:
    """``config.yaml: zego.apps[0].app_id``, or the variable that set it."""
    names = tuple(map(str, location))
    length = next((length for length in range(len(names), 1, -1) if names[:length] in origin.variables), 0)
    variable = origin.variables[names[:length]] if length else None
    rest = location[length:]
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)
    if variable:
        return variable + dotted
    return f"{origin.file}: {dotted.removeprefix('.')}" if dotted else str(origin.file)


def _nearest(location: tuple[str | int, ...]) -> str:
    *parents, key = location
    inside: type[Section] = Config
    for parent in parents:
        found = inside.model_fields[parent].annotation if isinstance(parent, str) else None
        inside = found if isinstance(found, type) and issubclass(found, Section) else AppConfig
    siblings = list(inside.model_fields)
    if near := difflib.get_close_matches(str(key), siblings, n=1):
        return f"did you mean {near[0]}?"
    elsewhere = [".".join(path) for path in _keys() if path[-1] == key]
    return f"did you mean {elsewhere[0]}?" if elsewhere else f"the keys here are: {', '.join(siblings)}"


def _default(location: tuple[str | int, ...]) -> str:
    first, *rest = location
    value: object = Config.model_fields[str(first)].default
    for name in rest:
        value = getattr(value, str(name), None)
    return "" if value is None or isinstance(value, Section) else f" (default: {value})"


def _exposed_password(config: Config, origin: Origin) -> list[str]:
    """Apply the rule for secret files to a configuration file that contains a password."""
    url = urlsplit(with_driver(config.database.url.get_secret_value()))
    mode = origin.file.stat().st_mode
    if ("database", "url") in origin.variables or not mode & OTHERS:
        return []
    if not url.password and "password" not in parse_qs(url.query):
        return []
    problem = (
        f"{origin.file}: database.url: contains a password, and the file has mode {stat.S_IMODE(mode):o}, open to all "
        f"users of this machine; run: chmod 600 {origin.file}, or use database.password_file"
    )
    return [problem]
