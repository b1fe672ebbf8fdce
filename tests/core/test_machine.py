"""Facts about a machine, from made-up trees."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tracarbon.hardwares._machine import cpu_model_name, is_virtual_machine, socket_count

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the made-up trees are those of Linux")

BARE_METAL = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz
physical id\t: 0
flags\t\t: fpu vme hypervisors

processor\t: 1
model name\t: Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz
physical id\t: 1
flags\t\t: fpu vme
"""


def machine(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_bare_metal(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__cpuinfo=BARE_METAL, sys__class__dmi__id__sys_vendor="Dell Inc.\n")
    assert cpu_model_name(root) == "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"
    assert socket_count(root) == 2
    assert is_virtual_machine(root) is None


def test_a_hypervisor_shows_in_the_processors_flags(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__cpuinfo=BARE_METAL.replace("vme\n", "vme hypervisor\n"))
    assert is_virtual_machine(root) == "the processor reports a hypervisor"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"sys__hypervisor__type": "xen\n"}, "hypervisor xen"),
        ({"sys__class__dmi__id__sys_vendor": "QEMU\n"}, "sys_vendor is QEMU"),
        ({"sys__class__dmi__id__product_name": "VMware Virtual Platform\n"}, "product_name is VMware Virtual Platform"),
        ({"sys__class__dmi__id__sys_vendor": "Amazon EC2", "sys__class__dmi__id__product_name": "c5.metal"}, None),
        (
            {"sys__class__dmi__id__sys_vendor": "Amazon EC2", "sys__class__dmi__id__product_name": "c5.large"},
            "sys_vendor",
        ),
        ({"sys__class__dmi__id__sys_vendor": "Microsoft Corporation"}, None),
        ({"sys__class__dmi__id__product_name": "Virtual Machine"}, "product_name is Virtual Machine"),
        ({"sys__class__dmi__id__sys_vendor": "Google", "sys__class__dmi__id__product_name": "Eve"}, None),
        ({}, None),
    ],
)
def test_a_hypervisor_shows_elsewhere(tmp_path: Path, files: dict[str, str], reason: str | None) -> None:
    found = is_virtual_machine(machine(tmp_path, **files))
    assert (found or "").startswith(reason or "")
    assert (found is None) is (reason is None)


def test_what_is_missing_is_unknown(tmp_path: Path) -> None:
    assert cpu_model_name(tmp_path) is None
    assert socket_count(tmp_path) == 1
