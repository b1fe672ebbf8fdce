"""Which channels are chosen of all that a chip has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_sensor_macos._channels import Selected, select


def chosen(*names: str, unit: str = "mJ") -> dict[str, str]:
    return {one.label: one.name for one in select([(name, unit) for name in names])}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["CPU Energy", "DIE_0_CPU Energy", "DIE_1_CPU Energy"], ["cpu"]),
        (["DIE_0_CPU Energy", "DIE_1_CPU Energy", "DIE_0_ECPU0", "PCPU", "ECPU0"], ["cpu-0", "cpu-1"]),
        (["GPU0_0", "GPU", "GPU0", "GPU Energy"], ["gpu"]),
        (["GPU0_0", "GPU0_1", "GPU0", "GPU1"], ["gpu-0", "gpu-1"]),
        (["DIE_0_GPU Energy", "DIE_1_GPU Energy", "GPU0"], ["gpu-0", "gpu-1"]),
        (["ANE0_0", "ANE0_1", "ANE0"], ["ane-0"]),
        (["ANE0_0", "ANE0_1"], ["ane-0-0", "ane-0-1"]),
        (["DIE_0_ANE", "DIE_1_ANE", "DRAM0_0"], ["ane-0", "ane-1", "memory-0-0"]),
        (["CPU", "CPU0", "GPU SRAM", "GPU CS SRAM", "AMCC", "DCS", "ISP", "PANEL Energy", "XDRAM", "DRAMX"], []),
        ([], []),
    ],
)
def test_the_broadest_channels_are_chosen(names: list[str], labels: list[str]) -> None:
    for order in (names, names[::-1]):
        assert sorted(chosen(*order)) == labels


def test_gpu_energy_is_rather_taken_than_what_an_old_macos_called_it() -> None:
    assert chosen("GPU", "GPU Energy") == {"gpu": "GPU Energy"}


def test_a_counter_in_no_unit_of_energy_is_passed_over() -> None:
    assert chosen("CPU Energy", unit="events") == {}
    assert chosen("CPU Energy", unit="") == {}
    assert select([("CPU Energy", "24Mticks"), ("DIE_0_CPU Energy", "mJ")])[0].label == "cpu-0"


def test_of_one_name_in_two_units_the_finer_counter_is_the_one_that_goes_on() -> None:
    [only] = select([("CPU Energy", "mJ"), ("CPU Energy", "nJ")])
    assert (only.unit, only.index) == ("nJ", 1)


def test_of_one_name_in_one_unit_there_is_one_for_each_die() -> None:
    assert [one.label for one in select([("ANE", "mJ"), ("ANE", "mJ")])] == ["ane", "ane.2"]


@pytest.mark.parametrize(
    ("unit", "counts"), [("J", 1), ("mJ", 10**3), ("uJ", 10**6), ("µJ", 10**6), ("nJ", 10**9), ("pJ", 10**12)]
)
def test_units(unit: str, counts: int) -> None:
    [one] = select([("CPU Energy", unit)])
    count = one.at(counts)
    assert count.counts / count.counts_per_joule == 1.0


NAMES = st.one_of(
    st.text(),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "DIE_0_", "DIE_1_", "DIE_"]),
        st.sampled_from(["CPU", "GPU", "ANE", "DRAM", "ECPU", "PCPU"]),
        st.sampled_from(["", "0", "1", "0_0", "0_1", "_0"]),
        st.sampled_from(["", " Energy", " SRAM"]),
    ),
)
UNITS = st.sampled_from(["mJ", "uJ", "nJ", "", "events"])


@given(st.lists(st.tuples(NAMES, UNITS), max_size=40))
def test_nothing_is_counted_twice(channels: list[tuple[str, str]]) -> None:
    found = select(channels)
    labels = [one.label for one in found]
    assert len(set(labels)) == len(labels)
    assert len({one.index for one in found}) == len(found)
    for one in found:
        assert channels[one.index] == (one.name, one.unit)
        assert "ECPU" not in one.name
        assert "PCPU" not in one.name
    for component in {one.component for one in found}:
        assert len({breadth(one) for one in found if one.component == component}) == 1


def breadth(one: Selected) -> int:
    return one.label.partition(".")[0].count("-")
