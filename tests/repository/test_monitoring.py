"""The alerts fire when they should; alerts and dashboard use only metrics that exist."""

import asyncio
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.docs.test_sql_docs import Story
from tests.support.running import APP_ID, SECRET, Application, DaemonProcess, eventually, free_port
from tests.support.time_travel import World
from tests.support.tools import program
from watchdog.core.model import Outcome, Status
from watchdog.core.outcomes import ReplyClass
from watchdog.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
ALERTS = MONITORING / "alerts.yaml"
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))

FIRING = 'group by (alertname, severity) (ALERTS{alertstate="firing"})'
# Prometheus adds these to whatever it scrapes, and this series for each target.
TARGET_LABELS = {"job", "instance"}
OF_PROMETHEUS = {"up"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def targets(kind: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (panel["title"], target)
        for panel in panels()
        for target in panel["targets"]
        if target["datasource"]["type"] == kind
    ]


@dataclass(frozen=True)
class Query:
    """A PromQL expression, where it stands, and the labels that are shown of its result."""

    place: str
    expression: str
    shown: frozenset[str] = frozenset()


def labels_in(template: str) -> frozenset[str]:
    return frozenset(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", template))


def queries() -> Iterator[Query]:
    for rule in rules():
        yield Query(rule["alert"], rule["expr"], labels_in(" ".join(rule["annotations"].values())))
    shown = [(title, one["expr"], one.get("legendFormat", "")) for title, one in targets("prometheus")]
    shown += [(one["name"], one["expr"], one["titleFormat"]) for one in DASHBOARD["annotations"]["list"]]
    for place, expression, template in shown:
        for variable, value in (("$__rate_interval", "5m"), ("$__range", "6h"), ("$job", "zego-watchdog")):
            expression = expression.replace(variable, value)  # noqa: PLW2901 - step by step
        yield Query(place, expression, labels_in(template))


QUERIES = list(queries())


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool")


def run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, cwd=MONITORING, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", ALERTS)


def test_promtool_runs_the_tests_of_the_rules(promtool: str) -> None:
    run(promtool, "test", "rules", MONITORING / "alerts_test.yaml")


def test_promtool_accepts_every_expression(promtool: str, tmp_path: Path) -> None:
    file = tmp_path / "expressions.yaml"
    numbered = [{"record": f"x{n}", "expr": query.expression} for n, query in enumerate(QUERIES)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": numbered}]}))
    run(promtool, "check", "rules", file)
    assert len(numbered) > 50


def test_promtool_accepts_the_scrape_configuration_of_the_pages(promtool: str, tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    pages = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("metrics.md", "operations.md"))
    found = re.findall(r"^```yaml[^\n]*\n((?:#.*\n)?scrape_configs:\n(?:(?!```).*\n)+)```", pages, re.MULTILINE)
    assert len(found) == 2
    for block in found:
        file = tmp_path / "prometheus.yaml"
        # promtool looks for the token too, which is where the page says on another machine.
        file.write_text(re.sub(r"credentials_file: \S+?(?=[},\s])", f"credentials_file: {file}", block))
        run(promtool, "check", "config", file)


def test_a_wrong_expression_would_be_noticed(promtool: str, tmp_path: Path) -> None:
    file = tmp_path / "expressions.yaml"
    file.write_text(
        yaml.safe_dump({"groups": [{"name": "x", "rules": [{"record": "x", "expr": "sum by (rate(x[5m])"}]}]})
    )
    with pytest.raises(AssertionError):
        run(promtool, "check", "rules", file)


def seconds(time: str) -> int:
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", time))


def test_each_alert_is_tested_before_while_and_after_it_fires() -> None:
    tested = set()
    for group in yaml.safe_load((MONITORING / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]:
        checks = sorted(group.get("promql_expr_test", []), key=lambda check: seconds(check["eval_time"]))
        assert {check["expr"] for check in checks} <= {FIRING}
        firing = [set(re.findall(r'alertname="(\w+)"', str(check["exp_samples"]))) for check in checks]
        for name in set().union(*firing):
            course = [name in each for each in firing]
            if [course[0], *(after for before, after in pairwise(course) if after != before)] == [False, True, False]:
                tested.add(name)
    assert tested == {rule["alert"] for rule in rules()}


def test_each_alert_is_tested_without_its_series() -> None:
    groups = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    bare = [{series["series"] for series in group["input_series"]} for group in groups]
    assert set() in bare
    assert {'up{job="zego-watchdog", instance="a"}'} in bare


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["description"].endswith(".")
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {slug(heading) for heading in headings}


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    assert all(name.startswith("ZegoWatchdog") for name in names)


@dataclass
class Scrape:
    """What a daemon shows: the label names of every series by its name."""

    series: dict[str, set[str]] = field(default_factory=dict)
    bare: set[str] = field(default_factory=set)
    """Announced, with nothing to show yet."""

    @classmethod
    def of(cls, text: str) -> "Scrape":
        scrape = cls()
        for family in text_string_to_metric_families(text):
            if not family.samples:
                scrape.bare.add(family.name + ("_total" if family.type == "counter" else ""))
            for sample in family.samples:
                scrape.series.setdefault(sample.name, set()).update(sample.labels)
        return scrape


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    return asyncio.run(scraped(tmp_path_factory.mktemp("scraped")))


async def scraped(folder: Path) -> Scrape:
    """Scrape a live daemon that has stopped a task and received a callback."""
    address = f"127.0.0.1:{free_port()}"
    async with Sandbox({APP_ID: SECRET}, seed=3) as sandbox:
        url = f"sqlite:///{folder / 'watchdog.db'}"
        application = Application(url)
        daemon = DaemonProcess(folder, url, sandbox)
        config = yaml.safe_load(daemon.config.read_text())
        daemon.config.write_text(yaml.safe_dump(config | {"http": {"listen": address}}))
        await daemon.start()

        def fetch(path: str, body: bytes | None = None) -> str:
            request = urllib.request.Request(f"http://{address}{path}", body)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own daemon
                    text = answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return ""
            assert isinstance(text, str)
            return text

        try:
            await application.abandon(sandbox, ["room"])
            await eventually("it is stopped", lambda: "stopped" in application.statuses().values())
            await asyncio.to_thread(fetch, "/callbacks/zego", b"no callback")

            def complete() -> bool:
                text = fetch("/metrics")
                return all(
                    f"zego_watchdog_{name}" in text for name in ("tasks{", "callbacks_total{", "rejoined_stops ")
                )

            await eventually("the figures are there", complete)
            return Scrape.of(await asyncio.to_thread(fetch, "/metrics"))
        finally:
            await daemon.end()


def without_strings(expression: str) -> str:
    return re.sub(r'"[^"]*"', '""', expression)


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:zego_watchdog|process|python)_\w+|\bup\b", without_strings(expression)))


def matchers_in(expression: str) -> Iterator[tuple[str, str, str]]:
    """Series, label and value of each matcher."""
    for name, inside in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inside):
            yield name, label, value


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_only_what_a_daemon_shows_is_asked_for(query: Query, scrape: Scrape) -> None:
    names = names_in(query.expression)
    assert names
    assert names <= {*scrape.series, *scrape.bare, *OF_PROMETHEUS}
    for name, label, _ in matchers_in(query.expression):
        assert label in scrape.series.get(name, set()) | TARGET_LABELS, (name, label)
    known = TARGET_LABELS.union(*(scrape.series.get(name, set()) for name in names))
    grouped = re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", query.expression)
    labels = {label.strip() for group in grouped for label in group.split(",")}
    assert labels <= known
    assert query.shown <= (labels if grouped else known)


def test_the_alerts_use_most_of_what_there_is(scrape: Scrape) -> None:
    """Every metric is used by an alert or a panel."""
    asked = set().union(*(names_in(query.expression) for query in QUERIES))
    ours = {name for name in {*scrape.series, *scrape.bare} if name.startswith("zego_watchdog_")}
    unused = {re.sub(r"_(bucket|sum|count|total|info)$", "", name) for name in ours} - {
        re.sub(r"_(bucket|sum|count|total|info)$", "", name) for name in asked
    }
    assert unused == set()


VALUES: dict[str, set[str]] = {
    "outcome": {outcome.value for outcome in Outcome},
    "status": {status.value for status in Status},
    # As watchdog.zego.client has them.
    "class": {"ok", "no_answer", "not_sent", *(one.value for one in ReplyClass if one is not ReplyClass.STOPPED)},
    "answer": {"accepted", "replayed", "suspicious", "ignored"},
    "le": {"10.0"},
    "job": {"zego-watchdog", "zego-watchdog.*"},
}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_only_values_that_exist_are_asked_for(query: Query) -> None:
    for _, label, value in matchers_in(query.expression):
        assert set(value.split("|")) <= VALUES[label], label


def test_what_is_accepted_of_callbacks_is_called_so() -> None:
    webhook = (ROOT / "watchdog/services/callbacks.py").read_text(encoding="utf-8")
    for answer in VALUES["answer"]:
        assert f'"{answer}"' in webhook


def test_the_margin_that_is_asked_for_has_a_bucket(scrape: Scrape) -> None:
    assert "le" in scrape.series["zego_watchdog_stop_margin_seconds_bucket"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        place = panel["gridPos"]
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(everything, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one["title"], other["title"])


def test_the_rows_are_the_questions() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Is it working?", "Rooms", "ZEGO", "Evidence", "Database", "Events", "Daemons"]


def test_every_panel_explains_itself_and_lets_the_data_source_be_chosen() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "datasource"}
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["targets"]
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert re.fullmatch(r"\$\{(\w+)\}", source["uid"]), panel["title"]
            assert source["uid"][2:-1] in variables
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def expanded(statement: str) -> str:
    """As Grafana does it: a macro's arguments end at the first closing bracket."""

    def macro(match: re.Match[str]) -> str:
        name, (column, *rest) = match["name"], [part.strip() for part in match["arguments"].split(",")]
        match name:
            case "timeFilter":
                return f"{column} BETWEEN '2026-03-01T00:00:00Z' AND '2026-03-03T00:00:00Z'"
            case "timeGroupAlias":
                assert rest == ["1h"]
                return f'floor(extract(epoch from {column})/3600)*3600 AS "time"'
            case _:
                raise AssertionError(name)

    return re.sub(r"\$__(?P<name>\w+)\((?P<arguments>[^)]*)\)", macro, statement.replace("$__interval", "1h"))


def test_the_panels_on_the_ledger_have_answers(postgresql_world: World) -> None:
    Story(postgresql_world).tell()
    by_outcome, last = (expanded(target["rawSql"]) for _, target in targets("grafana-postgresql-datasource"))
    assert "$" not in by_outcome + last
    with psycopg.connect(
        postgresql_world.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    ) as at:
        counted = at.execute(by_outcome).fetchall()
        rows = at.execute(last)
        assert rows.description is not None
        columns = [column.name for column in rows.description]
        listed = rows.fetchall()
    assert {row[1] for row in counted} >= {"stopped", "auto_stopped", "spared", "withheld"}
    assert sum(row[2] for row in counted) == len(listed)
    assert columns[:2] == ["time", "task_id"]
    assert {"code", "request_id", "seconds_before_auto_stop", "rejoined_after_seconds"} <= set(columns)
    assert [row[0] for row in listed] == sorted((row[0] for row in listed), reverse=True)
