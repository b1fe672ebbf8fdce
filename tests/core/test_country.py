"""The location `country`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError
from tracarbon.exceptions import CountryIsMissing
from tracarbon.locations import country as module
from tracarbon.locations.country import Country
from tracarbon.locations.location import CarbonIntensitySource
from tracarbon.plugin import PluginContext

pytestmark = pytest.mark.anyio
CONTEXT = PluginContext("location")


def in_zone(zone: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "system_time_zone", lambda: zone)


@pytest.mark.parametrize("code", ["FR", "fr", "fra"])
async def test_a_country_that_is_set(code: str) -> None:
    async with Country.from_options(Country.Options(country=code), CONTEXT) as location:
        assert await location.get_latest_co2g_kwh() == location.co2g_kwh > 0
        assert (location.name, location.detected_by) == ("fr", "setting")
        assert location.co2g_kwh_source is CarbonIntensitySource.FILE
        assert location.co2g_kwh_kind == "yearly average"
        assert location.co2g_kwh_date.isdigit()


async def test_the_time_zone_tells_without_a_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_zone("Europe/Paris", monkeypatch)
    with caplog.at_level(logging.WARNING, "tracarbon"):
        async with Country.from_options(Country.Options(), CONTEXT) as location:
            assert (location.name, location.detected_by) == ("fr", "time zone Europe/Paris")
    assert not caplog.records


async def test_the_setting_comes_before_the_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    in_zone("Europe/Paris", monkeypatch)
    monkeypatch.setenv("TRACARBON_COUNTRY", "DE")
    for location in (Country.get_location(), Country()):
        await location.get_latest_co2g_kwh()
        assert (location.name, location.detected_by) == ("de", "setting")
    assert Country.probe(CONTEXT).reason.startswith("Germany, ")
    monkeypatch.setenv("TRACARBON_COUNTRY", "zz")
    with pytest.raises(CountryIsMissing, match="'zz'"):
        Country.get_location()
    assert not Country.probe(CONTEXT).works


@pytest.mark.parametrize("zone", [None, "Etc/UTC"])
async def test_no_country_is_made_up(
    zone: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_zone(zone, monkeypatch)
    with caplog.at_level(logging.WARNING, "tracarbon"):
        async with Country.from_options(Country.Options(), CONTEXT) as location:
            assert await location.get_latest_co2g_kwh() == 473
            assert (location.name, location.detected_by) == ("world", "nothing")
    assert len(caplog.records) == 1
    assert "the world's average carbon intensity is used" in caplog.text


async def test_an_intensity_of_ones_own_is_kept() -> None:
    location = Country(name="here", co2g_kwh=12.5)
    assert await location.get_latest_co2g_kwh() == 12.5


async def test_an_unknown_country_is_an_error_that_helps() -> None:
    with pytest.raises(ValidationError, match=r"no carbon intensity is known for country 'france'; did you mean FR\?"):
        Country.Options(country="france")
    with pytest.raises(CountryIsMissing, match="ISO 3166"):
        await Country(name="zz").get_latest_co2g_kwh()


def test_probe_says_which_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    in_zone("Europe/Paris", monkeypatch)
    assert Country.probe(CONTEXT).reason.startswith("France, ")
    in_zone("UTC", monkeypatch)
    probe = Country.probe(CONTEXT)
    assert probe.works
    assert "TRACARBON_COUNTRY" in probe.remedy


@pytest.mark.parametrize(
    ("code", "name"), [("FR", "fr"), ("fr", "fr"), ("fra", "fr"), ("BR", "br"), ("uk", "gb"), ("World", "world")]
)
def test_a_country_from_the_file_is_settled_at_once(code: str, name: str) -> None:
    location = Country.from_eu_file(code)
    assert (location.name, location.detected_by) == (name, "setting")
    assert location.co2g_kwh > 0
    assert (location.co2g_kwh_kind, location.co2g_kwh_source) == ("yearly average", CarbonIntensitySource.FILE)
    assert location.co2g_kwh_date.isdigit()


@pytest.mark.parametrize("code", ["", "zz"])
def test_a_country_that_is_not_in_the_file(code: str) -> None:
    with pytest.raises(CountryIsMissing, match="no carbon intensity is known for country"):
        Country.from_eu_file(code)
    with pytest.raises(CountryIsMissing, match=r"did you mean DE\?"):
        Country.get_location(country_code_alpha_iso_2="Germany")


def test_the_location_is_the_code_given_else_that_of_the_time_zone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_zone("Europe/Paris", monkeypatch)
    given = Country.get_location(country_code_alpha_iso_2="DE")
    assert (given.name, given.detected_by, given.co2g_kwh_kind) == ("de", "setting", "yearly average")
    found = Country.get_location(co2signal_api_key="", co2signal_url="http://127.0.0.1:1/")
    assert (found.name, found.detected_by) == ("fr", "time zone Europe/Paris")
    assert found.co2g_kwh_source is CarbonIntensitySource.FILE
    assert found.co2g_kwh > 0
    assert not caplog.records
    in_zone("UTC", monkeypatch)
    world = Country.get_location()
    assert (world.name, world.detected_by, world.co2g_kwh) == ("world", "nothing", 473)
    assert "the world's average carbon intensity is used" in caplog.text


def test_a_live_location_knows_its_country_and_nothing_else_yet() -> None:
    location = Country.get_location("SECRET", "http://127.0.0.1:1/", "FR")
    assert (location.name, location.detected_by, location.co2g_kwh) == ("fr", "setting", 0.0)
    assert location.co2g_kwh_source is CarbonIntensitySource.CO2SignalAPI
    assert (location.co2signal_api_key, location.co2signal_url) == ("SECRET", "http://127.0.0.1:1/")
    assert "SECRET" not in f"{vars(location)}"


async def test_the_time_zone_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    in_zone("Europe/Paris", monkeypatch)
    location = Country()
    first = await location.get_latest_co2g_kwh()
    in_zone("Europe/Berlin", monkeypatch)
    assert await location.get_latest_co2g_kwh() == first
    assert location.name == "fr"


def test_the_location_of_aws_is_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("tracarbon_sensor_aws")
    package.AWSLocation = Country  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tracarbon_sensor_aws", package)
    assert module.AWSLocation is Country
    monkeypatch.setitem(sys.modules, "tracarbon_sensor_aws", None)
    with pytest.raises(ImportError, match="pip install tracarbon-sensor-aws"):
        _ = module.AWSLocation


@pytest.mark.parametrize("code", [None, 5])
async def test_a_country_that_is_no_text_is_missing(code: Any) -> None:
    calls: list[Callable[[], object]] = [lambda: Country.from_eu_file(code)]
    if code is not None:
        calls += [
            lambda: Country.get_location(country_code_alpha_iso_2=code),
            lambda: Country.get_location("KEY", country_code_alpha_iso_2=code),
        ]
    for call in calls:
        with pytest.raises(CountryIsMissing, match=f"or 'world', not {code}"):
            call()
    with pytest.raises(CountryIsMissing, match=f"or 'world', not {code}"):
        await Country(name=code).__aenter__()
