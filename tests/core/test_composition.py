from __future__ import annotations

from collections.abc import Collection

import pytest
from tracarbon._accounts import Account, Source
from tracarbon._composition import Component, compose
from tracarbon._meter import Meter, MeterView
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.sensors import Sensor
from tracarbon.testing import ManualClock

PACKAGE = Device("package-0", UsageType.CPU)
CORE = Device("core-0", UsageType.CPU, Scope.DETAIL, within="package-0")
UNCORE = Device("uncore-0", UsageType.GPU, Scope.DETAIL, within="package-0")
DRAM = Device("dram-0", UsageType.MEMORY)
PSYS = Device("psys", UsageType.HOST, Scope.WHOLE_MACHINE)
PACKAGE_1 = Device("package-1", UsageType.CPU)
DRAM_1 = Device("dram-1", UsageType.MEMORY)
CARD = Device("card-0", UsageType.GPU, Scope.EXTRA, tags=(("uuid", "GPU-0"),))
CARDS = Device("gpu", UsageType.GPU, Scope.EXTRA)
CARD_1 = Device("card-1", UsageType.GPU, Scope.EXTRA, tags=(("uuid", "GPU-1"),))


class Kind(Sensor):
    async def get_energy_usage(self) -> EnergyUsage:
        raise NotImplementedError


class Measured(Kind):
    fidelity = Fidelity.MEASURED


class Modelled(Kind):
    fidelity = Fidelity.MODELLED


class Estimated(Kind):
    fidelity = Fidelity.ESTIMATED


class Wall(Kind):
    fidelity = Fidelity.MEASURED
    scope = Scope.WHOLE_MACHINE


class Machine:
    """A meter, and windows of one second to read it in."""

    def __init__(self, **sensors: type[Sensor]) -> None:
        self.clock = ManualClock()
        self.meter = Meter(self.clock)
        for name, sensor in sensors.items():
            self.meter.add_sensor(name, sensor, 10.0)
        self.meter.open()

    def view(self, sensors: Collection[str] | None = None) -> MeterView:
        return MeterView(self.meter, sensors)

    def record(self, sensor: str, devices: dict[Device, float]) -> None:
        readings = [DeviceUsage(device, watts, 1.0) for device, watts in devices.items()]
        self.meter.record(sensor, EnergyUsage(devices=readings), self.clock.monotonic())

    def second(self) -> None:
        self.clock.elapse(1.0)


async def figures(view: MeterView) -> dict[str, float]:
    view.advance()
    usage = await view.get_energy_usage()
    view.commit()
    named = {usage_type.value: usage.get_energy_usage_on_type(usage_type) for usage_type in UsageType}
    return {name: round(watts, 9) for name, watts in named.items() if watts is not None}


async def figures_of(sensors: dict[str, type[Sensor]], readings: dict[str, dict[Device, float]]) -> dict[str, float]:
    machine = Machine(**sensors)
    view = machine.view()
    machine.second()
    for sensor, devices in readings.items():
        machine.record(sensor, devices)
    machine.meter.close()
    return await figures(view)


async def test_host_is_package_and_dram_and_what_lies_inside_is_no_extra() -> None:
    """T5: cpu = package - uncore, gpu = uncore, and the cores are detail."""
    rapl = {PACKAGE: 30.0, CORE: 20.0, UNCORE: 4.0, DRAM: 3.0}
    assert await figures_of({"rapl": Measured}, {"rapl": rapl}) == {
        "host": 33.0,
        "cpu": 26.0,
        "memory": 3.0,
        "gpu": 4.0,
    }


async def test_detail_stays_visible() -> None:
    machine = Machine(rapl=Measured)
    view = machine.view()
    machine.second()
    machine.record("rapl", {PACKAGE: 30.0, CORE: 20.0})
    machine.meter.close()
    view.advance()
    usage = await view.get_energy_usage()
    assert {reading.device.name: reading.watts for reading in usage.devices} == {"package-0": 30.0, "core-0": 20.0}


async def test_every_socket_counts() -> None:
    """T4: two sockets of 30 W, with 3 W of memory each, are 66 W."""
    rapl = {PACKAGE: 30.0, DRAM: 3.0, PACKAGE_1: 30.0, DRAM_1: 3.0}
    assert await figures_of({"rapl": Measured}, {"rapl": rapl}) == {"host": 66.0, "cpu": 60.0, "memory": 6.0}


