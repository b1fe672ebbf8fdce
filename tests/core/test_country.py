"""The location `country`."""

from __future__ import annotations

import logging

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
