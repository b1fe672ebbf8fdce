"""The ledger, and a simulated life of pods and containers on which its figures are checked against the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tracarbon_k8s._ledger import Ledger, Rate
from tracarbon_k8s._usage import (
    CgroupReading,
    ContainerKey,
    Counters,
    Identity,
    NodeCounters,
    NodeUsage,
    Workload,
    WorkloadUsage,
)

MIB = 2**20


def named(key: ContainerKey | str) -> Identity:
    """Everybody is known; a container asks for half a processor."""
    if isinstance(key, ContainerKey):
        return Identity(Workload("default", key.pod_uid, key.container_id), 0.5, ("GPU-a",))
    return Identity(Workload("default", key))


def nobody(_: ContainerKey | str) -> Identity:
    return Identity(None)


def node(busy: float = 0.0, capacity: float = 0.0, used: float = 500 * MIB) -> NodeCounters:
    return NodeCounters(busy, capacity, used, 1000.0 * MIB)


Numbers = tuple[float, int | None]


def reading(
    whole: Numbers, pods: dict[str, Numbers] | None = None, containers: dict[tuple[str, str], Numbers] | None = None
) -> CgroupReading:
    inside = {ContainerKey(*key): numbers for key, numbers in (containers or {}).items()}
    return CgroupReading(_columns(inside), _columns(pods or {}), *whole)


def _columns(numbers: dict) -> Counters:  # type: ignore[type-arg]
    return Counters(
        {key: seconds for key, (seconds, _) in numbers.items()},
        {key: memory for key, (_, memory) in numbers.items() if memory is not None},
    )


def seconds(usage: NodeUsage) -> dict[tuple[str, str] | None, float]:
    """Return the seconds of each, by pod and container."""
    found: Counter[tuple[str, str] | None] = Counter()
    for workload, cpu_seconds, *_ in usage.workloads:
        found[workload and (workload.pod, workload.container)] += cpu_seconds
    return dict(found)


def memory(usage: NodeUsage) -> dict[tuple[str, str] | None, float | None]:
    return {
        part.workload and (part.workload.pod, part.workload.container): part.memory_bytes for part in usage.workloads
    }


# --- one window at a time ---------------------------------------------------------------------------------------------


def test_the_first_reading_is_where_counting_begins() -> None:
    ledger = Ledger()
    assert not ledger.is_open
    first = reading((100, MIB), {"a": (50, MIB)}, {("a", "1"): (40, MIB)})
    usage = ledger.usage(first, node(1000, 2000), named)
    assert sum(seconds(usage).values()) == usage.busy_cpu_seconds == usage.capacity_cpu_seconds == 0
    assert usage.memory_used_bytes == 500 * MIB
    ledger.consume()
    assert ledger.is_open


def test_containers_pods_and_what_nobody_knows_each_get_what_they_have_counted() -> None:
    ledger = Ledger()
    ledger.open(
        node(100, 200), reading((100, 0), {"a": (50, 0), "b": (20, 0)}, {("a", "1"): (40, 0), ("b", "2"): (20, 0)})
    )
    now = reading((112, 0), {"a": (57, 0), "b": (21, 0)}, {("a", "1"): (44, 0), ("b", "2"): (21, 0)})
    usage = ledger.usage(now, node(120, 260), named)
    assert seconds(usage) == {("a", "1"): 4, ("a", ""): 3, ("b", "2"): 1, None: 4}
    assert (usage.busy_cpu_seconds, usage.capacity_cpu_seconds) == (20, 60)
    container = next(part for part in usage.workloads if part.workload == named(ContainerKey("a", "1")).workload)
    assert (container.cpu_request, container.gpus) == (0.5, ("GPU-a",))


def test_a_container_that_began_in_the_window_used_all_that_it_counts() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((100, 0), {"a": (50, 0)}))
    usage = ledger.usage(reading((110, 0), {"a": (57, 0), "b": (3, 0)}, {("a", "1"): (6, 0)}), node(), named)
    assert seconds(usage) == {("a", "1"): 6, ("a", ""): 1, ("b", ""): 3}


def test_a_container_that_came_and_went_is_its_pods_and_a_pod_that_did_is_nobodys() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((100, 0), {"a": (50, 0), "gone": (10, 0)}, {("a", "1"): (40, 0)}))
    usage = ledger.usage(reading((109, 0), {"a": (57, 0)}), node(), named)
    assert seconds(usage) == {("a", ""): 7, None: 2}


def test_a_counter_that_went_back_began_anew() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((100, 0), {"a": (50, 0)}, {("a", "1"): (40, 0)}))
    usage = ledger.usage(reading((5, 0), {"a": (4, 0)}, {("a", "1"): (3, 0)}), node(), named)
    assert seconds(usage) == {("a", "1"): 3, ("a", ""): 1, None: 1}


def test_a_container_without_a_name_is_its_pods() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((0, 0), {"a": (0, 0)}, {("a", "1"): (0, 0), ("a", "pause"): (0, 0)}))
    now = reading((10, 0), {"a": (10, 0)}, {("a", "1"): (6, 0), ("a", "pause"): (4, 0)})
    usage = ledger.usage(now, node(), lambda key: nobody(key) if key == ("a", "pause") else named(key))
    assert seconds(usage) == {("a", "1"): 6, ("a", ""): 4}


def test_what_nobody_knows_is_one_usage_and_none_is_lost() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((0, 0)))
    now = reading((10, 3 * MIB), {"a": (5, MIB), "b": (4, MIB)}, {("a", "1"): (3, MIB)})
    usage = ledger.usage(now, node(), nobody)
    assert usage.workloads == [WorkloadUsage(None, 10.0, 1.5 * MIB)]


def test_one_that_was_missed_and_is_back_takes_nothing_from_others_and_counts_nothing_twice() -> None:
    """It looks like a new one that has used all that it counts, which its pod denies."""
    ledger = Ledger()
    ledger.open(node(), reading((1000, 0), {"a": (1000, 0)}, {("a", "1"): (300, 0)}))
    usage = ledger.usage(
        reading((1010, 0), {"a": (1010, 0)}, {("a", "1"): (306, 0), ("a", "2"): (690, 0)}), node(), named
    )
    assert seconds(usage) == pytest.approx({("a", "1"): 6, ("a", "2"): 4})


def test_a_pod_that_was_missed_and_is_back_takes_nothing_from_others_either() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((1000, 0), {"a": (300, 0)}, {("a", "1"): (300, 0)}))
    now = reading((1010, 0), {"a": (306, 0), "b": (690, 0)}, {("a", "1"): (306, 0), ("b", "2"): (345, 0)})
    usage = ledger.usage(now, node(), named)
    assert seconds(usage) == pytest.approx({("a", "1"): 6, ("b", "2"): 4})


def test_parts_that_were_read_a_moment_before_their_whole_come_to_no_more_than_it() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((10.5, 0), {"a": (10.25, 0)}, {("a", "1"): (10, 0)}))
    usage = ledger.usage(reading((20, 0), {"a": (20, 0)}, {("a", "1"): (20, 0)}), node(), named)
    assert seconds(usage) == pytest.approx({("a", "1"): 9.5})


def test_the_node_is_at_least_as_busy_as_its_workloads() -> None:
    """Its time moves in steps of 10 ms."""
    ledger = Ledger()
    ledger.open(node(5, 10), reading((0, 0)))
    usage = ledger.usage(reading((0.0123, 0), {"a": (0.0123, 0)}), node(5, 10), named)
    assert usage.busy_cpu_seconds == usage.capacity_cpu_seconds == pytest.approx(0.0123)


def test_a_nodes_counters_that_went_back_are_no_negative_time() -> None:
    ledger = Ledger()
    ledger.open(node(500, 1000), reading((0, 0)))
    usage = ledger.usage(reading((0, 0)), node(400, 900), named)
    assert usage.busy_cpu_seconds == usage.capacity_cpu_seconds == 0


def test_memory_is_the_mean_of_the_window_and_adds_up_likewise() -> None:
    ledger = Ledger()
    ledger.open(node(used=400 * MIB), reading((0, 100 * MIB), {"a": (0, 60 * MIB)}, {("a", "1"): (0, 40 * MIB)}))
    now = reading((0, 120 * MIB), {"a": (0, 80 * MIB)}, {("a", "1"): (0, 50 * MIB), ("a", "2"): (0, 10 * MIB)})
    usage = ledger.usage(now, node(used=600 * MIB), named)
    assert memory(usage) == {("a", "1"): 45 * MIB, ("a", "2"): 5 * MIB, ("a", ""): 20 * MIB, None: 40 * MIB}
    assert (usage.memory_used_bytes, usage.memory_total_bytes) == (500 * MIB, 1000 * MIB)


def test_parts_of_memory_that_were_read_a_moment_before_their_whole_come_to_no_more_than_it() -> None:
    ledger = Ledger()
    usage = ledger.usage(reading((0, 90), {"a": (0, 80)}, {("a", "1"): (0, 100), ("a", "2"): (0, 60)}), node(), named)
    assert memory(usage) == pytest.approx({("a", "1"): 50, ("a", "2"): 30, None: 10})


def test_memory_of_one_container_that_was_not_read_is_its_pods() -> None:
    ledger = Ledger()
    usage = ledger.usage(reading((0, 90), {"a": (0, 80)}, {("a", "1"): (0, None), ("a", "2"): (0, 60)}), node(), named)
    assert memory(usage) == {("a", "1"): 0, ("a", "2"): 60, ("a", ""): 20, None: 10}


def test_memory_that_the_kernel_does_not_count_is_unknown_and_there_is_always_somebody_without_a_name() -> None:
    ledger = Ledger()
    ledger.open(node(), reading((0, None), {"a": (0, None)}, {("a", "1"): (0, None)}))
    usage = ledger.usage(reading((2, None), {"a": (2, None)}, {("a", "1"): (1, None)}), node(), named)
    assert memory(usage) == {("a", "1"): None, ("a", ""): None, None: None}


def test_a_window_that_was_not_completed_is_in_the_next_one() -> None:
    ledger = Ledger()
    ledger.open(node(0, 0), reading((0, 0), {"a": (0, 0)}))
    first = ledger.usage(reading((3, 0), {"a": (3, 0)}), node(4, 10), named)
    again = ledger.usage(reading((5, 0), {"a": (5, 0)}), node(7, 20), named)
    assert (seconds(first), seconds(again)) == ({("a", ""): 3}, {("a", ""): 5})
    assert (again.busy_cpu_seconds, again.capacity_cpu_seconds) == (7, 20)
    ledger.consume()
    ledger.consume()
    last = ledger.usage(reading((6, 0), {"a": (6, 0)}), node(8, 30), named)
    assert seconds(last) == {("a", ""): 1}


# --- rates ------------------------------------------------------------------------------------------------------------


def a_rate(container: str, cores: float, memory_bytes: float | None = 100.0) -> Rate:
    return Rate(named(ContainerKey("a", container)), cores, memory_bytes)


def test_rates_hold_for_the_window() -> None:
    ledger = Ledger()
    ledger.open(node(100, 200))
    usage = ledger.usage_of_rates([a_rate("1", 0.5), a_rate("2", 0.1, None)], 15.0, node(110, 230))
    assert seconds(usage) == pytest.approx({("a", "1"): 7.5, ("a", "2"): 1.5})
    assert memory(usage) == {("a", "1"): 100.0, ("a", "2"): None}
    assert (usage.busy_cpu_seconds, usage.capacity_cpu_seconds) == (10, 30)
    assert usage.workloads[0].cpu_request == 0.5


def test_rates_of_a_while_ago_are_no_more_than_the_node_was_busy() -> None:
    ledger = Ledger()
    ledger.open(node(100, 200))
    usage = ledger.usage_of_rates([a_rate("1", 1.5), a_rate("2", 0.5), a_rate("3", -1)], 15.0, node(103, 230))
    assert seconds(usage) == pytest.approx({("a", "1"): 2.25, ("a", "2"): 0.75, ("a", "3"): 0})
    assert usage.busy_cpu_seconds == pytest.approx(3)


def test_windows_of_rates_that_were_not_completed_are_in_the_next_one() -> None:
    ledger = Ledger()
    ledger.open(node(0, 0))
    ledger.usage_of_rates([], 15.0, node(10, 30))
    assert ledger.usage_of_rates([], 30.0, node(15, 60)).busy_cpu_seconds == 15
    ledger.consume()
    assert ledger.usage_of_rates([], 15.0, node(16, 90)).busy_cpu_seconds == 1


def test_no_rates_before_there_is_a_reading() -> None:
    usage = Ledger().usage_of_rates([a_rate("1", 0.5)], 15.0, node(100, 200))
    assert (seconds(usage), usage.capacity_cpu_seconds) == ({("a", "1"): 0}, 0)


# --- a life -----------------------------------------------------------------------------------------------------------


@dataclass
class Pod:
    own: int = 0
    """Microseconds of what is not a living container's."""
    containers: dict[str, int] = field(default_factory=dict)

    @property
    def counted(self) -> int:
        return self.own + sum(self.containers.values())


