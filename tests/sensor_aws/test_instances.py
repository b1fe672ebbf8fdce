"""The table of EC2 instances: each figure at its load, and what stands in for a type that is not in it."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.hardwares.power_curve import KNOTS, watts_at
from tracarbon_sensor_aws._instances import InstancePower, average_power, checked_type, find_power

with files("tracarbon_sensor_aws").joinpath("instance_power.csv").open(encoding="utf-8") as table:
    ROWS = {row["instance_type"]: row for row in csv.DictReader(table)}

ELSEWHERE = {"vcpus": 1000, "memory_gb": 1000.0}  # of no consequence where the type tells


def found(instance_type: str) -> InstancePower:
    return find_power(instance_type, **ELSEWHERE)


def test_all_types_are_there() -> None:
    assert len(ROWS) == 621
    assert all(checked_type(name) == name for name in ROWS)


@pytest.mark.parametrize(
    ("instance_type", "load", "cpu", "memory"),
    [
        # the knots, as they are in the data set
        ("m5.large", 0.0, 1.21, 1.2),
        ("m5.large", 0.1, 3.05, 1.92),
        ("m5.large", 0.5, 7.16, 4.96),
        ("m5.large", 1.0, 9.96, 8.0),
        # between them: 1.21 + (3.05 - 1.21) x 0.05/0.1; 3.05 + (7.16 - 3.05) x 0.2/0.4; 7.16 + (9.96 - 7.16) x 0.25/0.5
        ("m5.large", 0.05, 2.13, 1.56),
        ("m5.large", 0.3, 5.105, 3.44),
        ("m5.large", 0.75, 8.56, 6.48),
        # beyond the ends
        ("m5.large", -0.5, 1.21, 1.2),
        ("m5.large", 1.5, 9.96, 8.0),
        ("t2.nano", 0.3, 2.63, 0.175),
        ("p3dn.24xlarge", 0.75, 410.84, 621.91),
    ],
)
def test_watts_at_a_load(instance_type: str, load: float, cpu: float, memory: float) -> None:
    power = found(instance_type)
    assert watts_at(power.cpu, load) == pytest.approx(cpu)
    assert watts_at(power.memory, load) == pytest.approx(memory)


@given(st.sampled_from(sorted(ROWS)), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_more_load_never_takes_less(instance_type: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    power = found(instance_type)
    for curve in (power.cpu, power.memory, power.gpu or (0.0, 0.0, 0.0, 0.0)):
        assert curve[0] <= watts_at(curve, low) <= watts_at(curve, high) <= curve[3]


@pytest.mark.parametrize("instance_type", sorted(ROWS))
def test_each_type_is_its_own_row(instance_type: str) -> None:
    row, power = ROWS[instance_type], found(instance_type)
    assert power.method == f"ec2:{instance_type}"
    assert not power.is_average
    for component, curve in (("cpu", power.cpu), ("memory", power.memory), ("gpu", power.gpu or (0, 0, 0, 0))):
        names = [f"{component}_watts_{load}" for load in ("idle", "10", "50", "100")]
        assert [watts_at(curve, load) for load in KNOTS] == pytest.approx([float(row[name]) for name in names])
    assert power.delta_full_machine == float(row["delta_full_machine_watts"])
    assert power.vcpus == int(row["vcpus"])


class TestAnotherSize:
    @pytest.mark.parametrize(
        ("instance_type", "method", "cpu_idle", "delta"),
        [
            ("m5.48xlarge", "ec2:m5.48xlarge as m5.24xlarge x2", 2 * 57.88, 2 * 96.0),
            ("g4dn.24xlarge", "ec2:g4dn.24xlarge as g4dn.metal", 54.71, 84.0),
            ("m5zn.medium", "ec2:m5zn.medium as m5zn.large x0.5", 1.19, 2.0),
            ("r5.metal-48xl", "ec2:r5.metal-48xl as r5.24xlarge x2", None, None),
            ("m5.8xlarge.elasticsearch", "ec2:m5.8xlarge.elasticsearch as m5.4xlarge.elasticsearch x2", 18.24, 28.0),
        ],
    )
    def test_is_in_proportion_to_the_nearest(
        self, instance_type: str, method: str, cpu_idle: float | None, delta: float | None
    ) -> None:
        power = found(instance_type)
        assert power.method == method
        assert not power.is_average
        if cpu_idle is not None:
            assert (power.cpu[0], power.delta_full_machine) == pytest.approx((cpu_idle, delta))

    def test_a_size_that_tells_no_number_goes_by_this_machine(self) -> None:
        assert find_power("c5a.metal", vcpus=96, memory_gb=1.0).method == "ec2:c5a.metal as c5a.24xlarge"

    def test_cards_are_not_scaled(self) -> None:
        assert found("g4dn.24xlarge").gpu == found("g4dn.metal").gpu == (65.0, 178.2, 421.3, 570.4)
        assert found("p3dn.48xlarge").gpu == found("p3dn.24xlarge").gpu

    @pytest.mark.parametrize("instance_type", ["m5.elasticsearch", "cache.m5", "m5"])
    def test_a_family_without_a_size_is_of_no_family(self, instance_type: str) -> None:
        assert found(instance_type).is_average

    def test_families_are_not_mixed(self) -> None:
        """`m5` is near neither `m5d` nor `db.m5`."""
        for instance_type in ("m5.9xlarge", "db.m5.9xlarge", "m5d.9xlarge"):
            nearest = found(instance_type).method.partition(" as ")[2].partition(" ")[0]
            assert nearest.partition(".8xlarge")[0] == instance_type.removesuffix(".9xlarge")


class TestAverage:
    def test_a_family_that_is_not_there_is_the_average_of_its_vcpus(self) -> None:
        """4 vCPUs of 0.74 to 3.5 W, and 16 GB of 0.392 W, as Cloud Carbon Footprint has it."""
        power = find_power("m9x.xlarge", vcpus=2, memory_gb=16.0)
        assert power.method == "ec2:m9x.xlarge by average per vcpu"
        assert power.is_average
        assert power.cpu == pytest.approx((2.96, 2.96 + 1.104, 2.96 + 5.52, 14.0))
        assert power.memory == pytest.approx((6.272,) * 4)
        assert (power.gpu, power.delta_full_machine) == (None, 0.0)

    @pytest.mark.parametrize(
        ("instance_type", "vcpus", "by_name"),
        [
            ("hpc6a.48xlarge", 96, 192),
            ("hpc6id.32xlarge", 64, 128),
            ("m9x.medium", 2, 1),
            ("t5.medium", 1, 2),  # each of a family `t` has two
            ("db.t5.medium", 1, 2),
        ],
    )
    def test_this_machine_knows_its_vcpus_better_than_its_name(
        self, instance_type: str, vcpus: int, by_name: int
    ) -> None:
        assert find_power(instance_type, vcpus, 1.0, is_here=True).vcpus == vcpus
        assert find_power(instance_type, vcpus, 1.0).vcpus == by_name

    def test_where_the_size_does_not_tell_this_machine_does(self) -> None:
        assert find_power("m9x.metal", vcpus=96, memory_gb=1.0).vcpus == 96

    @given(st.integers(1, 1000), st.floats(0.1, 30_000.0), st.floats(0.0, 1.0))
    def test_it_is_a_straight_line(self, vcpus: int, memory_gb: float, load: float) -> None:
        power = average_power("x", vcpus, memory_gb)
        assert watts_at(power.cpu, load) == pytest.approx(vcpus * (0.74 + 2.76 * load))


@pytest.mark.parametrize(
    ("written", "meant"), [("M5.Large", "m5.large"), (" u7inh-32tb.480xlarge\n", "u7inh-32tb.480xlarge")]
)
def test_case_and_blanks_make_no_difference(written: str, meant: str) -> None:
    assert checked_type(written) == meant


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("m5.larg", "did you mean m5.large?"),
        ("m9x.xxlarge", "did you mean m9x.xlarge?"),
        ("m5.huge", "it is like m5.large"),
        ("m5.9999xlarge", "did you mean m5"),
        ("m5", "it is like m5.large"),
        ("m5 large", "it is like m5.large"),
        ("", "it is like m5.large"),
        ("<b>.large", "it is like m5.large"),
    ],
)
def test_a_size_that_is_none_is_refused(wrong: str, hint: str) -> None:
    with pytest.raises(ValueError) as caught:
        checked_type(wrong)
    assert str(caught.value).startswith(f"{wrong!r} is no EC2 instance type; {hint}")


@pytest.mark.parametrize("instance_type", ["g9.xlarge", "p9e.48xlarge"])
def test_cards_that_are_not_known_are_said_to_be_missing(instance_type: str) -> None:
    power = found(instance_type)
    assert power.method == f"ec2:{instance_type} by average per vcpu, without its graphics cards"
    assert power.gpu is None


@given(st.text(max_size=30))
def test_whatever_the_type_there_is_a_figure(instance_type: str) -> None:
    power = found(instance_type)
    assert all(watts >= 0 for watts in (*power.cpu, *power.memory, power.delta_full_machine))
