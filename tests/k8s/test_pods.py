"""The names of a node's pods, learned from an API server that has its good and bad days."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tracarbon.testing import ManualClock
from tracarbon_k8s._api import Api
from tracarbon_k8s._bodies import decode_pods
from tracarbon_k8s._errors import ApiDenied, ApiError, ApiUnreachable
from tracarbon_k8s._pods import REMEMBERED_SECONDS, Known, PodDirectory, known_by
from tracarbon_k8s._usage import ContainerKey, Workload

from tests.k8s import api_server
from tests.k8s.api_server import Cluster, Json, Server, made_pod, recorded, write_kubeconfig

NODE = "node-real"
BUSY = ContainerKey(
    "dc68ed8b1ab3117baa28c3b5d59ed988", "25ffa92211a585bd6c2062e38196aa60c0181c191a1cdc237b4bff42c20fab89"
)


@pytest.fixture
def api(server: Server, tmp_path: Path) -> Iterator[Api]:
    made = Api(kubeconfig=write_kubeconfig(tmp_path / "config", server.url), timeout_seconds=60.0)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_directory(api: Api, clock: ManualClock) -> Callable[..., PodDirectory]:
    return lambda **options: PodDirectory(api, **{"node_name": NODE, "clock": clock.monotonic} | options)


@pytest.fixture
def directory(make_directory: Callable[..., PodDirectory]) -> PodDirectory:
    return make_directory()


def key(pod: str, container: str = "main") -> ContainerKey:
    return ContainerKey(f"uid-of-{pod}", f"{pod}-{container}")


def names_of(*pods: Json, labels: list[str] | None = None) -> dict[Any, Known]:
    body = json.dumps({"metadata": {}, "items": list(pods)}).encode()
    return known_by([decode_pods(body)], labels or [])


class TestNames:
    def test_static_pods_by_the_hash_that_their_cgroups_carry(self, directory: PodDirectory) -> None:
        directory.refresh()
        busy = Workload("shop", "busy-node-real", "main", "node/node-real")
        assert directory.workload_of(BUSY) == (busy, 0.5, True)
        assert directory.pod_of(BUSY.pod_uid) == busy._replace(container="")
        assert directory.pod_of("0bd49ecd-35ca-4cac-a9ec-25f9c831d7d7") is None

    def test_the_hash_alone_takes_nobodys_place(self) -> None:
        """Anybody may write this annotation; only kubelets make mirrors."""
        thief = made_pod("thief", uid="own")
        thief["metadata"]["annotations"] = {"kubernetes.io/config.hash": "uid-of-victim"}
        found = names_of(made_pod("victim"), thief)
        assert found["uid-of-victim"].workload.pod == "victim"
        assert found["own"].workload.pod == "thief"

    def test_ordinary_pods(self, directory: PodDirectory, cluster: Cluster) -> None:
        cluster.pods = [made_pod("web-1", containers={"app": "a1", "proxy": "p1"})]
        directory.refresh()
        assert directory.workload_of(ContainerKey("uid-of-web-1", "a1")) == (
            Workload("shop", "web-1", "app"),
            0.5,
            True,
        )
        assert directory.workload_of(ContainerKey("uid-of-web-1", "p1")) == (
            Workload("shop", "web-1", "proxy"),
            0.5,
            True,
        )

    def test_a_container_that_the_api_does_not_know_is_its_pods(self, directory: PodDirectory) -> None:
        directory.refresh()
        assert directory.workload_of(BUSY._replace(container_id="sandbox")) == (
            Workload("shop", "busy-node-real", "", "node/node-real"),
            0.0,
            False,
        )

    def test_nobody(self, directory: PodDirectory) -> None:
        assert directory.workload_of(BUSY) is None
        directory.refresh()
        assert directory.workload_of(ContainerKey("nobody", BUSY.container_id)) is None
        assert directory.pod_of("nobody") is None
        assert directory.named("shop", "nobody") is None

    def test_every_runtime(self) -> None:
        for runtime in ("containerd", "cri-o", "docker"):
            pod = made_pod("web")
            pod["status"]["containerStatuses"][0]["containerID"] = f"{runtime}://abc"
            assert ContainerKey("uid-of-web", "abc") in names_of(pod)

    def test_a_container_that_was_not_made_yet(self) -> None:
        pod = made_pod("web")
        del pod["status"]["containerStatuses"][0]["containerID"]
        assert list(names_of(pod)) == ["uid-of-web"]

    def test_init_and_ephemeral_containers(self) -> None:
        pod = made_pod("web")
        pod["spec"]["initContainers"] = [{"name": "setup", "resources": {"requests": {"cpu": "2"}}}]
        running = pod["status"]["containerStatuses"][0]
        pod["status"]["initContainerStatuses"] = [running | {"name": "setup", "containerID": "containerd://i"}]
        pod["status"]["ephemeralContainerStatuses"] = [running | {"name": "debug", "containerID": "containerd://e"}]
        found = names_of(pod)
        assert found[ContainerKey("uid-of-web", "i")] == (Workload("shop", "web", "setup"), 2.0, True)
        assert found[ContainerKey("uid-of-web", "e")] == (Workload("shop", "web", "debug"), 0.0, True)

    def test_a_restarted_container_keeps_its_name(self) -> None:
        pod = made_pod("web")
        pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"containerID": "containerd://before"}}
        found = names_of(pod)
        assert found[ContainerKey("uid-of-web", "before")] == found[key("web")]

    def test_requests(self) -> None:
        pod = made_pod("web", request="250m")
        assert names_of(pod)[key("web")].cpu_request == 0.25
        pod["spec"]["containers"][0]["resources"] = {}
        assert names_of(pod)[key("web")].cpu_request == 0.0

    @pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
    def test_who_is_over_asks_for_nothing(self, phase: str) -> None:
        pod = made_pod("web")
        pod["status"]["phase"] = phase
        assert names_of(pod)[key("web")].cpu_request == 0.0

    def test_a_request_that_is_none(self) -> None:
        """The names of all the others are worth more."""
        assert names_of(made_pod("web", request="much"))[key("web")].cpu_request == 0.0

    def test_labels_by_an_allow_list(self) -> None:
        pod = made_pod("web", labels={"team": "a", "app": "web", "secret": "x"})
        workload = names_of(pod, labels=["app", "absent", "team"])[key("web")].workload
        assert workload.labels == (("app", "web"), ("team", "a"))
        assert names_of(pod)[key("web")].workload.labels == ()

    def test_labels_come_sorted(self, make_directory: Callable[..., PodDirectory], cluster: Cluster) -> None:
        cluster.pods = [made_pod("web", labels={"team": "a", "app": "web"})]
        directory = make_directory(pod_labels=["team", "app", "team"])
        directory.refresh()
        workload = directory.pod_of("uid-of-web")
        assert workload is not None
        assert workload.labels == (("app", "web"), ("team", "a"))

    @pytest.mark.parametrize(
        ("owner", "labels", "said"),
        [
            (None, {}, ""),
            (("ReplicaSet", "web-5d8f"), {"pod-template-hash": "5d8f"}, "deployment/web"),
            (("ReplicaSet", "web-front-5d8f"), {"pod-template-hash": "5d8f"}, "deployment/web-front"),
            (("ReplicaSet", "web-5d8f"), {}, "replicaset/web-5d8f"),
            (("ReplicaSet", "web5d8f"), {"pod-template-hash": "5d8f"}, "replicaset/web5d8f"),
            (("ReplicaSet", "web-5d8f"), {"pod-template-hash": ""}, "replicaset/web-5d8f"),
            (("ReplicaSet", "web-5d8f"), {"rollouts-pod-template-hash": "5d8f"}, "replicaset/web-5d8f"),
            (("StatefulSet", "db"), {}, "statefulset/db"),
            (("DaemonSet", "agent"), {}, "daemonset/agent"),
            (("Job", "backup-28000000"), {}, "job/backup-28000000"),
            (("Node", "node-real"), {}, "node/node-real"),
        ],
    )
    def test_owners(self, owner: tuple[str, str] | None, labels: dict[str, str], said: str) -> None:
        assert names_of(made_pod("web", owner=owner, labels=labels))[key("web")].workload.owner == said

    def test_an_owner_that_does_not_control_is_none(self) -> None:
        pod = made_pod("web", owner=("StatefulSet", "db"))
        pod["metadata"]["ownerReferences"].insert(0, {"kind": "ConfigMap", "name": "x"})
        assert names_of(pod)[key("web")].workload.owner == "statefulset/db"
        pod["metadata"]["ownerReferences"].pop()
        assert names_of(pod)[key("web")].workload.owner == ""


class TestAsking:
    def test_one_read_by_node_from_the_servers_cache(self, directory: PodDirectory, cluster: Cluster) -> None:
        cluster.pods += [made_pod("elsewhere", node="node-b")]
        directory.refresh()
        [request] = cluster.requests
        assert request.path == "/api/v1/pods"
        assert request.query == {"fieldSelector": "spec.nodeName=node-real", "limit": "500", "resourceVersion": "0"}
        assert directory.pod_of("uid-of-elsewhere") is None

    def test_pages(self, directory: PodDirectory, cluster: Cluster) -> None:
        cluster.pods = [made_pod(f"web-{number}") for number in range(1203)]
        directory.refresh()
        assert len(directory) == 2 * 1203
        assert len(cluster.requests) == 3
        assert [request.query.get("resourceVersion") for request in cluster.requests] == ["0", None, None]

    def test_namespaces(self, make_directory: Callable[..., PodDirectory], cluster: Cluster) -> None:
        cluster.pods += [made_pod("db", namespace="data"), made_pod("dns", namespace="kube-system")]
        directory = make_directory(namespaces=["shop", "data", "shop"])
        directory.refresh()
        assert cluster.paths() == ["/api/v1/namespaces/shop/pods", "/api/v1/namespaces/data/pods"]
        assert {request.query["fieldSelector"] for request in cluster.requests} == {"spec.nodeName=node-real"}
        assert directory.workload_of(key("db")) is not None
        assert directory.workload_of(key("dns")) is None

    def test_a_namespace_is_no_path(self, make_directory: Callable[..., PodDirectory], cluster: Cluster) -> None:
        make_directory(namespaces=["../../x?y"]).refresh()
        assert cluster.paths() == ["/api/v1/namespaces/..%2F..%2Fx%3Fy/pods"]

    def test_without_a_node_it_is_nobodys(self, make_directory: Callable[..., PodDirectory]) -> None:
        with pytest.raises(ValueError, match="name of the node is missing"):
            make_directory(node_name="")

    def test_by_name_for_the_metrics_api(self, directory: PodDirectory, cluster: Cluster) -> None:
        cluster.pods = [made_pod("web")]
        directory.refresh()
        assert directory.named("shop", "web", "main") == (Workload("shop", "web", "main"), 0.5, True)
        assert directory.named("shop", "web") == (Workload("shop", "web"), 0.0, False)
        assert directory.named("other", "web", "main") is None


class TestBadDays:
    FAULTS = (
        api_server.reset_at_once,
        api_server.reset_in_the_middle,
        api_server.echo,
        api_server.respond(401, recorded("error_401.json")),
        api_server.respond(403, recorded("error_403.json")),
        api_server.respond(410, api_server.status(410, "too old")),
        api_server.respond(503, b"busy"),
        api_server.respond(200, b"{}"),
    )

    @pytest.mark.parametrize("fault", FAULTS)
    def test_names_stay_when_it_cannot_be_asked(self, directory: PodDirectory, cluster: Cluster, fault: Any) -> None:
        directory.refresh()
        before = directory.workload_of(BUSY)
        cluster.fault = fault
        for _ in range(3):
            with pytest.raises(ApiError):
                directory.refresh()
        assert directory.workload_of(BUSY) == before is not None
        cluster.fault = lambda *_: False
        directory.refresh()

    def test_names_stay_however_long_it_is_away(
        self, directory: PodDirectory, cluster: Cluster, clock: ManualClock
    ) -> None:
        directory.refresh()
        cluster.fault = api_server.reset_at_once
        for _ in range(10):
            clock.elapse(REMEMBERED_SECONDS)
            with pytest.raises(ApiUnreachable):
                directory.refresh()
        assert directory.workload_of(BUSY) is not None

    def test_gone_in_the_middle_of_a_list(self, directory: PodDirectory, cluster: Cluster) -> None:
        cluster.pods = [made_pod(f"web-{number}") for number in range(600)]
        cluster.fault = api_server.gone(1)
        directory.refresh()
        assert len(directory) == 1200

    def test_half_a_list_is_none(self, directory: PodDirectory, cluster: Cluster) -> None:
        cluster.pods = [made_pod(f"web-{number}") for number in range(600)]
        cluster.fault = api_server.gone(2)
        with pytest.raises(ApiError):
            directory.refresh()
        assert len(directory) == 0

    def test_one_namespace_denied(
        self, make_directory: Callable[..., PodDirectory], cluster: Cluster, clock: ManualClock
    ) -> None:
        cluster.pods = [made_pod("web"), made_pod("db", namespace="data")]
        directory = make_directory(namespaces=["data", "shop"])
        directory.refresh()
        cluster.denied = {"/api/v1/namespaces/data/pods"}
        cluster.pods.append(made_pod("web-2"))
        for _ in range(3):
            clock.elapse(REMEMBERED_SECONDS)
            with pytest.raises(ApiDenied, match="in the namespace data"):
                directory.refresh()
        assert directory.workload_of(key("web-2")) is not None  # the others go on
        assert directory.workload_of(key("db")) is not None  # and its names stay

    def test_who_was_gone_before_the_denial_is_not_alive_after_it(
        self, make_directory: Callable[..., PodDirectory], cluster: Cluster
    ) -> None:
        cluster.pods = [made_pod("db", namespace="data")]
        directory = make_directory(namespaces=["data"])
        directory.refresh()
        cluster.pods = []
        directory.refresh()
        cluster.denied = {"pods"}
        with pytest.raises(ApiDenied):
            directory.refresh()
        assert directory.named("data", "db") is None
        assert directory.pod_of("uid-of-db") is not None


class TestComingAndGoing:
    def test_who_is_gone_is_remembered_for_a_time(
        self, directory: PodDirectory, cluster: Cluster, clock: ManualClock
    ) -> None:
        directory.refresh()
        cluster.pods = []
        directory.refresh()
        for _ in range(10):
            clock.elapse(REMEMBERED_SECONDS / 10)
            directory.refresh()
            assert directory.workload_of(BUSY) is not None
        clock.elapse(1)
        directory.refresh()
        assert directory.workload_of(BUSY) is None
        assert len(directory) == 0

    def test_who_comes_back_is_as_good_as_new(
        self, directory: PodDirectory, cluster: Cluster, clock: ManualClock
    ) -> None:
        """The server's cache may go back in time."""
        pods = cluster.pods
        for present in (True, False, True, False):
            cluster.pods = pods if present else []
            directory.refresh()
            clock.elapse(REMEMBERED_SECONDS - 1)
        directory.refresh()
        assert directory.workload_of(BUSY) is not None

    def test_the_metrics_of_a_pod_that_moved_are_not_this_nodes(
        self, directory: PodDirectory, cluster: Cluster
    ) -> None:
        cluster.pods = [made_pod("db-0")]
        directory.refresh()
        cluster.pods = [made_pod("db-0", uid="second", node="node-b")]
        directory.refresh()
        assert directory.workload_of(key("db-0")) is not None  # its last energy may be to come
        assert directory.named("shop", "db-0", "main") is None

    def test_a_pod_of_the_same_name_on_the_same_node(self, directory: PodDirectory, cluster: Cluster) -> None:
        cluster.pods = [made_pod("db-0", request="1")]
        directory.refresh()
        cluster.pods = [made_pod("db-0", uid="second", request="2")]
        directory.refresh()
        assert directory.named("shop", "db-0", "main") == (Workload("shop", "db-0", "main"), 2.0, True)

    def test_memory_is_bounded_however_many_come_and_go(
        self, directory: PodDirectory, cluster: Cluster, clock: ManualClock
    ) -> None:
        most = 0
        for tick in range(300):
            cluster.pods = [made_pod(f"job-{tick}-{number}") for number in range(5)]
            directory.refresh()
            clock.elapse(15)
            most = max(most, len(directory))
        remembered_ticks = REMEMBERED_SECONDS / 15 + 2
        assert most <= 2 * 5 * remembered_ticks
        assert len(cluster.requests) == 300

    def test_churn(self, directory: PodDirectory, cluster: Cluster, clock: ManualClock) -> None:
        """Whoever was listed in the last minutes has a name, and the right one."""
        chance = random.Random(5)
        alive: dict[str, Json] = {}
        seen: dict[str, float] = {}
        for tick in range(200):
            for name in chance.sample(sorted(alive), len(alive) // 3):
                del alive[name]
            alive |= {(name := f"p-{tick}-{number}"): made_pod(name) for number in range(chance.randrange(4))}
            cluster.pods = list(alive.values())
            directory.refresh()
            seen |= dict.fromkeys(alive, clock.monotonic())
            for name, last in seen.items():
                found = directory.workload_of(key(name))
                if clock.monotonic() - last < REMEMBERED_SECONDS:
                    assert found == (Workload("shop", name, "main"), 0.5, True)
                assert (directory.named("shop", name) is not None) == (name in alive)
            clock.elapse(15)


def test_readers_see_a_whole_directory_while_it_is_refreshed(directory: PodDirectory, cluster: Cluster) -> None:
    from threading import Thread

    first = [made_pod(f"web-{number}", labels={}) for number in range(50)]
    second = [made_pod(f"web-{number}", request="1") for number in range(50)]
    cluster.pods = first
    directory.refresh()

    def refresh() -> None:
        for turn in range(20):
            cluster.pods = (second, first)[turn % 2]
            directory.refresh()

    thread = Thread(target=refresh)
    thread.start()
    while thread.is_alive():
        names = directory._names
        requests = {names.known[key(f"web-{number}")].cpu_request for number in range(50)}
        assert len(requests) == 1
        assert directory.workload_of(key("web-0")) is not None
    thread.join()
