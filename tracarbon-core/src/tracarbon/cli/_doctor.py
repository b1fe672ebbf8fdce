"""`tracarbon doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracarbon._discovery import LOCATION, SENSOR
from tracarbon._probing import Probed, probe_plugins
from tracarbon.cli import EXIT_NOTHING_MEASURED, EXIT_OK


def main(options: argparse.Namespace) -> int:
    """Probe every sensor and location; the status says whether any sensor works."""
    host_root = options.host_root or Path("/")
    sensors = probe_plugins(SENSOR, host_root)
    print("sensors, the best first")
    _print(sensors)
    print("locations")
    _print(probe_plugins(LOCATION, host_root))
    return EXIT_OK if any(item.probe.works for item in sensors) else EXIT_NOTHING_MEASURED


def _print(probed: list[Probed]) -> None:
    width = max((len(item.plugin.name) for item in probed), default=0)
    for item in probed:
        probe = item.probe
        quality = f", {probe.fidelity.value}" if probe.works and probe.fidelity else ""
        reason = f": {probe.reason}" if probe.reason else ""
        print(f"  {item.plugin.name:<{width}}  {'works' if probe.works else 'does not work'}{quality}{reason}")
        if probe.remedy:
            print("\n".join(f"  {'':<{width}}  {line}" for line in probe.remedy.splitlines()))
