"""What a user may write into `[generators.energy_kubernetes]` and `[generators.carbon_kubernetes]`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator
from tracarbon.exceptions import TracarbonException
from tracarbon.plugin import PluginOptions

from tracarbon_k8s._pod_resources import SOCKET
from tracarbon_k8s.containers import NODE_NAME_PATTERN, Kubernetes

UsageSource: TypeAlias = Literal["cgroup", "metrics-api"]

_LABEL = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
Namespace: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
NodeName: TypeAlias = Annotated[str, Field(pattern=NODE_NAME_PATTERN)]


class KubernetesOptions(PluginOptions):
    """Options of both Kubernetes generators; where they are the same in both, the node is read once for the two."""

    usage: UsageSource = Field(
        default="cgroup",
        description="where usage comes from: the node's own cgroups (cgroup), or metrics-server (metrics-api)",
    )
    idle: Literal["separate", "by-request", "evenly"] = Field(
        default="separate",
        description="who gets the energy of idle processors, free memory, and the rest of the machine: a series of its "
        "own (separate), or the containers, by-request or evenly",
    )
    namespaces: list[Namespace] | None = Field(
        default=None, min_length=1, description="namespaces whose pods are named; default: all. Others are unattributed"
    )
    node_name: NodeName | None = Field(
        default=None, description="this node; default: NODE_NAME, or TRACARBON_KUBERNETES_NODE_NAME"
    )
    pod_labels: list[str] = Field(default=[], description="labels of pods that become tags, such as app")
    kubeconfig: str | None = Field(
        default=None, min_length=1, description="file that says which cluster; default: the pod's own, else the user's"
    )
    context: str | None = Field(default=None, min_length=1, description="which context of that file")
    cgroup_root: str | None = Field(
        default=None,
        min_length=1,
        description="cgroup of all pods, or one above it, as the host or the kubelet calls it; found by default",
    )
    pod_resources_socket: str = Field(
        default=SOCKET, min_length=1, description="the kubelet's socket that says which pod holds which graphics card"
    )
    timeout_seconds: float = Field(
        default=10.0, gt=0, le=300, allow_inf_nan=False, description="how long the API server may take to answer"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for label in self.pod_labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(
                    f"pod_labels has {label!r}, which is no name of a label, such as app.kubernetes.io/name"
                )
        if self.usage == "metrics-api" and self.cgroup_root is not None:
            raise ValueError('cgroup_root is for usage = "cgroup", and this is "metrics-api"')
        return self


def options_beside(kubernetes: Kubernetes, options: KubernetesOptions) -> KubernetesOptions:
    """Return the options of a generator that is given a cluster: usage comes from its metrics API.

    Raises:
        TracarbonException: the options say something else than it does.
    """
    said = options.model_dump(exclude_unset=True, exclude_none=True)
    for name in ("kubeconfig", "context", "cgroup_root"):
        if name in said:
            raise TracarbonException(f"kubernetes= says where usage comes from: leave {name} out of the options")
    if said.get("usage") == "cgroup":
        raise TracarbonException(
            'kubernetes= has usage come from the metrics API: leave usage = "cgroup" out of the options, or kubernetes='
        )
    for name in {"namespaces", "node_name"} & said.keys() & kubernetes.model_fields_set:
        theirs = getattr(kubernetes, name)
        if theirs is not None and theirs != said[name]:
            raise TracarbonException(f"{name} is {said[name]!r} in the options, and {theirs!r} in kubernetes=: say one")
    return type(options)(**said | {"usage": "metrics-api"})
