"""A good plugin of each kind, and for each standard test a plugin with the one flaw that this test is for."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

from anyio.lowlevel import checkpoint
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from tracarbon.exceptions import PermanentExportError, RetryableExportError
from tracarbon.exporters import Batch, Exporter, Metric, MetricGenerator, MetricKind, Record, Tag
from tracarbon.hardwares import EnergyUsage, Sensor, UsageType
from tracarbon.hardwares.energy import Device, DeviceUsage, Fidelity
from tracarbon.locations import Location
from tracarbon.plugin import PluginOptions, Probe

FLAWS: dict[type, str] = {}
"""The standard test that each flawed plugin is made for, by contract and test."""
LIMITS: dict[type, dict[str, float]] = {}
"""Limits of the kit that are lowered for a plugin, such that it need not take long to exceed them."""


def flaw_of(test: str, **limits: float) -> Any:
    def note(cls: type) -> type:
        FLAWS[cls], LIMITS[cls] = test, limits
        return cls

    return note


# A sensor


class GoodSensor(Sensor):
    """Reads watts from a file."""

    fidelity = Fidelity.MODELLED
    path: str
    token: SecretStr = SecretStr("")

    class Options(PluginOptions):
        path: str = Field(description="file of the watts")
        token: SecretStr = Field(default=SecretStr(""), description="token")

    async def __aenter__(self) -> Any:
        self.file = Path(self.path).open()  # noqa: SIM115 - closed on leaving
        return self

    async def __aexit__(self, *_: object) -> None:
        self.file.close()

    async def get_energy_usage(self) -> EnergyUsage:
        await checkpoint()
        self.file.seek(0)
        return self.usage(float(self.file.read()))

    def usage(self, watts: float) -> EnergyUsage:
        devices = [DeviceUsage(Device("all"), watts)]
        return EnergyUsage(host_energy_usage=watts, cpu_energy_usage=watts / 2, devices=devices, method="made up")


@flaw_of("test_every_option_is_described")
class Undescribed(GoodSensor):
    class Options(PluginOptions):
        path: str = Field(description="file of the watts")
        token: SecretStr = SecretStr("")


@flaw_of("test_unknown_options_are_refused")
class Lax(GoodSensor):
    class Options(BaseModel):  # type: ignore[assignment]
        model_config = ConfigDict(extra="ignore")
        path: str = Field(description="file of the watts")
        token: SecretStr = Field(default=SecretStr(""), description="token")


@flaw_of("test_reserved_words_are_left_alone")
class Reserving(GoodSensor):
    interval: float = 1.0

    class Options(GoodSensor.Options):
        interval: float = Field(default=1.0, description="how often")


@flaw_of("test_construction_does_no_io")
class Eager(GoodSensor):
    def __post_init__(self) -> None:
        Path(self.path).read_text()


@flaw_of("test_construction_does_no_io")
class Looking(GoodSensor):
    def __post_init__(self) -> None:
        os.listdir(Path(self.path).parent)  # noqa: PTH208 - the flaw


@flaw_of("test_it_can_be_entered_again")
class OnceOnly(GoodSensor):
    is_used: bool = False

    async def __aenter__(self) -> Any:
        if self.is_used:
            raise RuntimeError("threads can only be started once")
        self.is_used = True
        return await super().__aenter__()


@flaw_of("test_leaving_it_releases_everything")
class Leaking(GoodSensor):
    kept: ClassVar[list[object]] = []

    async def __aexit__(self, *_: object) -> None:
        self.kept.append(self.file)


@flaw_of("test_leaving_it_releases_everything")
class LeavingAProcess(GoodSensor):
    kept: ClassVar[list[subprocess.Popen[bytes]]] = []

    async def __aenter__(self) -> Any:
        self.kept.append(subprocess.Popen(["sleep", "300"]))
        return await super().__aenter__()


@flaw_of("test_a_cancelled_call_leaves_nothing_open")
class LeakingWhenCancelled(GoodSensor):
    kept: ClassVar[list[object]] = []

    async def get_energy_usage(self) -> EnergyUsage:
        file = Path(self.path).open()  # noqa: SIM115 - the flaw
        self.kept.append(file)
        await checkpoint()
        await checkpoint()
        file.close()
        return self.usage(40.0)


@flaw_of("test_a_cancelled_call_leaves_nothing_open")
class Uncancellable(GoodSensor):
    async def get_energy_usage(self) -> EnergyUsage:
        try:
            for _ in range(5):
                await checkpoint()
        except BaseException:
            pass
        return self.usage(40.0)


@flaw_of("test_the_event_loop_is_never_held_up", _ENTRY_STEP_SECONDS=0.1)
class BlockingWhenEntered(GoodSensor):
    async def __aenter__(self) -> Any:
        time.sleep(0.15)
        return await super().__aenter__()


@flaw_of("test_the_event_loop_is_never_held_up", _ENTRY_STEP_SECONDS=0.1)
class BlockingWhenLeft(GoodSensor):
    async def __aexit__(self, *details: object) -> None:
        time.sleep(0.15)
        await super().__aexit__(*details)


@flaw_of("test_the_event_loop_is_never_held_up")
class Blocking(GoodSensor):
    async def get_energy_usage(self) -> EnergyUsage:
        time.sleep(0.15)
        return await super().get_energy_usage()


@flaw_of("test_no_secret_is_shown")
class Telling(GoodSensor):
    token: str = ""  # type: ignore[assignment]

    class Options(PluginOptions):
        path: str = Field(description="file of the watts")
        token: str = Field(default="", description="token")


@flaw_of("test_no_secret_is_shown")
class TellingByAnotherName(GoodSensor):
    passphrase: str = "SECRET-PHRASE"

    class Options(GoodSensor.Options):
        passphrase: str = Field(default="SECRET-PHRASE", description="of the key")


@flaw_of("test_no_secret_is_shown")
class TellingCredentials(GoodSensor):
    credential: str = ""

    class Options(GoodSensor.Options):
        credential: str = Field(default="SECRET-CREDENTIAL", description="to come in with")


@flaw_of("Sensor.test_figures_are_sound")
class NotANumber(GoodSensor):
    def usage(self, watts: float) -> EnergyUsage:
        usage = super().usage(watts)
        usage.devices = [DeviceUsage(Device("all"), math.nan)]
        return usage


@flaw_of("Sensor.test_parts_are_within_the_host")
class MoreThanAll(GoodSensor):
    def usage(self, watts: float) -> EnergyUsage:
        return EnergyUsage(host_energy_usage=watts, cpu_energy_usage=watts, memory_energy_usage=1.0, method="made up")


@flaw_of("Sensor.test_windows_are_the_time_since_the_previous_reading")
class AMinuteEachTime(GoodSensor):
    def usage(self, watts: float) -> EnergyUsage:
        return super().usage(watts).model_copy(update={"window_seconds": 60.0})


@flaw_of("Sensor.test_provenance_is_stated")
class OfUnknownOrigin(GoodSensor):
    def usage(self, watts: float) -> EnergyUsage:
        return super().usage(watts).model_copy(update={"method": None})


@flaw_of("Sensor.test_provenance_is_stated")
class OfBlankOrigin(GoodSensor):
    def usage(self, watts: float) -> EnergyUsage:
        return super().usage(watts).model_copy(update={"method": " "})


@flaw_of("Sensor.test_devices_have_names_of_their_own")
class Twins(GoodSensor):
    def usage(self, watts: float) -> EnergyUsage:
        usage = super().usage(watts)
        usage.devices = [*usage.devices, *usage.devices]
        return usage


@flaw_of("Sensor.test_probe_answers_on_any_machine")
class RaisingProbe(GoodSensor):
    @classmethod
    def probe(cls, context: Any) -> Probe:
        next((context.host_root / "sys").iterdir())
        return Probe(works=True)


@flaw_of("Sensor.test_probe_answers_on_any_machine", _PROBE_SECONDS=0.05)
class SlowProbe(GoodSensor):
    @classmethod
    def probe(cls, context: Any) -> Probe:
        time.sleep(0.1)
        return Probe(works=True)


@flaw_of("Sensor.test_probe_answers_on_any_machine")
class MumblingProbe(GoodSensor):
    @classmethod
    def probe(cls, context: Any) -> Probe:
        return Probe(works=False, reason=" ")


# A location


class GoodLocation(Location):
    """Knows a figure."""

    name: str = "kit"
    path: str = ""
    token: SecretStr = SecretStr("")
    co2g_kwh_kind: str = "made up"
    co2g_kwh_date: str = "2026"

    class Options(GoodSensor.Options):
        pass

    async def get_latest_co2g_kwh(self) -> float:
        await checkpoint()
        self.co2g_kwh = 50.0
        return self.co2g_kwh


@flaw_of("Location.test_the_intensity_is_sound")
class Negative(GoodLocation):
    async def get_latest_co2g_kwh(self) -> float:
        self.co2g_kwh = -5.0
        return self.co2g_kwh


@flaw_of("Location.test_provenance_is_stated")
class Undated(GoodLocation):
    co2g_kwh_date: str = ""


@flaw_of("Location.test_provenance_is_stated")
class BlankDate(GoodLocation):
    co2g_kwh_date: str = " "


@flaw_of("Location.test_several_may_ask_at_once")
class Confused(GoodLocation):
    asking: int = 0

    async def get_latest_co2g_kwh(self) -> float:
        self.asking += 1
        self.co2g_kwh = 50.0 + self.asking
        answer = self.co2g_kwh
        await checkpoint()
        self.asking -= 1
        return answer


@flaw_of("Location.test_probe_answers_on_any_machine")
class SilentProbe(GoodLocation):
    @classmethod
    def probe(cls, context: Any) -> Probe:
        return Probe(works=False)


# A generator


class GoodGenerator(MetricGenerator):
    """Watts and grams of the host."""

    energy_consumption: Sensor
    path: str = ""
    token: SecretStr = SecretStr("")
    kind: MetricKind = MetricKind.RATE
    label: str = "energy_{}"

    class Options(GoodSensor.Options):
        pass

    async def generate(self) -> AsyncGenerator[Metric, None]:
        usage = await self.energy_consumption.get_energy_usage()
        for usage_type in UsageType:
            watts = usage.get_energy_usage_on_type(usage_type)
            if watts is not None:
                yield self.metric(usage_type.value, watts)

    def metric(self, part: str, watts: float) -> Metric:
        name = self.label.format(part)
        return Metric(name=name, value=watts, unit="watts", kind=self.kind, tags=self.tags())

    def tags(self) -> list[Tag]:
        return [Tag("sensor", "kit"), Tag("fidelity", "measured")]


@flaw_of("Generator.test_metrics_are_sound")
class Shouting(GoodGenerator):
    label: str = "Energy of {}"


@flaw_of("Generator.test_a_series_comes_once")
class OneName(GoodGenerator):
    label: str = "energy"


@flaw_of("Generator.test_values_can_be_asked_for_late")
class LateBinding(GoodGenerator):
    async def generate(self) -> AsyncGenerator[Metric, None]:
        usage = await self.energy_consumption.get_energy_usage()
        for usage_type in UsageType:

            async def value() -> float | None:
                return usage.get_energy_usage_on_type(usage_type)  # noqa: B023 - the flaw

            metric = self.metric(usage_type.value, 0.0)
            metric.value = value
            yield metric


@flaw_of("Generator.test_the_meter_is_read_once_in_a_window")
class ReadingTwice(GoodGenerator):
    async def generate(self) -> AsyncGenerator[Metric, None]:
        await self.energy_consumption.get_energy_usage()
        async for metric in super().generate():
            yield metric


@flaw_of("Generator.test_a_failing_meter_is_no_zero")
class Soothing(GoodGenerator):
    async def generate(self) -> AsyncGenerator[Metric, None]:
        try:
            usage = await self.energy_consumption.get_energy_usage()
        except OSError:
            usage = EnergyUsage(host_energy_usage=0.0)
        if usage.host_energy_usage is not None:
            yield self.metric("host", usage.host_energy_usage)


@flaw_of("Generator.test_unknown_is_left_out")
class Guessing(GoodGenerator):
    async def generate(self) -> AsyncGenerator[Metric, None]:
        usage = await self.energy_consumption.get_energy_usage()
        yield self.metric("host", usage.host_energy_usage or 0.0)


@flaw_of("Generator.test_metrics_say_how_they_add_up")
class Levelling(GoodGenerator):
    kind: MetricKind = MetricKind.LEVEL


@flaw_of("Generator.test_provenance_is_stated")
class Anonymous(GoodGenerator):
    def tags(self) -> list[Tag]:
        return []


# An exporter


class GoodExporter(Exporter):
    """Appends lines to a file; a second file says how it fails."""

    path: str
    token: SecretStr = SecretStr("")
    has_failed: bool = False

    class Options(GoodSensor.Options):
        pass

    async def __aenter__(self) -> Any:
        self.file = Path(self.path).open("a")  # noqa: SIM115 - closed on leaving
        return self

    async def __aexit__(self, *_: object) -> None:
        self.file.close()

    async def export(self, batch: Batch) -> None:
        await checkpoint()
        fault = Path(f"{self.path}.fault")
        await self.send(batch, fault.read_text() if fault.exists() else "")

    async def send(self, batch: Batch, fault: str) -> None:
        records = [*batch]
        self.has_failed = self.has_failed or bool(fault)
        if fault == "retryable":
            raise RetryableExportError("not now")
        if fault == "permanent":
            raise PermanentExportError("never")
        if fault == "mixed":
            self.write(records[:1])
            rest = {record.key: record for record in records[1:]}
            raise RetryableExportError("a part", remaining=Batch(rest, batch.windows, batch.window))
        self.write(records)

    def write(self, records: list[Record]) -> None:
        self.file.writelines(json.dumps([record.name, record.value]) + "\n" for record in records)


@flaw_of("Exporter.test_a_batch_arrives")
class Repeating(GoodExporter):
    async def send(self, batch: Batch, fault: str) -> None:
        await super().send(batch, fault)
        if batch.window.seconds <= 10 and not self.has_failed:
            self.write([*batch])


@flaw_of("Exporter.test_leaving_it_flushes")
class Forgetting(GoodExporter):
    waiting: list[Record] = []  # noqa: RUF012 - each instance gets a copy

    async def send(self, batch: Batch, fault: str) -> None:
        if fault:
            await super().send(batch, fault)
        self.waiting += batch

    async def __aexit__(self, *_: object) -> None:
        self.write(self.waiting[:3])
        self.file.close()


@flaw_of("Exporter.test_an_empty_batch_is_nothing")
class Heartbeat(GoodExporter):
    async def send(self, batch: Batch, fault: str) -> None:
        if not len(batch):
            self.file.write('["alive", 1.0]\n')
        await super().send(batch, fault)


@flaw_of("Exporter.test_a_merged_batch_keeps_its_totals")
class PerWindow(GoodExporter):
    async def send(self, batch: Batch, fault: str) -> None:
        await super().send(batch, fault)
        if batch.window.seconds > 10:
            self.write([*batch])


@flaw_of("Exporter.test_what_fails_for_now_is_tried_again")
class Swallowing(GoodExporter):
    async def send(self, batch: Batch, fault: str) -> None:
        if fault != "retryable":
            await super().send(batch, fault)


@flaw_of("Exporter.test_what_is_refused_for_good_is_given_up")
class Stubborn(GoodExporter):
    async def send(self, batch: Batch, fault: str) -> None:
        await super().send(batch, "retryable" if fault == "permanent" else fault)


@flaw_of("Exporter.test_what_is_taken_in_part_is_not_sent_twice")
class AllOverAgain(GoodExporter):
    async def send(self, batch: Batch, fault: str) -> None:
        try:
            await super().send(batch, fault)
        except RetryableExportError as error:
            raise RetryableExportError(str(error)) from error
