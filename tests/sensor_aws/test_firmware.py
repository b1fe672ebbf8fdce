"""Telling an EC2 machine by what its firmware says, without asking anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracarbon_sensor_aws._firmware import Firmware, read_firmware

from tests.sensor_aws.imds import ec2_machine, firmware, xen_machine


def test_nitro_names_the_type(tmp_path: Path) -> None:
    assert read_firmware(ec2_machine(tmp_path, "u-6tb1.metal")) == Firmware(True, "u-6tb1.metal", "Amazon EC2")


def test_xen_is_known_by_the_hypervisor(tmp_path: Path) -> None:
    assert read_firmware(xen_machine(tmp_path)) == Firmware(True, "", "Xen")


@pytest.mark.parametrize(
    ("uuid", "is_ec2"),
    [
        ("EC2E1916-9099-7CAF-FD21-012345ABCDEF", True),
        ("45E12AEC-DCD1-B213-94ED-012345ABCDEF", True),  # the first group the other way round
        ("4C4C4544-0042-3510-8058-B4C04F4E3132", False),
        ("2CE2E1916-9099-7CAF-FD21-012345ABCDEF", False),
        ("", False),
        ("ec2", False),
    ],
)
def test_the_uuid_in_both_byte_orders(uuid: str, is_ec2: bool, tmp_path: Path) -> None:
    said = read_firmware(firmware(tmp_path, sys_vendor="Xen", product_name="HVM domU", product_uuid=uuid))
    assert said.is_ec2 == is_ec2


@pytest.mark.parametrize(
    ("vendor", "product"),
    [("QEMU", "Standard PC"), ("Amazon", "m5.large"), ("Google", "Google Compute Engine"), ("OpenStack", "m5.large")],
)
def test_others_are_none(vendor: str, product: str, tmp_path: Path) -> None:
    said = read_firmware(firmware(tmp_path, sys_vendor=vendor, product_name=product))
    assert (said.is_ec2, said.instance_type) == (False, "")
    assert f"names {vendor} as its vendor" in said.denial


@pytest.mark.parametrize("product", ["HVM domU", "", "m5 large", "m5.large; rm"])
def test_a_product_that_is_no_type_is_none(product: str, tmp_path: Path) -> None:
    assert read_firmware(ec2_machine(tmp_path, product)) == Firmware(True, "", "Amazon EC2")


def test_where_there_is_nothing_nothing_is_said(tmp_path: Path) -> None:
    assert read_firmware(tmp_path) == Firmware(False, "", "")
    assert "names no vendor" in read_firmware(tmp_path).denial
