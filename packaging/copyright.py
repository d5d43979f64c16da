"""Writes the package's copyright file: our licence, and what the libraries that come along say of theirs."""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_HEAD = """\
zego-watchdog comes with the libraries it uses, in /opt/zego-watchdog. Their licences are beside each of them, in the
directory NAME-VERSION.dist-info; that of the LGPL is in /usr/share/common-licenses as well. Their sources are those of
the same names and versions wherever Python packages are published; nothing in them has been changed.
"""


def libraries() -> Iterator[tuple[str, str, str]]:
    """Yield name, version and licence of each distribution in this interpreter's environment but ours, by name."""
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
