"""From a time zone to a country."""

from __future__ import annotations

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


def test_the_systems_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import tzlocal

    monkeypatch.setattr(tzlocal, "get_localzone_name", lambda: "Europe/Paris")
    assert system_time_zone() == "Europe/Paris"

    def broken() -> str:
        raise ValueError("contradictory settings")

    monkeypatch.setattr(tzlocal, "get_localzone_name", broken)
    assert system_time_zone() is None
