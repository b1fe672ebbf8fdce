"""The sensor `aws`: means over windows, on made-up counters; and how it finds out what it is."""

from __future__ import annotations

import math
import os
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tracarbon import _worker
from tracarbon._meter import Meter, MeterView
from tracarbon.exceptions import AWSSensorException
from tracarbon.hardwares.energy import Band, Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
from tracarbon.plugin import PluginContext
from tracarbon.testing import ManualClock
from tracarbon_sensor_aws import AWSEC2EnergyConsumption, instance

from tests.sensor_aws.imds import Imds, ec2_machine, firmware, xen_machine
from tests.support import web_server
from tests.support.web_server import serving

pytestmark = pytest.mark.anyio

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")


class Machine:
    """A machine whose counters a test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.times = dict.fromkeys(Times._fields, 0.0)
        self.memory_percent = 0.0

    def pass_time(self, seconds: float, memory_percent: float = 0.0, **times: float) -> None:
        self.clock.elapse(seconds)
        self.memory_percent = memory_percent
        for name, value in times.items():
            self.times[name] += value


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    memory = namedtuple("memory", "percent total")
    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(**made.times))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(made.memory_percent, 8 * 2**30))
    return made


def sensor(instance_type: str, machine: Machine, **fields: Any) -> AWSEC2EnergyConsumption:
    return AWSEC2EnergyConsumption(instance_type, clock=machine.clock.monotonic, **fields)


def watts(usage: EnergyUsage) -> dict[str, float]:
    return {reading.device.name: round(reading.watts, 9) for reading in usage.devices}


class TestWindows:
    async def test_the_load_is_the_mean_of_the_window(self, machine: Machine) -> None:
        """Half busy: 7.16 W. Memory of 10 and 50 % at the two ends: 30 %, 3.44 W. And 2 W of the machine."""
        model = sensor("m5.large", machine)
        machine.memory_percent = 10.0
        assert (await model.get_energy_usage()).host_energy_usage is None
        machine.pass_time(10.0, 50.0, user=6.0, system=3.0, irq=1.0, idle=9.0, iowait=1.0)
        usage = await model.get_energy_usage()
        assert watts(usage) == {"cpu": 7.16, "memory": 3.44, "machine": 2.0}
        assert usage.host_energy_usage == pytest.approx(12.6)
        assert (usage.cpu_energy_usage, usage.gpu_energy_usage) == (7.16, None)
        assert (usage.window_seconds, usage.method) == (10.0, "ec2:m5.large")
        assert {reading.device.fidelity for reading in usage.devices} == {Fidelity.MODELLED}

    async def test_what_was_stolen_is_not_ours(self, machine: Machine) -> None:
        model = sensor("m5.large", machine)
        await model.get_energy_usage()
        machine.pass_time(10.0, user=2.0, steal=18.0)
        assert watts(await model.get_energy_usage())["cpu"] == 3.05

    async def test_a_short_peak_counts_in_full(self, machine: Machine) -> None:
        """A snapshot at the end of the window would say idle."""
        model = sensor("m5.large", machine)
        await model.get_energy_usage()
        machine.pass_time(5.0, user=10.0)
        machine.pass_time(5.0, idle=10.0)
        assert watts(await model.get_energy_usage())["cpu"] == 7.16

    @settings(max_examples=30)
    @given(parts=st.lists(st.tuples(st.floats(0.1, 100.0), st.floats(0.0, 1.0)), min_size=1, max_size=8))
    def test_energy_lies_between_idle_and_full(self, parts: list[tuple[float, float]]) -> None:
        import anyio

        async def joules() -> tuple[float, float]:
            machine = Machine()
            with pytest.MonkeyPatch.context() as patch:
                memory = namedtuple("memory", "percent total")
                patch.setattr(psutil, "cpu_times", lambda: Times(**machine.times))
                patch.setattr(psutil, "virtual_memory", lambda: memory(0.0, 2**30))
                model = sensor("m5.large", machine)
                await model.get_energy_usage()
                total = seconds = 0.0
                for length, load in parts:
                    machine.pass_time(length, user=load * length, idle=(1 - load) * length)
                    usage = await model.get_energy_usage()
                    assert usage.cpu_energy_usage is not None and usage.window_seconds is not None
                    total += usage.cpu_energy_usage * usage.window_seconds
                    seconds += usage.window_seconds
                return total, seconds

        total, seconds = anyio.run(joules)
        assert seconds == pytest.approx(sum(length for length, _ in parts))
        assert 1.21 * seconds * (1 - 1e-9) <= total <= 9.96 * seconds * (1 + 1e-9)


class TestFigures:
    def test_they_are_the_tables_without_more(self) -> None:
        model = AWSEC2EnergyConsumption("g4dn.xlarge")
        figures = (model.cpu_idle, model.cpu_at_10, model.cpu_at_50, model.cpu_at_100)
        assert figures == (2.28, 5.75, 12.79, 18.56)
        memory = (model.memory_idle, model.memory_at_10, model.memory_at_50, model.memory_at_100)
        assert memory == (2.49, 4.12, 7.37, 10.62)
        assert (model.has_gpu, model.delta_full_machine) == (True, 3.5)
        assert AWSEC2EnergyConsumption("m5.large").has_gpu is False

    async def test_those_that_are_given_count(self, machine: Machine) -> None:
        model = sensor("g4dn.xlarge", machine, cpu_idle=1.0, memory_idle=0.0, delta_full_machine=7.0, has_gpu=False)
        await model.get_energy_usage()
        machine.pass_time(1.0, idle=2.0)
        assert watts(await model.get_energy_usage()) == {"cpu": 1.0, "memory": 0.0, "machine": 7.0}
        assert model.cpu_at_10 == 5.75
        assert (await model.get_energy_usage()).method == "ec2:g4dn.xlarge, with figures of the user"

    @pytest.mark.parametrize("figure", [-1.0, float("nan"), float("inf"), "abc"])
    def test_those_that_are_none_are_refused(self, figure: Any) -> None:
        with pytest.raises(AWSSensorException, match=r"cpu_idle is .*; it has to be a number of watts"):
            AWSEC2EnergyConsumption("m5.large", cpu_idle=figure)

    async def test_cards_that_nothing_is_known_of_cannot_count(self) -> None:
        with pytest.raises(AWSSensorException, match=r"of m5\.large no watts of graphics cards are known"):
            await AWSEC2EnergyConsumption("m5.large", has_gpu=True).get_energy_usage()

    def test_a_type_that_is_none_is_refused(self) -> None:
        with pytest.raises(AWSSensorException, match=r"'banana' is no EC2 instance type; it is like m5\.large"):
            AWSEC2EnergyConsumption("banana")
        with pytest.raises(AWSSensorException, match="'5' is no EC2 instance type"):
            AWSEC2EnergyConsumption(5)  # type: ignore[arg-type]
        with pytest.raises(ValidationError, match=r"'m5\.larg' is no EC2 instance type; did you mean m5\.large"):
            AWSEC2EnergyConsumption.Options(instance_type="m5.larg")

    async def test_the_average_is_an_estimate(self, machine: Machine) -> None:
        model = sensor("m9x.xlarge", machine)
        await model.get_energy_usage()
        machine.pass_time(1.0, idle=2.0)
        usage = await model.get_energy_usage()
        assert watts(usage) == {"cpu": 2.96, "memory": 3.136, "machine": 0.0}
        assert {reading.device.fidelity for reading in usage.devices} == {Fidelity.ESTIMATED}


class TestCards:
    async def test_their_load_is_unknown(self, machine: Machine) -> None:
        model = sensor("g4dn.xlarge", machine)
        await model.get_energy_usage()
        machine.pass_time(1.0, idle=2.0)
        usage = await model.get_energy_usage()
        [card] = [reading for reading in usage.devices if reading.device.name == "gpu"]
        assert (card.watts, card.band) == (8.1, Band(8.1, 71.3))
        assert (card.device.scope, card.device.component) == (Scope.EXTRA, UsageType.GPU)
        assert usage.gpu_energy_usage == 8.1
        assert usage.host_energy_usage == pytest.approx(2.28 + 2.49 + 3.5 + 8.1)
        assert usage.method == card.device.method == "ec2:g4dn.xlarge, gpu at idle since its load is unknown"
        others = [reading.device.method for reading in usage.devices if reading is not card]
        assert others == ["ec2:g4dn.xlarge"] * 3

    async def test_amds_driver_tells_their_load(self, machine: Machine, tmp_path: Path) -> None:
        """Of two cards, 0 and 20 % at first, 10 and 50 % at last: 20 % in the mean of all."""
        busy = [tmp_path / f"sys/class/drm/card{number}/device/gpu_busy_percent" for number in (0, 1)]
        for path in busy:
            path.parent.mkdir(parents=True)
        (tmp_path / "sys/class/drm/card2/device").mkdir(parents=True)  # a card of another driver
        model = sensor("g4ad.8xlarge", machine, instance=instance.Instance(tmp_path))
        for first, second in (("0\n", "20\n"), ("10\n", "50\n")):
            machine.pass_time(1.0, idle=2.0)
            busy[0].write_text(first)
            busy[1].write_text(second)
            usage = await model.get_energy_usage()
        assert usage.gpu_energy_usage == pytest.approx(143.2 + (338.5 - 143.2) * (0.2 - 0.1) / 0.4)
        assert usage.method == "ec2:g4ad.8xlarge, gpu by sampled load"
        busy[1].unlink()
        for garbage in ("", "nan\n", "-3\n", "busy\n"):
            busy[0].write_text(garbage)
            machine.pass_time(1.0, idle=2.0)
            assert (await model.get_energy_usage()).gpu_energy_usage == 52.3

    async def test_their_load_is_sampled_often_and_nothing_else_is(self, tmp_path: Path) -> None:
        """The kernel adds up the load of processors, but shows that of cards at an instant."""
        path = tmp_path / "sys/class/drm/card0/device/gpu_busy_percent"
        path.parent.mkdir(parents=True)
        context = PluginContext("aws", host_root=tmp_path)
        options = AWSEC2EnergyConsumption.Options(instance_type="g4ad.xlarge")
        for load, seconds in (("", math.inf), ("20\n", 5.0)):
            path.write_text(load)
            async with AWSEC2EnergyConsumption.from_options(options, context) as model:
                assert model.sampling_interval_seconds == seconds
        context.close()

    @pytest.mark.parametrize("order", [("aws", "nvidia"), ("nvidia", "aws")])
    async def test_whoever_reads_the_cards_takes_their_place(self, machine: Machine, order: tuple[str, str]) -> None:
        class Nvidia(Sensor):
            scope, fidelity = Scope.EXTRA, Fidelity.MEASURED

            async def get_energy_usage(self) -> EnergyUsage:
                raise NotImplementedError

        meter = Meter(machine.clock)
        kinds: dict[str, type[Sensor]] = {"aws": AWSEC2EnergyConsumption, "nvidia": Nvidia}
        for name in order:
            meter.add_sensor(name, kinds[name], 10.0)
        meter.open()
        view = MeterView(meter, None)
        model = sensor("g4dn.12xlarge", machine)
        await model.get_energy_usage()
        machine.pass_time(10.0, idle=20.0)
        cards = [Device(f"gpu-{n}", UsageType.GPU, Scope.EXTRA, tags=(("uuid", str(n)),)) for n in range(4)]
        readings = [DeviceUsage(card, 60.0, 10.0) for card in cards]
        meter.record("aws", await model.get_energy_usage(), machine.clock.monotonic())
        meter.record("nvidia", EnergyUsage(devices=readings, method="nvml-counter"), machine.clock.monotonic())
        meter.close()
        view.advance()
        usage = await view.get_energy_usage()
        assert usage.gpu_energy_usage == pytest.approx(240.0)
        assert usage.host_energy_usage == pytest.approx(27.36 + 29.86 + 42.0 + 240.0)
        methods = {component: origin.method for component, origin in usage.provenance.items()}
        assert methods == {
            UsageType.HOST: "ec2:g4dn.12xlarge; nvml-counter",
            UsageType.CPU: "ec2:g4dn.12xlarge",
            UsageType.MEMORY: "ec2:g4dn.12xlarge",
            UsageType.GPU: "nvml-counter",
        }
        assert usage.provenance[UsageType.GPU].sensor == "nvidia"


class TestWhatItIs:
    """The firmware is read first; the metadata service is asked only where that, or the user, says Amazon."""

    @pytest.fixture
    def service(self) -> Imds:
        return Imds({"instance-type": "c5.xlarge"})

    async def entered(self, root: Path, **options: Any) -> str:
        """Return the type that the sensor has found out, or why it has not."""
        context = PluginContext("aws", host_root=root)
        try:
            plugin = AWSEC2EnergyConsumption.from_options(AWSEC2EnergyConsumption.Options(**options), context)
            async with plugin:
                return plugin.instance_type
        except AWSSensorException as error:
            return str(error)
        finally:
            context.close()

    async def test_what_is_given_counts_and_nobody_is_asked(self, tmp_path: Path, service: Imds) -> None:
        with serving(service) as server:
            said = await self.entered(
                ec2_machine(tmp_path), instance_type="r5.large", imds="always", imds_endpoint=server.url
            )
        assert (said, service.asked) == ("r5.large", [])

    async def test_a_type_that_is_not_the_firmwares_is_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await self.entered(ec2_machine(tmp_path), instance_type="m5.large") == "m5.large"
        assert caplog.messages == []
        assert await self.entered(tmp_path, instance_type="M5.24xlarge") == "m5.24xlarge"
        assert await self.entered(tmp_path, instance_type="m9x.large") == "m9x.large"
        other, _, average = caplog.messages
        assert other == "instance_type is m5.24xlarge, but the firmware says that this is m5.large"
        assert average.startswith("the data set has no instance of the family of m9x.large")

    async def test_nitro_needs_nobody_to_ask(self, tmp_path: Path, service: Imds) -> None:
        with serving(service) as server:
            assert await self.entered(ec2_machine(tmp_path), imds_endpoint=server.url) == "m5.large"
        assert service.asked == []

    @pytest.mark.parametrize(
        ("given", "said", "vcpus"),
        [
            ("", "hpc6a.48xlarge", 96),
            ("hpc6a.48xlarge", "hpc6a.48xlarge", 96),
            ("hpc6a.48xlarge", "m5.24xlarge", 192),  # another machine: its name is all that is known
        ],
    )
    async def test_the_vcpus_of_this_machines_own_type_are_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str, vcpus: int
    ) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 96)
        where = instance.Instance(ec2_machine(tmp_path, said))
        async with AWSEC2EnergyConsumption(given, instance=where) as model:
            assert model.power.vcpus == vcpus

    async def test_xen_asks_the_service(self, tmp_path: Path, service: Imds) -> None:
        with serving(service) as server:
            assert await self.entered(xen_machine(tmp_path), imds_endpoint=server.url) == "c5.xlarge"

    async def test_elsewhere_nobody_is_asked_unless_the_user_says_so(self, tmp_path: Path, service: Imds) -> None:
        firmware(tmp_path, sys_vendor="QEMU")
        with serving(service) as server:
            said = await self.entered(tmp_path, imds_endpoint=server.url)
            assert service.asked == []
            assert said == (
                "the EC2 instance type is not known: the firmware does not say that this is a machine of Amazon EC2, "
                'and names QEMU as its vendor; imds = "always" asks the metadata service all the same. '
                "Set instance_type in [sensors.aws], or pass it"
            )
            assert await self.entered(tmp_path, imds="always", imds_endpoint=server.url) == "c5.xlarge"

    async def test_never_is_never(self, tmp_path: Path, service: Imds) -> None:
        with serving(service) as server:
            said = await self.entered(xen_machine(tmp_path), imds="never", imds_endpoint=server.url)
        assert 'imds = "never" keeps the instance metadata service from being asked' in said
        assert service.asked == []

    async def test_a_service_that_says_nonsense_is_not_believed(self, tmp_path: Path) -> None:
        with serving(Imds({"instance-type": "<b>hello</b>"})) as server:
            said = await self.entered(xen_machine(tmp_path), imds_endpoint=server.url)
        assert said == "'<b>hello</b>' is no EC2 instance type; it is like m5.large"

    async def test_one_that_drips_for_ever_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(instance, "_LONGEST_SECONDS", 0.2)
        with serving(web_server.trickle) as server:
            said = await self.entered(xen_machine(tmp_path), imds_endpoint=server.url)
        assert "the instance metadata service took longer than 0.2 s" in said

    async def test_used_alone_it_asks_too_and_leaves_no_thread(self, tmp_path: Path, service: Imds) -> None:
        with serving(service) as server:
            place = instance.Instance(xen_machine(tmp_path), "auto", server.url)
            model = AWSEC2EnergyConsumption(instance=place)
            with pytest.raises(AWSSensorException, match="not known before the sensor is entered"):
                _ = model.cpu_idle
            await model.get_energy_usage()
            assert model.instance_type == "c5.xlarge"
            asked_once = len(service.asked)
            await model.get_energy_usage()
        assert len(service.asked) == asked_once
        mine = [thread for thread in threading.enumerate() if thread.name == "tracarbon-aws"]
        for thread in mine:
            thread.join(60)
        assert not any(thread.is_alive() for thread in mine)

    def test_probe_is_free_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_worker, "Worker", None)
        monkeypatch.setattr("tracarbon_sensor_aws.instance.ask", None)
        probe = AWSEC2EnergyConsumption.probe(PluginContext("aws", host_root=tmp_path))
        assert (probe.works, probe.remedy) == (False, "")

    @pytest.mark.parametrize(
        ("instance_type", "fidelity"), [("m5.large", Fidelity.MODELLED), ("m9x.large", Fidelity.ESTIMATED)]
    )
    def test_probe_knows_how_good_it_would_be(self, tmp_path: Path, instance_type: str, fidelity: Fidelity) -> None:
        probe = AWSEC2EnergyConsumption.probe(PluginContext("aws", host_root=ec2_machine(tmp_path, instance_type)))
        assert (probe.works, probe.fidelity) == (True, fidelity)
        assert instance_type in probe.reason

    def test_probe_asks_where_only_the_service_knows(
        self, tmp_path: Path, service: Imds, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context = PluginContext("aws", host_root=xen_machine(tmp_path))
        with serving(service) as server:
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
            assert AWSEC2EnergyConsumption.probe(context).reason == "ec2:c5.xlarge"
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        probe = AWSEC2EnergyConsumption.probe(context)
        assert (probe.works, probe.remedy) == (False, "set instance_type in [sensors.aws]")
        assert probe.reason.startswith("AWS_EC2_METADATA_DISABLED keeps")

    def test_the_documented_path_leads_here(self) -> None:
        from tracarbon.hardwares import sensors

        assert sensors.AWSEC2EnergyConsumption is AWSEC2EnergyConsumption
        assert issubclass(AWSEC2EnergyConsumption, EnergyConsumption)
