"""docs/operations.md: what it has root type, on one machine and in the page's order.

tests/docs/test_operations_docs.py has the rest of the page, test_roads.py what is typed where there is no package, and
test_sharing.py what makes the service share its file.
"""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.docs.test_operations_docs import BLOCKS, Block
from tests.support.running import APP_ID
from tests.system.machine import Machine
from tests.system.service import DATABASE, UNIT, configuration
from tests.system.vendor import SERVER_SECRET, Backend, Vendor

ELSEWHERE = {"Without the package", "A SQLite file that the application writes, too"}
TYPED = [block for block in BLOCKS if "root" in block.words and block.heading not in ELSEWHERE]
HERE = "/srv/here"


@pytest.fixture(scope="module")
def prepared(machine: Machine, vendor: Vendor, package: Path) -> Machine:
    """Give root the package, the secret in a file, and an editor that writes what the page says."""
    del vendor
    (page,) = (
        yaml.safe_load(block.text) for block in BLOCKS if "config" in block.words and block.heading == "The package"
    )
    page["zego"]["apps"][0]["app_id"] = APP_ID
    machine.path(HERE).mkdir()
    shutil.copy(package, machine.path(HERE))
    machine.write(f"{HERE}/server_secret", SERVER_SECRET, 0o600)
    machine.write("/srv/config.yaml", configuration(**page))
    machine.write("/usr/local/bin/editor", '#!/bin/sh\nexec cp /srv/config.yaml "$1"\n', 0o755)
    machine.write("/etc/apt/apt.conf.d/alone", 'APT::Install-Recommends "false";\n')
    return machine


@pytest.mark.parametrize("block", TYPED, ids=lambda block: block.heading)
def test_what_root_types(prepared: Machine, block: Block) -> None:
    for line in block.text.splitlines():
        done = prepared.run("bash", "-uc", f"cd {HERE}; {line}", check=False)
        # journalctl --grep, like grep itself, says with 1 that there is nothing.
        assert done.returncode in ({0, 1} if "--grep" in line else {0}), f"{line}\n{done.stdout}{done.stderr}"


def test_after_all_that_it_works(prepared: Machine, vendor: Vendor) -> None:
    backend = Backend(vendor, prepared.path(DATABASE))
    (task,) = backend.abandon()
    backend.expect_stopped([task])
    assert "stopped" in prepared.journal(UNIT, f"ZEGO_TASK_ID={task}")
