"""tracarbon from code: a library call that measures in the background and leaves its host process alone."""

import asyncio
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Self

import anyio
import pytest
from tracarbon._lifting import Lifting
from tracarbon.builder import Tracarbon, TracarbonBuilder
from tracarbon.cli import get_exporter
from tracarbon.conf import TracarbonConfiguration
from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exceptions import CO2SignalAPIKeyIsMissing, PluginError, StartupError, TracarbonException
from tracarbon.exporters.exporter import Exporter, Metric, MetricGenerator
from tracarbon.exporters.json_exporter import JSONExporter
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.hardwares.energy import EnergyUsage, Fidelity
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.country import Country
from tracarbon.locations.location import CarbonIntensitySource, Location
from tracarbon.testing import RecordingExporter

from tests.pipelines.support import DEADLINE_SECONDS, environment, figures, read_records, records_so_far, wait_until
from tests.support.web_server import json_answer, serving

HOST, CARBON = "energy_consumption_host", "carbon_emission_host"


class ConstantSensor(Sensor):
    """A host that draws 36 W."""

    fidelity = Fidelity.MEASURED
    sampling_interval_seconds = math.inf
    reads: list[int] = field(default_factory=list)
    key: str = ""

    async def get_energy_usage(self) -> EnergyUsage:
        self.reads.append(1)
        return EnergyUsage(host_energy_usage=36.0)


class FixedLocation(Location):
    """3600 g/kWh: a gram per kilojoule."""

    name: str = "here"
    entered: bool = False

    async def __aenter__(self) -> "FixedLocation":
        self.entered = True
        return self

    async def get_latest_co2g_kwh(self) -> float:
        return 3600.0


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACARBON_INTERVAL_IN_SECONDS", "60")
    monkeypatch.setenv("TRACARBON_COUNTRY", "fr")


def exporter_of(path: Path, sensor: Sensor | None = None) -> JSONExporter:
    """An exporter of energy and carbon, each with the sensor."""
    sensor = sensor or ConstantSensor()
    location = FixedLocation()
    carbon = CarbonEmission(location=location, energy_consumption=sensor)
    return JSONExporter(
        path=str(path),
        metric_generators=[
            EnergyConsumptionGenerator(location=location, energy_consumption=sensor),
            CarbonEmissionGenerator(location=location, carbon_emission=carbon),
        ],
    )


def build(path: Path) -> Tracarbon:
    return TracarbonBuilder().with_exporter(exporter_of(path)).build()


def count_windows(path: Path) -> int:
    return len(list(figures(records_so_far(path), HOST)))


