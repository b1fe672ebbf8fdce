"""Scripts and plugins that were written for the documented API, run as they are."""

import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from tracarbon.builder import Tracarbon
from tracarbon.cli import run_metrics
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.exporters.json_exporter import JSONExporter
from tracarbon.hardwares import EnergyUsage, Sensor
from tracarbon.locations import Country

from tests.pipelines.support import Program, Result, environment, read_records, run, wait_until


def start_script(text: str, folder: Path, **variables: str) -> Program:
    (folder / "script.py").write_text(dedent(text))
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Program(process)


def run_script(text: str, folder: Path, **variables: str) -> Result:
    with start_script(text, folder, **variables) as program:
        return program.wait()


class TestCommandAsFunctions:
    def test_run_until_interrupted(self, tmp_path: Path) -> None:
        script = """
            from tracarbon.cli import run
            run(exporter_name="Stdout", country_code_alpha_iso_2="fr", containers=False)
            print("and on it goes")
        """
        with start_script(script, tmp_path) as program:
            program.wait_for("carbon_emission_host")
            result = program.stop(signal.SIGINT)
        assert result.status == 0
        assert "tracarbon.energy_consumption_host" in result.stdout
        assert "and on it goes" in result.stdout
        assert "tracarbon report: " in result.stderr
        assert "carbon intensity of fr: 41.44 g/kWh" in result.stderr
        assert "Traceback" not in result.stderr

    def test_an_interrupt_just_when_it_has_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        start, started = Tracarbon.start, list[Tracarbon]()

        def interrupted(tracarbon: Tracarbon) -> None:
            start(tracarbon)
            started.append(tracarbon)
            raise KeyboardInterrupt

        monkeypatch.setattr(Tracarbon, "start", interrupted)
        run_metrics("Stdout", "fr")
        [tracarbon] = started
        assert tracarbon.exporter.stopped
        assert tracarbon.report.metric_report

    def test_a_short_run(self, tmp_path: Path) -> None:
        script = """
            from tracarbon.cli import run_metrics
            run_metrics("JSON", running=False)
        """
        variables = {"TRACARBON_COUNTRY": "de", "TRACARBON_METRIC_PREFIX_NAME": "acme"}
        result = run_script(script, tmp_path, **variables)
        assert (result.status, result.stdout) == (0, "")
        records = read_records(tmp_path / "tracarbon_export.json")
        assert {record["name"] for record in records} >= {"acme.energy_consumption_host", "acme.carbon_emission_host"}
        assert {record["tags"]["location"] for record in records} == {"de"}
        assert sum(it["covered_seconds"] for it in records if it["name"].endswith("emission_host")) >= 0.9

    def test_it_ends_when_nobody_reads(self, tmp_path: Path) -> None:
        (tmp_path / "script.py").write_text("from tracarbon.cli import run\nrun()\n")
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} script.py | head -1"],
            cwd=tmp_path,
            env=environment(TRACARBON_INTERVAL_IN_SECONDS="0.1"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert len(done.stdout.splitlines()) == 1
        assert "tracarbon report: " in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            ("get_exporter('jsonn', [])", "PluginError no exporter named 'jsonn' is installed; did you mean 'json'"),
            ("get_exporter('acme_lines', [])", "PluginError .* has to be told its path: construct LinesExporter"),
            ("run('Stdout', 'zz')", "CountryIsMissing no carbon intensity is known for country 'zz'"),
            ("run('nonsense', 'zz')", "PluginError no exporter named 'nonsense'"),
            ("run('Stdout', 'fr', True)", "ImportError .*: pip install tracarbon-k8s"),
            ("add_containers_generator(Country.from_eu_file('fr'))", "ImportError .*: pip install tracarbon-k8s"),
        ],
    )
    def test_bad_input(self, call: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from tracarbon import cli

        monkeypatch.setitem(sys.modules, "tracarbon_k8s", None)  # as if it was not installed
        kind, _, message = error.partition(" ")
        with pytest.raises(Exception, match=message) as caught:
            eval(f"cli.{call}", {"cli": cli, "Country": Country})
        assert type(caught.value).__name__ == kind
        assert "\n" not in str(caught.value)

    def test_list_exporters(self, capsys: pytest.CaptureFixture[str]) -> None:
        from tracarbon.cli import list_exporters

        names = list_exporters()
        assert {"stdout", "json", "acme_legacy"} <= set(names)
        assert capsys.readouterr().out.split() == names
        assert list_exporters(displayed=False) == names
        assert capsys.readouterr().out == ""

    def test_get_exporter(self) -> None:
        from tracarbon.cli import get_exporter

        generators = [MetricGenerator()]
        exporter = get_exporter("JSON", generators)
        assert isinstance(exporter, JSONExporter)
        assert exporter.metric_generators == generators
        legacy = get_exporter("acme_legacy", [])
        assert legacy.get_name() == "AcmeLegacy"
        assert exporter.metric_prefix_name == legacy.metric_prefix_name == "tracarbon"


class TestLegacyPlugins:
    """A third party's exporter and generator of the old kind, in a pipeline beside new ones."""

    def test_in_a_pipeline_toml(self, tmp_path: Path) -> None:
        (tmp_path / "watts").write_text("40\n")
        (tmp_path / "pipeline.toml").write_text(
            dedent("""
                interval = "200ms"
                [tags]
                rack = "r1"
                [location]
                country = "FR"
                [sensors.acme_file]
                path = "watts"
                [generators.energy]
                [generators.acme_legacy]
                [exporters.acme_legacy]
                [exporters.new]
                plugin = "json"
                path = "new.jsonl"
            """)
        )
        result = run("run", "-c", "pipeline.toml", "--duration", "700ms", cwd=tmp_path)
        assert result.status == 0, result.stderr
        assert "Traceback" not in result.stderr
        lines = [line.split() for line in (tmp_path / "acme_legacy.txt").read_text().splitlines()]
        by_name = {name: [it for it in lines if it[0] == name] for name in {line[0] for line in lines}}
        values = {name: {float(value) for _, value, *_ in found} for name, found in by_name.items()}
        assert values == {
            "tracarbon_energy_consumption_host": {40.0},
            "tracarbon_share_25": {10.0},
            "tracarbon_share_75": {30.0},
        }
        counts = [int(count) for _, _, count, _ in by_name["tracarbon_share_25"]]
        assert counts == list(range(1, len(counts) + 1))
        assert len(counts) >= 3
        for *_, tags in lines:
            assert {"rack:r1", "location:fr"} <= set(tags.split(","))
        new = read_records(tmp_path / "new.jsonl")
        assert {record["name"].rpartition(".")[2]: record["value"] for record in new} == {
            "energy_consumption_host": pytest.approx(40.0),
            "share_25": pytest.approx(10.0),
            "share_75": pytest.approx(30.0),
        }

    def test_the_sensor_of_a_legacy_generator_is_the_meter(self, tmp_path: Path) -> None:
        """L6: each generator read the hardware anew."""
        from acme_tracarbon.legacy import LegacyGenerator
        from tracarbon.plugin import PluginContext

        class Meter(Sensor):
            async def get_energy_usage(self) -> EnergyUsage:
                return EnergyUsage()

        meter, location = Meter(), Country(name="fr")
        context = PluginContext("acme_legacy", meter=meter, location=location)
        made = LegacyGenerator.from_options(LegacyGenerator.Options(), context)
        assert made.energy_consumption is meter
        assert made.location is location


class TestByThemselves:
    def test_generators_and_their_values(self, tmp_path: Path) -> None:
        """The way the old documentation has it: iterate, and await each value."""
        result = run_script(
            """
            import asyncio
            from tracarbon import CarbonEmissionGenerator, EnergyConsumptionGenerator

            async def main():
                for generator in (EnergyConsumptionGenerator(), CarbonEmissionGenerator()):
                    async for metric in generator.generate():
                        print("at once", metric.name)
                    await asyncio.sleep(0.1)
                    async for metric in generator.generate():
                        print(metric.format_name("tracarbon", "_"), await metric.value(), metric.format_tags())
                    assert generator.location.name == "world"

            asyncio.run(main())
            """,
            tmp_path,
        )
        assert result.status == 0, result.stderr
        lines = result.stdout.splitlines()
        assert not any(line.startswith("at once") for line in lines), "the first reading opens the window"
        for name in ("energy_consumption", "carbon_emission"):
            [host] = [line for line in lines if line.startswith(f"tracarbon_{name}_host")]
            assert float(host.split()[1]) > 0
            assert "location:world" in host
        assert "the world's average carbon intensity is used" in result.stderr

    def test_sensor_and_emission(self, tmp_path: Path) -> None:
        result = run_script(
            """
            import asyncio
            from tracarbon.emissions import CarbonEmission, CarbonUsageUnit
            from tracarbon.hardwares import EnergyConsumption, EnergyUsageUnit, HardwareInfo, UsageType
            from tracarbon.locations import Country

            async def main():
                sensor = EnergyConsumption.from_platform(platform=HardwareInfo.get_platform())
                emission = CarbonEmission(location=Country.from_eu_file("FR"), energy_consumption=sensor)
                assert (await emission.get_co2_usage()).host_carbon_usage is None
                await asyncio.sleep(0.1)
                usage = await emission.get_co2_usage()
                grams = usage.get_carbon_usage_on_type(UsageType.HOST)
                usage.convert_unit(unit=CarbonUsageUnit.CO2_MG)
                assert usage.get_carbon_usage_on_type(UsageType.HOST) == grams * 1000 > 0
                await asyncio.sleep(0.1)
                energy = await sensor.get_energy_usage()
                watts = energy.get_energy_usage_on_type(UsageType.HOST)
                energy.convert_unit(EnergyUsageUnit.MILLIWATT)
                assert energy.host_energy_usage == watts * 1000 > 0

            asyncio.run(main())
            """,
            tmp_path,
        )
        assert (result.status, result.stderr) == (0, "")

    def test_an_exporter_started_and_stopped(self, tmp_path: Path) -> None:
        class Counting(Exporter):
            seen: list[str] = []  # noqa: RUF012 - each instance gets a copy

            async def launch(self, metric_generator: MetricGenerator) -> None:
                async for metric in metric_generator.generate():
                    self.seen.append(metric.name)

            @classmethod
            def get_name(cls) -> str:
                return "Counting"

        exporter = Counting(metric_generators=[])
        assert (exporter.event, exporter.stopped) == (None, False)
        exporter.start(interval_in_seconds=1)
        assert exporter.event is not None
        assert not exporter.event.is_set()
        wait_until(lambda: "energy_consumption_host" in exporter.seen, "the first window")
        exporter.stop()
        assert exporter.event.is_set()
        assert exporter.stopped
        assert exporter.metric_report["energy_consumption_host"].exporter_name == "Counting"
        exporter.start(interval_in_seconds=1)
        assert not exporter.event.is_set()
        assert not exporter.stopped
        exporter.stop()
