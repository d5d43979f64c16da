"""An operator at a terminal: a configuration file, and commands run with it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from tests.support.running import APP_ID, SECRET
from watchdog.cli.app.root import app


class Operator:
    """Runs commands in this process; ``sections`` is the configuration, written anew for each command."""

    def __init__(self, folder: Path, url: str, zego_url: str = "http://127.0.0.1:1/") -> None:
        self.file = folder / "config.yaml"
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        self.sections: dict[str, dict[str, Any]] = {
            "database": {"url": url},
            "zego": {
                "apps": [{"app_id": APP_ID, "server_secret_file": str(self.secret)}],
                "asr_url": zego_url,
                "rtc_url": zego_url,
            },
            "policy": {},
        }

    def write(self) -> Path:
        """Write the configuration file."""
        self.file.write_text(yaml.safe_dump(self.sections))
        self.file.chmod(0o600)
        return self.file

    @property
    def environment(self) -> dict[str, str]:
        return {"ZEGO_WATCHDOG_CONFIG": str(self.write()), "NO_PROXY": "127.0.0.1", "COLUMNS": "200"}

    def types(self, *words: str, **environ: str) -> Result:
        """Run a command."""
        return CliRunner().invoke(app, list(words), env=self.environment | environ)

    def sees(self, *words: str) -> Any:
        """Return the JSON that a command prints."""
        result = self.types(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    async def does(self, *words: str) -> Result:
        """Run a command in a thread, so that a sandbox in this event loop can answer it."""
        return await asyncio.to_thread(self.types, *words)

    async def learns(self, *words: str) -> Any:
        """Return the JSON that a command prints, run in a thread."""
        return await asyncio.to_thread(self.sees, *words)
