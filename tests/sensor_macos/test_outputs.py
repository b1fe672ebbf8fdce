"""What is read out of what Apple's programs print, by chip and version of macOS; and out of anything else."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_sensor_macos._errors import SourceError
from tracarbon_sensor_macos._ioreg import Accumulated, SystemPower, parse_system_power
from tracarbon_sensor_macos._powermetrics import Documents, Sample, parse_sample

OUTPUTS = Path(__file__).parent / "outputs"


def output(name: str) -> bytes:
    return (OUTPUTS / f"{name}.plist").read_bytes()


@pytest.mark.parametrize(
    ("name", "seconds", "millijoules"),
    [
        ("m1_macos12", 1.0, {"cpu": 640.0, "gpu": 305.0, "ane": 12.0, "memory": 89.0}),
        ("m2_max_macos14", 1.023685416, {"cpu": 3048.996, "gpu": 276.0, "ane": 0.0}),
        ("m3_ultra_macos15", 2.0, {"cpu": 120_000.0, "gpu": 200_000.0, "ane": 300.0}),
        ("a18_pro_macos26", 1.0, {"cpu": 0.0, "gpu": 480.0, "ane": 0.0}),
        ("intel_macos13", 5.001, {"package": 62_512.5}),
    ],
)
def test_powermetrics(name: str, seconds: float, millijoules: dict[str, float]) -> None:
    sample = parse_sample(output(f"powermetrics_{name}"))
    assert sample.seconds == seconds
    assert sample.millijoules == pytest.approx(millijoules, rel=1e-6)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "which time"),
        ([], "which time"),
        ({"elapsed_ns": 0, "processor": {"cpu_power": 1.0}}, "which time"),
        ({"elapsed_ns": True, "processor": {"cpu_power": 1.0}}, "which time"),
        ({"elapsed_ns": "1"}, "which time"),
        ({"elapsed_ns": 10}, "nothing of the power"),
        ({"elapsed_ns": 10, "processor": []}, "nothing of the power"),
        ({"elapsed_ns": 10, "processor": {"cpu_power": "much"}}, "nothing of the power"),
        ({"elapsed_ns": 10, "processor": {"cpu_power": -1.0, "gpu_power": float("nan")}}, "nothing of the power"),
        ({"elapsed_ns": 10, "processor": {"package_watts": float("inf"), "cpu_power": True}}, "nothing of the power"),
    ],
)
def test_a_sample_without_what_is_wanted_says_what_is_missing(document: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        parse_sample(plistlib.dumps(document))


def test_energy_stands_in_for_a_power_that_makes_no_sense() -> None:
    document = {"elapsed_ns": 2 * 10**9, "processor": {"cpu_power": -1.0, "cpu_energy": 70}}
    assert parse_sample(plistlib.dumps(document)) == Sample(2.0, {"cpu": 70.0})
    document = {"elapsed_ns": 2 * 10**9, "processor": {"package_joules": 70}}
    assert parse_sample(plistlib.dumps(document)) == Sample(2.0, {"package": 70_000.0})


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("m1_pro_macos14", SystemPower(14.96, "system load", Accumulated(2_545_485_601, 144_519))),
        ("m2_air_charging_macos13", SystemPower(11.383, "system load")),
        ("m1_macos12", SystemPower(20.0, "power from the adapter")),
        ("intel_on_battery", SystemPower(17.1, "power from the battery")),
    ],
)
def test_ioreg(name: str, power: SystemPower) -> None:
    assert parse_system_power(output(f"ioreg_{name}")) == power


@pytest.mark.parametrize("name", ["macos15_2", "intel_plugged_in"])
def test_ioreg_whose_fields_are_empty_says_so(name: str) -> None:
    with pytest.raises(SourceError, match=r"shows no power.*macOS 15\.2"):
        parse_system_power(output(f"ioreg_{name}"))


@pytest.mark.parametrize("printed", [b"", b"\n"])
def test_a_mac_without_a_battery_says_so(printed: bytes) -> None:
    with pytest.raises(SourceError, match="no battery"):
        parse_system_power(printed)


@pytest.mark.parametrize(
    ("battery", "watts"),
    [
        ({"PowerTelemetryData": {"SystemLoad": 0, "SystemPowerIn": 9000}}, 9.0),
        ({"BatteryData": {"PowerTelemetryData": {"SystemPowerIn": 9000}}}, 9.0),
        ({"PowerTelemetryData": {"SystemLoad": 18446744073709550000, "SystemPowerIn": 9000}}, 9.0),
        ({"BatteryData": {"AdapterPower": 12.5}}, 12.5),
        ({"ExternalConnected": False, "Voltage": 10_000, "Amperage": -500}, 5.0),
    ],
)
def test_the_next_field_stands_in_for_one_that_is_empty(battery: dict[str, Any], watts: float) -> None:
    assert parse_system_power(plistlib.dumps([battery])).watts == watts


@pytest.mark.parametrize(
    "battery",
    [
        {"ExternalConnected": False, "Voltage": 10_000, "Amperage": 500},
        {"ExternalConnected": False, "Voltage": 10_000},
        {"Voltage": 10_000, "Amperage": -500},
        {"BatteryData": {"AdapterPower": 2_143_289_344}},  # the bits of a NaN
        {"BatteryData": {"AdapterPower": 2**40}},
        {"AdapterDetails": {"Watts": 96}},
    ],
)
def test_no_power_is_made_up(battery: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="shows no power"):
        parse_system_power(plistlib.dumps([battery]))


@pytest.mark.parametrize(
    "telemetry",
    [
        {"AccumulatedSystemLoad": 5461302275044, "SystemLoadAccumulatorCount": 99684},
        {"AccumulatedSystemLoad": 5, "SystemLoadAccumulatorCount": 99684},
        {"AccumulatedSystemLoad": 5, "SystemLoadAccumulatorCount": 0},
        {"AccumulatedSystemLoad": 5.5, "SystemLoadAccumulatorCount": 1},
        {"AccumulatedSystemLoad": 5},
    ],
)
def test_a_sum_that_is_not_of_milliwatts_is_left_alone(telemetry: dict[str, Any]) -> None:
    battery = {"PowerTelemetryData": {"SystemLoad": 10_000, **telemetry}}
    assert parse_system_power(plistlib.dumps([battery])) == SystemPower(10.0, "system load")


KEYS = [
    *("elapsed_ns", "processor", "cpu_power", "gpu_power", "ane_power", "dram_power", "cpu_energy", "package_watts"),
    *("package_joules", "PowerTelemetryData", "BatteryData", "SystemLoad", "SystemPowerIn", "AdapterPower"),
    *("AccumulatedSystemLoad", "SystemLoadAccumulatorCount", "ExternalConnected", "Voltage", "InstantAmperage"),
]
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(max_size=4), st.just("x"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
    max_leaves=20,
)


@given(st.one_of(VALUES, st.lists(VALUES, min_size=1)))
def test_any_property_list_gives_sound_figures_or_one_clear_error(value: Any) -> None:
    data = plistlib.dumps(value)
    try:
        sample = parse_sample(data)
        assert sample.seconds > 0
        assert all(0 <= energy < float("inf") for energy in sample.millijoules.values())
    except SourceError:
        pass
    try:
        power = parse_system_power(data)
        assert 0 < power.watts <= 1000
    except SourceError:
        pass


def cut(data: bytes, start: int, length: int, filling: bytes) -> bytes:
    return data[:start] + filling + data[start + length :]


DAMAGED = st.builds(
    cut,
    st.sampled_from([output("powermetrics_m2_max_macos14"), output("ioreg_m1_pro_macos14")]),
    st.integers(0, 3000),
    st.integers(0, 200),
    st.binary(max_size=8),
)


@given(st.one_of(st.binary(), DAMAGED, st.binary().map(lambda data: b"bplist00" + data)))
def test_arbitrary_bytes_give_one_clear_error_or_sound_figures(data: bytes) -> None:
    for parse in (parse_sample, parse_system_power):
        try:
            parse(data)
        except SourceError as error:
            assert str(error)


def test_deep_nesting_is_one_clear_error() -> None:
    for data in (b"<plist>" + b"<array>" * 100_000, b"<plist>" + b"<dict><key>a</key>" * 100_000):
        with pytest.raises(SourceError):
            parse_sample(data)


PIECES = st.lists(st.sampled_from([b"<plist>", b"</plist>", b"\0", b"a", b"</pl", b"ist>"]), max_size=40)


@given(PIECES, st.data())
def test_a_stream_is_cut_alike_however_it_arrives(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    whole = Documents()
    found = whole.feed(stream)
    parts = Documents()
    found_by_parts: list[bytes] = []
    while stream:
        length = data.draw(st.integers(1, len(stream)))
        found_by_parts += parts.feed(stream[:length])
        stream = stream[length:]
    assert found_by_parts == found
    assert parts.cut_off == whole.cut_off


def test_documents_are_whole_as_soon_as_they_end() -> None:
    one, other = output("powermetrics_m1_macos12"), output("powermetrics_m2_max_macos14")
    documents = Documents()
    assert [parse_sample(it).seconds for it in documents.feed(one)] == [1.0]
    assert documents.feed(b"\0" + other[:500]) == []
    assert [parse_sample(it).seconds for it in documents.feed(other[500:])] == [1.023685416]
    assert documents.cut_off == 0


def test_half_a_document_is_dropped_and_counted() -> None:
    one = output("powermetrics_m1_macos12")
    documents = Documents()
    [only] = documents.feed(one[:700] + b"\0" + one)
    assert parse_sample(only).seconds == 1.0
    assert documents.cut_off == 1


def test_a_document_without_an_end_is_an_error_and_no_memory_leak() -> None:
    documents = Documents()
    with pytest.raises(SourceError, match="no end"):
        for _ in range(100):
            documents.feed(b"x" * 2**16)
