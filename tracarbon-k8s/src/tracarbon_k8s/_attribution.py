"""Who is answerable for what: splits an amount of energy, or of carbon, into shares that add up to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import fsum
from typing import Literal, NamedTuple, TypeAlias

from tracarbon_k8s._usage import NodeUsage, Workload, WorkloadUsage

Kind: TypeAlias = Literal["container", "pod", "system", "idle", "unattributed"]


class IdlePolicy(StrEnum):
    """Who gets the energy of processors that idle, of free memory, and of what is neither (board, fans, disks)."""

    SEPARATE = "separate"
    """Nobody: it is a share of its own."""
    BY_REQUEST = "by-request"
    """The workloads, in proportion to the processors that they ask for; where nobody asks for any, as `separate`."""
    EVENLY = "evenly"
    """The containers, each the same; where there is none, as `separate`."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a node has spent in a window, in joules or grams; `None` where it is unknown.

    Attributes:
        host: everything.
        cpu: of it, the processors.
        memory: of it, the memory.
        gpu: of it, the graphics cards.
        gpus: of the cards, each one that is known by itself, by its UUID.
    """

    host: float | None
    cpu: float | None = None
    memory: float | None = None
    gpu: float | None = None
    gpus: Mapping[str, float] = field(default_factory=dict)


class Share(NamedTuple):
    """What one of the node's workloads, or nobody, is answerable for, in the unit of the amounts.

    Attributes:
        kind: `container`; `pod` for what is a pod's own; `system` for what is no pod's; `idle`; `unattributed` for what
            somebody has used whose name is not known.
        workload: which container or pod.
        total: of the host.
        cpu: of the processors.
        memory: of the memory.
        gpu: of the graphics cards. Each of these is `None` where the whole is unknown.
    """

    kind: Kind
    workload: Workload | None
    total: float | None
    cpu: float | None
    memory: float | None
    gpu: float | None


def attribute(amounts: Amounts, usage: NodeUsage, idle: IdlePolicy = IdlePolicy.SEPARATE) -> list[Share]:
    """Split what a node has spent in a window. The shares of the host, and of each component, add up to the whole.

    - Processors: busy time goes to whoever was busy, the rest idles. Where no time is known to have passed, all idles.
    - Memory: by bytes of what there is; what is free idles. Bytes that workloads hold beyond what the node calls used
      (their files in the page cache) are theirs all the same.
    - Graphics cards: to whoever holds them, evenly; a card that nobody holds is unattributed.
    - What the host has spent beyond these (board, fans, disks) idles. But where the processors' part is not known by
      itself, it is in there, and so splits as theirs does.
    - Where the components come to more than the host, as their windows differ a little, all shrink alike in `total`.

    Args:
        amounts: not negative.
        usage: of the same window.
        idle: who gets what idles.
    """
    parts = _merged(usage.workloads)
    workloads = [part.workload for part in parts]
    kinds = [_kind(workload) for workload in workloads]
    weights = _idle_weights(parts, kinds, idle)
    of_cpu, of_memory = _spread(_split_cpu(usage, parts), weights), _spread(_split_memory(usage, parts), weights)
    of_rest = of_cpu if amounts.cpu is None else _spread([*[0.0] * len(parts), 0.0, 1.0], weights)
    cpu, memory = _priced(amounts.cpu, of_cpu), _priced(amounts.memory, of_memory)
    gpu = _split_cards(amounts, parts)
    total = _totals(amounts, cpu, memory, gpu, of_rest)
    columns = [*kinds, "system", "idle"], [*workloads, None, None], total, cpu, memory, gpu
    shares = [_share(Share, row) for row in zip(*columns, strict=True)]
    return shares[:-1] if weights else shares


_share = tuple.__new__  # at half the cost of calling the class, of which there may be a thousand objects in each window
_Column = list[float | None]
"""Parts of 1, or amounts: one for each workload, the one without a name last, then the system's, then what idles."""


def _kind(workload: Workload | None) -> Kind:
    if workload is None:
        return "unattributed"
    return "container" if workload.container else "pod"


def _merged(usages: Sequence[WorkloadUsage]) -> list[WorkloadUsage]:
    """Return one usage of each workload, and last that of those without a name, whether there are any or not."""
    found: dict[Workload | None, WorkloadUsage] = {usage.workload: usage for usage in usages}
    if len(found) < len(usages):
        found = {}
        for usage in usages:
            other = found.get(usage.workload)
            found[usage.workload] = _together(other, usage) if other is not None else usage
    unnamed = found.pop(None, WorkloadUsage(None, 0.0, 0.0))
    return [*found.values(), unnamed]