async def test_graphics_are_taken_out_of_their_own_package_alone() -> None:
    rapl = {PACKAGE: 30.0, UNCORE: 4.0, PACKAGE_1: 10.0}
    assert await figures_of({"rapl": Measured}, {"rapl": rapl}) == {"host": 40.0, "cpu": 36.0, "gpu": 4.0}


async def test_more_graphics_than_package_is_no_negative_cpu() -> None:
    rapl = {PACKAGE: 3.0, UNCORE: 4.0}
    assert await figures_of({"rapl": Measured}, {"rapl": rapl}) == {"host": 3.0, "cpu": 0.0, "gpu": 4.0}


async def test_psys_is_the_host_where_it_is_plausible() -> None:
    rapl = {PSYS: 50.0, PACKAGE: 30.0, DRAM: 3.0}
    assert await figures_of({"rapl": Measured}, {"rapl": rapl}) == {"host": 50.0, "cpu": 30.0, "memory": 3.0}


async def test_psys_below_its_parts_is_not_believed_window_by_window() -> None:
    machine = Machine(rapl=Measured)
    view = machine.view()
    hosts = []
    for psys in (50.0, 8.0, 32.9, 60.0):
        machine.second()
        machine.record("rapl", {PSYS: psys, PACKAGE: 30.0, DRAM: 3.0})
        machine.meter.close()
        hosts.append((await figures(view))["host"])
    assert hosts == [50.0, 33.0, 32.9, 60.0]  # 32.9: the two are not read at one instant


async def test_a_whole_machine_contains_its_graphics_card() -> None:
    rapl = {PACKAGE: 30.0}
    host = await figures_of(
        {"wall": Wall, "rapl": Measured, "nvidia": Measured},
        {"wall": {PSYS: 400.0}, "rapl": rapl, "nvidia": {CARD: 250.0}},
    )
    assert host == {"host": 400.0, "cpu": 30.0, "gpu": 250.0}


async def test_graphics_cards_add_to_the_host() -> None:
    host = await figures_of(
        {"rapl": Measured, "nvidia": Measured},
        {"rapl": {PACKAGE: 30.0, UNCORE: 4.0}, "nvidia": {CARD: 250.0, CARD_1: 50.0}},
    )
    assert host == {"host": 330.0, "cpu": 26.0, "gpu": 304.0}


async def test_a_card_that_two_sensors_see_counts_once_and_the_better_one_wins() -> None:
    same = Device("GPU 0", UsageType.GPU, Scope.EXTRA, tags=CARD.tags)
    for order in (("guess", "nvidia"), ("nvidia", "guess")):
        kinds: dict[str, type[Sensor]] = {"guess": Estimated, "nvidia": Measured}
        host = await figures_of(
            {name: kinds[name] for name in order}, {"guess": {same: 100.0}, "nvidia": {CARD: 250.0}}
        )
        assert host == {"host": 250.0, "gpu": 250.0}


async def test_two_cards_of_one_sensor_that_bear_the_same_tags_are_two() -> None:
    model = (("model", "A100"),)
    cards = {Device(name, UsageType.GPU, Scope.EXTRA, tags=model): 100.0 for name in ("0", "1")}
    assert await figures_of({"cards": Measured}, {"cards": cards}) == {"host": 200.0, "gpu": 200.0}


async def test_cards_without_tags_are_as_many_as_there_are() -> None:
    bare = Device("0", UsageType.GPU, Scope.EXTRA)
    host = await figures_of({"a": Measured, "b": Measured}, {"a": {bare: 100.0}, "b": {bare: 100.0}})
    assert host == {"host": 200.0, "gpu": 200.0}


@pytest.mark.parametrize("order", [("estimate", "rapl"), ("rapl", "estimate")])
async def test_of_two_sensors_the_better_one_counts_for_each_component_and_nothing_twice(
    order: tuple[str, str],
) -> None:
    kinds: dict[str, type[Sensor]] = {"estimate": Estimated, "rapl": Measured}
    cpu, memory = Device("cpu", UsageType.CPU), Device("memory", UsageType.MEMORY)
    host = await figures_of(
        {name: kinds[name] for name in order}, {"estimate": {cpu: 100.0, memory: 7.0}, "rapl": {PACKAGE: 30.0}}
    )
    assert host == {"host": 37.0, "cpu": 30.0, "memory": 7.0}
    assert (
        await figures_of({"estimate": Estimated, "rapl": Measured}, {"estimate": {cpu: 100.0}, "rapl": {DRAM: 3.0}})
    ) == {"host": 103.0, "cpu": 100.0, "memory": 3.0}


