"""Both generators over a made-up node and an API server: the parts add up, whatever happens."""

from __future__ import annotations

import math
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client import ApiClient, Configuration, CustomObjectsApi
from tracarbon._states import Components
from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exceptions import TracarbonException
from tracarbon.exporters.exporter import Metric, MetricGenerator
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Scope, UsageType
from tracarbon.plugin import PluginContext, Pulse
from tracarbon.testing import FixedLocation, FixedSensor, ManualClock
from tracarbon_k8s import (
    CarbonEmissionKubernetesGenerator,
    EnergyConsumptionKubernetesGenerator,
    Kubernetes,
    KubernetesOptions,
    node,
)
from tracarbon_k8s._cluster import plugins_of
from tracarbon_k8s._metrics import STALE_SECONDS

from tests.k8s.api_server import (
    TOKEN,
    Server,
    made_metrics,
    made_pod,
    reset_at_once,
    respond,
    serving,
    write_kubeconfig,
)
from tests.k8s.cgroup_tree import container_id, uid
from tests.k8s.machine import NODE, TOTAL_BYTES, Machine

WINDOW_SECONDS = 10.0
NAMES = {"total": "host", "cpu": "cpu", "memory": "memory", "gpu": "gpu"}


class Meter(FixedSensor):
    """A meter whose readings a test sets."""

    devices: list[DeviceUsage] = []  # noqa: RUF012 - copied

    async def get_energy_usage(self) -> EnergyUsage:
        usage = await super().get_energy_usage()
        return usage.model_copy(update={"devices": self.devices})


class Rig:
    """A node with its API server, and what generators of one pipeline are given."""

    def __init__(self, root: Path, server: Server, machine: Machine) -> None:
        self.machine = machine
        self.server = server
        self.clock = ManualClock()
        self.pulse = Pulse(interval_seconds=40.0)
        self.components = Components()
        self.meter = Meter(window_seconds=WINDOW_SECONDS)
        self.kubeconfig = write_kubeconfig(root / "kubeconfig", server.url)

    def options(self, **options: Any) -> KubernetesOptions:
        return KubernetesOptions(**{"kubeconfig": self.kubeconfig, "node_name": NODE, **options})

    def context(self, name: str = "energy_kubernetes") -> PluginContext:
        return PluginContext(
            name,
            meter=self.meter,
            location=FixedLocation(),
            clock=self.clock,
            host_root=self.machine.root,
            pulse=self.pulse,
            components=self.components,
        )

    def energy(self, **options: Any) -> EnergyConsumptionKubernetesGenerator:
        return EnergyConsumptionKubernetesGenerator.from_options(self.options(**options), self.context())

    def carbon(self, **options: Any) -> CarbonEmissionKubernetesGenerator:
        return CarbonEmissionKubernetesGenerator.from_options(self.options(**options), self.context("carbon"))

    def tick(self) -> None:
        self.clock.elapse(WINDOW_SECONDS)
        self.machine.spend(0.0)
        self.pulse.ticks += 1
        self.pulse.last_tick_at = self.clock.monotonic()

    def answers(self, path: str = "/api/v1/pods") -> int:
        return self.machine.cluster.paths().count(path)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    machine = Machine(tmp_path)
    with serving(machine.cluster) as server:
        yield Rig(tmp_path, server, machine)


async def generated(generator: MetricGenerator) -> list[Metric]:
    async with aclosing(generator.generate()) as metrics:
        return [metric async for metric in metrics]


@asynccontextmanager
async def both(rig: Rig, **options: Any) -> AsyncIterator[tuple[MetricGenerator, MetricGenerator]]:
    async with rig.energy(**options) as energy, rig.carbon(**options) as carbon:
        yield energy, carbon


