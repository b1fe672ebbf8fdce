"""Yearly average carbon intensity of electricity, by country."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

_ALIASES = {"uk": "gb", "el": "gr"}

# What people write where ISO 3166 has a more official name.
_COMMON_NAMES = {
    "burma": "MM",
    "england": "GB",
    "great britain": "GB",
    "holland": "NL",
    "ivory coast": "CI",
    "north korea": "KP",
    "south korea": "KR",
    "turkey": "TR",
}


@dataclass(frozen=True, slots=True)
class Factor:
    """A carbon intensity.

    Attributes:
        country: its name.
        alpha_2: ISO 3166 code of two letters; empty for the world.
        alpha_3: ISO 3166 code of three letters; empty for the world.
        co2g_per_kwh: grams of CO2e per kWh of electricity, over the life cycle.
        year: of the average.
        source: whose figure it is.
    """

    country: str
    alpha_2: str
    alpha_3: str
    co2g_per_kwh: float
    year: int
    source: str = "Ember, by Our World in Data"


@dataclass(frozen=True, slots=True)
class Figure:
    """A carbon intensity, and what it is.

    Attributes:
        co2g_per_kwh: grams of CO2e per kWh.
        kind: such as `yearly average` or `live lifecycle`.
        date: what time it is of.
        lasts_seconds: of a live one, how long its service will have no newer one.
    """

    co2g_per_kwh: float
    kind: str
    date: str
    lasts_seconds: float = 3600.0


WORLD = Factor("World", "", "", 473.0, 2024, "Ember")


def countries() -> Iterator[Factor]:
    """Read the table, row by row."""
    with files("tracarbon").joinpath("data/country_intensity.csv").open("r", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            yield Factor(row["country"], row["alpha_2"], row["alpha_3"], float(row["co2g_per_kwh"]), int(row["year"]))


def find_factor(code: str) -> Factor | None:
    """Return the factor of an ISO 3166 code of two or three letters, in any case, or of `world`."""
    wanted = code.strip().lower()
    if wanted == "world":
        return WORLD
    wanted = _ALIASES.get(wanted, wanted).upper()
    return next((factor for factor in countries() if wanted in (factor.alpha_2, factor.alpha_3)), None)


def nearest_codes(text: str) -> list[str]:
    """Return the codes that somebody who wrote `text` may have meant, at most three.

    By the country's name, whole, its beginning (`korea`) or misspelt, or by a similar code. A wrong code of two letters
    is near too many others to be near any.
    """
    import difflib

    wanted = text.strip().lower()
    known = list(countries())
    by_name = {factor.country.lower(): factor.alpha_2 for factor in known} | _COMMON_NAMES
    if wanted in by_name:
        return [by_name[wanted]]
    if len(wanted) > 3:
        names = [name for name in by_name if name.startswith(wanted)]
        return [by_name[name] for name in (names or difflib.get_close_matches(wanted, by_name, cutoff=0.7))[:3]]
    codes = {code.lower(): code for factor in known for code in (factor.alpha_2, factor.alpha_3)}
    return [codes[code] for code in difflib.get_close_matches(wanted, codes, n=2, cutoff=0.65)]
