"""Whether this is a machine of Amazon EC2, from what its firmware says; nobody is asked.

Nitro instances have `Amazon EC2` as the system's vendor, and the instance type as the product's name. On Xen the
hypervisor's or the system's UUID begins with `ec2`, in either byte order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_VENDOR = "Amazon EC2"
_DMI = Path("sys/class/dmi/id")
_UUIDS = (Path("sys/hypervisor/uuid"), _DMI / "product_uuid")  # the second may be read by root alone
_INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", re.ASCII)


class Firmware(NamedTuple):
    """What the firmware says.

    Attributes:
        is_ec2: whether this is an EC2 machine.
        instance_type: such as `m5.large`; empty where it does not say.
        vendor: of the system; empty where it does not say.
    """

    is_ec2: bool
    instance_type: str
    vendor: str

    @property
    def denial(self) -> str:
        """Why this is taken for no EC2 machine."""
        said = f"names {self.vendor} as its vendor" if self.vendor else "names no vendor"
        return f"the firmware does not say that this is a machine of Amazon EC2, and {said}"


def read_firmware(host_root: Path) -> Firmware:
    """Read what the firmware says of the machine whose `/sys` is below `host_root`. Never raises on what is missing."""
    vendor, product = (_text(host_root / _DMI / name) for name in ("sys_vendor", "product_name"))
    is_ec2 = vendor == _VENDOR or any(_is_of_ec2(_text(host_root / path)) for path in _UUIDS)
    instance_type = product if is_ec2 and _INSTANCE_TYPE.fullmatch(product) else ""
    return Firmware(is_ec2, instance_type, vendor)


def _is_of_ec2(uuid: str) -> bool:
    """Whether a UUID begins with `ec2`; SMBIOS before 2.6 leaves the byte order of the first group open."""
    first = uuid.lower().partition("-")[0]
    swapped = "".join(reversed([first[i : i + 2] for i in range(0, len(first), 2)]))
    return len(first) == 8 and (first.startswith("ec2") or swapped.startswith("ec2"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
