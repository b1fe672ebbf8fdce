"""Which devices make up the host, the processors, the memory and the graphics processors.

Every joule counts once: a device inside another never adds to the host; a whole-machine figure, where there is one, is
the host's, and the parts are its detail; of two sensors for one component the one of the best fidelity counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracarbon._accounts import Account, Source
from tracarbon.hardwares.energy import Provenance, Scope, UsageType


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A device that counts for a component, less the devices inside it that count for another one."""

    index: int
    account: Account
    inside: tuple[tuple[int, Account], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """The parts of one component, and where their figures come from."""

    parts: tuple[Part, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """How the accounts make up the machine.

    Attributes:
        whole: the whole-machine figure, to be used as the host's where it is plausible.
        host: the sum of the host's parts and of the extra devices.
        components: processors, memory, graphics processors.
        accounts: every account, with its index.
    """

    whole: Component | None
    host: Component | None
    components: dict[UsageType, Component]
    accounts: tuple[tuple[int, Account], ...]


def compose(accounts: Sequence[tuple[int, Account]]) -> Composition:
    """Decide how `accounts`, each with its index, make up the machine."""
    whole = _best(accounts, Scope.WHOLE_MACHINE)
    extra = _distinct_extra(accounts)
    host = [*_host_parts(accounts), *extra]
    components = {}
    for usage_type in (UsageType.CPU, UsageType.MEMORY, UsageType.GPU):
        parts = [*_parts_of_type(accounts, usage_type), *(part for part in extra if _is(part.account, usage_type))]
        if parts:
            components[usage_type] = _component(parts)
    return Composition(
        whole=_component([whole]) if whole else None,
        host=_component(host) if host else None,
        components=components,
        accounts=tuple(accounts),
    )


def _component(parts: Iterable[Part]) -> Component:
    ordered = tuple(parts)
    sources = {part.account.source: None for part in ordered}
    methods = {part.account.method: None for part in ordered}
    provenance = Provenance(
        sensor="+".join(source.name for source in sources),
        fidelity=max((part.account.fidelity for part in ordered), key=lambda fidelity: fidelity.rank),
        method="; ".join(filter(None, methods)) or None,
    )
    return Component(ordered, provenance)


def _is(account: Account, usage_type: UsageType) -> bool:
    return account.device.component is usage_type


def _quality(account: Account) -> tuple[int, int]:
    return account.fidelity.rank, account.source.order


def _best(accounts: Sequence[tuple[int, Account]], scope: Scope) -> Part | None:
    candidates = [(index, account) for index, account in accounts if account.device.scope is scope]
    if not candidates:
        return None
    index, account = min(candidates, key=lambda candidate: _quality(candidate[1]))
    return Part(index, account)


def _distinct_extra(accounts: Sequence[tuple[int, Account]]) -> list[Part]:
    """Extra devices; one that two sensors know by the same tags counts once.

    One without tags stands for all of its component: it gives way where another sensor knows such devices better.
    """
    owners: dict[object, Source] = {}
    distinct: list[Part] = []
    extra = [(index, account) for index, account in accounts if account.device.scope is Scope.EXTRA]
    for index, account in sorted(extra, key=lambda candidate: _quality(candidate[1])):
        identity = account.device.tags or (account.source.name, account.device.name)
        is_known_better = not account.device.tags and any(_is_better(part.account, account) for part in distinct)
        if not is_known_better and owners.setdefault(identity, account.source) is account.source:
            distinct.append(Part(index, account))
    return sorted(distinct, key=lambda part: part.index)


def _is_better(one: Account, other: Account) -> bool:
    component = other.device.component
    is_same = component is not UsageType.HOST and _is(one, component) and one.source is not other.source
    return is_same and one.fidelity.rank < other.fidelity.rank


def _by_quality(accounts: Iterable[tuple[int, Account]]) -> list[list[tuple[int, Account]]]:
    groups: dict[tuple[int, int], list[tuple[int, Account]]] = {}
    for index, account in accounts:
        groups.setdefault(_quality(account), []).append((index, account))
    return [groups[quality] for quality in sorted(groups)]


def _host_parts(accounts: Sequence[tuple[int, Account]]) -> list[Part]:
    """Top-level parts of the host: for each component the best source, and never a lump beside its own parts."""
    parts: list[Part] = []
    covered: dict[UsageType, Source] = {}
    for group in _by_quality(item for item in accounts if item[1].device.scope is Scope.HOST):
        for index, account in group:
            component = account.device.component
            taken_by = covered.get(component) or covered.get(UsageType.HOST)
            is_second_lump = component is UsageType.HOST and any(s is not account.source for s in covered.values())
            if (taken_by is None or taken_by is account.source) and not is_second_lump:
                parts.append(Part(index, account))
                covered[component] = account.source
    return sorted(parts, key=lambda part: part.index)


def _parts_of_type(accounts: Sequence[tuple[int, Account]], usage_type: UsageType) -> list[Part]:
    candidates = [item for item in accounts if _is(item[1], usage_type) and item[1].device.scope is not Scope.EXTRA]
    if not candidates:
        return []
    owner = min((account for _, account in candidates), key=_quality).source
    own = {account.device.name: (index, account) for index, account in accounts if account.source is owner}
    return [
        Part(index, account, _inside(own, account))
        for index, account in candidates
        if account.source is owner and not _lies_in_same_type(own, account)
    ]


def _lies_in_same_type(own: dict[str, tuple[int, Account]], account: Account) -> bool:
    container = own.get(account.device.within or "")
    return container is not None and container[1].device.component is account.device.component


def _inside(own: dict[str, tuple[int, Account]], container: Account) -> tuple[tuple[int, Account], ...]:
    return tuple(
        (index, account)
        for index, account in own.values()
        if account.device.within == container.device.name and account.device.component is not container.device.component
    )
