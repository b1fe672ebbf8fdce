from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_k8s._attribution import Amounts, IdlePolicy, Share, attribute
from tracarbon_k8s._usage import NodeUsage, Workload, WorkloadUsage

SEPARATE, BY_REQUEST, EVENLY = IdlePolicy
WEB = Workload("shop", "web-1", "nginx", "deployment/web")
DB = Workload("shop", "db-0", "postgres", "statefulset/db")
DB_POD = DB._replace(container="")
GIB = 2.0**30


def node(*workloads: WorkloadUsage, busy: float = 4.0, capacity: float = 10.0) -> NodeUsage:
    """4 of 10 seconds busy; 8 of 16 GiB used."""
    return NodeUsage(busy, capacity, 8 * GIB, 16 * GIB, workloads)


def by_owner(shares: Sequence[Share]) -> dict[Workload | str, Share]:
    found = {share.workload or share.kind: share for share in shares}
    assert len(found) == len(shares), "somebody has two shares"
    return found


# --- figures worked out by hand ---------------------------------------------------------------------------------------


def test_busy_time_bytes_and_what_is_left_of_both() -> None:
    usage = node(WorkloadUsage(WEB, 2.0, 2 * GIB), WorkloadUsage(DB, 1.0, 4 * GIB))
    shares = by_owner(attribute(Amounts(host=160.0, cpu=100.0, memory=32.0), usage, SEPARATE))
    assert shares[WEB] == Share("container", WEB, 24.0, 20.0, 4.0, None)
    assert shares[DB] == Share("container", DB, 18.0, 10.0, 8.0, None)
    assert shares["system"] == Share("system", None, 14.0, 10.0, 4.0, None)
    assert shares["idle"] == Share("idle", None, 104.0, 60.0, 16.0, None)  # and 28 of board, fans, disks
    assert shares["unattributed"] == Share("unattributed", None, 0.0, 0.0, 0.0, None)


def test_what_a_pod_used_beyond_its_containers_is_the_pods() -> None:
    shares = by_owner(attribute(Amounts(100.0, 100.0), node(WorkloadUsage(DB_POD, 1.0, 0.0))))
    assert shares[DB_POD].kind == "pod"
    assert shares[DB_POD].total == 10.0


def test_what_nobody_knows_the_name_of_is_unattributed_and_one() -> None:
    usage = node(WorkloadUsage(None, 1.0, GIB), WorkloadUsage(WEB, 1.0, GIB), WorkloadUsage(None, 2.0, GIB))
    shares = by_owner(attribute(Amounts(100.0, 100.0), usage))
    assert shares["unattributed"].cpu == pytest.approx(30.0)


def test_usages_of_one_workload_are_one_share_that_has_asked_once() -> None:
    usage = node(WorkloadUsage(WEB, 1.0, GIB, 1.0), WorkloadUsage(DB, 1.0, GIB, 1.0), WorkloadUsage(WEB, 1.0, GIB, 1.0))
    shares = by_owner(attribute(Amounts(100.0, 100.0), usage, BY_REQUEST))
    assert shares[WEB].cpu == pytest.approx(20 + 30)
    assert shares[DB].cpu == pytest.approx(10 + 30)


def test_idle_goes_by_request_to_those_who_ask() -> None:
    usage = node(WorkloadUsage(WEB, 0.0, 0.0, 3.0), WorkloadUsage(DB, 0.0, 0.0, 1.0), WorkloadUsage(DB_POD, 0.0, 0.0))
    shares = by_owner(attribute(Amounts(160.0, 100.0, 32.0), usage, BY_REQUEST))
    assert shares[WEB][2:5] == pytest.approx((45.0 + 12.0 + 21.0, 45.0, 12.0))
    assert shares[DB][2:5] == pytest.approx((15.0 + 4.0 + 7.0, 15.0, 4.0))
    assert shares[DB_POD].total == 0.0
    assert "idle" not in shares


def test_idle_goes_evenly_to_containers_only() -> None:
    usage = node(
        WorkloadUsage(WEB, 4.0, 0.0),
        WorkloadUsage(DB, 0.0, 0.0),
        WorkloadUsage(DB_POD, 0.0, 0.0),
        WorkloadUsage(None, 0.0, 0.0),
    )
    shares = by_owner(attribute(Amounts(100.0, 100.0), usage, EVENLY))
    assert (shares[WEB].cpu, shares[DB].cpu, shares[DB_POD].cpu, shares["unattributed"].cpu) == (70.0, 30.0, 0.0, 0.0)


