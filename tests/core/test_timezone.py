"""From a time zone to a country."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import pytest
from tracarbon.locations import _timezone
from tracarbon.locations._timezone import country_of_time_zone, system_time_zone

PACKAGE = [files("tzdata") / "zoneinfo"]


@pytest.mark.parametrize(
    ("zone", "code"),
    [
        ("Europe/Paris", "FR"),
        ("America/New_York", "US"),
        ("Asia/Calcutta", "IN"),
        ("Asia/Kolkata", "IN"),
        ("US/Eastern", "US"),
        ("Europe/Kiev", "UA"),
        ("Europe/Oslo", "NO"),
        ("Japan", "JP"),
        ("GB", "GB"),
        ("Iceland", "IS"),
        ("Atlantic/Reykjavik", "IS"),
        ("Africa/Asmera", "ER"),
        ("Pacific/Truk", "FM"),
        ("UTC", None),
        ("Etc/UTC", None),
        ("Etc/GMT+5", None),
        ("EST", None),
        ("CET", None),
        ("Mars/Olympus", None),
        ("", None),
    ],
)
def test_country_of_a_zone(zone: str, code: str | None) -> None:
    assert country_of_time_zone(zone, PACKAGE) == code


def test_the_systems_tables_come_first_and_the_packages_serve_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zone.tab").write_text("# comment\nXX\t+0000+00000\tEurope/Paris\n")
    monkeypatch.setattr(_timezone, "SYSTEM_TABLES", tmp_path)
    assert country_of_time_zone("Europe/Paris") == "XX"
    assert country_of_time_zone("Europe/Berlin") == "DE"


def test_a_link_to_a_zone_that_countries_share_is_no_guess(tmp_path: Path) -> None:
    (tmp_path / "zone.tab").write_text("AA\t+0000+00000\tOcean/Shared\nBB\t+0000+00000\tOcean/Alone\n")
    (tmp_path / "zone1970.tab").write_text("AA,CC\t+0000+00000\tOcean/Shared\nBB\t+0000+00000\tOcean/Alone\n")
    (tmp_path / "tzdata.zi").write_text("L Ocean/Shared Old/Shared\nL Ocean/Alone Old/Alone\n")
    assert country_of_time_zone("Ocean/Shared", [tmp_path]) == "AA"
    assert country_of_time_zone("Old/Shared", [tmp_path]) is None
    assert country_of_time_zone("Old/Alone", [tmp_path]) == "BB"
    (tmp_path / "zone1970.tab").unlink()
    assert country_of_time_zone("Old/Alone", [tmp_path]) is None


def test_every_zone_with_a_country_is_found_by_every_name_of_it() -> None:
    zones = (files("tzdata") / "zones").read_text().split()
    places = [zone for zone in zones if "/" in zone and not zone.startswith("Etc/")]
    assert len(places) > 400
    assert [zone for zone in places if country_of_time_zone(zone, PACKAGE) is None] == []


@pytest.mark.skipif(sys.platform != "linux", reason="tzlocal keeps its memory elsewhere")
@pytest.mark.parametrize("variable", ["Asia/Tokyo", ":Asia/Tokyo"])
def test_the_variable_tz_comes_first(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tzlocal.unix

    monkeypatch.setattr(tzlocal.unix, "_cache_tz_name", None)
    monkeypatch.setenv("TZ", variable)
    assert system_time_zone() == "Asia/Tokyo"


def test_the_systems_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import tzlocal

    monkeypatch.setattr(tzlocal, "get_localzone_name", lambda: "Europe/Paris")
    assert system_time_zone() == "Europe/Paris"

    def broken() -> str:
        raise ValueError("contradictory settings")

    monkeypatch.setattr(tzlocal, "get_localzone_name", broken)
    assert system_time_zone() is None
