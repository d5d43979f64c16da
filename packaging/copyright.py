"""Writes the package's copyright file: our licence, and the licences that the bundled libraries state."""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_HEAD = """\
zego-watchdog contains the libraries that it uses, in /opt/zego-watchdog. The licence of each is in its directory
NAME-VERSION.dist-info; the LGPL is also in /usr/share/common-licenses. Their sources are published under the same names
and versions wherever Python packages are published; they are unchanged.
"""


def libraries() -> Iterator[tuple[str, str, str]]:
    """Yield name, version and licence of each other distribution in this interpreter's environment, by name."""
    found = {each.metadata["Name"]: each for each in metadata.distributions()}
    for name in sorted(found, key=str.lower):
        if name != "zego-watchdog":
            yield name, found[name].version, _licence(found[name].metadata)


def _licence(about: metadata.PackageMetadata) -> str:
    if "License-Expression" in about:
        return about["License-Expression"]
    classified = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("Lic")]
    if classified:
        return ", ".join(classified)
    return about["License"].splitlines()[0] if "License" in about else "see its directory"


if __name__ == "__main__":
    sys.stdout.write((Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8"))
    sys.stdout.write("\n" + _HEAD + "\n")
    for library in libraries():
        sys.stdout.write("{:<20} {:<10} {}\n".format(*library))
