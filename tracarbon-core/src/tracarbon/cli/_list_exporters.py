"""`tracarbon list-exporters`."""

from __future__ import annotations

import argparse

from tracarbon._discovery import EXPORTER, installed_plugins
from tracarbon.cli import EXIT_OK


def main(options: argparse.Namespace) -> int:
    """Print the names of the installed exporters."""
    for plugin in installed_plugins(EXPORTER):
        print(plugin.name)
    return EXIT_OK
