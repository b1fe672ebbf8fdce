"""Answers of a real API server, decoded, and answers that make no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_k8s import _bodies as bodies
from tracarbon_k8s._errors import ApiGarbled

from tests.k8s.api_server import RECORDED, recorded

LISTS = [bodies.decode_pods, bodies.decode_pod_metrics, bodies.decode_namespaces]


def body(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def test_recorded_pods() -> None:
    page = bodies.decode_pods(body("pods_limit3.json"))
    assert page.metadata.continue_
    busy, _, web = page.items or ()
    assert (busy.metadata.namespace, busy.metadata.name) == ("shop", "busy-node-real")
    assert busy.metadata.uid == "0bd49ecd-35ca-4cac-a9ec-25f9c831d7d7"
    assert busy.metadata.labels == {"app": "busy"}
    assert busy.metadata.annotations is not None
    assert busy.metadata.annotations.config_hash == "dc68ed8b1ab3117baa28c3b5d59ed988"
    assert busy.metadata.owner_references == [bodies.OwnerReference("Node", "node-real", True)]
    [container] = busy.spec.containers or ()
    assert container == bodies.ContainerSpec("main", bodies.Resources(bodies.Requests("500m")))
    [status] = busy.status.container_statuses or ()
    assert status.container_id == "containerd://25ffa92211a585bd6c2062e38196aa60c0181c191a1cdc237b4bff42c20fab89"
    assert busy.status.phase == "Running"
    assert web.status.container_statuses is None  # no kubelet has it yet


def test_recorded_metrics() -> None:
    page = bodies.decode_pod_metrics(body("podmetrics_crd.json"))
    [pod] = page.items or ()
    assert (pod.metadata.namespace, pod.metadata.name, pod.window) == ("shop", "web-1", "15s")
    assert pod.timestamp.isoformat() == "2026-11-01T10:00:00+00:00"
    assert pod.containers == [bodies.ContainerMetrics("c", bodies.Usage("12345678n", "20480Ki"))]


def test_recorded_namespaces() -> None:
    page = bodies.decode_namespaces(body("namespaces.json"))
    names = [each.metadata.name for each in page.items or ()]
    assert "default" in names
    assert names == [each["metadata"]["name"] for each in recorded("namespaces.json")["items"]]


def test_recorded_errors() -> None:
    assert bodies.decode_status(body("error_401.json")).message == "Unauthorized"


def every_null(value: Any) -> Any:
    """Yield a value with each of its parts that may be left out set to null, one after the other."""
    needed = {"metadata", "name", "namespace", "uid", "spec", "status", "kind", "items", "usage", "timestamp", "window"}
    needed |= {"app"}  # a label has a value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts):
        if isinstance(value, dict) and key not in needed:
            yield {**value, key: None}
            yield {other: content for other, content in value.items() if other != key}
        for changed in every_null(part):
            yield {**value, key: changed} if isinstance(value, dict) else [*value[:key], changed, *value[key + 1 :]]


@pytest.mark.parametrize(
    ("decode", "name"),
    [
        (bodies.decode_pods, "pods_node-real.json"),
        (bodies.decode_pod_metrics, "podmetrics_crd.json"),
        (bodies.decode_namespaces, "namespaces.json"),
    ],
)
def test_optional_fields_may_be_null_or_left_out(decode: Callable[[bytes], Any], name: str) -> None:
    for changed in every_null(recorded(name)):
        decode(json.dumps(changed).encode())
    assert not decode(json.dumps({"metadata": {}, "items": None}).encode()).items


@pytest.mark.parametrize("decode", LISTS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>502</html>",
        b"{}",
        b"null",
        b"[]",
        body("error_403.json"),
        body("pods_limit3.json")[:1000],
        b'{"metadata": {}, "items": {}}',
        b'{"metadata": {}, "items": [{}]}',
        b'{"metadata": {}, "items": [{"metadata": {"name": 1}}]}',
        b'{"metadata": {"continue": "\xff"}, "items": []}',
        b'{"metadata": {}, "items": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_makes_no_sense(decode: Callable[[bytes], Any], content: bytes) -> None:
    with pytest.raises(ApiGarbled, match=r"^the answer is no list of .*: .") as caught:
        decode(content)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("timestamp", ["2026-11-01T10:00:00", "yesterday", "", 5])
def test_metrics_without_a_time(timestamp: object) -> None:
    metrics = recorded("podmetrics_crd.json")
    metrics["items"][0]["timestamp"] = timestamp
    with pytest.raises(ApiGarbled, match=r"timestamp"):
        bodies.decode_pod_metrics(json.dumps(metrics).encode())


@given(st.binary(max_size=60), st.integers(0, 6000))
def test_torn_and_mended_answers_are_pods_or_one_error(patch: bytes, position: int) -> None:
    content = bytearray(body("pods_node-real.json"))
    content[position : position + len(patch)] = patch
    with suppress(ApiGarbled):
        assert isinstance(bodies.decode_pods(bytes(content)), bodies.PodList)
