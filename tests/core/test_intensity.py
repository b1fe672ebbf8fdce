"""Carbon intensities by country."""

from __future__ import annotations

import pytest
from tracarbon.locations._intensity import WORLD, countries, find_factor, nearest_codes


def test_every_country_is_there_once_and_plausible() -> None:
    known = list(countries())
    assert len(known) == 213
    assert len({factor.alpha_2 for factor in known}) == len({factor.alpha_3 for factor in known}) == 213
    assert all(0 <= factor.co2g_per_kwh < 1500 and 2000 <= factor.year <= 2026 for factor in known)


@pytest.mark.parametrize("code", ["FR", "fr", "FRA", "fra", " Fr "])
def test_codes_match_in_any_case(code: str) -> None:
    factor = find_factor(code)
    assert factor is not None
    assert (factor.country, factor.alpha_2, factor.alpha_3) == ("France", "FR", "FRA")


def test_the_world_and_well_known_aliases() -> None:
    assert find_factor("World") is WORLD
    assert WORLD.co2g_per_kwh == 473
    assert find_factor("uk") == find_factor("GB")
    assert find_factor("el") == find_factor("GR")


@pytest.mark.parametrize("code", ["zz", "", "francee", "F"])
def test_what_is_no_code_is_unknown(code: str) -> None:
    assert find_factor(code) is None


def test_near_codes_are_suggested() -> None:
    assert nearest_codes("france") == ["FR"]
    assert nearest_codes("Germny") == ["DE"]
    assert nearest_codes("russia") == ["RU"]
    assert nearest_codes("South Korea") == ["KR"]
    assert nearest_codes("korea") == ["KP", "KR"]
    assert nearest_codes("zz") == []
    assert all(find_factor(code) for name in ("england", "turkey", "holland") for code in nearest_codes(name))
    assert "FR" in nearest_codes("frr")
    assert nearest_codes("12345") == []
