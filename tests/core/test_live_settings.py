"""What no request can ever go well with is refused at once, in a file and in code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tracarbon.exceptions import TracarbonException
from tracarbon.locations._settings import checked_url
from tracarbon.locations.country import Country
from tracarbon.locations.electricity_maps import ElectricityMaps
from tracarbon.locations.great_britain import GreatBritain
from tracarbon.locations.location import CarbonIntensitySource
from tracarbon.plugin import PluginOptions

from tests.core.test_location_request import KEY, everything_shown

NO_ADDRESSES = (
    "nonsense",
    "ftp://127.0.0.1/",
    "http:///latest",
    "http://:80/",
    "http://[/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:abc/",
    " http://127.0.0.1/",
    "http://127.0.0.1/a b",
    "http://127.0.0.1/\n",
    "http://127.0.0.1/\x00",
)
ADDRESSES = (
    "http://127.0.0.1:8080/?zone=",
    "https://[::1]/",
    "https://name:password@example.org/v1/",
    "https://a.b?z=",
)
NO_KEYS = ("SECRET KEY", "SECRET\nKEY", "SECRET\u00e9", "SECRET\x7f", "SECRET\u200b")


def country(**options: Any) -> PluginOptions:
    return Country.Options(country="FR", **{"co2signal_api_key": KEY} | options)


def maps(**options: Any) -> PluginOptions:
    return ElectricityMaps.Options(**{"zone": "FR", "api_key": KEY} | options)


def live(**fields: Any) -> Country:
    return Country(name="fr", co2g_kwh_source=CarbonIntensitySource.CO2SignalAPI, **{"co2signal_api_key": KEY} | fields)


def with_url(url: str) -> dict[str, Callable[[], object]]:
    return {
        "country": lambda: country(co2signal_url=url),
        "electricitymaps": lambda: maps(url=url),
        "uk": lambda: GreatBritain.Options(url=url),
        "Country": lambda: live(co2signal_url=url),
        "ElectricityMaps": lambda: ElectricityMaps.live("fr", KEY, url),
        "GreatBritain": lambda: GreatBritain(url=url),
    }


@pytest.mark.parametrize("url", NO_ADDRESSES)
@pytest.mark.parametrize("user", with_url(""))
def test_what_is_no_address(user: str, url: str) -> None:
    with pytest.raises((ValidationError, TracarbonException), match=r"url\b(.|\n)*(this is no|the) address"):
        with_url(url)[user]()


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize("user", with_url(""))
def test_what_is_one(user: str, url: str) -> None:
    with_url(url)[user]()


@pytest.mark.parametrize("user", ["country", "electricitymaps", "uk", "GreatBritain"])
def test_an_empty_address_is_no_default(user: str) -> None:
    with pytest.raises((ValidationError, TracarbonException), match="this is no address"):
        with_url("")[user]()


@pytest.mark.parametrize("user", ["country", "electricitymaps", "Country", "ElectricityMaps"])
def test_a_zone_does_not_become_a_part_of_the_host(user: str) -> None:
    """Which would be sent the key."""
    for url in ("https://example.org", "http://127.0.0.1:80"):
        with pytest.raises((ValidationError, TracarbonException), match="would change its host"):
            with_url(url)[user]()


@pytest.mark.parametrize("key", NO_KEYS)
@pytest.mark.parametrize("kind", [country, maps, live])
def test_a_key_that_no_header_can_have(kind: Callable[..., object], key: str) -> None:
    name = "api_key" if kind is maps else "co2signal_api_key"
    with pytest.raises((ValidationError, TracarbonException), match=rf"{name}(.|\n)*the key has blanks") as caught:
        kind(**{name: key})
    assert "SECRET" not in str(caught.value)
    if kind is live:
        frames = everything_shown(caught.value).partition("in _prepare_feed")[2]
        assert "SECRET" not in frames


def test_blanks_around_a_key_and_a_zone_are_left_out() -> None:
    assert live(co2signal_api_key=f" {KEY}\n").co2signal_api_key == KEY
    maps(api_key=f" {KEY}\n")
    assert ElectricityMaps.Options(zone=" FR ", api_key=KEY).zone == "FR"  # type: ignore[arg-type]


@pytest.mark.parametrize("zone", ["", "  ", "F R", "FR\n-1", "world", " World "])
def test_a_zone_that_no_service_can_know(zone: str) -> None:
    with pytest.raises(ValidationError, match="zone"):
        maps(zone=zone)


@given(st.text() | st.text("htps:/[]@.0189 a?#", min_size=5).map("http://".__add__))
def test_a_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        assert checked_url(text) == text
    except ValueError as error:
        assert "address" in str(error)
