"""CPU of 10,000 pods from the API's bytes to names, and to usage, in pages of 500; against `json.loads` of the bytes.

All in one process and run, by process CPU time, median of many rounds that take turns. The pods are made from one that
a real API server told of.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tracarbon_k8s._bodies import decode_pod_metrics, decode_pods
from tracarbon_k8s._metrics import usages_of
from tracarbon_k8s._pods import known_by

from tests.k8s.api_server import made_metrics, made_pod

ROUNDS, PODS, PAGE = 9, 10_000, 500
LABELS = ["app", "team"]


def pages_of(kind: str, items: list[dict[str, Any]]) -> list[bytes]:
    return [
        json.dumps({"kind": kind, "metadata": {}, "items": items[begin : begin + PAGE]}, separators=(",", ":")).encode()
        for begin in range(0, len(items), PAGE)
    ]


def made_pods() -> Iterator[dict[str, Any]]:
    """What a Deployment makes; the API writes as much about each."""
    template = made_pod("web", owner=("ReplicaSet", "web-5d8f"), labels={"pod-template-hash": "5d8f", "app": "web"})
    for number in range(PODS):
        pod = copy.deepcopy(template)
        pod["metadata"] |= {"name": f"web-5d8f-{number}", "uid": f"0bd49ecd-35ca-4cac-a9ec-{number:012}"}
        pod["status"]["containerStatuses"][0]["containerID"] = f"containerd://{number:064x}"
        yield pod


def usages(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [made_metrics(pod, f"{12_345_678 + number}n", f"{20_480 + number}Ki") for number, pod in enumerate(pods)]


def plain(pages: list[bytes]) -> None:
    for page in pages:
        json.loads(page)


def named(pages: list[bytes]) -> None:
    assert len(known_by(map(decode_pods, pages), LABELS)) == 2 * PODS


def measured(pages: list[bytes]) -> None:
    assert len(list(usages_of(map(decode_pod_metrics, pages)))) == PODS


def seconds(work: Callable[[list[bytes]], None], pages: list[bytes]) -> float:
    started = time.process_time()
    work(pages)
    return time.process_time() - started


def compare(what: str, work: Callable[[list[bytes]], None], pages: list[bytes]) -> None:
    rounds = [(seconds(plain, pages), seconds(work, pages)) for _ in range(ROUNDS)]
    bare, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    size = sum(map(len, pages)) / 1e6
    print(f"{what}: {PODS} pods, {size:.1f} MB: json.loads {bare * 1e3:.0f} ms, ours {ours * 1e3:.0f} ms,", end=" ")
    print(f"{ours / bare:.2f} x (asked <= 1)")


def main() -> None:
    pods = list(made_pods())
    compare("names", named, pages_of("PodList", pods))
    compare("metrics", measured, pages_of("PodMetricsList", usages(pods)))


if __name__ == "__main__":
    main()
