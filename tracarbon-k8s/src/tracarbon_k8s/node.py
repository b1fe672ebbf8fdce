"""A node, read once a tick for all who ask: counters, usage, and the names that go with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import anyio
from tracarbon.exceptions import TracarbonException
from tracarbon.plugin import PluginContext

from tracarbon_k8s._api import Api
from tracarbon_k8s._cgroups import CgroupError, CgroupReader
from tracarbon_k8s._cluster import end_plugins_of, plugins_of
from tracarbon_k8s._errors import ApiError, ApiUnconfigured
from tracarbon_k8s._host import HostError, HostReader
from tracarbon_k8s._ledger import Rate
from tracarbon_k8s._metrics import GROUP, STALE_SECONDS, VERSION, ContainerUsage, read_metrics
from tracarbon_k8s._pod_resources import Holder, PodResourcesError, cards_by_holder
from tracarbon_k8s._pods import Known, PodDirectory
from tracarbon_k8s._usage import CgroupReading, ContainerKey, Identity, NodeCounters, Workload
from tracarbon_k8s.containers import Kubernetes, node_name_of_environment
from tracarbon_k8s.options import KubernetesOptions

_MOST_PATIENCE_SECONDS = 2.0
_PATIENCE = 0.25
"""Part of the interval that names are waited for; after that, those that are known have to do."""
_FRESH_SECONDS = 1.0
_PLUGIN_SECONDS = 60.0
"""How long one may take. The client waits for ever; one that has ended is tried again."""
_NOBODY = Identity(None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node has counted at one moment.

    Attributes:
        at: monotonic seconds.
        counters: the node's own.
        cgroups: those of its pods, where usage comes from there.
        rates: what its containers use, where usage comes from the metrics API.
        has_all_rates: whether they are of all its pods.
        problems: what is not wholly right, for humans.
    """

    at: float
    counters: NodeCounters
    cgroups: CgroupReading | None
    rates: Sequence[Rate]
    has_all_rates: bool
    problems: tuple[str, ...]


class Node:
    """This node. Whoever enters it leaves it again; it is open for as long as somebody is in it.

    The counters are read in one thread and the cluster is asked in another: an API server that hangs holds up nothing
    but new names.

    Args:
        options: where usage and names come from.
        context: whose clock, pulse and host root are used.
        kubernetes: a cluster that is given, in place of the one that the options lead to.

    Raises:
        TracarbonException: nobody says which node this is.
    """

    def __init__(
        self, options: KubernetesOptions, context: PluginContext, kubernetes: Kubernetes | None = None
    ) -> None:
        self._options = options
        self._clock, self._pulse = context.clock, context.pulse
        self._counting, self._asking = PluginContext("kubernetes"), PluginContext("kubernetes-names")
        self._host = HostReader(context.host_root)
        self._cgroups: CgroupReader | None = None
        if options.usage == "cgroup":
            self._cgroups = CgroupReader(context.host_root, options.cgroup_root)
        self._cluster = _Cluster(options, context.clock.monotonic, kubernetes)
        self._is_asking, self._asked_at = False, 0.0
        self._users = 0
        self._lock = anyio.Lock()
        self._latest: Reading | None = None
        self._completed_at = 0.0

    async def enter(self) -> Reading:
        """Open it, and return what it has counted by now.

        Names that are late come with a later tick: what the host uses is not to wait for the API server.

        Raises:
            TracarbonException: it cannot be read, or nothing is said of a cluster.
        """
        reading = await self._read(min(_MOST_PATIENCE_SECONDS, self._options.timeout_seconds), is_entering=True)
        if self._cluster.unconfigured is not None:
            if not self._users:
                await self._close()
            raise TracarbonException(str(self._cluster.unconfigured))
        self._users += 1
        return reading

    async def leave(self) -> None:
        """Let go of files, connections and threads with the last who leaves."""
        self._users -= 1
        if not self._users:
            await self._close()

    async def _close(self) -> None:
        self._latest = None
        await self._counting.run_blocking(self._close_files)
        if self._is_asking:
            self._cluster.end_plugins()
        else:
            await self._asking.run_blocking(self._cluster.close)
        self._counting.close()
        self._asking.close()

    async def read(self, *, with_cards: bool = False) -> Reading:
        """Return the counters of this tick: all who ask in it get the same.

        Args:
            with_cards: whether it is of interest who holds which graphics card.

        Raises:
            TracarbonException: it cannot be read.
        """
        self._cluster.wants_cards |= with_cards
        return await self._read(min(_MOST_PATIENCE_SECONDS, _PATIENCE * self._pulse.interval_seconds))

    def resolve(self, key: ContainerKey | str) -> Identity:
        """Return who a container, or the pod of a UID, is, as far as it is known now."""
        return self._cluster.resolve(key)

    async def _read(self, patience_seconds: float, *, is_entering: bool = False) -> Reading:
        async with self._lock:
            latest = self._latest
            if latest is not None and self._is_of_now(latest, is_entering):
                return latest
            try:
                at, counters, cgroups = await self._counting.run_blocking(self._count)
            except (CgroupError, HostError) as error:
                raise TracarbonException(str(error)) from None
            is_answered = await self._ask(patience_seconds)
            said = self._cluster.said(self._clock.time(), is_answered=is_answered)
            self._latest, self._completed_at = Reading(at, counters, cgroups, *said), self._clock.monotonic()
            return self._latest

    def _is_of_now(self, latest: Reading, is_entering: bool) -> bool:
        """Whether another generator of the pipeline had it read in this tick, or has just entered."""
        if is_entering:
            return self._clock.monotonic() - self._completed_at < _FRESH_SECONDS
        ticked_at = self._pulse.last_tick_at
        return ticked_at is not None and latest.at >= ticked_at

    def _count(self) -> tuple[float, NodeCounters, CgroupReading | None]:
        cgroups = self._cgroups.read() if self._cgroups is not None else None
        return self._clock.monotonic(), self._host.read(), cgroups

    async def _ask(self, patience_seconds: float) -> bool:
        """Ask the cluster, unless that is still being done; returns whether it has answered."""
        if self._is_asking and self._clock.monotonic() - self._asked_at > _PLUGIN_SECONDS:
            self._cluster.end_plugins()
        elif not self._is_asking:
            self._is_asking, self._asked_at = True, self._clock.monotonic()
            with self._clock.timeout(patience_seconds):
                await self._asking.run_blocking(self._ask_now)
        return not self._is_asking

    def _ask_now(self) -> None:
        try:
            self._cluster.ask()
        finally:
            self._is_asking = False

    def _close_files(self) -> None:
        self._host.close()
        if self._cgroups is not None:
            self._cgroups.close()