class TestWith:
    def test_report_is_what_was_exported(self, tmp_path: Path) -> None:
        path = tmp_path / "records.json"
        before = datetime.now(UTC)
        with build(path) as tracarbon:
            wait_until(lambda: count_windows(path) == 1, "the first window")
        after = datetime.now(UTC)
        records = read_records(path)
        seconds = sum(record["covered_seconds"] for record in figures(records, HOST))
        energy, carbon = tracarbon.report.metric_report[HOST], tracarbon.report.metric_report[CARBON]
        assert (energy.total_unit, carbon.total_unit) == ("Wh", "co2g")
        assert energy.total == pytest.approx(36.0 * seconds / 3600)
        assert (energy.average, energy.minimum, energy.maximum) == pytest.approx((36.0, 36.0, 36.0))
        assert carbon.total == pytest.approx(0.036 * seconds)
        assert carbon.total == pytest.approx(sum(record["value"] for record in figures(records, CARBON)))
        assert energy.call_count == carbon.call_count == 2
        assert energy.exporter_name == "JSON"
        start, end = tracarbon.report.start_time, tracarbon.report.end_time
        assert start is not None
        assert end is not None
        assert before <= start < end <= after

    def test_defaults_are_the_best_sensor_and_stdout(self, capfd: pytest.CaptureFixture[str]) -> None:
        with TracarbonBuilder().build() as tracarbon:
            wait_until(lambda: HOST in capfd.readouterr().out, "a line on standard output")
        assert {HOST, CARBON} <= set(tracarbon.report.metric_report)
        tags = dict(tracarbon.report.metric_report[CARBON].metric.tags)
        assert tags["location"] == "fr"
        assert tracarbon.report.co2g_per_kwh == Country.from_eu_file("fr").co2g_kwh
        assert f"carbon intensity of fr: {tracarbon.report.co2g_per_kwh:g} g/kWh, " in str(tracarbon.report)
        assert tracarbon.report.metric_report[HOST].exporter_name == "Stdout"

    def test_settings_of_the_configuration(self, tmp_path: Path) -> None:
        path = tmp_path / "records.json"
        configuration = TracarbonConfiguration(metric_prefix_name="mine", interval_in_seconds=0.1)
        with TracarbonBuilder(exporter=exporter_of(path), configuration=configuration).build():
            wait_until(lambda: count_windows(path) >= 3, "three windows")
        assert {record["name"] for record in read_records(path)} == {f"mine.{HOST}", f"mine.{CARBON}"}

    def test_error_in_the_block_comes_through_and_nothing_is_lost(self, tmp_path: Path) -> None:
        path = tmp_path / "records.json"
        with pytest.raises(ZeroDivisionError), build(path):
            raise ZeroDivisionError
        assert count_windows(path) >= 1

    def test_what_does_not_start_says_why(self, tmp_path: Path) -> None:
        tracarbon = build(tmp_path / "missing" / "records.json")
        with pytest.raises(StartupError, match="there is no folder"):
            tracarbon.start()
        tracarbon.stop()
        (tmp_path / "missing").mkdir()
        with tracarbon:
            pass
        assert count_windows(tmp_path / "missing" / "records.json") >= 1

    def test_unknown_country_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRACARBON_COUNTRY", "zz")
        with pytest.raises(StartupError, match="no carbon intensity is known for country 'zz'"):
            TracarbonBuilder().build().start()


