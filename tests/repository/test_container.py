"""The examples of a Dockerfile and a Kubernetes manifest fit each other and the program, which runs as they say."""

import http.client
import os
import re
import signal
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.container import Container
from tests.support.operator import Operator
from tests.support.running import SECRET, Application, eventually, fake_zego, free_port
from tests.support.tools import needs_root
from watchdog.config import load
from watchdog.sandbox import Sandbox
from watchdog.store.engine import longest_call_seconds

ROOT = Path(__file__).parents[2]
VENV: Final = "/opt/zego-watchdog"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, in order."""
    text = (ROOT / "packaging/Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last(word: str) -> str:
    return [rest for name, rest in instructions() if name == word][-1]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in last("ENV").split())


MANIFEST: Final[Mapping[str, Any]] = {
    document["kind"]: document
    for document in yaml.safe_load_all((ROOT / "packaging/kubernetes.yaml").read_text(encoding="utf-8"))
}
POD: Final[Mapping[str, Any]] = MANIFEST["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
CONFIG: Final[str] = MANIFEST["ConfigMap"]["data"]["config.yaml"]
MOUNTS: Final[Mapping[str, Mapping[str, Any]]] = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}


# The Dockerfile


def test_every_instruction_is_one_that_this_file_knows() -> None:
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in instructions()} == known
    assert [word for word, _ in instructions()].count("FROM") == 2


def test_the_sources_exist_and_are_all_that_the_wheel_is_made_of() -> None:
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    sources = {source for line in copied for source in line}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    made_of = {*wheel["packages"], *wheel["force-include"], "README.md"}
    made_of.add(project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["path"].partition("/")[0])
    assert made_of | {"pyproject.toml", *project["project"]["license-files"], "constraints.txt"} == sources


def test_the_entry_point_is_the_command_of_the_virtual_environment() -> None:
    assert f"python3 -m venv {VENV} && {VENV}/bin/pip install " in last_run("venv /opt")
    assert "--constraint constraints.txt ." in last_run("venv /opt")
    assert ("COPY", f"--from=build {VENV} {VENV}") in instructions()
    (command,) = yaml.safe_load(last("ENTRYPOINT"))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert command in {f"{VENV}/bin/{script}" for script in scripts}
    assert CONTAINER["args"] == yaml.safe_load(last("CMD"))


def last_run(part: str) -> str:
    return [rest for word, rest in instructions() if word == "RUN" and part in rest][-1]


def test_the_image_has_what_the_program_needs_of_debian() -> None:
    assert " ca-certificates python3 &&" in [rest for word, rest in instructions() if word == "RUN"][-2]
    state = image_environment()["STATE_DIRECTORY"]
    user = last("USER").partition(":")[0]
    assert last_run("install -d").endswith(f"-o {user} -g {user} -m 2770 {state}")
    assert last("WORKDIR") == state


# The manifest


def test_the_manifest_fits_the_image() -> None:
    security = POD["securityContext"]
    assert last("USER") == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert security["fsGroup"] == security["runAsGroup"]
    assert security["runAsNonRoot"] is True
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert MOUNTS["state"]["mountPath"] == image_environment()["STATE_DIRECTORY"]
    assert not MOUNTS["state"].get("readOnly")
    assert [port["containerPort"] for port in CONTAINER["ports"]] == [int(last("EXPOSE"))]


def test_the_parts_of_the_manifest_name_each_other() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert volumes.keys() == MOUNTS.keys()
    assert volumes["config"]["configMap"]["name"] == MANIFEST["ConfigMap"]["metadata"]["name"]
    assert volumes["secrets"]["secret"]["secretName"] == MANIFEST["Secret"]["metadata"]["name"]
    claim = MANIFEST["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == claim
    labels = MANIFEST["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFEST["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFEST["Service"]["spec"]["selector"] == labels
    (port,) = MANIFEST["Service"]["spec"]["ports"]
    assert {port["targetPort"], *(CONTAINER[f"{kind}Probe"]["httpGet"]["port"] for kind in PROBES)} == {"http"}
    assert [each["name"] for each in CONTAINER["ports"]] == ["http"]


PROBES: Final = {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_one_daemon_per_sqlite_file() -> None:
    assert MANIFEST["Deployment"]["spec"]["replicas"] == 1
    assert MANIFEST["Deployment"]["spec"]["strategy"]["type"] == "Recreate"


def manifest_file(folder: Path) -> Path:
    """Its configuration, with the paths below ``folder``."""
    secret = folder / "server_secret"
    secret.write_text(SECRET)
    # The bits that other users have not matter; on a mount the group has the others.
    secret.chmod(0o440)
    file = folder / "config.yaml"
    file.write_text(CONFIG.replace(f"{MOUNTS['secrets']['mountPath']}/", f"{folder}/"))
    return file


def test_the_configuration_is_valid_and_its_places_are_mounted(tmp_path: Path) -> None:
    environ = {variable["name"]: variable["value"] for variable in CONTAINER["env"]} | image_environment()
    config = load(manifest_file(tmp_path), environ)
    assert config.database.sqlite_file is not None
    assert str(config.database.sqlite_file.parent) == MOUNTS["state"]["mountPath"]
    assert config.journal(environ) == Path(MOUNTS["state"]["mountPath"])
    assert config.http.listen == f"0.0.0.0:{last('EXPOSE')}"
    # Where the program looks by itself.
    assert MOUNTS["config"]["mountPath"] == "/etc/zego-watchdog"
    named = set(re.findall(rf"{MOUNTS['secrets']['mountPath']}/(\w+)", CONFIG))
    assert named == set(MANIFEST["Secret"]["stringData"])
    assert config.log.format == "json"


def test_secrets_have_a_mode_that_the_program_accepts() -> None:
    (mode,) = [volume["secret"]["defaultMode"] for volume in POD["volumes"] if "secret" in volume]
    # YAML 1.1, which Kubernetes reads, has this form for octal numbers.
    assert mode == 0o440


def test_there_is_time_to_end(tmp_path: Path) -> None:
    config = load(manifest_file(tmp_path), {})
    database = config.database
    call = longest_call_seconds(database.statement_timeout_seconds, database.connect_timeout_seconds)
    assert POD["terminationGracePeriodSeconds"] >= config.stop.shutdown_seconds + call


def test_the_words_of_the_command_are_the_programs(tmp_path: Path) -> None:
    help_text = Operator(tmp_path, "sqlite:///x.db").types("run", "--help").stdout
    assert {word for word in CONTAINER["args"][1:] if word not in help_text} == set()


# The entry point as process 1, without rights, on a root that is read-only


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with fake_zego({1234567890: SECRET}) as running:
        yield running


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """What the manifest mounts, with the links and the owners that Kubernetes makes."""
    user = POD["securityContext"]["runAsUser"]
    folder = tmp_path / "mounted"
    files = {"config": ("config.yaml", CONFIG, 0o644), "secrets": ("server_secret", SECRET, 0o440)}
    for name, (file, content, mode) in files.items():
        volume = folder / MOUNTS[name]["mountPath"].lstrip("/")
        (volume / "..2026").mkdir(parents=True)
        (volume / "..2026" / file).write_text(content)
        (volume / "..2026" / file).chmod(mode)
        os.chown(volume / "..2026" / file, 0, user)
        (volume / "..data").symlink_to("..2026")
        (volume / file).symlink_to(f"..data/{file}")
    state = folder / MOUNTS["state"]["mountPath"].lstrip("/")
    state.mkdir(parents=True)
    os.chown(state, 0, user)
    state.chmod(0o2770)
    return folder


def container(tmp_path: Path, mounted: Path, **more: Any) -> Container:
    volumes = {mount["mountPath"]: mount.get("readOnly", False) for mount in MOUNTS.values()}
    writable = [path for path, read_only in volumes.items() if not read_only]
    user = POD["securityContext"]["runAsUser"]
    return Container(tmp_path / "container", mounted, user=user, volumes=list(volumes), writable=writable, **more)


def command() -> list[str]:
    return [*yaml.safe_load(last("ENTRYPOINT")), *CONTAINER["args"]]


def answers(port: int, path: str) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0


@needs_root
async def test_it_stops_tasks_and_ends_when_it_is_told_to(tmp_path: Path, mounted: Path, sandbox: Sandbox) -> None:
    port = free_port()
    quick = {
        "ZEGO__ASR_URL": sandbox.url,
        "ZEGO__RTC_URL": sandbox.url,
        "HTTP__LISTEN": f"127.0.0.1:{port}",
        "POLICY__MODE": "enforce",
        "POLICY__GRACE_SECONDS": "1",
        "POLICY__CONFIRM_SECONDS": "0.5",
        "SCHEDULE__POLL_SECONDS": "0.5",
    }
    environ = image_environment() | {f"ZEGO_WATCHDOG_{name}": value for name, value in quick.items()}
    running = container(tmp_path, mounted)
    await running.start(command(), environ)
    try:
        await eventually(
            "the probes are answered",
            lambda: {answers(port, path) for path in PROBES.values()} == {200} or not running.alive,
            seconds=120,
        )
        if running.alive:
            file = mounted / MOUNTS["state"]["mountPath"].lstrip("/") / "zego-watchdog.db"
            application = Application(f"sqlite:///{file}")
            (task,) = await application.abandon(sandbox, ["lecture"])
            await eventually("it is stopped", lambda: application.statuses()[task] == "stopped", seconds=120)
            running.send(signal.SIGTERM)
        code, said = await running.end()
    finally:
        await running.kill()
    assert code == 0, said
    assert '"event": "stopped"' in said


@needs_root
async def test_without_certificates_it_says_so_in_one_sentence(tmp_path: Path, mounted: Path) -> None:
    running = container(tmp_path, mounted, hidden=["/etc/ssl", "/usr/lib/ssl", "/etc/pki"])
    await running.start(command(), image_environment())
    try:
        code, said = await running.end()
    finally:
        await running.kill()
    assert code == 78, said
    assert said.count("\n") == 1 + said.count('"event": "migrated"'), said
    assert "install the package ca-certificates" in said
