"""A sensor that reads watts from a file, an exporter that appends lines to one, and a hook that keeps a journal."""

from pathlib import Path

from pydantic import Field
from tracarbon.exporters.exporter import Batch, Exporter
from tracarbon.hardwares.energy import EnergyUsage, Fidelity
from tracarbon.hardwares.sensors import Sensor
from tracarbon.hooks import hookimpl
from tracarbon.plugin import PluginOptions


class FileSensor(Sensor):
    """Watts of the host from a file."""

    fidelity = Fidelity.MEASURED
    path: str

    class Options(PluginOptions):
        """Options of `[sensors.NAME]`."""

        path: str = Field(description="file that holds the watts")

    async def get_energy_usage(self) -> EnergyUsage:
        """Read the file."""
        return EnergyUsage(host_energy_usage=float(Path(self.path).read_text()))


class LinesExporter(Exporter):
    """Appends one line per record to a file."""

    path: str

    class Options(PluginOptions):
        """Options of `[exporters.NAME]`."""

        path: str = Field(description="file to append to")

    async def export(self, batch: Batch) -> None:
        """Append the batch."""
        with Path(self.path).open("a") as file:
            file.writelines(f"{record.format_name(self.metric_prefix_name)} {record.total}\n" for record in batch)


class Journal:
    """Writes down the moments of a pipeline."""

    class Options(PluginOptions):
        """Options of `[hooks.NAME]`."""

        path: str = Field(description="file to append to")

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    @classmethod
    def from_options(cls, options: Options, context: object) -> "Journal":
        """Construct it."""
        return cls(options.path)

    def _note(self, moment: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{moment}\n")

    @hookimpl
    def tracarbon_started(self) -> None:
        """The pipeline has started."""
        self._note("started")

    @hookimpl
    def tracarbon_window_closed(self, batch: Batch) -> None:
        """A window was closed."""
        self._note(f"window {len(batch)}")

    @hookimpl
    def tracarbon_stopped(self) -> None:
        """The pipeline has stopped."""
        self._note("stopped")