@pytest.mark.parametrize("policy", [BY_REQUEST, EVENLY])
def test_idle_is_a_share_of_its_own_where_there_is_nobody_to_give_it_to(policy: IdlePolicy) -> None:
    shares = by_owner(attribute(Amounts(100.0, 100.0), node(WorkloadUsage(DB_POD, 1.0, 0.0)), policy))
    assert shares["idle"].total == 60.0


def test_a_wall_meter_alone_splits_as_the_processors_would() -> None:
    shares = by_owner(attribute(Amounts(host=100.0), node(WorkloadUsage(WEB, 2.0, GIB))))
    assert shares[WEB] == Share("container", WEB, 20.0, None, None, None)
    assert shares["system"].total == 20.0
    assert shares["idle"].total == 60.0


def test_components_that_come_to_more_than_the_host_shrink_alike_in_the_total() -> None:
    usage = node(WorkloadUsage(WEB, 4.0, 8 * GIB))
    shares = by_owner(attribute(Amounts(host=110.0, cpu=100.0, memory=120.0), usage))
    assert (shares[WEB].cpu, shares[WEB].memory) == (40.0, 60.0)
    assert shares[WEB].total == pytest.approx(50.0)


def test_the_total_is_unknown_where_the_host_is() -> None:
    shares = attribute(Amounts(host=None, cpu=100.0), node(WorkloadUsage(WEB, 2.0, GIB)))
    assert {share.total for share in shares} == {None}
    assert by_owner(shares)[WEB].cpu == 20.0


def test_all_idles_where_no_time_is_known_to_have_passed() -> None:
    shares = by_owner(attribute(Amounts(100.0, 100.0), node(WorkloadUsage(WEB, 0.0, 0.0), busy=0.0, capacity=0.0)))
    assert shares["idle"].total == shares["idle"].cpu == 100.0


def test_cards_go_to_their_holders_and_else_to_nobody() -> None:
    usage = node(WorkloadUsage(WEB, 0.0, 0.0, 0.0, ["GPU-a", "GPU-b"]), WorkloadUsage(DB, 0.0, 0.0, 0.0, ["GPU-b"]))
    cards = {"GPU-a": 50.0, "GPU-b": 20.0, "GPU-c": 7.0}
    shares = by_owner(attribute(Amounts(host=200.0, gpu=80.0, gpus=cards), usage))
    assert shares[WEB].gpu == 60.0
    assert shares[DB].gpu == 10.0
    assert shares["unattributed"].gpu == pytest.approx(7.0 + 3.0)  # c, and what no card has told of
    assert shares["system"].gpu == shares["idle"].gpu == 0.0


def test_cards_that_come_to_more_than_their_sum_shrink() -> None:
    usage = node(WorkloadUsage(WEB, 0.0, 0.0, 0.0, ["GPU-a"]))
    shares = by_owner(attribute(Amounts(host=200.0, gpu=50.0, gpus={"GPU-a": 75.0, "GPU-c": 25.0}), usage))
    assert (shares[WEB].gpu, shares["unattributed"].gpu) == (37.5, 12.5)


def test_cards_alone_make_the_sum() -> None:
    shares = by_owner(attribute(Amounts(host=200.0, gpus={"GPU-a": 75.0}), node(WorkloadUsage(WEB, 0.0, 0.0))))
    assert shares["unattributed"].gpu == 75.0


def test_memory_that_the_kernel_does_not_count_is_unattributed_and_not_the_systems() -> None:
    usage = node(WorkloadUsage(WEB, 2.0, None), WorkloadUsage(None, 0.0, None))
    shares = by_owner(attribute(Amounts(160.0, 100.0, 32.0), usage))
    assert shares[WEB].memory is None
    assert shares[WEB].total == 20.0
    assert (shares["unattributed"].memory, shares["system"].memory, shares["idle"].memory) == (16.0, 0.0, 16.0)


def test_files_in_the_page_cache_are_the_workloads_also_beyond_what_the_node_calls_used() -> None:
    shares = by_owner(attribute(Amounts(32.0, memory=32.0), node(WorkloadUsage(WEB, 0.0, 12 * GIB))))
    assert (shares[WEB].memory, shares["system"].memory, shares["idle"].memory) == (24.0, 0.0, 8.0)


