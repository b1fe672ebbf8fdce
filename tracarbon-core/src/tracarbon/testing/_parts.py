"""Parts of a pipeline whose figures are known: to set up what a plugin under test stands between."""

from __future__ import annotations

from tracarbon.exporters.exporter import Exporter
from tracarbon.hardwares.energy import EnergyUsage, Fidelity, Provenance, UsageType
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.location import Location
from tracarbon.metrics import Batch, MetricKind, Record


class FixedSensor(Sensor):
    """A sensor, or meter, that always says the same.

    Attributes:
        watts: by component, such as `{"host": 40.0}`; what is left out is unknown.
        window_seconds: the seconds that the watts hold for.
        error: raised in place of an answer.
        asked: how often it was asked.
    """

    fidelity = Fidelity.MEASURED

    watts: dict[str, float] = {"host": 40.0, "cpu": 24.0, "memory": 6.0, "gpu": 10.0}  # noqa: RUF012 - copied
    window_seconds: float = 10.0
    error: Exception | None = None
    asked: int = 0

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the watts, with where they come from."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        origin = Provenance("fixed", Fidelity.MEASURED, self.window_seconds, "made up")
        return EnergyUsage(
            host_energy_usage=self.watts.get("host"),
            cpu_energy_usage=self.watts.get("cpu"),
            memory_energy_usage=self.watts.get("memory"),
            gpu_energy_usage=self.watts.get("gpu"),
            window_seconds=self.window_seconds,
            provenance={UsageType(name): origin for name in self.watts},
        )


class FixedLocation(Location):
    """A location whose intensity is given; by default a kilowatt-hour emits a gram for each of its 3600 kilojoules."""

    name: str = "fixed"
    co2g_kwh: float = 3600.0
    co2g_kwh_kind: str = "made up"
    co2g_kwh_date: str = "2026"

    async def get_latest_co2g_kwh(self) -> float:
        """Return the intensity in grams of CO2e per kWh."""
        return self.co2g_kwh


class RecordingExporter(Exporter):
    """Keeps what it is given.

    Attributes:
        batches: every batch, in order.
    """

    batches: list[Batch] = []  # noqa: RUF012 - each instance gets a copy

    async def export(self, batch: Batch) -> None:
        """Keep a batch."""
        self.batches.append(batch)

    @property
    def records(self) -> list[Record]:
        """Every record of every batch, in order."""
        return [record for batch in self.batches for record in batch]

    def latest(self, name: str) -> float | None:
        """Return the newest value of a metric, by its name without prefix; `None` where there is none."""
        return next((record.value for record in reversed(self.records) if record.name == name), None)

    def total(self, name: str) -> float:
        """Return what a metric adds up to: joules for watts, the sum of an amount, the newest of a level."""
        records = [record for record in self.records if record.name == name]
        if records and records[-1].kind is MetricKind.LEVEL:
            return records[-1].total
        return sum(record.total for record in records)
