"""The package's layout: where a module's test is, how large a module may be, how deep the folders go."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "watchdog"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")

MODULE_LINES, CLASS_LINES, FUNCTION_LINES = 400, 200, 60

TESTED_WITH_OTHERS = {
    "tests/cli/test_checks.py": [
        *("cli/checks/database", "cli/checks/findings", "cli/checks/http", "cli/checks/installation"),
        *("cli/checks/vendor", "cli/commands/check", "cli/view/findings"),
    ],
    "tests/cli/test_commands.py": [
        *("cli/__init__", "cli/app/daemon", "cli/app/guard", "cli/app/history", "cli/app/options", "cli/app/root"),
        *("cli/app/sandbox", "cli/app/tasks", "cli/commands/daemon", "cli/commands/explain", "cli/commands/hold"),
        *("cli/commands/listing", "cli/commands/lookup", "cli/commands/stop", "cli/view/explain", "cli/view/output"),
        *("cli/view/status", "cli/view/tasks", "insight/explanation"),
    ],
    "tests/cli/test_advise.py": ["cli/view/advise_page"],
    "tests/cli/test_events.py": ["cli/commands/webhook"],
    "tests/cli/test_screens.py": ["insight/legible"],
    "tests/cli/test_systemd.py": ["cli/commands/shared_sqlite", "cli/commands/steps"],
    "tests/cli/test_words.py": ["insight/words"],
    "tests/config/test_loader.py": [
        *("config/addresses", "config/policy_settings", "config/rules_between", "config/secret_files"),
        *("config/section", "config/settings", "core/events"),
    ],
    "tests/core/test_callbacks.py": ["core/callback_body"],
    "tests/core/test_policy.py": ["core/model"],
    "tests/daemon/test_event_loop.py": ["clock"],
    "tests/daemon/test_metrics.py": ["daemon/http_server", "observer"],
    "tests/demo/test_demo.py": [
        *("demo/application", "demo/environment", "demo/runner", "demo/scenario", "demo/screen", "demo/snapshot"),
        "demo/verdict",
    ],
    "tests/docs/test_sql_roles_docs.py": ["store/reports/privileges"],
    "tests/logs/test_setup.py": ["logs/journald", "logs/redaction", "logs/suppression", "logs/writer"],
    "tests/page/test_language.py": ["page/chinese", "page/english"],
    "tests/page/test_site.py": ["page/drawing", "page/live"],
    "tests/repository/test_packaging.py": ["tables"],
    "tests/sandbox/test_callbacks.py": ["sandbox/outbox"],
    "tests/sandbox/test_callbacks_http.py": ["sandbox/operations", "sandbox/sender"],
    "tests/sandbox/test_script.py": ["sandbox/command"],
    "tests/sandbox/test_products.py": ["sandbox/actions", "sandbox/codes", "sandbox/messages"],
    "tests/sandbox/test_server.py": ["embedded_server", "sandbox/application", "sandbox/control", "sandbox/replies"],
    "tests/sandbox/test_vendor.py": ["sandbox/misbehaviour"],
    "tests/sandbox/test_world.py": ["sandbox/endings", "sandbox/rooms", "sandbox/tasks", "sandbox/timeline"],
    "tests/services/test_figures.py": ["store/figures"],
    "tests/services/test_guard.py": ["cli/commands/guard"],
    "tests/services/test_poller.py": ["services/sightings", "store/polling"],
    "tests/services/test_retention.py": ["store/retention"],
    "tests/services/test_stopper.py": ["services/claims"],
    "tests/services/test_workload.py": ["core/capacity"],
    "tests/services/test_adopter.py": ["wiring/adoption"],
    "tests/store/reports/test_report.py": ["store/reports/distributions"],
    "tests/store/reports/test_export.py": ["cli/commands/export", "cli/commands/target"],
    "tests/store/test_attempts.py": ["store/records"],
    "tests/store/test_callbacks.py": ["core/hints", "store/presence", "store/room_tasks"],
    "tests/store/test_savings.py": ["store/reports/savings"],
    "tests/store/test_schema.py": ["shipped", "store/tables"],
    "tests/whole/test_end_to_end.py": [
        *("daemon/lifecycle", "services/reaper"),
        *("wiring/database", "wiring/from_config", "wiring/parts", "wiring/storage"),
    ],
    "tests/zego/test_client.py": ["zego/replies"],
    "tests/zego/test_slots.py": ["store/pace"],
}
"""Modules without a test file of their own, by the test that covers them; without the suffix."""

WITHOUT_CODE = {"errors": "the error tree: declarations alone"}


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def has_code(path: Path) -> bool:
    """Whether a package's ``__init__`` is more than a docstring, imports and constants."""
    return path.name != "__init__.py" or any(
        isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(path.read_text()).body
    )


def own_test(path: Path) -> Path:
    """Return where a module's test belongs: in its folder, if ``tests`` has one, or else in its package's."""
    module = path.parent.name if path.stem == "__init__" else path.stem
    folder = ROOT / "tests" / path.parent.relative_to(PACKAGE)
    if not folder.is_dir():
        folder = folder.parent
    return folder / f"test_{module}.py"


def test_every_module_has_its_test() -> None:
    elsewhere = [name for names in TESTED_WITH_OTHERS.values() for name in names]
    alone = {named(path) for path in MODULES if has_code(path) and not own_test(path).is_file()}
    assert len(elsewhere) == len(set(elsewhere))
    assert alone - set(elsewhere) - set(WITHOUT_CODE) == set(), "no test file, and no reason"
    assert (set(elsewhere) | set(WITHOUT_CODE)) - alone == set(), "a stale reason"
    assert [test for test in TESTED_WITH_OTHERS if not (ROOT / test).is_file()] == []


def too_large(path: Path) -> Iterator[str]:
    text = path.read_text()
    if len(text.splitlines()) > MODULE_LINES:
        yield named(path)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            limit = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
            if (node.end_lineno or 0) - node.lineno + 1 > limit:
                yield f"{named(path)} {node.name}"


def test_modules_classes_and_functions_are_small_enough_to_read() -> None:
    assert {what for path in MODULES for what in too_large(path)} == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1\n" * 401, ["large"]),
        ("class C:\n" + "    x = 1\n" * 200, ["large C"]),
        ("async def f():\n" + "    x = 1\n" * 60, ["large f"]),
        ("class C:\n    def f(self):\n" + "        x = 1\n" * 59, []),
    ],
)
def test_the_limits(text: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    file = tmp_path / "large.py"
    file.write_text(text)
    assert list(too_large(file)) == found


def test_folders_are_two_levels_deep_at_most() -> None:
    assert [named(path) for path in MODULES if len(path.relative_to(PACKAGE).parts) > 3] == []


def test_every_package_says_what_belongs_there() -> None:
    packages = {path.parent for path in MODULES}
    assert [folder for folder in packages if not (folder / "__init__.py").is_file()] == []
    found = [folder for folder in packages if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))]
    assert found == []