# --- properties -------------------------------------------------------------------------------------------------------

figures = st.one_of(st.just(0.0), st.floats(1e-9, 1e12))
amounts_or_none = st.none() | figures
uuids = st.sampled_from(["GPU-a", "GPU-b", "GPU-c"])
names = st.sampled_from([None, WEB, DB, DB_POD, *(WEB._replace(pod=f"web-{n}") for n in range(2, 6))])
usages = st.builds(
    WorkloadUsage, names, figures, st.none() | figures, figures, st.lists(uuids, max_size=3, unique=True)
)
node_usages = st.builds(NodeUsage, figures, figures, figures, figures, st.lists(usages, max_size=8))
all_amounts = st.builds(
    Amounts, amounts_or_none, amounts_or_none, amounts_or_none, amounts_or_none, st.dictionaries(uuids, figures)
)
policies = st.sampled_from(IdlePolicy)


@given(all_amounts, node_usages, policies)
def test_the_shares_add_up_to_the_whole(amounts: Amounts, usage: NodeUsage, policy: IdlePolicy) -> None:
    shares = attribute(amounts, usage, policy)
    gpu = math.fsum(amounts.gpus.values()) if amounts.gpu is None and amounts.gpus else amounts.gpu
    for name, whole in {"total": amounts.host, "cpu": amounts.cpu, "memory": amounts.memory, "gpu": gpu}.items():
        column = [getattr(share, name) for share in shares]
        if whole is None:
            assert set(column) == {None}
        else:
            assert math.fsum(part for part in column if part is not None) == pytest.approx(whole, rel=1e-9)


@given(all_amounts, node_usages, policies)
def test_no_share_is_negative_or_not_a_number_and_everybody_has_one(
    amounts: Amounts, usage: NodeUsage, policy: IdlePolicy
) -> None:
    shares = attribute(amounts, usage, policy)
    for share in shares:
        assert all(part is None or (part >= 0 and math.isfinite(part)) for part in share[2:])
    owners = by_owner(shares)
    assert {workload.workload for workload in usage.workloads} - {None} <= owners.keys()
    assert {"system", "unattributed"} <= owners.keys()


@given(all_amounts, node_usages, policies, st.randoms())
def test_the_order_of_the_workloads_does_not_matter(
    amounts: Amounts, usage: NodeUsage, policy: IdlePolicy, random: Random
) -> None:
    workloads = list(usage.workloads)
    random.shuffle(workloads)
    before = by_owner(attribute(amounts, usage, policy))
    after = by_owner(attribute(amounts, replace(usage, workloads=workloads), policy))
    assert before.keys() == after.keys()
    for owner, share in before.items():
        for one, other in zip(after[owner][2:], share[2:], strict=True):
            assert one == other or one == pytest.approx(other, rel=1e-9)


@given(all_amounts, node_usages, policies, figures)
def test_more_processor_time_is_never_less_energy(
    amounts: Amounts, usage: NodeUsage, policy: IdlePolicy, more: float
) -> None:
    """The node is busy for as much longer; it is as long a window."""
    usage = replace(usage, workloads=[WorkloadUsage(WEB, 1.0, 0.0), *usage.workloads])
    longer = replace(
        usage,
        busy_cpu_seconds=usage.busy_cpu_seconds + more,
        workloads=[WorkloadUsage(WEB, 1.0 + more, 0.0), *usage.workloads[1:]],
    )
    before = by_owner(attribute(amounts, usage, policy))[WEB]
    after = by_owner(attribute(amounts, longer, policy))[WEB]
    for one, other, whole in ((before.cpu, after.cpu, amounts.cpu), (before.total, after.total, amounts.host)):
        if one is not None and other is not None and whole is not None:
            assert other >= one - 1e-9 * whole


@given(all_amounts, node_usages, policies, usages)
def test_equal_usage_is_an_equal_share(
    amounts: Amounts, usage: NodeUsage, policy: IdlePolicy, alike: WorkloadUsage
) -> None:
    twins = [alike._replace(workload=Workload("twins", name, "main")) for name in ("one", "other")]
    shares = by_owner(attribute(amounts, replace(usage, workloads=[*usage.workloads, *twins]), policy))
    assert shares[twins[0].workload][2:] == shares[twins[1].workload][2:]  # type: ignore[index]
