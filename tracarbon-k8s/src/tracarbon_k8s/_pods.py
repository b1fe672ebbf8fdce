"""Who is who on a node: the names of its pods and containers by what the kernel calls them.

The API server answers from its cache (`resourceVersion=0`), where pods are found by node: a list of the whole cluster
read from its database, once a tick for each node, would cost it dearly. The cache may be some moments old. Here that
does no harm: a UID never names another pod, names that are gone are kept for a time, and a pod that is too new is there
at the next tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote

from tracarbon_k8s import _bodies as bodies
from tracarbon_k8s._api import Api
from tracarbon_k8s._errors import ApiDenied
from tracarbon_k8s._quantities import quantity
from tracarbon_k8s._usage import ContainerKey, Workload

REMEMBERED_SECONDS: Final = 600.0
"""How long the name of what is gone is kept: its last energy may come late."""
_OVER: Final = frozenset({"Succeeded", "Failed"})


class Known(NamedTuple):
    """A workload, as the cluster tells of it.

    Attributes:
        workload: its name.
        cpu_request: processors that it has asked for; 0 where it has asked for none.
        is_running: whether it is a container that runs: not one that waits to be started, or has ended.
    """

    workload: Workload
    cpu_request: float
    is_running: bool = False


Key: TypeAlias = ContainerKey | str
"""A container, or the UID of a pod."""


@dataclass(frozen=True)
class _Names:
    """What is known at one moment; replaced as a whole, so that no reader sees half of it.

    Attributes:
        known: everybody, those who are gone included.
        gone_at: when somebody was missed first.
    """

    known: Mapping[Key, Known] = field(default_factory=dict)
    gone_at: Mapping[Key, float] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> Mapping[tuple[str, str, str], Known]:
        """Whoever lives, by namespace, pod and container: another pod may have taken the name of one that is gone."""
        return {
            (who.namespace, who.pod, who.container): named
            for key, named in self.known.items()
            if key not in self.gone_at
            for who in (named.workload,)
        }


class PodDirectory:
    """The names of the pods of a node. Refresh it in a worker thread; look things up wherever you are.

    Args:
        api: whom to ask.
        node_name: the node, as the cluster calls it.
        namespaces: those to look at, each with a list of its own; `None`: all, with one list.
        pod_labels: the labels that are of interest.
        clock: seconds that only grow.

    Raises:
        ValueError: there is no node name. The pods of all nodes together are nobody's.
    """

    def __init__(
        self,
        api: Api,
        *,
        node_name: str,
        clock: Callable[[], float],
        namespaces: Sequence[str] | None = None,
        pod_labels: Sequence[str] = (),
    ) -> None:
        if not node_name:
            raise ValueError("the name of the node is missing")
        self._api, self._node_name, self._clock = api, node_name, clock
        self._namespaces = None if namespaces is None else list(dict.fromkeys(namespaces))
        self._labels = sorted(set(pod_labels))
        self._names = _Names()

    def refresh(self) -> None:
        """Ask who is there. Blocks. What cannot be read leaves the names that are known as they are.

        Raises:
            ApiError: it could not be read, or one of the namespaces could not: the names of the others are new.
        """
        found: dict[Key, Known] = {}
        denied: dict[str, ApiDenied] = {}
        for namespace in [None] if self._namespaces is None else self._namespaces:
            try:
                found.update(known_by(list_pods(self._api, self._node_name, namespace), self._labels))
            except ApiDenied as error:
                if namespace is None:
                    raise
                denied[namespace] = error
        self._names = _merged(self._names, found, self._clock(), unread=denied.keys())
        if denied:
            raise next(iter(denied.values()))

    def workload_of(self, key: ContainerKey) -> Known | None:
        """Return who a container is, and what it has asked for.

        A container that the API does not tell of, in a pod that is known (its sandbox, say), is the pod's own. `None`:
        nobody knows, or it is in a namespace that is not looked at.
        """
        known = self._names.known
        return known.get(key) or known.get(key.pod_uid)

    def pod_of(self, uid: str) -> Workload | None:
        """Return who a pod is; its container is empty. `None`: nobody knows."""
        named = self._names.known.get(uid)
        return named.workload if named else None

    def named(self, namespace: str, pod: str, container: str = "") -> Known | None:
        """Return who is called so on this node and lives; `None`: nobody. Without a container: the pod itself."""
        return self._names.by_name.get((namespace, pod, container))

    def running(self) -> Iterator[Workload]:
        """Yield the containers that run on this node, those of init and for debugging included."""
        return (named.workload for named in self._names.by_name.values() if named.is_running)

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._names.known)


def list_pods(api: Api, node_name: str | None, namespace: str | None) -> list[bodies.PodList]:
    """Return the pods of a node, and perhaps of one namespace, page by page. Blocks.

    Raises:
        ApiError: they cannot be read.
    """
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"
    selector = {"fieldSelector": f"spec.nodeName={node_name}"} if node_name else {}
    return api.get_pages(path, {**selector, "resourceVersion": "0"}, bodies.decode_pods)


def known_by(pages: Iterable[bodies.PodList], labels: Sequence[str] = ()) -> dict[Key, Known]:
    """Return everybody on some pages.

    Args:
        pages: of pods.
        labels: those of interest, sorted.

    """
    found: dict[Key, Known] = {}
    for page in pages:
        for pod in page.items or ():
            _add(found, pod, labels)
    return found


def _merged(old: _Names, found: dict[Key, Known], now: float, *, unread: Iterable[str]) -> _Names:
    """Return those who were found, and those of before whose time is not over."""
    unread = frozenset(unread)
    known, gone_at = dict(found), {}
    for key in old.known.keys() - found.keys():
        if old.known[key].workload.namespace not in unread:
            missed_at = old.gone_at.get(key, now)
            if now - missed_at > REMEMBERED_SECONDS:
                continue
            gone_at[key] = missed_at
        elif key in old.gone_at:
            gone_at[key] = old.gone_at[key]
        known[key] = old.known[key]
    return _Names(known, gone_at)


def _add(found: dict[Key, Known], pod: bodies.Pod, labels: Sequence[str]) -> None:
    metadata = pod.metadata
    name, namespace, uid = metadata.name, metadata.namespace, _kernel_uid(metadata)
    owner, shown = _owner(metadata), _shown(metadata.labels, labels)
    requests, is_over = _requests(pod), pod.status.phase in _OVER
    found[uid] = Known(Workload(namespace, name, "", owner, shown), 0.0)
    for status in _statuses(pod.status):
        container, is_running = status.name, not is_over and bool(status.state and status.state.running)
        named = Known(Workload(namespace, name, container, owner, shown), requests.get(container, 0.0), is_running)
        for container_id in _container_ids(status):
            found[ContainerKey(uid, container_id)] = named


def _kernel_uid(metadata: bodies.PodMetadata) -> str:
    """Return the UID in the names of cgroups: of a static pod, that which the kubelet gave it.

    Only kubelets may make mirrors; the other annotation anybody may write, and so take another pod's place.
    """
    annotations = metadata.annotations
    if annotations is not None and annotations.config_mirror and annotations.config_hash:
        return annotations.config_hash
    return metadata.uid


def _owner(metadata: bodies.PodMetadata) -> str:
    """Return kind and name of what a user would say made the pod.

    A ReplicaSet that a Deployment made is called after it and the hash of its template. Nothing but a habit tells a Job
    of a CronJob from another, so a Job is a Job.
    """
    for reference in metadata.owner_references or ():
        if reference.controller:
            kind, name = reference.kind.lower(), reference.name
            template = (metadata.labels or {}).get("pod-template-hash")
            if kind == "replicaset" and template and name.endswith(f"-{template}"):
                return f"deployment/{name.removesuffix(f'-{template}')}"
            return f"{kind}/{name}"
    return ""


def _shown(labels: Mapping[str, str] | None, of_interest: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if not of_interest or not labels:
        return ()
    return tuple((name, labels[name]) for name in of_interest if name in labels)


def _requests(pod: bodies.Pod) -> dict[str, float]:
    """Return the processors that each container has asked for. Those of a pod that is over are free again."""
    if pod.status.phase in _OVER:
        return {}
    found = {}
    for container in (*(pod.spec.containers or ()), *(pod.spec.init_containers or ())):
        asked = container.resources and container.resources.requests and container.resources.requests.cpu
        if asked:
            found[container.name] = _cores(asked)
    return found


def _cores(asked: str) -> float:
    try:
        return quantity(asked)
    except ValueError:
        return 0.0  # the names of all the others are worth more


def _statuses(status: bodies.PodStatus) -> Iterator[bodies.ContainerStatus]:
    yield from status.container_statuses or ()
    yield from status.init_container_statuses or ()
    yield from status.ephemeral_container_statuses or ()


def _container_ids(status: bodies.ContainerStatus) -> Iterator[str]:
    """Yield the ids of a container and of what it was before its restart, without the runtime's name before them."""
    last = status.last_state
    for found in (status.container_id, last and last.terminated and last.terminated.container_id):
        if found:
            yield found.rpartition("://")[2]