@dataclass
class Life:
    """Pods on a node, counted in microseconds as a kernel does; names are never used twice."""

    pods: dict[str, Pod] = field(default_factory=dict)
    ended: int = 0
    made: int = 0

    @property
    def counted(self) -> int:
        return self.ended + sum(pod.counted for pod in self.pods.values())

    def do(self, what: str, which: int, microseconds: int) -> None:
        pods = list(self.pods)
        if what == "create" or not pods:
            self.made += 1
            self.pods[f"pod{self.made}"] = Pod(microseconds)
            return
        uid = pods[which % len(pods)]
        pod = self.pods[uid]
        containers = list(pod.containers)
        container = containers[which % len(containers)] if containers else None
        if what == "end pod":
            self.ended += self.pods.pop(uid).counted
        elif what == "start" or container is None:
            self.made += 1
            pod.containers[f"c{self.made}"] = microseconds
        elif what == "burn":
            pod.containers[container] += microseconds
        elif what == "burn in the sandbox":
            pod.own += microseconds
        elif what == "end":
            pod.own += pod.containers.pop(container)
        elif what == "come and go":
            self.ended += microseconds

    def read(self, missed: Iterable[int], *, lag: int) -> CgroupReading:
        """Return a reading in which some cgroups are missed, and containers are read before the rest goes on."""
        containers = {
            (uid, name): (count / 1e6, count)
            for uid, pod in self.pods.items()
            for name, count in pod.containers.items()
        }
        for pod in self.pods.values():
            for name in pod.containers:
                pod.containers[name] += lag
        pods = {uid: (pod.counted / 1e6, pod.counted) for uid, pod in self.pods.items()}
        for number in missed:
            if everything := [*containers, *pods]:
                gone = everything[number % len(everything)]
                containers.pop(gone, None)  # type: ignore[call-overload]
                pods.pop(gone, None)  # type: ignore[call-overload]
        containers = {key: numbers for key, numbers in containers.items() if key[0] in pods}
        return reading((self.counted / 1e6, self.counted), pods, containers)


