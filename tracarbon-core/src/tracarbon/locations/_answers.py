"""What live services are asked, and what their answers say."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlsplit

from tracarbon.exceptions import TracarbonException
from tracarbon.locations._intensity import Figure

FactorType: TypeAlias = Literal["lifecycle", "direct"]

_HOUR_SECONDS = 3600.0
_OLDEST_SECONDS = 86_400.0
_LATE_SECONDS = 300.0
"""How long after the hour a new figure may still be missing."""

# Its service has ended; its settings stand for the one that took its place.
_CLOSED_HOST = "api.co2signal.com"
_ELECTRICITY_MAPS = (
    "https://api.electricitymaps.com/v4/carbon-intensity/latest"
    # Without the last, an unknown zone is silently taken for the one of the caller's IP address.
    "?zone={zone}&emissionFactorType={factor_type}&shouldUseFallbackCallerLookup=false"
)
GREAT_BRITAIN = "https://api.carbonintensity.org.uk/intensity"


def live_address(url: str | None, zone: str, factor_type: FactorType = "lifecycle") -> str:
    """Return where to ask for a zone: at Electricity Maps, or at `url` with the zone put after it."""
    quoted = quote(zone.upper(), safe="")
    return (url or "") + quoted if is_own(url) else _ELECTRICITY_MAPS.format(zone=quoted, factor_type=factor_type)


def is_own(url: str | None) -> bool:
    """Whether another service than Electricity Maps is to be asked."""
    return bool(url) and _host(url or "") != _CLOSED_HOST


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def figure_in(answer: Mapping[str, Any], zone: str, now: float, *, must_name_zone: bool = False) -> Figure:
    """Return the intensity of an answer in the shape of Electricity Maps, at its top or under `data`.

    Args:
        answer: of the service.
        zone: that was asked for.
        now: seconds since the epoch.
        must_name_zone: whether it is none where it does not say which zone it is about.

    Raises:
        TracarbonException: it has none, or is about another zone than the one asked for.
    """
    data = answer.get("data")
    below: Mapping[str, Any] = data if isinstance(data, dict) else {}
    named = [name for part in (answer, below) for key in ("zone", "countryCode") if (name := part.get(key)) is not None]
    if any(str(name).upper() != zone.upper() for name in named):
        raise TracarbonException("the answer is about another zone")
    if must_name_zone and not named:
        raise TracarbonException("the answer does not say which zone it is about")
    said = {**below, **answer}
    factor_type = said.get("emissionFactorType")
    kind = f"live {factor_type}" if factor_type in ("lifecycle", "direct") else "live"
    if said.get("isEstimated") is True:
        kind = f"{kind}, estimated"
    instant = _instant(said.get("datetime"))
    _check_age(instant, now)
    date = "" if instant is None else str(said["datetime"])
    return Figure(_intensity(said.get("carbonIntensity")), kind, date, _until_next(instant, now))


def british_figure_in(answer: Mapping[str, Any], now: float) -> Figure:
    """Return the intensity of an answer of the national API of Great Britain: actual, or forecast while that is open.

    Raises:
        TracarbonException: it has none.
    """
    try:
        [half_hour, *_] = answer["data"]
        said = half_hour["intensity"]
        actual, forecast = said.get("actual"), said.get("forecast")
        since, until = half_hour.get("from"), half_hour.get("to")
    except (LookupError, TypeError, ValueError, AttributeError):
        raise TracarbonException("the answer has no carbon intensity") from None
    kind = "live forecast" if actual is None else "live actual"
    end = _instant(until)
    _check_age(end, now)
    lasts = _HOUR_SECONDS / 2 if end is None else min(max(end.timestamp() - now, 0.0) + 60.0, _HOUR_SECONDS)
    return Figure(_intensity(forecast if actual is None else actual), kind, _date(since), lasts)


def _intensity(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise TracarbonException("the answer has no carbon intensity")
    return float(value)


def _check_age(instant: datetime | None, now: float) -> None:
    if instant is not None and now - instant.timestamp() > _OLDEST_SECONDS:
        raise TracarbonException(f"the answer is of {instant:%Y-%m-%d %H:%M}, more than a day ago")


def _until_next(instant: datetime | None, now: float) -> float:
    """Return how long it is until a service with a figure an hour should have the one after `instant`, or the next."""
    if instant is None:
        return _HOUR_SECONDS
    age = now - instant.timestamp()
    return _HOUR_SECONDS - (age - _LATE_SECONDS) % _HOUR_SECONDS


def _date(text: object) -> str:
    return "" if _instant(text) is None else str(text)


def _instant(text: object) -> datetime | None:
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