class TestStartAndStop:
    def test_twice(self, tmp_path: Path) -> None:
        tracarbon = build(tmp_path / "records.json")
        tracarbon.stop()
        tracarbon.start()
        with pytest.raises(TracarbonException, match="runs already"):
            tracarbon.start()
        tracarbon.stop()
        tracarbon.stop()
        assert HOST in tracarbon.report.metric_report

    def test_an_exporter_that_another_one_runs_is_refused(self, tmp_path: Path) -> None:
        exporter = exporter_of(tmp_path / "records.json")
        one, other = (TracarbonBuilder(exporter=exporter).build() for _ in range(2))
        one.start()
        for start in (other.start, lambda: exporter.start(60)):
            with pytest.raises(TracarbonException, match="the exporter JSON runs already, elsewhere"):
                start()
        assert not exporter.stopped
        other.stop()
        one.stop()
        assert HOST in one.report.metric_report
        with other:
            pass
        assert HOST in other.report.metric_report

    @pytest.mark.parametrize("target", ["tracarbon._background.anyio.run", "threading.Thread.start"])
    def test_a_start_that_could_not_even_begin_leaves_all_as_it_was(
        self, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sensor = ConstantSensor()
        generator = EnergyConsumptionGenerator(energy_consumption=sensor)
        tracarbon = TracarbonBuilder(exporter=RecordingExporter(metric_generators=[generator])).build()

        def refuse(*_: object) -> None:
            raise OSError("too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(target, refuse)
            with pytest.raises(OSError, match="too many open files"):
                tracarbon.start()
        assert generator.energy_consumption is sensor
        with tracarbon:
            pass
        assert HOST in tracarbon.report.metric_report

    def test_a_start_that_is_interrupted_is_waited_for_by_stop(self) -> None:
        is_interrupted = threading.Event()

        class Slow(RecordingExporter):
            async def __aenter__(self) -> Self:
                if not is_interrupted.is_set():
                    os.kill(os.getpid(), signal.SIGINT)
                with anyio.CancelScope(shield=True):
                    while not is_interrupted.is_set():
                        await anyio.sleep(0.01)
                return await super().__aenter__()

        exporter = Slow(metric_generators=[EnergyConsumptionGenerator(energy_consumption=ConstantSensor())])
        tracarbon = TracarbonBuilder(exporter=exporter).build()
        with pytest.raises(KeyboardInterrupt):
            tracarbon.start()
        assert not exporter.stopped
        with pytest.raises(TracarbonException, match=r"runs already; stop\(\) it first"):
            tracarbon.start()
        is_interrupted.set()
        tracarbon.stop()
        assert exporter.stopped
        with tracarbon:
            pass
        assert HOST in tracarbon.report.metric_report

    def test_the_level_of_the_log_is_the_configurations_unless_the_user_has_set_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logger = logging.getLogger("tracarbon")
        monkeypatch.setattr("tracarbon.builder._level_set_here", logging.NOTSET)
        before = logger.level
        try:
            for chosen, configured, level in (
                (logging.NOTSET, "ERROR", logging.ERROR),
                (None, "WARNING", logging.WARNING),
                (logging.CRITICAL, "INFO", logging.CRITICAL),
            ):
                if chosen is not None:
                    logger.setLevel(chosen)
                configuration = TracarbonConfiguration(log_level=configured)
                exporter = exporter_of(tmp_path / "records.json")
                with TracarbonBuilder(exporter=exporter, configuration=configuration).build():
                    assert logger.level == level
        finally:
            logger.setLevel(before)

    def test_restart_has_a_report_of_its_own(self, tmp_path: Path) -> None:
        path = tmp_path / "records.json"
        tracarbon = build(path)
        with tracarbon:
            wait_until(lambda: count_windows(path) == 1, "the first window")
        first, windows = tracarbon.report, count_windows(path)
        with tracarbon:
            wait_until(lambda: count_windows(path) == windows + 1, "the first window again")
        again = tracarbon.report
        assert first.end_time is not None
        assert again.start_time is not None
        assert again.start_time >= first.end_time
        assert again.metric_report[HOST].call_count == count_windows(path) - windows == 2

    def test_nothing_of_it_is_left(self, tmp_path: Path) -> None:
        before = threading.enumerate()

        def threads() -> list[str]:
            return [it.name for it in threading.enumerate() if it not in before and it.name.startswith("tracarbon")]

        with build(tmp_path / "records.json"):
            assert "tracarbon" in threads()
        wait_until(lambda: threads() == [], "the end of every thread")

    def test_signal_handlers_are_the_hosts(self, tmp_path: Path) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.getsignal(number) for number in numbers]
        with build(tmp_path / "records.json"):
            assert [signal.getsignal(number) for number in numbers] == before
        assert [signal.getsignal(number) for number in numbers] == before

    def test_inside_a_running_event_loop(self, tmp_path: Path) -> None:
        async def main() -> None:
            tracarbon = build(tmp_path / "records.json")
            tracarbon.start()
            tracarbon.stop()

        asyncio.run(main())
        assert count_windows(tmp_path / "records.json") >= 1

    def test_exporter_by_itself(self, tmp_path: Path) -> None:
        path = tmp_path / "records.json"
        exporter = exporter_of(path)
        exporter.start(interval_in_seconds=0.1)
        wait_until(lambda: count_windows(path) >= 2, "two windows")
        exporter.stop()
        exporter.stop()
        assert exporter.stopped
        assert exporter.metric_report[HOST].call_count == count_windows(path)


class TestFromSeveralThreads:
    @pytest.mark.parametrize("starts_an_exporter", [True, False])
    def test_one_start_goes_well(self, tmp_path: Path, *, starts_an_exporter: bool) -> None:
        exporter = exporter_of(tmp_path / "records.json")
        tracarbon = TracarbonBuilder(exporter=exporter).build()
        barrier, refused = threading.Barrier(5), list[str]()

        def start() -> None:
            barrier.wait()
            try:
                if starts_an_exporter:
                    exporter.start(60)
                else:
                    tracarbon.start()
            except TracarbonException as error:
                refused.append(str(error))

        threads = [threading.Thread(target=start) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (exporter if starts_an_exporter else tracarbon).stop()
        assert len(refused) == 4
        assert all("already" in message for message in refused)
        wait_until(lambda: "tracarbon" not in [it.name for it in threading.enumerate()], "the end of every pipeline")

    def test_an_exporter_may_stop_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        class Enough(Exporter):
            async def launch(self, metric_generator: MetricGenerator) -> None:
                self.stop()

        exporter = Enough()
        exporter.start(interval_in_seconds=0.1)
        assert exporter.event is not None
        assert exporter.event.wait(DEADLINE_SECONDS)
        assert exporter.stopped
        assert HOST in exporter.metric_report
        assert "failed" not in caplog.text

    def test_where_it_is_held_up_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        released, reached = threading.Event(), threading.Event()

        class Holding(MetricGenerator):
            async def generate(self) -> AsyncGenerator[Metric, None]:
                reached.set()
                released.wait(DEADLINE_SECONDS)
                yield Metric(name="m", value=1.0)

        monkeypatch.setattr("tracarbon._background._STOP_SECONDS", 0.05)
        tracarbon = TracarbonBuilder(exporter=RecordingExporter(metric_generators=[Holding()])).build()
        tracarbon.start()
        assert reached.wait(DEADLINE_SECONDS)
        with pytest.raises(TracarbonException, match=r"did not end within .* a plugin blocks it, in .*, line \d+"):
            tracarbon.stop()
        released.set()
        wait_until(lambda: "tracarbon" not in [it.name for it in threading.enumerate()], "the end of the pipeline")


class TestBadInput:
    def test_of_the_builder(self) -> None:
        with pytest.raises(TypeError, match="'FR' is no Location of tracarbon, but str"):
            TracarbonBuilder(location="FR").build()  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="None is no TracarbonConfiguration of tracarbon, but NoneType"):
            Tracarbon(None, None, None)  # type: ignore[arg-type]
        with pytest.raises(PluginError, match="an exporter is named by a text, such as 'Stdout', not by None"):
            get_exporter(None, [])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="'Stdout' is no Exporter of tracarbon, but str"):
            TracarbonBuilder().with_exporter("Stdout").build()  # type: ignore[arg-type]

    def test_of_an_exporter(self) -> None:
        exporter = RecordingExporter(metric_generators=[Metric(name="m", value=1.0)])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="which is no MetricGenerator"):
            exporter.start(1)

    def test_metrics_without_carbon_ask_for_no_country(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TRACARBON_COUNTRY")
        exporter = RecordingExporter(metric_generators=[MetricGenerator(metrics=[Metric(name="m", value=1.0)])])
        exporter.start(60)
        wait_until(lambda: bool(exporter.batches), "the first window")
        exporter.stop()
        assert exporter.latest("m") == 1.0
        assert "country" not in caplog.text


class TestAsynchronously:
    async def test_async_with(self, tmp_path: Path) -> None:
        path = tmp_path / "records.json"
        async with build(path) as tracarbon:
            while count_windows(path) < 1:
                await anyio.sleep(0.01)
        assert tracarbon.report.metric_report[HOST].call_count == 2

    async def test_the_loop_is_not_held_up(self, tmp_path: Path) -> None:
        class Slow(ConstantSensor):
            """Is there once the other loop has gone on."""

            async def __aenter__(self) -> "Slow":
                while beats < 5:
                    await anyio.sleep(0.01)
                return self

        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await anyio.sleep(0.01)
                beats += 1

        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            async with TracarbonBuilder(exporter=exporter_of(tmp_path / "records.json", Slow())).build():
                group.cancel_scope.cancel()
        assert beats >= 5

    async def test_cancelled_while_it_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "records.json"
        with anyio.CancelScope() as scope:
            async with build(path):
                scope.cancel()
                await anyio.sleep_forever()
        assert count_windows(path) >= 1


class Legacy(Exporter):
    """Written for the documented interface."""

    seen: list[tuple[str, float]] = field(default_factory=list)

    @classmethod
    def get_name(cls) -> str:
        return "Legacy"

    async def launch(self, metric_generator: MetricGenerator) -> None:
        async for metric in metric_generator.generate():
            assert callable(metric.value)
            value = await metric.value()
            assert value is not None
            await self.add_metric_to_report(metric=metric, value=value)
            self.seen.append((metric.format_name(self.metric_prefix_name), value))


class TestLifting:
    def test_generators_are_put_back(self, tmp_path: Path) -> None:
        sensor = ConstantSensor()
        exporter = exporter_of(tmp_path / "records.json", sensor)
        energy, carbon = exporter.metric_generators
        assert isinstance(energy, EnergyConsumptionGenerator)
        assert isinstance(carbon, CarbonEmissionGenerator)
        emission = carbon.carbon_emission
        assert emission is not None
        with TracarbonBuilder(exporter=exporter).build():
            assert energy.energy_consumption is not sensor
            assert emission.energy_consumption is not sensor
            assert exporter.metric_prefix_name == "tracarbon"
        assert energy.energy_consumption is emission.energy_consumption is sensor
        assert carbon.carbon_emission is emission
        assert exporter.metric_prefix_name is None

    def test_put_back_where_the_start_fails(self, tmp_path: Path) -> None:
        sensor = ConstantSensor()
        exporter = exporter_of(tmp_path / "missing" / "records.json", sensor)
        with pytest.raises(StartupError):
            TracarbonBuilder(exporter=exporter).build().start()
        energy = exporter.metric_generators[0]
        assert isinstance(energy, EnergyConsumptionGenerator)
        assert energy.energy_consumption is sensor

    @pytest.mark.parametrize(("keys", "readers"), [(("", ""), 1), (("one", "other"), 2)])
    def test_equal_sensors_are_read_once(self, tmp_path: Path, keys: Sequence[str], readers: int) -> None:
        one, other = (ConstantSensor(key=key) for key in keys)
        location = FixedLocation()
        carbon = CarbonEmission(location=location, energy_consumption=other)
        path = tmp_path / "records.json"
        exporter = JSONExporter(
            path=str(path),
            metric_generators=[
                EnergyConsumptionGenerator(location=location, energy_consumption=one),
                CarbonEmissionGenerator(location=location, carbon_emission=carbon),
            ],
        )
        with TracarbonBuilder(exporter=exporter).build():
            wait_until(lambda: count_windows(path) == 1, "the first window")
        assert [bool(one.reads), bool(other.reads)] == [True, readers == 2]
        energy, emitted = (list(figures(read_records(path), name)) for name in (HOST, CARBON))
        assert [it["value"] for it in energy] == pytest.approx([36.0] * len(energy))
        # Sensors of their own are read at instants of their own.
        read = energy if readers == 1 else emitted
        kilojoules = sum(0.036 * it["covered_seconds"] for it in read)
        assert sum(it["value"] for it in emitted) == pytest.approx(kilojoules, rel=1e-9)

    def test_locations_of_generators_are_entered_and_no_other_is_asked(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TRACARBON_COUNTRY")
        sensor, one, other = ConstantSensor(), FixedLocation(), FixedLocation()
        carbon = CarbonEmission(location=other, energy_consumption=sensor)
        exporter = JSONExporter(
            path=str(tmp_path / "records.json"),
            metric_generators=[
                EnergyConsumptionGenerator(location=one, energy_consumption=sensor),
                CarbonEmissionGenerator(location=other, carbon_emission=carbon),
            ],
        )
        with TracarbonBuilder(exporter=exporter).build():
            assert one.entered
            assert other.entered
        assert "country" not in caplog.text

    def test_location_of_an_emission_is_entered_and_its_generators_own(self, tmp_path: Path) -> None:
        location = FixedLocation()
        carbon = CarbonEmission(location=location, energy_consumption=ConstantSensor())
        generator = CarbonEmissionGenerator(carbon_emission=carbon)
        path = tmp_path / "records.json"
        with TracarbonBuilder(exporter=JSONExporter(path=str(path), metric_generators=[generator])).build():
            assert location.entered
            assert generator.location is location
        assert generator.location is None
        assert {record["tags"]["location"] for record in read_records(path)} == {"here"}

    def test_location_of_the_builder_is_for_emissions_without(self, tmp_path: Path) -> None:
        carbon = CarbonEmission(energy_consumption=ConstantSensor())
        generator = CarbonEmissionGenerator(carbon_emission=carbon)
        path = tmp_path / "records.json"
        exporter = JSONExporter(path=str(path), metric_generators=[generator])
        with TracarbonBuilder(exporter=exporter).with_location(Country(name="de")).build():
            pass
        assert {record["tags"]["location"] for record in read_records(path)} == {"de"}
        assert carbon.location is None

    @pytest.mark.parametrize(
        ("location", "is_live"),
        [(Country(name="de"), True), (FixedLocation(), False), (Country(name="de", co2signal_api_key="own"), False)],
    )
    def test_key_of_a_generator_is_for_the_location_that_it_gets(
        self, tmp_path: Path, location: Location, is_live: bool
    ) -> None:
        generator = CarbonEmissionGenerator(co2signal_api_key="KEY")
        exporter = JSONExporter(path=str(tmp_path / "records.json"), metric_generators=[generator])
        Lifting(exporter, location, interval_seconds=60, metric_prefix_name=None)
        given = generator.location
        assert given is not None
        assert (given is location) == (not is_live)
        assert given.name == location.name
        assert given.co2signal_api_key == ("KEY" if is_live else location.co2signal_api_key)
        assert (given.co2g_kwh_source is CarbonIntensitySource.CO2SignalAPI) == is_live

    @pytest.mark.parametrize("is_the_generators", [True, False])
    def test_key_of_the_configuration_is_for_a_live_location_without(self, *, is_the_generators: bool) -> None:
        location = Country(name="fr", co2g_kwh_source=CarbonIntensitySource.CO2SignalAPI)
        generator = EnergyConsumptionGenerator(energy_consumption=ConstantSensor())
        if is_the_generators:
            generator.location = location
        with serving(json_answer({"zone": "FR", "carbonIntensity": 42.5})) as server:
            configuration = TracarbonConfiguration(co2signal_api_key="KEY", co2signal_url=f"{server.url}/")
            exporter = RecordingExporter(metric_generators=[generator])
            with TracarbonBuilder(exporter=exporter, location=location, configuration=configuration).build():
                assert location.co2signal_api_key == "KEY"
        assert [(path, headers["auth-token"]) for path, headers in server.requests] == [("/FR", "KEY")]

    def test_key_of_the_configuration_goes_to_no_other_service(self) -> None:
        source = CarbonIntensitySource.CO2SignalAPI
        location = Country(name="fr", co2g_kwh_source=source, co2signal_url="http://127.0.0.1:9/intensity/")
        tracarbon = Tracarbon(TracarbonConfiguration(co2signal_api_key="KEY"), RecordingExporter(), location)
        with pytest.raises(CO2SignalAPIKeyIsMissing):
            tracarbon.start()
        assert not location.co2signal_api_key

    def test_a_live_location_without_any_key_is_refused_as_documented(self) -> None:
        location = Country(name="fr", co2g_kwh_source=CarbonIntensitySource.CO2SignalAPI)
        tracarbon = TracarbonBuilder(exporter=RecordingExporter(), location=location).build()
        for _ in range(2):
            with pytest.raises(CO2SignalAPIKeyIsMissing, match="TRACARBON_CO2SIGNAL_API_KEY"):
                tracarbon.start()

    def test_location_of_the_builder_is_for_generators_without(self, tmp_path: Path) -> None:
        generator = EnergyConsumptionGenerator(energy_consumption=ConstantSensor())
        exporter = JSONExporter(path=str(tmp_path / "records.json"), metric_generators=[generator])
        with TracarbonBuilder(exporter=exporter).with_location(Country(name="de")).build():
            pass
        assert {record["tags"]["location"] for record in read_records(tmp_path / "records.json")} == {"de"}
        assert generator.location is None

    def test_exporter_of_the_documented_interface(self) -> None:
        exporter = Legacy(metric_generators=exporter_of(Path("unused")).metric_generators)
        with TracarbonBuilder(exporter=exporter).build() as tracarbon:
            wait_until(lambda: len(exporter.seen) >= 2, "the first window")
        assert {name for name, _ in exporter.seen} == {f"tracarbon.{HOST}", f"tracarbon.{CARBON}"}
        ours, theirs = tracarbon.report.metric_report[HOST], exporter.metric_report[HOST]
        assert theirs.total == pytest.approx(ours.total)
        assert theirs.total_unit == "Wh"
        assert theirs.call_count == ours.call_count

    def test_metrics_of_ones_own(self, tmp_path: Path) -> None:
        generator = MetricGenerator(metrics=[Metric(name="pods", value=3)])
        exporter = JSONExporter(path=str(tmp_path / "records.json"), metric_generators=[generator])
        with TracarbonBuilder(exporter=exporter).build() as tracarbon:
            pass
        assert tracarbon.report.metric_report["pods"].total == 3


def run_script(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    preamble = """
        import json, os, sys, time
        from tracarbon.builder import TracarbonBuilder
        from tracarbon.exporters.json_exporter import JSONExporter
        tracarbon = TracarbonBuilder(exporter=JSONExporter(path="records.json")).build()

        def start():
            tracarbon.start()
            while not is_there():
                time.sleep(0.01)

        def is_there():  # the first window, whole
            try:
                with open("records.json") as file:
                    return bool(json.load(file))
            except ValueError:
                return False
    """
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", dedent(preamble) + dedent(script)],
        cwd=folder,
        env=environment(TRACARBON_COUNTRY="fr"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


class TestTheEndOfTheProcess:
    @pytest.mark.parametrize(
        ("ending", "status"), [("pass", 0), ("sys.exit(3)", 3), ("1 / 0", 1), ("del tracarbon", 0)]
    )
    def test_what_was_not_stopped_is_flushed(self, tmp_path: Path, ending: str, status: int) -> None:
        result = run_script(f"start()\ntime.sleep(0.4)\n{ending}\n", tmp_path)
        assert result.returncode == status, result.stderr
        assert result.stderr == "" or status == 1
        windows = list(figures(read_records(tmp_path / "records.json"), HOST))
        assert sum(window["window_seconds"] for window in windows) >= 0.4
        assert len(windows) == 2

    def test_forked_child_is_inert(self, tmp_path: Path) -> None:
        script = """
            start()
            child = os.fork()
            if child == 0:
                tracarbon.stop()
                sys.exit(0)  # with all that is done at the interpreter's exit
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            tracarbon.stop()
            print(tracarbon.report.metric_report["energy_consumption_host"].call_count)
        """
        result = run_script(script, tmp_path)
        assert (result.stdout.split(), result.stderr) == (["0", "2"], "")
        assert len(list(figures(read_records(tmp_path / "records.json"), HOST))) == 2

    def test_forked_child_may_measure_for_itself(self, tmp_path: Path) -> None:
        script = """
            tracarbon.start()
            child = os.fork()
            if child == 0:
                os.chdir("child")
                with tracarbon:
                    time.sleep(0.2)
                sys.exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
        (tmp_path / "child").mkdir()
        result = run_script(script, tmp_path)
        assert (result.stdout, result.stderr) == ("0\n", "")
        for folder in (tmp_path, tmp_path / "child"):
            assert list(figures(read_records(folder / "records.json"), HOST))

    def test_forked_child_does_not_keep_the_file(self, tmp_path: Path) -> None:
        script = """
            tracarbon.start()
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            tracarbon.stop()
            with tracarbon:
                time.sleep(0.2)
            os.close(writer)
            os.waitpid(child, 0)
        """
        result = run_script(script, tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