numbers = st.integers(0, 50)
deeds = st.tuples(
    st.sampled_from(["create", "start", "burn", "burn", "burn in the sandbox", "end", "end pod", "come and go"]),
    numbers,
    st.integers(0, 10**9),
)
windows = st.tuples(
    st.lists(deeds, max_size=6),
    st.lists(numbers, max_size=2),  # missed
    st.integers(0, 2000),  # microseconds between the readings of a container and of its pod
    st.booleans(),  # whether the first generator completes the window
    st.booleans(),  # and the second
    st.sets(numbers, max_size=3),  # whose names are not known
)


def named_but(unknown: set[int], key: ContainerKey | str) -> Identity:
    return nobody(key) if sum(map(ord, str(key))) % 7 in unknown else named(key)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(windows, min_size=1, max_size=12))
def test_over_any_life_each_ledger_gives_what_was_counted_and_nothing_twice(life: list) -> None:  # type: ignore[type-arg]
    pods, ledgers = Life(), [Ledger(), Ledger()]
    given_seconds = [0.0, 0.0]
    opened_at = pods.counted
    for ledger in ledgers:
        ledger.open(node(), pods.read((), lag=0))
    completed_at = [opened_at, opened_at]
    for events, missed, lag, *completes, unknown in life:
        for event in events:
            pods.do(*event)
        now = pods.read(missed, lag=lag)
        for index, ledger in enumerate(ledgers):
            usage = ledger.usage(now, node(), partial(named_but, unknown))
            window = sum(seconds(usage).values())
            assert all(part.cpu_seconds >= 0 and (part.memory_bytes or 0) >= 0 for part in usage.workloads)
            assert window == pytest.approx((pods.counted - completed_at[index]) / 1e6, rel=1e-9, abs=1e-6)
            if completes[index]:
                ledger.consume()
                given_seconds[index] += window
                completed_at[index] = pods.counted
    for index in range(2):
        truth = (completed_at[index] - opened_at) / 1e6
        assert given_seconds[index] == pytest.approx(truth, rel=1e-9, abs=1e-5)


@given(st.lists(st.tuples(st.sampled_from(["burn", "burn in the sandbox"]), numbers, st.integers(0, 10**9))))
def test_where_nothing_is_missed_everybody_gets_exactly_his_own(events: list) -> None:  # type: ignore[type-arg]
    pods, ledger = Life(), Ledger()
    for number in range(3):
        pods.do("create", 0, 17)
        pods.do("start", number, 10**7)
        pods.do("start", number, 10**6)
    before = {(uid, name): count for uid, pod in pods.pods.items() for name, count in pod.containers.items()}
    own = {uid: pod.own for uid, pod in pods.pods.items()}
    ledger.open(node(), pods.read((), lag=0))
    for event in events:
        pods.do(*event)
    used = seconds(ledger.usage(pods.read((), lag=0), node(), named))
    for uid, pod in pods.pods.items():
        # Less than a millisecond is taken for the moment by which the pod is read later.
        assert used.get((uid, ""), 0.0) == pytest.approx((pod.own - own[uid]) / 1e6, abs=1.1e-3)
        for name, count in pod.containers.items():
            assert used[uid, name] == pytest.approx((count - before[uid, name]) / 1e6, abs=1.1e-3)
