"""Which cards the user means, by index, UUID or PCI bus id."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from tracarbon_sensor_nvidia._nvml import Card

_UUID = re.compile(r"GPU-[0-9a-f-]+", re.IGNORECASE)
_BUS_ID = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-7]))?", re.IGNORECASE)


class SelectionError(Exception):
    """A card that was asked for is not there, or it is not clear which one is meant."""


def problem_of(selector: object) -> str | None:
    """Say why `selector` is no index, UUID (or beginning of one) or PCI bus id; `None` where it is."""
    if isinstance(selector, int) and not isinstance(selector, bool) and selector >= 0:
        return None
    if isinstance(selector, str) and (_UUID.fullmatch(selector) or _BUS_ID.fullmatch(selector)):
        return None
    if isinstance(selector, str) and selector.upper().startswith("MIG-"):
        return f"{selector!r} is a MIG instance, which has no energy of its own to be read: name its card"
    return f'{selector!r} is no index (0), UUID ("GPU-...") or PCI bus id ("65:00.0")'


class Selection:
    """The cards that are meant: all, or those that match.

    What a selector has matched once it stands for from then on, also when the numbering changes: a card that comes back
    under another index is the same one, and no other takes its place.

    Args:
        selectors: those that are no problem to `problem_of`; without any, all cards are meant.
    """

    def __init__(self, selectors: Iterable[int | str]) -> None:
        self._uuids: dict[int | str, str | None] = dict.fromkeys(selectors)

    @property
    def unmatched(self) -> list[int | str]:
        """The selectors that have not matched any card yet."""
        return [selector for selector, uuid in self._uuids.items() if uuid is None]

    def match(self, cards: Collection[Card]) -> None:
        """Look for the cards of those selectors that have not matched yet.

        Raises:
            SelectionError: one matches several.
        """
        for selector in self.unmatched:
            found = {card.uuid: card for card in cards if _is_meant(selector, card)}
            if len(found) > 1:
                raise SelectionError(f"{selector!r} may be any of {_listed(found.values())}")
            self._uuids[selector] = next(iter(found), None)

    def require_all(self, cards: Collection[Card]) -> None:
        """Be sure that every selector has matched.

        Raises:
            SelectionError: some have not; says which, and which cards there are.
        """
        if missing := self.unmatched:
            names = ", ".join(map(repr, missing))
            raise SelectionError(f"there is no card {names}; there are {_listed(cards)}")

    def has(self, card: Card) -> bool:
        """Whether it is meant."""
        return not self._uuids or card.uuid in self._uuids.values()

    def may_have(self, index: int) -> bool:
        """Whether the card at an index may be meant, of which nothing else is known."""
        return not self._uuids or any(not isinstance(item, int) or item == index for item in self.unmatched)


def _listed(cards: Iterable[Card]) -> str:
    return "; ".join(f"{card}{card.bus_id and ' at ' + card.bus_id}" for card in cards) or "none"


def _is_meant(selector: int | str, card: Card) -> bool:
    if isinstance(selector, int):
        return card.index == selector
    bus_id = _bus_address(selector)
    if bus_id is not None:
        return bus_id == _bus_address(card.bus_id)
    return card.uuid.lower().startswith(selector.lower())


def _bus_address(text: str) -> tuple[int, ...] | None:
    """Return domain, bus, device and function; NVML writes the domain with 8 digits, others with 4, or leave out 0."""
    found = _BUS_ID.fullmatch(text)
    return tuple(int(part or "0", 16) for part in found.groups()) if found else None
