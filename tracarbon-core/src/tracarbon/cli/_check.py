"""`tracarbon check`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from tracarbon._assembly import Plan, Resolved, assemble, is_reference
from tracarbon._configuration import Table
from tracarbon._text import render_table
from tracarbon.cli import EXIT_OK
from tracarbon.cli._loading import load_plan


def main(options: argparse.Namespace) -> int:
    """Show the resolved pipeline; problems are raised. Nothing is started."""
    checked = load_plan(options.config)
    assemble(checked)
    print(render_plan(checked))
    return EXIT_OK


def render_plan(checked: Plan) -> str:
    """Return the pipeline that would run, as lines of text."""
    configuration = checked.configuration
    tags = ", ".join(f"{key}={value}" for key, value in configuration.tags.items())
    head = (
        f"{configuration.source}: ok\n"
        f"interval {configuration.interval_seconds:g} s, prefix {configuration.metric_prefix_name}"
        f", log level {configuration.log_level}{', tags ' + tags if tags else ''}"
    )
    everything = [checked.location, *checked.sensors, *checked.generators, *checked.exporters, *checked.hooks]
    return head + "\n" + render_table(_rows(everything))


def _rows(everything: Iterable[Resolved]) -> list[tuple[str, ...]]:
    return [
        (
            f"  {item.table.kind.word}",
            item.table.name,
            f"{item.plugin.name}, {item.plugin.distribution} {item.plugin.version}",
            _details(item),
        )
        for item in everything
    ]


def _details(item: Resolved) -> str:
    table = item.table
    details = [
        f"{name} = {_reference(table, name) or _shown(value)}" for name, value in item.options if value is not None
    ]
    if table.inputs is not None:
        details.append(f"inputs = {', '.join(table.inputs)}")
    if table.interval_seconds is not None:
        details.append(f"interval = {table.interval_seconds:g} s")
    return "; ".join(details + ["optional"] * table.optional)


def _shown(value: object) -> str:
    return repr(str(value) if isinstance(value, Path) else value.value if isinstance(value, Enum) else value)


def _reference(table: Table, name: str) -> str | None:
    """Return a value that came from the environment or a file as it was written: it may be a secret."""
    written = table.options.get(name)
    if not is_reference(written):
        return None
    [(source, target)] = written.items()
    return f'{{ {source} = "{target}" }}'
