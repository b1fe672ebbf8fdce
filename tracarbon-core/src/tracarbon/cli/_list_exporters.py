"""`tracarbon list-exporters`."""

from __future__ import annotations

import argparse

from tracarbon._discovery import EXPORTER, installed_plugins
from tracarbon.cli import EXIT_OK


def main(options: argparse.Namespace) -> int:
    """Print the names of the installed exporters."""
    list_exporters()
    return EXIT_OK


def list_exporters(displayed: bool = True) -> list[str]:
    """Return the names of the installed exporters; none of them is imported.

    Args:
        displayed: print them as well, a line for each.
    """
    names = [plugin.name for plugin in installed_plugins(EXPORTER)]
    if displayed:
        print("\n".join(names))
    return names
