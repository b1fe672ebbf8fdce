"""The location `country`: the carbon intensity of 213 countries and of the world by year, or live with a key."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

import anyio
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator

from tracarbon._forwarding import forward
from tracarbon._text import Secret
from tracarbon.exceptions import CO2SignalAPIKeyIsMissing, CountryIsMissing, TracarbonException
from tracarbon.locations._intensity import Factor, Figure, find_factor, nearest_codes
from tracarbon.locations._settings import checked_key, checked_prefix, checked_secret, require
from tracarbon.locations._timezone import country_of_time_zone, system_time_zone
from tracarbon.locations.location import CarbonIntensitySource, Location
from tracarbon.plugin import PluginContext, PluginOptions, Probe

if TYPE_CHECKING:
    from tracarbon_sensor_aws import AWSLocation as AWSLocation

    from tracarbon.locations._live import LiveIntensity, Reading

logger = logging.getLogger("tracarbon")

WORLD = "world"
Detection: TypeAlias = Literal["time zone", "ip"]

_ANSWER_SECONDS = 2.0
_WHERE_AM_I = "https://ipinfo.io/json"
_WHERE_AM_I_SECONDS = 5.0

__getattr__ = forward(__name__, {"AWSLocation": "tracarbon-sensor-aws"})


def _check_code(code: object) -> None:
    if not isinstance(code, str):
        raise CountryIsMissing(f"a country is a code such as 'fr', or 'world', not {code!r}")


def _factor(code: str) -> Factor:
    _check_code(code)
    factor = find_factor(code)
    if factor is None:
        near = nearest_codes(code)
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else "give an ISO 3166 code of two or three letters, or 'world'"
        )
        raise CountryIsMissing(f"no carbon intensity is known for country {code!r}; {hint}")
    return factor


def detect_country() -> tuple[str, str]:
    """Work out the country without leaving the machine: its code, and how it became known.

    The setting `TRACARBON_COUNTRY` comes first. Where it is missing, and the system's time zone says nothing, it is the
    world, and never a country made up.
    """
    from tracarbon._environment import read_setting

    setting = read_setting("TRACARBON_COUNTRY")
    if setting:
        return setting, "setting"
    zone = system_time_zone()
    code = country_of_time_zone(zone) if zone else None
    if code is None:
        return WORLD, f"the time zone, {zone or 'unknown'}, names no country"
    if find_factor(code) is None:
        return WORLD, f"no carbon intensity is known for {code}, the country of the time zone {zone}"
    return code, f"time zone {zone}"


class Country(Location):
    """A country, or the world, with the carbon intensity of its electricity.

    Without a country, the system's time zone tells; where it does not, the world's average is used, with a warning.

    By default the intensity is the yearly average. With `co2g_kwh_source=CarbonIntensitySource.CO2SignalAPI` and a key
    it is that of the hour, from Electricity Maps, and `name` may also be one of its zones, such as `US-CAL-CISO`. When
    the service fails, its last figure holds for a day, then the yearly average (or the `co2g_kwh` that was given);
    `co2g_kwh_source`, `co2g_kwh_kind` and `co2g_kwh_date` say which one it is. Used by itself, the service is waited
    for; in a pipeline for two seconds at the most, at the start and where nobody has asked for two minutes.

    Attributes:
        name: ISO 3166 code of two or three letters, or `world`.
        detect: how the country becomes known that is not given: by the time zone, or by asking ipinfo.io for that of
            this machine's IP address.
        ipinfo_token: a token for ipinfo.io, which answers some requests without; never shown.
        co2signal_api_key: key of Electricity Maps, which has taken the place of CO2 Signal; never shown.
        co2signal_url: address of another service; the code in upper case is put after it.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch.

    Raises:
        TracarbonException: it should be live, and no request can be sent to such an address or with such a key.
    """

    live_source: ClassVar[CarbonIntensitySource] = CarbonIntensitySource.CO2SignalAPI

    name: str = ""
    detect: Detection = "time zone"
    ipinfo_token: str | None = None
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    _feed: LiveIntensity | None = field(default=None, init=False)
    _average: Figure | None = field(default=None, init=False)
    _settled_name: str = field(default="", init=False)
    _context: PluginContext | None = field(default=None, init=False)
    _is_entered: bool = field(default=False, init=False)

    class Options(PluginOptions):
        """Options of `[location]`."""

        model_config = ConfigDict(hide_input_in_errors=True)

        country: str | None = Field(
            default=None, description="ISO 3166 code such as FR or FRA, or 'world'; default: what the time zone says"
        )
        co2signal_api_key: Annotated[SecretStr, AfterValidator(checked_secret)] | None = Field(
            default=None, description="key of Electricity Maps: the intensity is live (needs tracarbon-core[live])"
        )
        co2signal_url: Annotated[str, AfterValidator(checked_prefix)] | None = Field(
            default=None, description="address of another live service; the code in upper case is put after it"
        )
        detect: Detection | None = Field(
            default=None,
            description="how a country that is not given is worked out: by the time zone (default), or ip, which asks "
            "ipinfo.io (needs tracarbon-core[live])",
        )
        ipinfo_token: SecretStr | None = Field(default=None, description="token for ipinfo.io, if you have one")

        @field_validator("country")
        @classmethod
        def _is_known(cls, value: str | None) -> str | None:
            if value is not None:
                try:
                    _factor(value)
                except CountryIsMissing as error:
                    raise ValueError(str(error)) from None
            return value

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it; the country is worked out on entry where it is not given."""
        key, token = options.co2signal_api_key, options.ipinfo_token
        return cls.in_pipeline(
            context,
            name=options.country or "",
            detect=options.detect or "time zone",
            ipinfo_token=None if token is None else token.get_secret_value(),
            co2g_kwh_source=CarbonIntensitySource.FILE if key is None else cls.live_source,
            co2signal_api_key=None if key is None else key.get_secret_value(),
            co2signal_url=options.co2signal_url,
        )

    @classmethod
    def in_pipeline(cls, context: PluginContext, **fields: Any) -> Self:
        """Construct it with a pipeline's clocks and for its eyes, for other locations to build on.

        Args:
            context: of the plugin: its component is told whether the intensity is the live one.
            fields: of the class.
        """
        location = cls(clock=context.clock.monotonic, wall_clock=context.clock.time, **fields)
        location._context = context
        return location

    @classmethod
    def live(cls, name: str, co2signal_api_key: str, co2signal_url: str | None = None) -> Self:
        """Construct it with a live intensity.

        Args:
            name: as of the class; where it is empty, the country is worked out when it is needed.
            co2signal_api_key: key of the live service.
            co2signal_url: address of the live service; by default Electricity Maps.
        """
        return cls(
            name=name,
            co2g_kwh_source=CarbonIntensitySource.CO2SignalAPI,
            co2signal_api_key=co2signal_api_key,
            co2signal_url=co2signal_url,
        )

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say which country it would be."""
        code, reason = detect_country()
        factor = find_factor(code)
        if factor is None:
            return Probe(works=False, reason=f"no carbon intensity is known for {code!r}, by {reason}")
        remedy = "set country in [location], or TRACARBON_COUNTRY" if code == WORLD else ""
        because = f"since {reason}" if code == WORLD else f"by {reason}"
        return Probe(works=True, reason=f"{factor.country}, {factor.co2g_per_kwh:g} g/kWh, {because}", remedy=remedy)

    @classmethod
    def from_eu_file(cls, country_code_alpha_iso_2: str) -> Self:
        """Return a country with its yearly average, from the table that is part of tracarbon.

        Args:
            country_code_alpha_iso_2: ISO 3166 code, of the whole world and not only Europe, in any case.

        Raises:
            CountryIsMissing: no intensity is known for it; says what may have been meant.
        """
        location = cls(name=_factor(country_code_alpha_iso_2).alpha_2 or WORLD)
        location._settle()
        return location

    @classmethod
    def get_current_country(cls, url: str = "http://ipinfo.io/json", timeout: float = 300) -> str:
        """Ask a service on the internet which country this machine's IP address is of. Blocks until it answers.

        Nothing in tracarbon calls this by itself. Needs httpx: `pip install 'tracarbon-core[live]'`.

        Args:
            url: answers with a JSON object that has `country`. ipinfo.io is asked over https in any case.
            timeout: seconds for everything; 10 at the most for a connection.

        Returns:
            The ISO 3166 code of two letters, in lower case.

        Raises:
            CountryIsMissing: there is no such answer; says why, and what to set.
        """
        from tracarbon.locations._current import ask_for_country

        return ask_for_country(url, timeout)

    @classmethod
    def get_location(
        cls,
        co2signal_api_key: str | None = None,
        co2signal_url: str | None = None,
        country_code_alpha_iso_2: str | None = None,
    ) -> Self:
        """Return the country that is given, else that of the system's time zone, without asking anybody.

        Args:
            co2signal_api_key: with a key, the intensity is live.
            co2signal_url: address of the live service; by default Electricity Maps.
            country_code_alpha_iso_2: ISO 3166 code.

        Raises:
            CountryIsMissing: there is no key, and no yearly average is known for the country.
        """
        name, key = country_code_alpha_iso_2 or "", (co2signal_api_key or "").strip()
        if key:
            location = cls.live(name, key, co2signal_url)
            location._settle_name()
        else:
            location = cls(name=name, co2signal_url=co2signal_url)
            location._settle()
        return location

    def __post_init__(self) -> None:
        if self.ipinfo_token:
            self.ipinfo_token = Secret(self.ipinfo_token)
        self._prepare_feed()

    async def __aenter__(self) -> Self:
        """Work out the country and its yearly average; a live intensity is asked for, and waited for shortly.

        Raises:
            CountryIsMissing: no intensity is known for it.
            CO2SignalAPIKeyIsMissing: it should be live, and there is no key.
            TracarbonException: it should be live, and httpx is not installed.
        """
        if not self.name and self.detect == "ip":
            await self._ask_where()
        feed = self._prepare_feed()
        if feed is None:
            self._settle()
        else:
            self._check_live()
            self._settle_name()
            with anyio.move_on_after(_ANSWER_SECONDS):
                await feed.latest(self.name.upper())
        self._is_entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nobody has to be waited for any more."""
        self._is_entered = False

    async def get_latest_co2g_kwh(self) -> float:
        """Return the intensity in grams of CO2e per kWh: live, at most an hour old, or the yearly average.

        Raises:
            CountryIsMissing: no yearly average is known for the country.
            CO2SignalAPIKeyIsMissing: it should be live, and there is no key.
            TracarbonException: it should be live, but nothing is known of the zone; or httpx is not installed.
        """
        feed = self._prepare_feed()
        if feed is None:
            self._settle()
        else:
            await self._update(feed)
        return self.co2g_kwh

    def _prepare_feed(self) -> LiveIntensity | None:
        """Return what keeps the live figures, if the intensity should be live; `co2g_kwh` is still the user's then."""
        if self._feed is None and self.co2g_kwh_source is self.live_source:
            from tracarbon.locations._live import LiveIntensity

            self.co2signal_api_key = Secret((self.co2signal_api_key or "").strip())
            self._check_settings()
            if self.co2g_kwh or self.co2g_kwh_date:
                self._average = Figure(self.co2g_kwh, self.co2g_kwh_kind, self.co2g_kwh_date)
            self._feed = LiveIntensity(self._ask, self.clock, self.wall_clock)
        return self._feed

    def _check_settings(self) -> None:
        if self.co2signal_url:
            require(checked_prefix, "co2signal_url", self.co2signal_url)
        require(checked_key, "co2signal_api_key", self.co2signal_api_key or "")

    def _settle(self) -> None:
        if self.co2g_kwh or self.co2g_kwh_date:
            return
        self._settle_name()
        self._show(_yearly_average(_factor(self.name)), CarbonIntensitySource.FILE)

    def _settle_name(self) -> None:
        """Work out the code. One that is not in the table stays: it may be a zone of the live service."""
        _check_code(self.name)
        if self.name and self.name == self._settled_name:
            return
        if not self.name:
            self.name, self.detected_by = detect_country()
            if self.name == WORLD:
                logger.warning(
                    "the country is unknown (%s); the world's average carbon intensity is used. "
                    "Set TRACARBON_COUNTRY, country in [location], or --country; from code, pass Country(name=...)",
                    self.detected_by,
                )
                self.detected_by = "nothing"
        factor = find_factor(self.name)
        if factor is not None:
            self.name = factor.alpha_2.lower() or WORLD
        self._settled_name = self.name

    def _show(self, figure: Figure, source: CarbonIntensitySource) -> None:
        self.co2g_kwh, self.co2g_kwh_kind, self.co2g_kwh_date = figure.co2g_per_kwh, figure.kind, figure.date
        self.co2g_kwh_source = source

    def require_key(self) -> None:
        """Raise `CO2SignalAPIKeyIsMissing` where there is no key for a live intensity."""
        if not (self.co2signal_api_key or "").strip():
            raise CO2SignalAPIKeyIsMissing(
                "a live carbon intensity needs a key of Electricity Maps: pass co2signal_api_key (TracarbonBuilder and "
                "the command take TRACARBON_CO2SIGNAL_API_KEY). The yearly average, source FILE, needs none"
            )

    def _check_live(self) -> None:
        from tracarbon.locations._http import require_httpx

        self.require_key()
        require_httpx()

    async def _ask_where(self) -> None:
        from tracarbon.locations._current import ask_for_country

        context = self._context or PluginContext("location")
        try:
            self.name = await context.run_blocking(
                ask_for_country, _WHERE_AM_I, _WHERE_AM_I_SECONDS, self.ipinfo_token or ""
            )
            self.detected_by = "ip"
            if self.co2g_kwh_source is not self.live_source and find_factor(self.name) is None:
                unknown, self.name = self.name, ""
                raise CountryIsMissing(f"no carbon intensity is known for {unknown!r}, the country of this address")
        except CountryIsMissing as error:
            logger.warning("%s; the time zone is asked instead", error)
        finally:
            if self._context is None:
                context.close()

    async def _update(self, feed: LiveIntensity) -> None:
        self._check_live()
        self._settle_name()
        zone = self.name.upper()
        reading = await (feed.current(zone, _ANSWER_SECONDS) if self._is_entered else feed.latest(zone))
        self._tell(feed, reading)
        if reading is None:
            self._show(self._fallback(feed.fault), CarbonIntensitySource.FILE)
        else:
            self._show(reading.figure, self.live_source if reading.is_newest else CarbonIntensitySource.LAST_KNOWN)

    def _tell(self, feed: LiveIntensity, reading: Reading | None) -> None:
        """Let the pipeline see whether the intensity is the live one."""
        if self._context is None:
            return
        if reading is not None and reading.is_newest:
            self._context.component.ok()
        else:
            average = self._average_of_place()
            held = f"the {average.kind}" if reading is None and average is not None else "the last known one"
            used = "" if reading is None and average is None else f"; {held} is used"
            fault = feed.fault or "there is no answer yet"
            self._context.component.degraded(f"no live carbon intensity: {fault}{used}")

    def _fallback(self, fault: str) -> Figure:
        average = self._average_of_place()
        if average is None:
            raise TracarbonException(
                f"no carbon intensity is known for {self.name!r}: no live one ({fault}), and no yearly average"
            )
        return average

    def _average_of_place(self) -> Figure | None:
        """Return the average of the country, for a zone that is a part of one (`US-CAL-CISO`) as well."""
        if self._average is None:
            country = self.name.partition("-")[0]
            if (factor := find_factor(self.name)) is not None:
                self._average = _yearly_average(factor)
            elif country != self.name and (factor := find_factor(country)) is not None:
                whole = _yearly_average(factor)
                self._average = Figure(whole.co2g_per_kwh, f"{whole.kind} of {country.lower()}", whole.date)
        return self._average

    async def _ask(self) -> Figure:
        from tracarbon.locations._answers import figure_in, is_own

        if self.name == WORLD:
            raise TracarbonException("there is none of the world; set the country")
        headers: dict[str, str] = {"auth-token": Secret(self.co2signal_api_key or "")}
        answer = await self.request(self._live_address(), headers)
        return figure_in(answer, self.name, self.wall_clock(), must_name_zone=not is_own(self.co2signal_url))

    def _live_address(self) -> str:
        from tracarbon.locations._answers import live_address

        return live_address(self.co2signal_url, self.name)


def _yearly_average(factor: Factor) -> Figure:
    return Figure(factor.co2g_per_kwh, "yearly average", str(factor.year))
