"""The answers of the API server, of which exactly that is decoded which is used.

What the API documents as optional may be left out or be `null`: Go writes an empty list either way.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from tracarbon_k8s._errors import ApiGarbled

BodyT = TypeVar("BodyT")


class Body(msgspec.Struct, rename="camel", gc=False):
    """An object of an answer. It refers to no object that refers back, so the garbage collector may leave it alone."""


class ListMetadata(Body):
    """Where in a list one is.

    Attributes:
        continue_: what to ask for the next page with; nothing on the last.
    """

    continue_: str | None = msgspec.field(default=None, name="continue")


class OwnerReference(Body):
    """What made a pod."""

    kind: str
    name: str
    controller: bool | None = None


class Annotations(Body):
    """Those that tell a static pod, of which the API only has a mirror.

    Attributes:
        config_hash: the UID that the kubelet, and so the pod's cgroup, knows the pod by.
        config_mirror: there on mirrors only, which only kubelets may make.
    """

    config_hash: str | None = msgspec.field(default=None, name="kubernetes.io/config.hash")
    config_mirror: str | None = msgspec.field(default=None, name="kubernetes.io/config.mirror")


class PodMetadata(Body):
    """What a pod is called."""

    name: str
    namespace: str
    uid: str
    labels: dict[str, str] | None = None
    annotations: Annotations | None = None
    owner_references: list[OwnerReference] | None = None


class Requests(Body):
    """What a container asks for, as quantities."""

    cpu: str | None = None


class Resources(Body):
    """The resources of a container."""

    requests: Requests | None = None


class ContainerSpec(Body):
    """A container, as it was asked for."""

    name: str
    resources: Resources | None = None


class PodSpec(Body):
    """A pod, as it was asked for."""

    containers: list[ContainerSpec] | None = None
    init_containers: list[ContainerSpec] | None = None


class Terminated(Body):
    """How a container ended."""

    container_id: str | None = msgspec.field(default=None, name="containerID")


class LastState(Body):
    """What was before the last restart."""

    terminated: Terminated | None = None


class Running(Body):
    """That a container runs."""


class State(Body):
    """What a container does. It runs, waits to be started, or has ended.

    Attributes:
        running: there in the first case alone.
    """

    running: Running | None = None


class ContainerStatus(Body):
    """A container, as it is.

    Attributes:
        container_id: with the runtime, as in `containerd://25ffa9…`; nothing before it was made.
    """

    name: str
    container_id: str | None = msgspec.field(default=None, name="containerID")
    state: State | None = None
    last_state: LastState | None = None


class PodStatus(Body):
    """A pod, as it is."""

    phase: str | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None


class Pod(Body):
    """A pod."""

    metadata: PodMetadata
    spec: PodSpec
    status: PodStatus


class PodList(Body):
    """A page of pods."""

    metadata: ListMetadata
    items: list[Pod] | None


class Usage(Body):
    """What a container uses, as quantities."""

    cpu: str | None = None
    memory: str | None = None


class ContainerMetrics(Body):
    """A container and what it uses."""

    name: str
    usage: Usage


class ObjectMetadata(Body):
    """What an object is called."""

    name: str
    namespace: str = ""


class PodMetrics(Body):
    """What the containers of a pod use.

    Attributes:
        timestamp: when the window ended.
        window: how long it was, as Go writes a duration: `15s`, `1m30.5s`.
    """

    metadata: ObjectMetadata
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    window: str
    containers: list[ContainerMetrics] | None = None


class PodMetricsList(Body):
    """A page of the metrics of pods."""

    metadata: ListMetadata
    items: list[PodMetrics] | None


class Namespace(Body):
    """A namespace."""

    metadata: ObjectMetadata


class NamespaceList(Body):
    """A page of namespaces."""

    metadata: ListMetadata
    items: list[Namespace] | None


class Status(Body):
    """Why an answer is none."""

    message: str | None = None


def _decoder(what: str, kind: type[BodyT]) -> Callable[[bytes], BodyT]:
    decoder = msgspec.json.Decoder(kind)

    def decode(body: bytes) -> BodyT:
        try:
            return decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ApiGarbled(f"the answer is no {what}: {error}") from None

    return decode


decode_pods = _decoder("list of pods", PodList)
decode_pod_metrics = _decoder("list of the metrics of pods", PodMetricsList)
decode_namespaces = _decoder("list of namespaces", NamespaceList)
decode_status = _decoder("Status", Status)
