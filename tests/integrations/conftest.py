"""An application's directory with the printed programs, beside a migrated database."""

from pathlib import Path

import pytest

from tests.integrations.programs import Folder
from tests.support.running import Application


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Application:
    """Return an application's view of a new database with our tables, once on each database."""
    if request.param == "sqlite":
        return Application(f"sqlite:///{tmp_path / 'app.db'}")
    return Application(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def folder(backend: Application, tmp_path: Path) -> Folder:
    return Folder(tmp_path, backend.url)