async def test_of_equals_the_first_in_the_file_counts() -> None:
    one, other = Device("one", UsageType.CPU), Device("other", UsageType.CPU)
    host = await figures_of({"a": Measured, "b": Measured}, {"b": {other: 50.0}, "a": {one: 30.0}})
    assert host == {"host": 30.0, "cpu": 30.0}


async def test_a_lump_of_the_host_stands_beside_no_parts_of_another_sensor() -> None:
    lump, cpu = Device("host", UsageType.HOST), Device("cpu", UsageType.CPU)
    parts_are_better = await figures_of(
        {"model": Modelled, "rapl": Measured}, {"model": {lump: 90.0}, "rapl": {PACKAGE: 30.0}}
    )
    assert parts_are_better == {"host": 30.0, "cpu": 30.0}
    lump_is_better = await figures_of(
        {"meter": Measured, "estimate": Estimated}, {"meter": {lump: 90.0}, "estimate": {cpu: 200.0}}
    )
    assert lump_is_better == {"host": 90.0, "cpu": 200.0}


async def lumped(sensor: type[Sensor], *usages: EnergyUsage) -> list[dict[str, float]]:
    machine = Machine(it=sensor)
    view = machine.view()
    told = []
    for usage in usages:
        machine.second()
        machine.meter.record("it", usage, machine.clock.monotonic())
        machine.meter.close()
        told.append(await figures(view))
    return told


async def test_a_sensor_that_lists_no_devices() -> None:
    both = EnergyUsage(host_energy_usage=10, cpu_energy_usage=7, window_seconds=1)
    assert await lumped(Estimated, both) == [{"host": 10.0, "cpu": 7.0}]
    parts = EnergyUsage(cpu_energy_usage=7, memory_energy_usage=2, window_seconds=1)
    assert await lumped(Estimated, parts) == [{"host": 9.0, "cpu": 7.0, "memory": 2.0}]
    assert await lumped(Wall, both) == [{"host": 10.0, "cpu": 7.0}]


async def test_milliwatts_are_taken_for_milliwatts_and_left_as_they_are() -> None:
    """T2: 2400 mW became 2 400 000."""
    from tracarbon.hardwares.energy import EnergyUsageUnit

    usage = EnergyUsage(host_energy_usage=2400, window_seconds=1, unit=EnergyUsageUnit.MILLIWATT)
    assert await lumped(Estimated, usage) == [{"host": 2.4}]
    assert (usage.host_energy_usage, usage.unit) == (2400, EnergyUsageUnit.MILLIWATT)


async def test_a_host_figure_that_comes_later_is_not_added_to_its_own_parts() -> None:
    first = EnergyUsage(cpu_energy_usage=7, window_seconds=1)
    both = EnergyUsage(host_energy_usage=10, cpu_energy_usage=7, window_seconds=1)
    assert await lumped(Estimated, first, both, both) == [
        {"host": 7.0, "cpu": 7.0},
        {"host": 10.0, "cpu": 7.0},
        {"host": 10.0, "cpu": 7.0},
    ]


async def test_a_host_figure_that_is_missing_is_not_made_up_from_the_parts() -> None:
    both = EnergyUsage(host_energy_usage=10, cpu_energy_usage=7, window_seconds=1)
    parts = EnergyUsage(cpu_energy_usage=7, window_seconds=1)
    assert await lumped(Estimated, both, *[parts] * 5, both) == [
        {"host": 10.0, "cpu": 7.0},
        *[{"cpu": 7.0}] * 5,
        {"host": 10.0, "cpu": 7.0},
    ]


async def test_a_view_over_some_sensors_sees_those_alone() -> None:
    machine = Machine(rapl=Measured, nvidia=Measured)
    some, every = machine.view(["nvidia"]), machine.view()
    machine.second()
    machine.record("rapl", {PACKAGE: 30.0})
    machine.record("nvidia", {CARD: 250.0})
    machine.meter.close()
    assert await figures(some) == {"host": 250.0, "gpu": 250.0}
    assert await figures(every) == {"host": 280.0, "cpu": 30.0, "gpu": 250.0}


