"""`tracarbon doctor`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout

from tracarbon._discovery import LOCATION, SENSOR, unambiguous_names
from tracarbon._probing import Probed, probe_plugins
from tracarbon.cli import EXIT_NOTHING_MEASURED, EXIT_OK
from tracarbon.cli._loading import host_root_of


def main(options: argparse.Namespace) -> int:
    """Probe every sensor and location; the status says whether any sensor works."""
    host_root = host_root_of(options)
    with redirect_stdout(sys.stderr):  # what plugins print when they are imported is no part of the answer
        sensors, locations = probe_plugins(SENSOR, host_root), probe_plugins(LOCATION, host_root)
    print("sensors, the best first")
    _print(sensors)
    print("locations")
    _print(locations)
    return EXIT_OK if any(item.probe.works for item in sensors) else EXIT_NOTHING_MEASURED


def _print(probed: list[Probed]) -> None:
    labels = unambiguous_names([item.plugin for item in probed])
    width = max(map(len, labels), default=0)
    for item, label in zip(probed, labels, strict=True):
        probe = item.probe
        quality = f", {probe.fidelity.value}" if probe.works and probe.fidelity else ""
        reason = f": {probe.reason}" if probe.reason else ""
        print(f"  {label:<{width}}  {'works' if probe.works else 'does not work'}{quality}{reason}")
        if probe.remedy:
            print("\n".join(f"  {'':<{width}}  {line}" for line in probe.remedy.splitlines()))