def _together(one: WorkloadUsage, other: WorkloadUsage) -> WorkloadUsage:
    """Add two usages of one workload (a container and what it was before its restart): it asked but once."""
    return WorkloadUsage(
        one.workload,
        one.cpu_seconds + other.cpu_seconds,
        None if one.memory_bytes is None or other.memory_bytes is None else one.memory_bytes + other.memory_bytes,
        max(one.cpu_request, other.cpu_request),
        tuple(dict.fromkeys((*one.gpus, *other.gpus))),
    )


def _split_cpu(usage: NodeUsage, parts: Sequence[WorkloadUsage]) -> _Column:
    seconds = [part.cpu_seconds for part in parts]
    workloads = fsum(seconds)
    busy = max(workloads, usage.busy_cpu_seconds)
    capacity = max(busy, usage.capacity_cpu_seconds)
    if capacity <= 0:
        return [*[0.0] * len(parts), 0.0, 1.0]
    return [*[part / capacity for part in seconds], (busy - workloads) / capacity, (capacity - busy) / capacity]


def _split_memory(usage: NodeUsage, parts: Sequence[WorkloadUsage]) -> _Column:
    """Where the bytes of a workload are unknown, what is used beyond the others may be its own, and so nobody's."""
    held = [part.memory_bytes for part in parts]
    known = [part for part in held if part is not None]
    workloads = fsum(known)
    used = max(workloads, usage.memory_used_bytes)
    total = max(used, usage.memory_total_bytes)
    if total <= 0:
        return [*[0.0] * len(parts), 0.0, 1.0]
    beyond, free = (used - workloads) / total, (total - used) / total
    if len(known) == len(held):
        return [*[part / total for part in known], beyond, free]
    of_named = [part / total if part is not None else None for part in held[:-1]]
    return [*of_named, (held[-1] or 0.0) / total + beyond, 0.0, free]


def _split_cards(amounts: Amounts, parts: Sequence[WorkloadUsage]) -> _Column:
    """Give each card to those who hold it, and to nobody what no named one holds."""
    cards = fsum(amounts.gpus.values())
    whole = amounts.gpu if amounts.gpu is not None or not amounts.gpus else cards
    if whole is None:
        return [None] * (len(parts) + 2)
    split = [0.0] * (len(parts) + 2)
    nobody = len(parts) - 1
    holders: dict[str, list[int]] = {}
    for index, part in enumerate(parts):
        for card in part.gpus:
            holders.setdefault(card, []).append(index)
    for card, amount in amounts.gpus.items():
        holding = holders.get(card, [nobody])
        for index in holding:
            split[index] += amount / len(holding) * min(1.0, whole / cards if cards else 1.0)
    split[nobody] += max(0.0, whole - cards)
    return [*split]


def _idle_weights(parts: Sequence[WorkloadUsage], kinds: Sequence[Kind], policy: IdlePolicy) -> list[float]:
    """Return the part of what idles that each workload gets; nothing where it is a share of its own."""
    if policy is IdlePolicy.SEPARATE:
        return []
    if policy is IdlePolicy.BY_REQUEST:
        asked = [part.cpu_request for part in parts]
    else:
        asked = [1.0 if kind == "container" else 0.0 for kind in kinds]
    whole = fsum(asked)
    return [request / whole for request in asked] if whole > 0 else []


def _spread(column: _Column, weights: Sequence[float]) -> _Column:
    """Give what idles to the workloads, where they have weights."""
    if not weights:
        return column
    *parts, system, idle = column
    given = [(idle or 0.0) * weight for weight in weights]
    spread = [part + more if part is not None else more or None for part, more in zip(parts, given, strict=True)]
    return [*spread, system, 0.0]


def _priced(amount: float | None, parts: _Column) -> _Column:
    if amount is None:
        return [None] * len(parts)
    return [amount * part if part is not None else None for part in parts]


def _totals(amounts: Amounts, cpu: _Column, memory: _Column, gpu: _Column, of_rest: _Column) -> _Column:
    """Return what of the host each is answerable for: its parts of the components, and of the rest."""
    if amounts.host is None:
        return [None] * len(cpu)
    known = fsum(column for column in (amounts.cpu, amounts.memory, *gpu) if column is not None)
    scale = amounts.host / known if known > amounts.host else 1.0
    rest = max(0.0, amounts.host - known)
    return [
        ((of_cpu or 0.0) + (of_memory or 0.0) + (of_gpu or 0.0)) * scale + (part or 0.0) * rest
        for of_cpu, of_memory, of_gpu, part in zip(cpu, memory, gpu, of_rest, strict=True)
    ]
