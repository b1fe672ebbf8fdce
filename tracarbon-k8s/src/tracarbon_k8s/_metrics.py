"""What containers use, as the metrics API (`metrics.k8s.io`) tells it: means over a window that is over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tracarbon_k8s import _bodies as bodies
from tracarbon_k8s._api import Api
from tracarbon_k8s._errors import ApiDenied, ApiGarbled
from tracarbon_k8s._quantities import quantity

GROUP: Final = "metrics.k8s.io"
VERSION: Final = "v1beta1"
STALE_SECONDS: Final = 120.0
"""metrics-server asks the kubelets every 15 to 60 s; after twice that, something is wrong."""
AHEAD_SECONDS: Final = 60.0
"""How far the clock of what measured may be ahead."""

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:h|ms|m|s|us|µs|ns))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(h|ms|m|s|us|µs|ns)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container used in a window.

    Attributes:
        namespace: of the pod.
        pod: its name.
        container: its name in the pod.
        cpu_cores: the mean of the processors that it kept busy.
        memory_bytes: its working set at the end of the window.
        measured_at: the end of the window, in seconds since 1970, by the clock of the container's node.
        window_seconds: how long the window was.
    """

    namespace: str
    pod: str
    container: str
    cpu_cores: float
    memory_bytes: float
    measured_at: float
    window_seconds: float

    def is_stale(self, now: float) -> bool:
        """Return whether this is too old to be of use, or of a time that is yet to come, by a clock that is wrong.

        Args:
            now: seconds since 1970.
        """
        age = now - self.measured_at
        return age > self.window_seconds + STALE_SECONDS or age < -AHEAD_SECONDS


def read_metrics(
    api: Api,
    namespaces: Sequence[str] | None = None,
    *,
    group: str = GROUP,
    version: str = VERSION,
    on_fault: Callable[[str], object] | None = None,
) -> list[ContainerUsage]:
    """Return what all containers of the cluster use, whatever their node: that is not in the answer. Blocks.

    Args:
        api: whom to ask.
        namespaces: those to look at, with a list of each; `None`: all, with one list.
        group: of the metrics API.
        version: of the metrics API.
        on_fault: told of a namespace that must not be read, and of figures that make no sense; what there is besides is
            returned. Without it, these are raised.

    Raises:
        ApiError: they cannot be read; `ApiAbsent` where there is no metrics-server.
    """
    paths = [f"/apis/{group}/{version}/pods"]
    if namespaces is not None:
        paths = [f"/apis/{group}/{version}/namespaces/{quote(each, safe='')}/pods" for each in namespaces]
    found: list[ContainerUsage] = []
    for path in paths:
        try:
            found += usages_of(api.get_pages(path, {}, bodies.decode_pod_metrics), on_fault)
        except ApiDenied as error:
            if on_fault is None or namespaces is None:
                raise
            on_fault(str(error))
    return found


def usages_of(
    pages: Iterable[bodies.PodMetricsList], on_fault: Callable[[str], object] | None = None
) -> list[ContainerUsage]:
    """Return what all containers on some pages use.

    Args:
        pages: of metrics.
        on_fault: told of a pod that says no quantity, or no duration; it is left out. Without it, this is raised.

    Raises:
        ApiGarbled: something is no quantity, or no duration.
    """
    found: list[ContainerUsage] = []
    for page in pages:
        for pod in page.items or ():
            try:
                found += _usages(pod)
            except ValueError as error:
                fault = f"metrics of pod {pod.metadata.namespace}/{pod.metadata.name}: {error}"
                if on_fault is None:
                    raise ApiGarbled(fault) from None
                on_fault(fault)
    return found


def _usages(pod: bodies.PodMetrics) -> list[ContainerUsage]:
    namespace, name = pod.metadata.namespace, pod.metadata.name
    measured_at, window_seconds = pod.timestamp.timestamp(), seconds_of(pod.window)
    found = []
    for container in pod.containers or ():
        cpu, memory = container.usage.cpu, container.usage.memory
        if cpu is not None and memory is not None:  # what is unknown is left out, and not 0
            used = _amount(cpu), _amount(memory)
            found.append(ContainerUsage(namespace, name, container.name, *used, measured_at, window_seconds))
    return found


def _amount(text: str) -> float:
    amount = quantity(text)
    if amount < 0:
        raise ValueError(f"{text[:80]!r} is less than nothing")
    return amount


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration as Go writes it, such as `15s` or `1m0.5s`.

    Raises:
        ValueError: it is none.
    """
    if _DURATION.fullmatch(duration) is None:
        raise ValueError(f"{duration[:80]!r} is no duration, such as '15s'")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))