def test_provenance_names_every_sensor_and_the_worst_fidelity() -> None:
    rapl = Source("rapl", 0, Scope.HOST, Fidelity.MEASURED, 10.0, "counters")
    guess = Source("guess", 1, Scope.HOST, Fidelity.ESTIMATED, 10.0, "tdp")
    composition = compose([(0, Account(rapl, PACKAGE)), (1, Account(guess, DRAM))])
    assert composition.host is not None
    assert provenance(composition.host) == ("rapl+guess", Fidelity.ESTIMATED, "counters; tdp")
    assert provenance(composition.components[UsageType.CPU]) == ("rapl", Fidelity.MEASURED, "counters")


def provenance(component: Component) -> tuple[str, Fidelity, str | None]:
    sensor, fidelity, _, method, _ = component.provenance
    return sensor, fidelity, method


def test_a_device_has_a_fidelity_of_its_own() -> None:
    source = Source("macos", 0, Scope.HOST, Fidelity.MEASURED, 10.0)
    guessed = Device("memory", UsageType.MEMORY, fidelity=Fidelity.ESTIMATED)
    composition = compose([(0, Account(source, PACKAGE)), (1, Account(source, guessed))])
    assert composition.components[UsageType.CPU].provenance.fidelity is Fidelity.MEASURED
    assert composition.components[UsageType.MEMORY].provenance.fidelity is Fidelity.ESTIMATED
    assert composition.host is not None
    assert composition.host.provenance.fidelity is Fidelity.ESTIMATED


def test_a_device_has_a_method_of_its_own() -> None:
    source = Source("aws", 0, Scope.HOST, Fidelity.MODELLED, 10.0, "table")
    idle = Device("gpu", UsageType.GPU, Scope.EXTRA, method="at idle")
    composition = compose([(0, Account(source, PACKAGE)), (1, Account(source, DRAM)), (2, Account(source, idle))])
    methods = {it: component.provenance.method for it, component in composition.components.items()}
    assert methods == {UsageType.CPU: "table", UsageType.MEMORY: "table", UsageType.GPU: "at idle"}
    assert composition.host is not None
    assert composition.host.provenance.method == "table; at idle"


async def test_a_method_of_a_device_that_changes_is_told() -> None:
    machine = Machine(aws=Modelled)
    view = machine.view()
    for method in ("at idle", "by load"):
        machine.second()
        machine.record("aws", {Device("gpu", UsageType.GPU, Scope.EXTRA, method=method): 30.0})
        machine.meter.close()
        view.advance()
        usage = await view.get_energy_usage()
        assert usage.provenance[UsageType.GPU].method == method
        assert [reading.provenance.method for reading in usage.devices if reading.provenance] == [method]


def test_nothing_is_made_of_nothing() -> None:
    composition = compose([])
    assert (composition.whole, composition.host, composition.components) == (None, None, {})


@pytest.mark.parametrize(
    ("of_cards", "gpu"),
    [
        ({}, 90.0),
        ({"card": {CARD: 50.0}}, 50.0),
        ({"card": {CARD: 50.0, CARD_1: 60.0}}, 110.0),
        ({"guess": {CARD: 50.0}}, 140.0),
    ],
    ids=["nothing better", "one card", "two cards", "of equal rank"],
)
async def test_what_stands_for_all_cards_gives_way_to_whoever_knows_them_better(
    of_cards: dict[str, dict[Device, float]], gpu: float
) -> None:
    sensors = {"cloud": Modelled, "card": Measured, "guess": Modelled}
    readings = {"cloud": {PACKAGE: 30.0, CARDS: 90.0}, **of_cards}
    assert await figures_of(sensors, readings) == {"host": 30.0 + gpu, "cpu": 30.0, "gpu": gpu}


async def test_a_sensor_may_know_some_cards_better_than_others() -> None:
    rest = Device("others", UsageType.GPU, Scope.EXTRA, fidelity=Fidelity.MODELLED)
    assert await figures_of({"cards": Measured}, {"cards": {CARD: 50.0, rest: 20.0}}) == {"host": 70.0, "gpu": 70.0}


async def test_another_kind_of_device_is_none_of_their_business() -> None:
    shelf, fan = Device("shelf", UsageType.HOST, Scope.EXTRA), Device("fan", UsageType.HOST, Scope.EXTRA)
    sensors: dict[str, type[Sensor]] = {"disks": Measured, "cloud": Modelled, "fans": Estimated}
    readings = {"disks": {shelf: 20.0}, "cloud": {PACKAGE: 30.0, CARDS: 90.0}, "fans": {fan: 5.0}}
    assert await figures_of(sensors, readings) == {"host": 145.0, "cpu": 30.0, "gpu": 90.0}
