"""The real ctypes code over the stand-ins for Apple's libraries."""

from __future__ import annotations

import pytest
from tracarbon_sensor_macos._errors import SourceError
from tracarbon_sensor_macos._ioreport import EnergyModel

from tests.sensor_macos.libraries import GARBAGE, LATIN_1, NO_UTF_8, Libraries

M2_MAX = [
    ("ECPU0", "mJ", 10_000),
    ("ECPU", "mJ", 20_000),
    ("PCPU4", "mJ", 10_000),
    ("CPU Energy", "mJ", 90_000),
    ("GPU SRAM", "mJ", 7),
    ("GPU Energy", "nJ", 4_000_000_000),
    ("ANE", "uJ", 5_000_000),
    ("DRAM", "mJ", 30_000),
    ("PCIe Port 0 Energy", "uJ", 11),
    ("CPU residency", "events", 11),
]


def joules(model: EnergyModel) -> dict[str, float]:
    return {count.label: count.counts / count.counts_per_joule for count in model.read()}


def test_each_channel_is_read_in_its_own_unit(libraries: Libraries) -> None:
    libraries.channels(*M2_MAX)
    model = EnergyModel(*libraries.paths)
    model.open()
    assert joules(model) == {"cpu": 90.0, "gpu": 4.0, "ane": 5.0, "memory": 30.0}
    model.close()


def test_dies_of_an_ultra_are_read_one_by_one(libraries: Libraries) -> None:
    libraries.channels(
        ("DIE_0_CPU Energy", "mJ", 1000),
        ("DIE_1_CPU Energy", "mJ", 3000),
        ("DIE_0_ECPU0", "mJ", 500),
        ("GPU Energy", "nJ", 10**9),
        ("GPU0_0", "mJ", 999),
        ("ANE0_0", "mJ", 12),
        ("ANE0_1", "mJ", 13),
        ("DRAM0_0", "mJ", 14),
        ("DRAM0_1", "mJ", 15),
    )
    model = EnergyModel(*libraries.paths)
    model.open()
    read = joules(model)
    model.close()
    assert read == {
        "cpu-0": 1.0,
        "cpu-1": 3.0,
        "gpu": 1.0,
        "ane-0-0": 0.012,
        "ane-0-1": 0.013,
        "memory-0-0": 0.014,
        "memory-0-1": 0.015,
    }


def test_nothing_leaks_however_often_it_is_read(libraries: Libraries) -> None:
    libraries.channels(*M2_MAX)
    model = EnergyModel(*libraries.paths)
    model.open()
    model.read()
    held = libraries.living
    for _ in range(100):
        model.read()
    assert libraries.living == held
    model.open()  # anew: the first subscription is released
    assert libraries.living == held
    model.close()
    model.close()
    assert libraries.living == 0


def test_names_are_read_once_and_then_only_those_of_the_few_wanted(libraries: Libraries) -> None:
    libraries.channels(*M2_MAX, *((f"PACC_{number}", "mJ", 1) for number in range(200)))
    model = EnergyModel(*libraries.paths)
    model.open()
    before = libraries.name_reads
    model.read()
    assert libraries.name_reads - before == 4
    model.close()


def test_channels_that_change_places_are_found_again(libraries: Libraries) -> None:
    libraries.channels(*M2_MAX)
    model = EnergyModel(*libraries.paths)
    model.open()
    before = joules(model)
    libraries.channels(*reversed(M2_MAX))
    assert joules(model) == before
    libraries.channels(*M2_MAX[:5])
    assert joules(model) == {"cpu": 90.0}
    libraries.channels(("CPU Energy", "nJ", 10**9))
    assert joules(model) == {"cpu": 1.0}
    libraries.channels(("CPU Energy", "events", 10**9))
    with pytest.raises(SourceError, match="none of the channels"):
        model.read()
    model.close()


FAULTS = [
    ("no group", "no channels of the group 'Energy Model'"),
    ("group is no dictionary", "no dictionary"),
    ("no copy", "could not copy"),
    ("no string", "no string"),
    ("denied", "denied the subscription"),
    ("denied late", "denied the subscription"),
    ("no sample", "no sample"),
    ("sample is no dictionary", "no dictionary"),
    ("no channels", "without channels"),
    ("channels are no array", "without channels"),
    ("no name", "none of the channels that are known"),
    ("name is no string", "none of the channels that are known"),
    ("no unit", "none of the channels that are known"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[fault for fault, _ in FAULTS])
def test_each_fault_at_the_start_is_one_clear_error_and_leaves_nothing(
    libraries: Libraries, fault: str, message: str
) -> None:
    libraries.channels(*M2_MAX)
    libraries.fail(fault)
    model = EnergyModel(*libraries.paths)
    with pytest.raises(SourceError, match=message):
        model.open()
    assert libraries.living == 0
    libraries.heal()
    model.open()
    assert joules(model)["cpu"] == 90.0
    model.close()


@pytest.mark.parametrize("fault", ["no sample", "sample is no dictionary", "no channels", "channels are no array"])
def test_each_fault_of_a_reading_is_one_clear_error_and_the_next_one_goes_on(libraries: Libraries, fault: str) -> None:
    libraries.channels(*M2_MAX)
    model = EnergyModel(*libraries.paths)
    model.open()
    held = libraries.living
    libraries.fail(fault)
    with pytest.raises(SourceError, match="IOReport gave"):
        model.read()
    assert libraries.living == held
    libraries.heal()
    assert joules(model)["cpu"] == 90.0
    model.close()


def test_a_subscription_that_names_no_channels_and_empty_places_do_no_harm(libraries: Libraries) -> None:
    libraries.channels(*M2_MAX)
    libraries.fail("nothing subscribed")
    libraries.fail("null item")
    model = EnergyModel(*libraries.paths)
    model.open()
    assert joules(model)["cpu"] == 90.0
    model.close()


def test_names_may_be_stored_in_any_encoding(libraries: Libraries) -> None:
    libraries.channel("CPU Energy", "µJ", 2_000_000, LATIN_1)
    libraries.channel("GPU Energy", "μJ", 3_000_000)  # a Greek letter
    libraries.channel("ANE", "mJ", 1, NO_UTF_8)
    libraries.channel("DRAM", "mJ", 1, GARBAGE)
    libraries.channel("X" * 400, "mJ", 1)
    libraries.channel("ANE0", " mJ ", 5000)
    model = EnergyModel(*libraries.paths)
    model.open()
    assert joules(model) == {"cpu": 2.0, "gpu": 3.0, "ane-0": 5.0}
    model.close()


def test_a_library_that_is_not_there_or_lacks_a_function_is_named(libraries: Libraries) -> None:
    with pytest.raises(SourceError, match=r"^/no/such\.dylib cannot be loaded"):
        EnergyModel("/no/such.dylib", libraries.ioreport_path).open()
    with pytest.raises(SourceError, match="has no IOReportChannelGetUnitLabel"):
        EnergyModel(libraries.core_foundation_path, libraries.without_units_path).open()


def test_what_is_not_open_cannot_be_read(libraries: Libraries) -> None:
    with pytest.raises(SourceError, match="not open"):
        EnergyModel(*libraries.paths).read()
