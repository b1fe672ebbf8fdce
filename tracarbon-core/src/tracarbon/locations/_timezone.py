"""From the system's time zone to the country, by the tables of the tz database."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

logger = logging.getLogger("tracarbon")

# Zones that stand for an offset; the database happens to link them to a place.
_NO_PLACE = {"EST", "MST", "HST", "EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT", "CET", "MET", "EET", "WET"}

SYSTEM_TABLES = Path("/usr/share/zoneinfo")


def system_time_zone() -> str | None:
    """Return the name of the system's time zone, such as `Europe/Paris`, or `None` where it has none that is known."""
    import tzlocal

    try:
        name: str | None = tzlocal.get_localzone_name()
    except Exception as error:  # contradictory or broken settings of the system, of many kinds
        logger.debug("the system's time zone is unknown: %s", error)
        return None
    return name or None


def country_of_time_zone(name: str, tables: Sequence[Traversable] | None = None) -> str | None:
    """Return the ISO 3166 code of the country that a time zone belongs to.

    Args:
        name: such as `Europe/Paris`; old names such as `US/Eastern` are followed.
        tables: folders with `zone.tab` and `tzdata.zi`; by default the system's, then those of the package tzdata.

    Returns:
        A code of two letters, or `None` for zones such as UTC that belong to no country.
    """
    if name in _NO_PLACE:
        return None
    for folder in tables if tables is not None else (SYSTEM_TABLES, files("tzdata") / "zoneinfo"):
        zones = {zone: code for code, _, zone in _rows(folder / "zone.tab")}
        if name in zones:
            return zones[name]
        target = _link_target(folder / "tzdata.zi", name)
        if target in zones:
            return zones[target]
    return None


def _rows(table: Traversable) -> Iterator[list[str]]:
    for line in _lines(table):
        fields = line.rstrip("\n").split("\t")
        if not line.startswith("#") and len(fields) >= 3:
            yield fields[:3]


def _link_target(rules: Traversable, name: str) -> str | None:
    for line in _lines(rules):
        if line.startswith("L "):
            _, target, link = line.split()
            if link == name:
                return target
    return None


def _lines(table: Traversable) -> Iterator[str]:
    try:
        with table.open("r", encoding="utf-8") as file:
            yield from file
    except OSError:
        return