class _Cluster:
    """What the cluster says of this node; `ask` blocks, the rest does not."""

    def __init__(
        self, options: KubernetesOptions, clock: Callable[[], float], kubernetes: Kubernetes | None = None
    ) -> None:
        node_name = options.node_name or (kubernetes and kubernetes.node_name) or node_name_of_environment()
        if not node_name:
            raise TracarbonException(
                "the name of this node is unknown: give node_name, or set NODE_NAME, in a DaemonSet from spec.nodeName"
            )
        self._options = options
        self._kubernetes = kubernetes
        self._node_name = node_name
        self._namespaces = options.namespaces
        if kubernetes is not None and kubernetes.namespaces is not None:
            self._namespaces = kubernetes.namespaces
        self._api = (
            Api(kubeconfig=options.kubeconfig, context=options.context, timeout_seconds=options.timeout_seconds)
            if kubernetes is None
            else Api(client=kubernetes.api and kubernetes.api.api_client, timeout_seconds=options.timeout_seconds)
        )
        self._directory = PodDirectory(
            self._api, node_name=node_name, clock=clock, namespaces=self._namespaces, pod_labels=options.pod_labels
        )
        self._usages: Sequence[ContainerUsage] = ()
        self._thread = 0
        self._missed_at: Mapping[Workload, float] = {}
        self._cards: Mapping[Holder, tuple[str, ...]] = {}
        self._faults: Sequence[str] = ()
        self.unconfigured: ApiUnconfigured | None = None
        self.wants_cards = False

    @property
    def has_names(self) -> bool:
        """Whether anybody is known by name."""
        return len(self._directory) > 0

    def ask(self) -> None:
        """Ask for names, and for what the options want besides. What fails is a problem, and what was known stays."""
        self._thread = threading.get_native_id()
        self.unconfigured, faults = None, dict[str, None]()
        self._ask_names(faults.setdefault)
        if self._options.usage == "metrics-api":
            self._ask_usage(faults.setdefault)
        if self.wants_cards:
            self._ask_cards(faults.setdefault)
        self._faults = list(faults)

    def said(self, now: float, *, is_answered: bool) -> tuple[Sequence[Rate], bool, tuple[str, ...]]:
        """Return what the containers of this node use, as far as that is not too old, and the rest of a `Reading`.

        Args:
            now: seconds since 1970.
            is_answered: whether this is what was said now, or what is known from before.
        """
        here = list(self._here())
        fresh = [(usage, known) for usage, known in here if not usage.is_stale(now)]
        rates = [Rate(self._identity(known), usage.cpu_cores, usage.memory_bytes) for usage, known in fresh]
        if not is_answered:
            is_by_plugin = bool(plugins_of(self._thread))
            who = "the credential plugin (exec) of the kubeconfig" if is_by_plugin else "the API server"
            known = "names are those of before" if self.has_names else "no pod has a name"
            return rates, False, (f"{who} has not answered yet: {known}",)
        stale = len(here) - len(fresh)
        problems = list(self._faults)
        if stale:
            problems.append(
                f"the figures of {stale} containers are too old, or yet to come: see to metrics-server and the clock"
            )
        missing, long_missing = self._missing({known.workload for _, known in here}, now)
        if long_missing and not self._faults:
            problems.append(f"there are no figures of {long_missing} containers that run: see to metrics-server")
        has_all = self._namespaces is None and not self._faults and not stale and not missing and bool(rates)
        return rates, has_all, tuple(problems)

    def _missing(self, told: Collection[Workload], now: float) -> tuple[int, int]:
        """Return how many containers run of which nothing is told, and of how many that has been so for long.

        There are no figures yet of those that have just started: that is no problem, but what they use is not known.
        """
        running = self._directory.running() if self._options.usage == "metrics-api" else ()
        self._missed_at = {who: self._missed_at.get(who, now) for who in running if who not in told}
        return len(self._missed_at), sum(now - at > STALE_SECONDS for at in self._missed_at.values())

    def _here(self) -> Iterator[tuple[ContainerUsage, Known]]:
        """Yield what the containers of this node use: the metrics API tells of all nodes."""
        for usage in self._usages:
            known = self._directory.named(usage.namespace, usage.pod, usage.container)
            if known is not None:
                yield usage, known

    def resolve(self, key: ContainerKey | str) -> Identity:
        """Return who a container, or the pod of a UID, is."""
        if isinstance(key, ContainerKey):
            known = self._directory.workload_of(key)
            return self._identity(known) if known is not None else _NOBODY
        pod = self._directory.pod_of(key)
        return Identity(pod) if pod is not None else _NOBODY

    def end_plugins(self) -> None:
        """End a credential plugin that `ask` waits for."""
        end_plugins_of(self._thread)

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def _identity(self, known: Known) -> Identity:
        workload, cpu_request = known.workload, known.cpu_request
        cards = self._cards.get((workload.namespace, workload.pod, workload.container), ()) if self._cards else ()
        return Identity(workload, cpu_request, cards)

    def _ask_names(self, on_fault: Callable[[str], object]) -> None:
        try:
            self._directory.refresh()
        except ApiError as error:
            self.unconfigured = error if isinstance(error, ApiUnconfigured) else None
            on_fault(str(error))
        else:
            if not self.has_names and self._namespaces is None:
                on_fault(f"the API server knows no pod of the node {self._node_name!r}: see that this is its name")

    def _ask_usage(self, on_fault: Callable[[str], object]) -> None:
        group, version = (self._kubernetes.group, self._kubernetes.version) if self._kubernetes else (GROUP, VERSION)
        try:
            self._usages = read_metrics(self._api, self._namespaces, group=group, version=version, on_fault=on_fault)
        except ApiError as error:
            on_fault(str(error))

    def _ask_cards(self, on_fault: Callable[[str], object]) -> None:
        try:
            self._cards = cards_by_holder(self._options.pod_resources_socket) or {}
        except PodResourcesError as error:
            on_fault(str(error))


_nodes: WeakKeyDictionary[object, dict[str, Node]] = WeakKeyDictionary()


def node_of(options: KubernetesOptions, context: PluginContext) -> Node:
    """Return the node that generators of one pipeline share whose options lead to the same figures.

    Raises:
        TracarbonException: nobody says which node this is.
    """
    key = options.model_dump_json(exclude={"idle"})
    try:
        nodes = _nodes.setdefault(context.components, {})
    except TypeError:  # no pipeline
        return Node(options, context)
    if key not in nodes:
        nodes[key] = Node(options, context)
    return nodes[key]