def sums(metrics: list[Metric]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for metric in metrics:
        found[metric.name.rpartition("_")[2]].append(float(metric.value))
    return {name: math.fsum(values) for name, values in found.items()}


def by_container(metrics: list[Metric], suffix: str = "cpu") -> dict[str, float]:
    """Values by container, or by attribution where there is none."""
    found = {}
    for metric in metrics:
        tags = dict(metric.tags)
        if metric.name.endswith(f"_{suffix}"):
            found[tags.get("container_name") or tags.get("pod_name") or tags["attribution"]] = float(metric.value)
    return found


def check(metrics: list[Metric], watts: Mapping[str, float]) -> None:
    assert sums(metrics) == pytest.approx({name: watts[of] for name, of in NAMES.items() if of in watts})


def grams_of(meter: Meter) -> dict[str, float]:
    return {name: value * meter.window_seconds / 1000.0 for name, value in meter.watts.items()}


async def test_energy_goes_where_the_time_went(rig: Rig) -> None:
    machine = rig.machine
    web = machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    database = machine.start("db-0", "db", uid=uid(2), identity=container_id(2))
    async with both(rig) as (energy, carbon):
        machine.burn(web, 6.0, TOTAL_BYTES // 4)
        machine.burn(database, 2.0)
        machine.spend(10.0, system_seconds=2.0)
        rig.tick()
        watts, grams = await generated(energy), await generated(carbon)
    # 24 W of processors: 20 s of two, 6 of them web's, 2 the database's, 2 the system's.
    assert by_container(watts) == pytest.approx({"web": 7.2, "db": 2.4, "system": 2.4, "idle": 12.0})
    # The mean of the window: half of what there is now.
    assert by_container(watts, "memory")["web"] == pytest.approx(6.0 / 8)
    check(watts, rig.meter.watts)
    check(grams, grams_of(rig.meter))
    assert rig.answers() == 2, "one at the start, and one for both in the tick"
    [metric] = [one for one in watts if dict(one.tags).get("container_name") == "web" and one.name.endswith("total")]
    assert dict(metric.tags) == {
        "pod_name": "web-1",
        "pod_namespace": "shop",
        "container_name": "web",
        "attribution": "container",
        "containers": "kubernetes",
        "platform": "Linux",
        "location": "fixed",
        "units": "watts",
        "sensor": "fixed",
        "fidelity": "measured",
        "method": "made up",
    }
    assert {"source", "factor_kind", "factor_date"} <= {tag.key for tag in grams[0].tags}


async def test_owners_and_labels_are_tags(rig: Rig) -> None:
    rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    rig.machine.tell(
        made_pod(
            "web-1",
            uid=uid(1),
            containers={"web": container_id(1)},
            labels={"app": "web", "secret": "no", "pod-template-hash": "5f7"},
            owner=("ReplicaSet", "web-5f7"),
        )
    )
    async with rig.energy(pod_labels=["app", "team"]) as energy:
        rig.tick()
        tags = [dict(metric.tags) for metric in await generated(energy)]
    [found] = {(each["pod_owner"], each["pod_label_app"]) for each in tags if "container_name" in each}
    assert found == ("deployment/web", "web")
    assert not any("secret" in key or "team" in key for each in tags for key in each)


async def test_what_ends_between_two_ticks_is_counted(rig: Rig) -> None:
    machine = rig.machine
    short = machine.start("job-1", "work", uid=uid(1), identity=container_id(1))
    async with rig.energy() as energy:
        machine.burn(short, 2.0)
        machine.end(short)
        ghost = machine.start("ghost", "ghost", uid=uid(2), identity=container_id(2), is_told=False)
        machine.burn(ghost, 3.0)
        machine.end(ghost.parent)
        machine.spend(15.0)
        rig.tick()
        watts = await generated(energy)
    assert by_container(watts) == pytest.approx({"job-1": 2.4, "unattributed": 3.6, "system": 0.0, "idle": 18.0})
    check(watts, rig.meter.watts)


@pytest.mark.parametrize(("idle", "web", "database"), [("evenly", 16.0, 8.0), ("by-request", 18.0, 6.0)])
async def test_idle_energy_may_be_the_containers(rig: Rig, idle: str, web: float, database: float) -> None:
    places = [
        rig.machine.start("x", "x", uid=uid(number), identity=container_id(number), is_told=False) for number in (1, 2)
    ]
    for number, name, request in ((1, "web", "1500m"), (2, "db", "500m")):
        rig.machine.tell(made_pod(name, uid=uid(number), containers={name: container_id(number)}, request=request))
    async with rig.energy(idle=idle) as energy:
        rig.machine.burn(places[0], 10.0)
        rig.machine.burn(places[1], 10.0 / 3)
        rig.machine.spend(20.0 / 3)
        rig.tick()
        watts = await generated(energy)
    found = by_container(watts)
    assert (found["web"], found["db"]) == pytest.approx((web, database), rel=1e-3)
    assert "idle" not in found
    check(watts, rig.meter.watts)


@pytest.mark.parametrize("fault", ["denied", "reset", "unavailable"])
async def test_without_the_api_server_names_are_those_of_before(rig: Rig, fault: str) -> None:
    machine = rig.machine
    web = machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    async with rig.energy(timeout_seconds=60.0) as energy:
        assert energy.problems == ()
        if fault == "denied":
            machine.cluster.denied.add("pods")
        elif fault == "reset":
            machine.cluster.fault = reset_at_once
        else:
            machine.cluster.fault = respond(503, b"")
        new = machine.start("new-1", "new", uid=uid(2), identity=container_id(2))
        machine.burn(web, 5.0)
        machine.burn(new, 5.0)
        machine.spend(10.0)
        rig.tick()
        watts = await generated(energy)
        assert by_container(watts) == pytest.approx({"web": 6.0, "unattributed": 6.0, "system": 0.0, "idle": 12.0})
        check(watts, rig.meter.watts)
        [problem] = energy.problems
        assert "the API server 127.0.0.1:" in problem
        machine.cluster.denied.clear()
        machine.cluster.fault = lambda *_: False
        machine.burn(new, 5.0)
        machine.spend(15.0)
        rig.tick()
        assert by_container(await generated(energy))["new"] == pytest.approx(6.0)
        assert energy.problems == ()


async def while_time_passes(rig: Rig, call: Coroutine[Any, Any, list[Metric]]) -> list[Metric]:
    found: list[Metric] = []

    async def turn(scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                if rig.clock._alarms:  # somebody waits for time to pass, and not for a thread
                    await rig.clock.advance(0.5)
                await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(turn, scope)
        found = await call
        scope.cancel()
    return found


async def entered(generator: MetricGenerator) -> list[Metric]:
    await generator.__aenter__()
    return []


async def test_an_api_server_that_hangs_holds_up_nothing(rig: Rig) -> None:
    machine, gate = rig.machine, threading.Event()
    web = machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    async with rig.energy(timeout_seconds=120.0) as energy:
        machine.cluster.fault = lambda *_: not gate.wait(60)
        try:
            for _ in range(3):
                machine.burn(web, 5.0)
                machine.spend(15.0)
                rig.tick()
                before = rig.clock.monotonic()
                watts = await while_time_passes(rig, generated(energy))
                assert rig.clock.monotonic() - before <= 3.0
                assert by_container(watts)["web"] == pytest.approx(6.0)
                assert energy.problems == ("the API server has not answered yet: names are those of before",)
        finally:
            gate.set()
        assert energy._node is not None
        with anyio.fail_after(60):
            while energy._node._is_asking:
                await anyio.sleep(0.01)
        rig.tick()
        await generated(energy)
        assert energy.problems == ()
    assert rig.answers() == 3, "nobody asks twice at a time"


async def test_an_api_server_that_hangs_at_the_start_holds_up_nothing(rig: Rig) -> None:
    machine, gate = rig.machine, threading.Event()
    web = machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    machine.cluster.fault = lambda *_: not gate.wait(20)
    energy, before = rig.energy(timeout_seconds=60.0), rig.clock.monotonic()
    try:
        with anyio.fail_after(20):
            await while_time_passes(rig, entered(energy))
        assert rig.clock.monotonic() - before <= 3.0
        machine.burn(web, 5.0)
        machine.spend(15.0)
        rig.tick()
        assert by_container(await generated(energy)) == pytest.approx({"unattributed": 6.0, "system": 0, "idle": 18.0})
        assert energy.problems == ("the API server has not answered yet: no pod has a name",)
        gate.set()
        assert energy._node is not None
        with anyio.fail_after(20):
            while energy._node._is_asking:
                await anyio.sleep(0.01)
        machine.burn(web, 5.0)
        machine.spend(15.0)
        rig.tick()
        assert by_container(await generated(energy))["web"] == pytest.approx(6.0)
        assert energy.problems == ()
    finally:
        gate.set()
        await energy.__aexit__(None, None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells what a thread has started")
async def test_a_credential_plugin_that_hangs_is_named_ended_and_tried_again(rig: Rig) -> None:
    async def thread_ends(node: node.Node) -> None:
        with anyio.fail_after(20):
            while node._is_asking:
                await anyio.sleep(0.01)

    async def plugin_runs(node: node.Node) -> None:
        with anyio.fail_after(20):
            while not plugins_of(node._cluster._thread):
                await anyio.sleep(0.01)

    config = Path(rig.kubeconfig)
    good = config.read_text()
    content = yaml.safe_load(good)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["60"]}
    content["users"][0]["user"] = {"exec": {**plugin, "interactiveMode": "Never"}}
    config.write_text(yaml.safe_dump(content))
    rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    energy = rig.energy()
    await while_time_passes(rig, entered(energy))
    assert energy._node is not None
    try:
        await plugin_runs(energy._node)
        rig.tick()
        await generated(energy)
        [problem] = energy.problems
        assert problem == "the credential plugin (exec) of the kubeconfig has not answered yet: no pod has a name"
        rig.clock.elapse(60.0)
        rig.tick()
        await generated(energy)
        await thread_ends(energy._node)
        rig.tick()
        await while_time_passes(rig, generated(energy))
        await plugin_runs(energy._node)
    finally:
        await energy.__aexit__(None, None, None)
    await thread_ends(energy._node)
    assert plugins_of(energy._node._cluster._thread) == []
    config.write_text(good)
    async with energy:
        rig.tick()
        assert "web" in by_container(await generated(energy))


async def test_an_api_server_that_takes_long_is_asked_once_at_the_start(rig: Rig) -> None:
    rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    rig.machine.cluster.fault = lambda *_: rig.clock.elapse(1.5) is not None
    async with both(rig):
        assert rig.answers() == 1


async def test_a_window_that_failed_is_in_the_next_one(rig: Rig) -> None:
    machine = rig.machine
    web = machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    async with both(rig) as (energy, carbon):
        machine.burn(web, 4.0)
        machine.spend(16.0)
        rig.tick()
        rig.meter.error = OSError("the meter fails")
        with pytest.raises(OSError, match="the meter fails"):
            await generated(energy)
        rig.meter.error = None
        assert by_container(await generated(carbon))["web"] == pytest.approx(24.0 * 4 / 20 / 100)
        machine.spend(20.0)
        rig.tick()
        assert by_container(await generated(energy))["web"] == pytest.approx(24.0 * 4 / 40)
        assert by_container(await generated(carbon))["web"] == 0.0


async def test_what_was_used_while_the_energy_was_unknown_counts_when_it_is_known(rig: Rig) -> None:
    web = rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    async with rig.energy() as energy:
        known, rig.meter.watts = rig.meter.watts, {}
        rig.machine.burn(web, 4.0)
        rig.machine.spend(16.0)
        rig.tick()
        assert await generated(energy) == []
        rig.meter.watts = known
        rig.machine.spend(20.0)
        rig.tick()
        assert by_container(await generated(energy))["web"] == pytest.approx(24.0 * 4 / 40)


async def test_one_that_is_entered_again_counts_from_where_it_was(rig: Rig) -> None:
    """As the pipeline does with one that has failed."""
    web = rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    energy = rig.energy()
    async with energy:
        rig.machine.burn(web, 4.0)
    rig.machine.spend(16.0)
    async with energy:
        rig.tick()
        assert by_container(await generated(energy))["web"] == pytest.approx(24.0 * 4 / 20)


async def test_cards_go_to_whoever_holds_them(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [
        DeviceUsage(
            Device(f"gpu-{number}", UsageType.GPU, Scope.EXTRA, tags=(("uuid", f"GPU-{number}"),)),
            watts,
            WINDOW_SECONDS,
        )
        for number, watts in enumerate((6.0, 3.0))
    ]
    rig.meter.devices = cards
    monkeypatch.setattr(node, "cards_by_holder", lambda _: {("shop", "web-1", "web"): ("GPU-0",)})
    rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    async with both(rig) as (energy, carbon):
        rig.machine.spend(20.0)
        rig.tick()
        watts, grams = await generated(energy), await generated(carbon)
    found = by_container(watts, "gpu")
    assert (found["web"], found["unattributed"]) == pytest.approx((6.0, 4.0))
    found = by_container(grams, "gpu")
    assert (found["web"], found["unattributed"]) == pytest.approx((0.06, 0.04))
    check(watts, rig.meter.watts)


async def test_usage_of_the_metrics_api(rig: Rig) -> None:
    pods = [
        made_pod("web-1", containers={"web": "1"}),
        made_pod("db-0", containers={"db": "2"}),
        made_pod("far", node="other", containers={"far": "3"}),
    ]
    cluster = rig.machine.cluster
    cluster.pods, cluster.metrics = (
        pods,
        [made_metrics(pod, cpu) for pod, cpu in zip(pods, ("600m", "200m", "1"), strict=True)],
    )
    for metrics in cluster.metrics:
        metrics["timestamp"] = datetime.fromtimestamp(rig.clock.time() + 5, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with rig.energy(usage="metrics-api") as energy:
        rig.machine.spend(10.0, system_seconds=10.0)
        rig.tick()
        watts = await generated(energy)
        assert by_container(watts) == pytest.approx({"web": 7.2, "db": 2.4, "system": 2.4, "idle": 12.0})
        check(watts, rig.meter.watts)
        rig.machine.spend(10.0, system_seconds=10.0)
        rig.tick()
        assert by_container(await generated(energy)) == pytest.approx(by_container(watts))
        rig.clock.elapse(1000.0)
        rig.machine.spend(10.0, system_seconds=10.0)
        rig.tick()
        watts = await generated(energy)
        assert by_container(watts) == pytest.approx({"unattributed": 12.0, "system": 0.0, "idle": 12.0})
        old = "the figures of 2 containers are too old, or yet to come: see to metrics-server and the clock"
        assert energy.problems == (old,)
        rig.clock.step_wall(-1100.0)
        rig.tick()
        await generated(energy)
        assert energy.problems == (old,)
        cluster.metrics = None
        rig.tick()
        check(await generated(energy), rig.meter.watts)
        assert any("metrics-server is not installed" in problem for problem in energy.problems)


async def test_as_documented_over_a_client_of_ones_own(rig: Rig) -> None:
    """Without a pipeline, and without an `async with`."""
    pods = [made_pod("web-1", containers={"web": "1"}), made_pod("far", node="other", containers={"far": "2"})]
    rig.machine.cluster.pods = pods
    rig.machine.cluster.metrics = [made_metrics(pod, "500m") for pod in pods]
    for metrics in rig.machine.cluster.metrics:
        metrics["timestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    configuration = Configuration(host=rig.server.url)
    configuration.api_key["authorization"] = f"Bearer {TOKEN}"
    with ApiClient(configuration) as client:
        kubernetes = Kubernetes(api=CustomObjectsApi(client), node_name=NODE)
        place = {"location": FixedLocation(), "kubernetes": kubernetes}
        emission = CarbonEmission(location=FixedLocation(), energy_consumption=rig.meter)
        for generator in (
            EnergyConsumptionKubernetesGenerator(energy_consumption=rig.meter, **place),
            CarbonEmissionKubernetesGenerator(carbon_emission=emission, **place),
        ):
            metrics = await generated(generator)
            assert "web" in by_container(metrics)
            assert "far" not in by_container(metrics)
            await generator.__aexit__(None, None, None)
        check(metrics, grams_of(rig.meter))


async def test_a_cluster_beside_options(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only one of them says is as it says."""
    monkeypatch.setenv("NODE_NAME", "another")
    pods = [made_pod(name, namespace=name, containers={name: name}) for name in ("shop", "pay")]
    rig.machine.cluster.pods, rig.machine.cluster.metrics = pods, [made_metrics(pod) for pod in pods]
    for metrics in rig.machine.cluster.metrics:
        metrics["timestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    configuration = Configuration(host=rig.server.url)
    configuration.api_key["authorization"] = f"Bearer {TOKEN}"
    with ApiClient(configuration) as client:
        for of_kubernetes, of_options, expected in (
            ({}, {"node_name": NODE}, {"shop", "pay"}),
            ({"node_name": NODE}, {}, {"shop", "pay"}),
            ({"namespaces": ["shop"], "node_name": NODE}, {"usage": "metrics-api", "node_name": NODE}, {"shop"}),
            ({"node_name": NODE}, {"namespaces": ["pay"]}, {"pay"}),
        ):
            generator = EnergyConsumptionKubernetesGenerator(
                kubernetes=Kubernetes(api=CustomObjectsApi(client), **of_kubernetes),
                options=KubernetesOptions(idle="evenly", **of_options),
                energy_consumption=rig.meter,
                location=FixedLocation(),
            )
            found = by_container(await generated(generator))
            await generator.__aexit__(None, None, None)
            assert found.keys() - {"system", "unattributed"} == expected
        client.rest_client.pool_manager.clear()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"usage": "cgroup"}, 'leave usage = "cgroup" out'),
        ({"kubeconfig": "file"}, "leave kubeconfig out"),
        ({"context": "c"}, "leave context out"),
        ({"cgroup_root": "/x"}, "leave cgroup_root out"),
        ({"node_name": "b"}, "node_name is 'b' in the options, and 'a' in kubernetes="),
        ({"namespaces": ["y"]}, r"namespaces is \['y'\] in the options, and \['x'\] in kubernetes="),
    ],
)
def test_a_cluster_and_options_that_contradict_each_other(options: dict[str, Any], said: str) -> None:
    kubernetes = Kubernetes(node_name="a", namespaces=["x"])
    for kind in (EnergyConsumptionKubernetesGenerator, CarbonEmissionKubernetesGenerator):
        with pytest.raises(TracarbonException, match=said):
            kind(kubernetes=kubernetes, options=KubernetesOptions(**options))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"options": {"idle": "evenly"}}, r"options= is of type dict: it has to be KubernetesOptions\(...\)"),
        ({"kubernetes": "nonsense"}, r"kubernetes= is of type str: it has to be Kubernetes\(...\)"),
        ({"kubernetes": {}}, "kubernetes= is of type dict"),
    ],
)
def test_what_is_neither_a_cluster_nor_options(given: dict[str, Any], said: str) -> None:
    for kind in (EnergyConsumptionKubernetesGenerator, CarbonEmissionKubernetesGenerator):
        with pytest.raises(TypeError, match=said):
            kind(**given)


async def test_one_whose_figures_make_no_sense_takes_nothing_from_the_others(rig: Rig) -> None:
    pods = [made_pod(name, containers={name: name}) for name in ("web", "db", "odd")]
    rig.machine.cluster.pods = pods
    rig.machine.cluster.metrics = [
        made_metrics(pod, cpu) for pod, cpu in zip(pods, ("600m", "200m", "abc"), strict=True)
    ]
    for metrics in rig.machine.cluster.metrics:
        metrics["timestamp"] = datetime.fromtimestamp(rig.clock.time() + 5, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with rig.energy(usage="metrics-api") as energy:
        rig.machine.spend(10.0, system_seconds=10.0)
        rig.tick()
        watts = await generated(energy)
        assert by_container(watts) == pytest.approx(
            {"web": 7.2, "db": 2.4, "unattributed": 2.4, "system": 0.0, "idle": 12.0}
        )
        assert energy.problems == (
            "metrics of pod shop/odd: 'abc' is no Kubernetes quantity, such as '250m' or '64Mi'",
        )


@pytest.mark.parametrize("told", ["nothing", "no container", "no memory"])
async def test_what_a_container_without_figures_used_is_not_the_systems(rig: Rig, told: str) -> None:
    """metrics-server has none of one that has just started."""
    pods = [made_pod(name, containers={name: name}) for name in ("web", "new")]
    rig.machine.cluster.pods = pods
    web, new = [made_metrics(pod, "600m") for pod in pods]

    def let_tick() -> None:
        for metrics in (web, new):
            metrics["timestamp"] = datetime.fromtimestamp(rig.clock.time() + 5, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rig.machine.spend(10.0, system_seconds=10.0)
        rig.tick()

    whole = new["containers"]
    new["containers"] = [] if told == "no container" else [{"name": "new", "usage": {"cpu": "1"}}]
    rig.machine.cluster.metrics = [web] if told == "nothing" else [web, new]
    async with rig.energy(usage="metrics-api") as energy:
        let_tick()
        watts = await generated(energy)
        assert by_container(watts) == pytest.approx({"web": 7.2, "unattributed": 4.8, "system": 0.0, "idle": 12.0})
        check(watts, rig.meter.watts)
        assert energy.problems == (), "it is so with every container at first"
        rig.clock.elapse(STALE_SECONDS)
        let_tick()
        await generated(energy)
        assert energy.problems == ("there are no figures of 1 containers that run: see to metrics-server",)
        new["containers"], rig.machine.cluster.metrics = whole, [web, new]
        for _ in range(2):
            let_tick()
            watts = await generated(energy)
        assert by_container(watts) == pytest.approx({"web": 6.0, "new": 6.0, "system": 0.0, "idle": 12.0})
        assert energy.problems == ()


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        ("Pending", None),
        ("Pending", {"waiting": {"reason": "ContainerCreating"}}),
        ("Running", {"waiting": {"reason": "CrashLoopBackOff"}}),
        ("Running", {"terminated": {"exitCode": 0}}),
        ("Succeeded", {"terminated": {"exitCode": 0}}),
        ("Failed", {"running": {"startedAt": "2026-11-23T23:34:37Z"}}),
    ],
)
async def test_one_that_does_not_run_needs_no_figures(rig: Rig, phase: str, state: dict[str, Any] | None) -> None:
    web, other = [made_pod(name, containers={name: name}) for name in ("web", "other")]
    other["status"]["phase"] = phase
    other["status"]["containerStatuses"][0]["state"] = state
    web["status"]["initContainerStatuses"] = [
        {"name": "first", "containerID": "containerd://first", "state": {"terminated": {"exitCode": 0}}}
    ]
    rig.machine.cluster.pods, rig.machine.cluster.metrics = [web, other], [made_metrics(web, "600m")]
    for metrics in rig.machine.cluster.metrics:
        metrics["timestamp"] = datetime.fromtimestamp(rig.clock.time() + 5, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with rig.energy(usage="metrics-api") as energy:
        rig.machine.spend(10.0, system_seconds=10.0)
        rig.tick()
        assert by_container(await generated(energy)) == pytest.approx({"web": 7.2, "system": 4.8, "idle": 12.0})


async def test_a_namespace_that_may_not_be_read_takes_nothing_from_the_others(rig: Rig) -> None:
    pods = [made_pod("web", containers={"web": "1"}), made_pod("pay", namespace="pay", containers={"pay": "2"})]
    rig.machine.cluster.pods = pods
    rig.machine.cluster.metrics = [made_metrics(pod, "500m") for pod in pods]
    rig.machine.cluster.denied.add("/apis/metrics.k8s.io/v1beta1/namespaces/pay/pods")
    for metrics in rig.machine.cluster.metrics:
        metrics["timestamp"] = datetime.fromtimestamp(rig.clock.time() + 5, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with rig.energy(usage="metrics-api", namespaces=["shop", "pay"]) as energy:
        rig.machine.spend(10.0, system_seconds=10.0)
        rig.tick()
        assert by_container(await generated(energy)) == pytest.approx(
            {"web": 6.0, "unattributed": 6.0, "system": 0.0, "idle": 12.0}
        )
        [problem] = energy.problems
        assert "403" in problem


async def test_a_node_that_the_cluster_does_not_know(rig: Rig) -> None:
    rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    async with rig.energy(node_name="another") as energy:
        rig.tick()
        await generated(energy)
        [problem] = energy.problems
        assert problem == "the API server knows no pod of the node 'another': see that this is its name"


def test_options_that_would_be_two_pipelines(rig: Rig) -> None:
    for wrong in ({"node_name": "x,metadata.namespace=shop"}, {"namespaces": ["a/b"]}, {"namespaces": ["Öh"]}):
        with pytest.raises(ValueError, match="should match pattern"):
            rig.options(**wrong)


async def test_a_node_without_pods_of_its_own_cgroups(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(TracarbonException, match="kubepods"):
        async with rig.energy(cgroup_root=str(tmp_path / "proc")):
            pass


async def test_without_a_cluster(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(TracarbonException, match=r"there is no file .*none"):
        async with rig.energy(kubeconfig=str(tmp_path / "none")):
            pass


def test_without_a_name(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NODE_NAME", "TRACARBON_KUBERNETES_NODE_NAME"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(TracarbonException, match="set NODE_NAME"):
        rig.energy(node_name=None)
    monkeypatch.setenv("TRACARBON_KUBERNETES_NODE_NAME", NODE)
    rig.energy(node_name=None)


async def test_everything_is_let_go(rig: Rig) -> None:
    """And may be entered again."""
    rig.machine.start("web-1", "web", uid=uid(1), identity=container_id(1))
    energy, carbon = rig.energy(), rig.carbon()
    assert energy._node is carbon._node
    assert rig.energy(idle="evenly")._node is energy._node
    assert rig.energy(usage="metrics-api")._node is not energy._node
    for _ in range(2):
        async with energy, carbon:
            rig.tick()
            await generated(energy)
            assert rig.machine.cluster.paths()
        assert energy._node is not None
        assert energy._node._users == 0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "burn", "end", "tick", "deny", "allow", "meter", "hide", "fail"]),
        st.integers(0, 5),
        st.floats(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=40)
@given(EVENTS, st.sampled_from(["separate", "by-request", "evenly"]), st.sampled_from(["cgroupfs", "systemd"]))
def test_in_every_tick_the_parts_add_up(events: list[tuple[str, int, float]], idle: str, driver: str) -> None:
    async def live(rig: Rig) -> None:
        machine, places, watts = rig.machine, {}, rig.meter.watts
        async with both(rig, idle=idle) as (energy, carbon):
            for event, number, seconds in [*events, ("tick", 0, 1.0)]:
                place = places.get(number)
                if event == "start" and place is None:
                    identity = container_id(100 * number + len(machine.cluster.requests))
                    places[number] = machine.start(f"pod-{number}", "it", uid=uid(number), identity=identity)
                elif event == "burn" and place is not None:
                    machine.burn(place, seconds, int(seconds * 1e8))
                elif event == "end" and place is not None:
                    machine.end(places.pop(number).parent if number % 2 else places.pop(number))
                elif event in ("deny", "allow"):
                    (machine.cluster.denied.add if event == "deny" else machine.cluster.denied.discard)("pods")
                elif event == "meter":
                    watts |= {"host": 20.0 + 10 * number, "cpu": 10.0 * seconds, "memory": seconds}
                    rig.meter.window_seconds = 1.0 + seconds
                elif event == "hide":
                    watts.pop(["gpu", "cpu", "memory", "cpu", "memory", "gpu"][number], None)
                elif event == "fail":
                    rig.meter.error = OSError("fails")
                    rig.tick()
                    with pytest.raises(OSError, match="fails"):
                        await generated(energy)
                    rig.meter.error = None
                elif event == "tick":
                    machine.spend(seconds * 10, seconds)
                    rig.tick()
                    of_energy = await generated(energy)
                    check(of_energy, watts)
                    assert all(metric.value >= 0 for metric in of_energy)
                    check(await generated(carbon), grams_of(rig.meter))

    with TemporaryDirectory() as folder:
        machine = Machine(Path(folder), driver)
        with serving(machine.cluster) as server:
            anyio.run(live, Rig(Path(folder), server, machine))
