"""From the system's time zone to the country, by the tables of the tz database.

`zone.tab` has the one country of each zone in use, `tzdata.zi` the links of old names to zones in use, and
`zone1970.tab` all the countries whose clocks have agreed with a zone since 1970. A link says that two clocks agree, not
that two places are in one country: `Iceland` has become a link to Abidjan. So a link counts only where no other country
shares its target.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

logger = logging.getLogger("tracarbon")

# Zones that stand for an offset; the database happens to link them to a place.
_NO_PLACE = {"EST", "MST", "HST", "EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT", "CET", "MET", "EET", "WET"}

# Old names whose target several countries share: what they were names of.
_OLD_NAMES = {
    "Africa/Asmera": "ER",
    "Africa/Timbuktu": "ML",
    "America/Coral_Harbour": "CA",
    "America/Montreal": "CA",
    "America/Nipigon": "CA",
    "America/Thunder_Bay": "CA",
    "America/Virgin": "VI",
    "Antarctica/South_Pole": "AQ",
    "Asia/Rangoon": "MM",
    "Atlantic/Jan_Mayen": "SJ",
    "Canada/Eastern": "CA",
    "Europe/Belfast": "GB",
    "GB": "GB",
    "GB-Eire": "GB",
    "Iceland": "IS",
    "Japan": "JP",
    "NZ": "NZ",
    "Pacific/Ponape": "FM",
    "Pacific/Samoa": "AS",
    "Pacific/Truk": "FM",
    "Pacific/Yap": "FM",
    "Singapore": "SG",
    "US/Arizona": "US",
    "US/Samoa": "AS",
}

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
        tables: folders with `zone.tab`, `zone1970.tab` and `tzdata.zi`; by default the system's, then those of the
            package tzdata.

    Returns:
        A code of two letters, or `None` for zones such as UTC that belong to no country, and for old names that more
        than one country could claim.
    """
    if name in _NO_PLACE:
        return None
    for folder in tables if tables is not None else (SYSTEM_TABLES, files("tzdata") / "zoneinfo"):
        code = _codes(folder / "zone.tab", name) or _OLD_NAMES.get(name) or _code_of_link(folder, name)
        if code:
            return code
    return None


def _code_of_link(folder: Traversable, name: str) -> str | None:
    target = _link_target(folder / "tzdata.zi", name)
    code = _codes(folder / "zone.tab", target) if target else None
    return code if target and code == _codes(folder / "zone1970.tab", target) else None


def _codes(table: Traversable, zone: str) -> str | None:
    """Return the codes of a zone: one in `zone.tab`, one or several with commas between in `zone1970.tab`."""
    for line in _lines(table):
        fields = line.rstrip("\n").split("\t")
        if not line.startswith("#") and len(fields) >= 3 and fields[2] == zone:
            return fields[0]
    return None


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
