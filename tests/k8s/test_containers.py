"""The documented names, and what the metrics API tells, over real HTTP."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client
from pydantic import ValidationError
from tracarbon.exceptions import TracarbonException
from tracarbon_k8s._api import Api
from tracarbon_k8s._errors import ApiAbsent, ApiGarbled
from tracarbon_k8s._metrics import AHEAD_SECONDS, STALE_SECONDS, ContainerUsage, read_metrics, seconds_of
from tracarbon_k8s.containers import Container, Kubernetes, Pod, node_name_of_environment

from tests.k8s.api_server import TOKEN, Cluster, Server, made_metrics, made_pod, recorded, write_kubeconfig

CORES = psutil.cpu_count()
MEMORY_BYTES = psutil.virtual_memory().total
METRICS = "/apis/metrics.k8s.io/v1beta1"


@pytest.fixture
def cluster() -> Cluster:
    pods = [
        made_pod("web", containers={"app": "1", "proxy": "2"}),
        made_pod("db", namespace="data"),
        made_pod("far", node="node-b"),
    ]
    return Cluster(pods=pods, metrics=[made_metrics(pod) for pod in pods])


@pytest.fixture
def api(server: Server, tmp_path: Path) -> Iterator[Api]:
    made = Api(kubeconfig=write_kubeconfig(tmp_path / "config", server.url))
    yield made
    made.close()


@pytest.fixture
def make(server: Server) -> Iterator[Callable[..., Kubernetes]]:
    configuration = client.Configuration(host=server.url)
    configuration.api_key["authorization"] = f"Bearer {TOKEN}"
    with client.ApiClient(configuration) as api_client:
        api = client.CustomObjectsApi(api_client)
        yield lambda **options: Kubernetes(**{"api": api, "node_name": "node-real"} | options)
        api_client.rest_client.pool_manager.clear()


class TestContainer:
    def test_shares_are_taken_as_they_are(self) -> None:
        container = Container(name="web", cpu_usage=0.25, memory_usage=0.5)
        assert (container.name, container.cpu_usage, container.memory_usage) == ("web", 0.25, 0.5)

    @pytest.mark.parametrize(
        ("text", "cores"),
        [("1", 1.0), ("250m", 0.25), ("1500u", 0.0015), ("4043481n", 0.004043481), ("1e-1", 0.1)],
    )
    def test_quantities_of_processors(self, text: str, cores: float) -> None:
        assert Container(name="web", cpu_usage=text, memory_usage=0.0).cpu_usage == cores / CORES

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("124780Ki", 124780 * 1024),
            ("1Mi", 2**20),
            ("1Ti", 2**40),
            ("512M", 512e6),
            ("536870912", 536870912),
            ("500m", 0.5),
        ],
    )
    def test_quantities_of_memory(self, text: str, size: float) -> None:
        assert Container(name="web", cpu_usage=0.0, memory_usage=text).memory_usage == size / MEMORY_BYTES

    def test_a_quantity_that_is_none(self) -> None:
        with pytest.raises(ValidationError, match="'much' is no Kubernetes quantity"):
            Container(name="web", cpu_usage="much", memory_usage=0.0)

    def test_of_a_pod(self) -> None:
        container = Container(name="web", cpu_usage=0.25, memory_usage=0.5)
        pod = Pod(name="web-1", namespace="shop", containers=[container])
        assert pod.containers == [container]
        assert pod.model_dump()["containers"] == [{"name": "web", "cpu_usage": 0.25, "memory_usage": 0.5}]


class TestKubernetes:
    def test_pods_of_this_node_only(self, make: Callable[..., Kubernetes], cluster: Cluster) -> None:
        web, db = make().get_pods_usage()
        share = {"cpu_usage": 0.25 / CORES, "memory_usage": 64 * 2**20 / MEMORY_BYTES}
        assert web == Pod(
            name="web",
            namespace="shop",
            containers=[Container(name="app", **share), Container(name="proxy", **share)],
        )
        assert (db.namespace, db.name) == ("data", "db")
        assert cluster.paths() == [f"{METRICS}/pods", "/api/v1/pods"]

    def test_of_all_nodes_where_nobody_says_which(
        self, make: Callable[..., Kubernetes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NODE_NAME", raising=False)
        assert [pod.name for pod in make(node_name=None).get_pods_usage()] == ["web", "db", "far"]

    def test_a_namesake_elsewhere(self, make: Callable[..., Kubernetes], cluster: Cluster) -> None:
        cluster.pods[2]["metadata"] |= {"name": "web", "namespace": "other"}
        cluster.metrics = [made_metrics(pod) for pod in cluster.pods]
        assert [(pod.namespace, pod.name) for pod in make().get_pods_usage()] == [("shop", "web"), ("data", "db")]

    def test_its_own_namespaces(self, make: Callable[..., Kubernetes], cluster: Cluster) -> None:
        assert [pod.name for pod in make(namespaces=["data"]).get_pods_usage()] == ["db"]
        assert cluster.paths() == [f"{METRICS}/namespaces/data/pods", "/api/v1/namespaces/data/pods"]

    def test_one_namespace(self, make: Callable[..., Kubernetes]) -> None:
        assert [pod.name for pod in make(namespaces=["shop", "data"]).get_pods_usage(namespace="data")] == ["db"]
        assert [pod.name for pod in make().get_pods_usage(namespace="shop")] == ["web"]

    def test_a_namespace_that_is_not_there(self, make: Callable[..., Kubernetes]) -> None:
        said = r"^The Kubernetes namespace shopp is not available in the namespaces \['default', "
        with pytest.raises(TracarbonException, match=said):
            list(make().get_pods_usage(namespace="shopp"))
        with pytest.raises(TracarbonException, match=r"in the namespaces \['data'\]\.$"):
            list(make(namespaces=["data"]).get_pods_usage(namespace="shop"))

    def test_refreshed_namespaces(self, make: Callable[..., Kubernetes]) -> None:
        kubernetes = make()
        kubernetes.refresh_namespaces()
        assert kubernetes.namespaces == [each["metadata"]["name"] for each in recorded("namespaces.json")["items"]]

    def test_nothing_is_asked_before_it_is_needed(self, make: Callable[..., Kubernetes], cluster: Cluster) -> None:
        make().get_pods_usage()
        assert cluster.requests == []

    def test_what_goes_wrong_is_the_documented_exception(
        self, make: Callable[..., Kubernetes], cluster: Cluster
    ) -> None:
        cluster.metrics = None
        with pytest.raises(TracarbonException, match="metrics-server is not installed"):
            list(make().get_pods_usage())
        cluster.denied = {"namespaces"}
        with pytest.raises(TracarbonException, match=r'resources: \["namespaces"\], verbs: \["list"\]'):
            make().refresh_namespaces()

    def test_another_version_of_the_api(self, make: Callable[..., Kubernetes], cluster: Cluster) -> None:
        assert list(make(group="metrics.k8s.io", version="v1").get_pods_usage())
        assert cluster.paths()[0] == "/apis/metrics.k8s.io/v1/pods"

    def test_its_own_configuration(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", write_kubeconfig(tmp_path / "config", server.url))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("NODE_NAME", "node-b")
        with closing(Kubernetes()) as kubernetes:
            assert [pod.name for pod in kubernetes.get_pods_usage()] == ["far"]


def test_the_node_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    monkeypatch.delenv("TRACARBON_KUBERNETES_NODE_NAME", raising=False)
    assert node_name_of_environment() is None
    monkeypatch.setenv("TRACARBON_KUBERNETES_NODE_NAME", "b")
    assert node_name_of_environment() == "b"
    monkeypatch.setenv("NODE_NAME", "a")
    assert node_name_of_environment() == "a"
    monkeypatch.setenv("NODE_NAME", " a.b-1\n")
    assert node_name_of_environment() == "a.b-1"
    for nothing in ("", " "):
        monkeypatch.setenv("NODE_NAME", nothing)
        assert node_name_of_environment() == "b"


@pytest.mark.parametrize("variable", ["NODE_NAME", "TRACARBON_KUBERNETES_NODE_NAME"])
@pytest.mark.parametrize("name", ["Node&limit=1", "a,metadata.namespace=shop", "a b", "-a", "a\nb", "a" * 254])
def test_an_environment_that_names_no_node(variable: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    monkeypatch.setenv(variable, name)
    for ask in (node_name_of_environment, Kubernetes):
        with pytest.raises(TracarbonException, match=rf"^{variable} is '{name[0]}.*', which is no name of a node"):
            ask()


class TestReadMetrics:
    def test_recorded(self, api: Api, cluster: Cluster) -> None:
        cluster.metrics = recorded("podmetrics_crd.json")["items"]
        [usage] = read_metrics(api)
        assert usage == ContainerUsage("shop", "web-1", "c", 0.012345678, 20480 * 1024.0, 1793527200.0, 15.0)

    def test_all_namespaces_in_one_read(self, api: Api, cluster: Cluster) -> None:
        assert len(read_metrics(api)) == 4
        assert len(cluster.requests) == 1
        assert "resourceVersion" not in cluster.requests[0].query  # which metrics-server has no use for

    def test_each_of_some_namespaces(self, api: Api, cluster: Cluster) -> None:
        assert [usage.pod for usage in read_metrics(api, ["data", "empty"])] == ["db"]
        assert cluster.paths() == [f"{METRICS}/namespaces/data/pods", f"{METRICS}/namespaces/empty/pods"]

    def test_no_metrics_server(self, api: Api, cluster: Cluster) -> None:
        cluster.metrics = None
        with pytest.raises(ApiAbsent):
            read_metrics(api)

    def test_what_is_unknown_is_left_out(self, api: Api, cluster: Cluster) -> None:
        assert cluster.metrics is not None
        del cluster.metrics[0]["containers"][0]["usage"]["cpu"]
        assert [usage.container for usage in read_metrics(api, ["shop"])] == ["proxy", "main"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"window": "soon"}, "'soon' is no duration"),
            ({"containers": [{"name": "c", "usage": {"cpu": "x", "memory": "1"}}]}, "'x' is no Kubernetes quantity"),
        ],
    )
    def test_what_makes_no_sense(self, api: Api, cluster: Cluster, change: Any, said: str) -> None:
        cluster.metrics = [copy.deepcopy(recorded("podmetrics_crd.json")["items"][0]) | change]
        with pytest.raises(ApiGarbled, match=f"metrics of pod shop/web-1: {said}"):
            read_metrics(api)

    def test_stale(self, api: Api, cluster: Cluster) -> None:
        usage = read_metrics(api)[0]
        assert not usage.is_stale(usage.measured_at)
        assert not usage.is_stale(usage.measured_at + 15 + STALE_SECONDS)
        assert usage.is_stale(usage.measured_at + 15 + STALE_SECONDS + 1)
        assert not usage.is_stale(usage.measured_at - AHEAD_SECONDS)
        assert usage.is_stale(usage.measured_at - AHEAD_SECONDS - 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15.0), ("1m0s", 60.0), ("10.062s", 10.062), ("1h2m3.5s", 3723.5), ("500ms", 0.5), ("20us", 2e-5),
     ("20µs", 2e-5), ("5ns", 5e-9)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds, rel=1e-12)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_of_any_length(hours: int, minutes: int, seconds: int, millis: int) -> None:
    total = hours * 3600 + minutes * 60 + seconds + millis / 1000
    assert seconds_of(f"{hours}h{minutes}m{seconds}.{millis:03}s") == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("text", ["", "s", "15", "15 s", "-1s", "15s\n", "1d", "1.5.5s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds_of(text)
