"""Energy counters of the ``amd_energy`` hwmon driver, for AMD machines whose kernel shows no powercap zones.

The driver (Documentation/hwmon/amd_energy.rst of kernels 5.8 to 5.12, and out of tree since) gives ``energyN_input``
in microjoules with an ``energyN_label``: ``Esocket0`` for a socket and ``Ecore000`` for each core. It adds up in 64
bits, so that its counters do not wrap in a machine's life. Cores lie inside their socket and are left out.
"""

import re
from pathlib import Path

from ._powercap import Zone, ZoneKind

HWMON = Path("/sys/class/hwmon")
"""Where the kernel shows its hardware monitors."""

_SOCKET_LABEL = re.compile(r"Esocket(\d+)")
_LABEL_NAME = re.compile(r"(energy\d+)_label")


def find_sockets(hwmon: Path = HWMON) -> list[Zone]:
    """Find the counter of each socket, in the order of the sockets, for a `ZoneReader`.

    Each is a zone of kind ``PACKAGE`` with the key ``amd_energy:Esocket0``, the label ``package-0``, and neither a
    range nor a maximum power. Use them only where `find_zones` found nothing: both show the same energy.

    Raises:
        OSError: `hwmon` itself cannot be listed. A folder without such a device gives ``[]``.
    """
    sockets: dict[int, Zone] = {}
    for folder in sorted(hwmon.iterdir()):
        if _text(folder / "name") == "amd_energy":
            sockets |= _sockets_of(folder)
    return [zone for _, zone in sorted(sockets.items())]


def _sockets_of(folder: Path) -> dict[int, Zone]:
    labels = (match for entry in folder.iterdir() if (match := _LABEL_NAME.fullmatch(entry.name)))
    sockets = ((_SOCKET_LABEL.fullmatch(_text(folder / label[0])), label[1]) for label in labels)
    return {int(socket[1]): _socket(socket[1], folder, f"{energy}_input") for socket, energy in sockets if socket}


def _socket(number: str, folder: Path, counter: str) -> Zone:
    return Zone(
        key=f"amd_energy:Esocket{number}",
        label=f"package-{number}",
        kind=ZoneKind.PACKAGE,
        parent=None,
        path=folder,
        max_range_uj=None,
        max_power_uw=None,
        counter=counter,
    )


def _text(path: Path) -> str:
    # What is gone or closed has no name that could match.
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""
