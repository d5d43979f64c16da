"""The README as a package index shows it, where the repository's files are missing: no pictures, no links to files."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[([^]]*)\]\((?!https:)[^)]*\)")
_LINK = re.compile(r"\[([^]]+)\]\((?!https:|#)([^)]+)\)")


class Readme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _LINK.sub(_named, _PICTURE.sub(r"*\1*", text))}


def _named(link: re.Match[str]) -> str:
    words, target = link.groups()
    return words if words == target else f"{words} ({target})"
