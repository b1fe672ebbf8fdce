"""A hook that listens to everything."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field
from tracarbon.exporters import Batch
from tracarbon.hooks import hookimpl
from tracarbon.plugin import Plugin, PluginOptions


class EveryMoment(Plugin):
    """Writes each moment down, with its arguments, as a line of JSON."""

    path: str

    class Options(PluginOptions):
        """Options of `[hooks.NAME]`."""

        path: str = Field(description="file to append to")

    @hookimpl
    def tracarbon_configured(self, source: str) -> None:
        """The configuration is valid."""
        self._note("configured", source=source)

    @hookimpl
    def tracarbon_started(self, components: tuple[Any, ...]) -> None:
        """The pipeline has started."""
        self._note("started", components=[_said(component) for component in components])

    @hookimpl
    def tracarbon_window_closed(self, batch: Batch) -> None:
        """A generator has done with a window."""
        self._note("window_closed", **_figures(batch))

    @hookimpl
    def tracarbon_exported(self, exporter: str, batch: Batch) -> None:
        """A batch has arrived."""
        self._note("exported", exporter=exporter, **_figures(batch))

    @hookimpl
    def tracarbon_failed(self, component: Any) -> None:
        """A component does not work, or not wholly."""
        self._note("failed", component=_said(component), reason=component.reason)

    @hookimpl
    def tracarbon_stopped(self) -> None:
        """The pipeline has stopped."""
        self._note("stopped")

    def _note(self, moment: str, **arguments: Any) -> None:
        with Path(self.path).open("a") as file:
            file.write(json.dumps({"moment": moment, **arguments}) + "\n")


def _said(component: Any) -> str:
    return f"{component} {component.state.value}"


def _figures(batch: Batch) -> dict[str, Any]:
    return {
        "windows": {generator: [window.start, window.end] for generator, window in batch.windows.items()},
        "totals": {record.name: record.total for record in batch},
    }
