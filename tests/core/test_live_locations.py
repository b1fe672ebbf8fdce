"""Live locations in a pipeline, where nobody waits for a service; and what each service's answers mean."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tracarbon.exceptions import TracarbonException
from tracarbon.locations import _http
from tracarbon.locations import country as module
from tracarbon.locations._answers import british_figure_in, figure_in, live_address
from tracarbon.locations.country import Country
from tracarbon.locations.electricity_maps import ElectricityMaps
from tracarbon.locations.great_britain import GreatBritain
from tracarbon.locations.location import CarbonIntensitySource
from tracarbon.locations.static import StaticLocation
from tracarbon.plugin import Component, ComponentState, PluginContext
from tracarbon.testing import ManualClock

from tests.core.test_country_live import ANSWER, AVERAGE, FILE, LAST_KNOWN, LIVE, NOON, until_waiting
from tests.core.test_location_request import KEY, refused_address
from tests.support.web_server import Handler, Respond, hang, json_answer, serving, status

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that answers is never late here."""
    monkeypatch.setattr(_http, "TOTAL_SECONDS", 60.0)
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(module, "_WHERE_AM_I_SECONDS", 60.0)


def live(url: str, clock: ManualClock) -> tuple[ElectricityMaps, Component]:
    """A location as a pipeline has it, over its clock; and its state."""
    context = PluginContext("location", clock=clock)
    options = ElectricityMaps.Options(zone="FR", api_key=KEY, url=f"{url}/?zone=")
    return ElectricityMaps.from_options(options, context), context.component


def shortly_past_noon() -> ManualClock:
    return ManualClock(wall=NOON + 300.0)


async def until_asked(location: Country) -> None:
    """Wait until no request is under way: the service's thread knows nothing of the manual clock."""
    feed = location._feed
    assert feed is not None
    with anyio.fail_after(60):
        while feed._is_asking:
            await anyio.sleep(0.001)


def answer_of(intensity: float, clock: ManualClock) -> Respond:
    """What the service would say now."""
    return json_answer(
        ANSWER | {"carbonIntensity": intensity, "datetime": datetime.fromtimestamp(clock.time(), UTC).isoformat()}
    )


class Gate:
    """A service that answers only once it may."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.respond = json_answer(ANSWER)

    def __call__(self, handler: Handler) -> None:
        self.opened.wait(60)
        self.respond(handler)


class TestInAPipeline:
    async def test_the_first_figure_is_there_at_the_start(self) -> None:
        with serving(json_answer(ANSWER)) as server:
            location, component = live(server.url, shortly_past_noon())
            async with location:
                assert await location.get_latest_co2g_kwh() == 42.5
                assert (location.co2g_kwh_source, component.state) == (LIVE, ComponentState.OK)
        assert len(server.requests) == 1

    async def test_a_service_that_hangs_holds_up_the_start_but_shortly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.05)
        gate = Gate()
        with serving(gate) as server:
            location, _ = live(server.url, shortly_past_noon())
            async with location:
                assert (await location.get_latest_co2g_kwh(), location.co2g_kwh_source) == (AVERAGE[0], FILE)
                gate.opened.set()
                await until_asked(location)
                assert (await location.get_latest_co2g_kwh(), location.co2g_kwh_source) == (42.5, LIVE)
        assert len(server.requests) == 1

    async def test_no_tick_waits_for_the_next_figure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_ANSWER_SECONDS", 3600.0)
        clock, gate = shortly_past_noon(), Gate()
        with serving(json_answer(ANSWER)) as server:
            location, component = live(server.url, clock)
            async with location:
                server.respond = gate
                with anyio.fail_after(5):
                    for _ in range(61):
                        clock.elapse(60)
                        assert (await location.get_latest_co2g_kwh(), location.co2g_kwh_source) == (42.5, LIVE)
                gate.opened.set()
                await until_asked(location)
                assert component.state is ComponentState.OK
        assert len(server.requests) == 2

    async def test_each_fallback_is_seen_and_ends(self) -> None:
        clock = shortly_past_noon()
        with serving(json_answer(ANSWER)) as server:
            location, component = live(server.url, clock)

            async def after(seconds: float) -> tuple[float, CarbonIntensitySource]:
                clock.elapse(seconds)
                await location.get_latest_co2g_kwh()
                await until_asked(location)
                return await location.get_latest_co2g_kwh(), location.co2g_kwh_source

            async with location:
                server.respond = status(503)
                assert await after(HOUR) == (42.5, LAST_KNOWN)
                assert component.state is ComponentState.DEGRADED
                assert "HTTP 503" in component.reason
                assert component.reason.endswith("the last known one is used")
                assert await after(23 * HOUR) == (AVERAGE[0], FILE)
                assert component.reason.endswith("the yearly average is used")
                server.respond = answer_of(50.0, clock)
                assert await after(60.0) == (50.0, LIVE)
                assert component.state is ComponentState.OK

    async def test_nobody_there_from_the_start(self) -> None:
        location, component = live(refused_address(), shortly_past_noon())
        async with location:
            assert await location.get_latest_co2g_kwh() == AVERAGE[0]
            assert component.state is ComponentState.DEGRADED
            assert KEY not in component.reason


class TestLongWindows:
    """Who looks but seldom gets the figure of when it looks, not the one of when it looked last."""

    @pytest.mark.parametrize("hours", [2, 24])
    async def test_each_window_has_the_figure_of_its_end(self, hours: int) -> None:
        clock = shortly_past_noon()
        with serving(json_answer(ANSWER)) as server:
            location, component = live(server.url, clock)
            async with location:
                for figure in (50.0, 60.0, 70.0):
                    clock.elapse(hours * HOUR)
                    server.respond = answer_of(figure, clock)
                    assert (await location.get_latest_co2g_kwh(), location.co2g_kwh_source) == (figure, LIVE)
                    assert component.state is ComponentState.OK
        assert len(server.requests) == 4

    async def test_all_who_look_meanwhile_get_the_same(self) -> None:
        clock, gate, seen = shortly_past_noon(), Gate(), []
        with serving(json_answer(ANSWER)) as server:
            location, _ = live(server.url, clock)

            async def look() -> None:
                seen.append(await location.get_latest_co2g_kwh())

            async with location:
                clock.elapse(2 * HOUR)
                gate.respond, server.respond = answer_of(50.0, clock), gate
                async with anyio.create_task_group() as group:
                    for _ in range(3):
                        group.start_soon(look)
                    with anyio.fail_after(10):
                        await until_waiting(location, 3)
                    gate.opened.set()
        assert seen == [50.0] * 3
        assert len(server.requests) == 2

    async def test_a_service_that_hangs_is_waited_for_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock, gate = shortly_past_noon(), Gate()
        with serving(json_answer(ANSWER)) as server:
            location, component = live(server.url, clock)
            async with location:
                server.respond = gate
                clock.elapse(2 * HOUR)
                monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.05)
                assert (await location.get_latest_co2g_kwh(), location.co2g_kwh_source) == (42.5, LAST_KNOWN)
                said = "no live carbon intensity: there is no answer yet; the last known one is used"
                assert (component.state, component.reason) == (ComponentState.DEGRADED, said)
                monkeypatch.setattr(module, "_ANSWER_SECONDS", 3600.0)
                with anyio.fail_after(5):
                    assert await location.get_latest_co2g_kwh() == 42.5
                gate.opened.set()
                await until_asked(location)
        assert len(server.requests) == 2


class TestClocks:
    """A suspended machine's monotonic clock stands still; its wall clock may be put forward and back."""

    async def test_a_figure_ends_while_the_machine_is_suspended(self) -> None:
        clock = shortly_past_noon()
        with serving(json_answer(ANSWER)) as server:
            location, component = live(server.url, clock)
            async with location:
                server.respond = status(503)
                for slept, shown in ((HOUR, (42.5, LAST_KNOWN)), (23 * HOUR, (AVERAGE[0], FILE))):
                    clock.step_wall(slept)
                    await location.get_latest_co2g_kwh()
                    await until_asked(location)
                    assert (await location.get_latest_co2g_kwh(), location.co2g_kwh_source) == shown
                    assert component.state is ComponentState.DEGRADED

    async def test_a_wall_clock_that_is_put_back_lengthens_nothing(self) -> None:
        clock = shortly_past_noon()
        with serving(json_answer(ANSWER)) as server:
            location, _ = live(server.url, clock)
            await location.get_latest_co2g_kwh()
            server.respond = status(503)
            clock.step_wall(-48 * HOUR)
            for seconds, requests, source in ((HOUR - 1, 1, LIVE), (1, 2, LAST_KNOWN), (23 * HOUR, 3, FILE)):
                clock.elapse(seconds)
                await location.get_latest_co2g_kwh()
                assert (len(server.requests), location.co2g_kwh_source) == (requests, source)

    @pytest.mark.parametrize("respond", [json_answer(ANSWER | {"datetime": None}), status(503)], ids=["good", "bad"])
    async def test_a_wall_clock_that_is_put_forward_costs_one_request(self, respond: Respond) -> None:
        clock = shortly_past_noon()
        with serving(respond) as server:
            location, _ = live(server.url, clock)
            for step in (0.0, 48 * HOUR, -48 * HOUR, 48 * HOUR):
                clock.step_wall(step)
                for _ in range(5):
                    await location.get_latest_co2g_kwh()
        assert len(server.requests) == 2


class TestRetryAfter:
    @pytest.mark.parametrize("is_date", [False, True])
    async def test_a_service_that_asks_to_be_left_alone_is(self, is_date: bool) -> None:
        """Of a date, what is left of it: as good as ten minutes here, and never less than nine."""
        wish = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True) if is_date else "600"
        clock = shortly_past_noon()
        with serving(lambda handler: handler.answer(b"", 429, Retry_After=wish)) as server:
            location, _ = live(server.url, clock)
            for seconds, requests in ((0, 1), (61, 1), (480, 1), (60, 2)):
                clock.elapse(seconds)
                await location.get_latest_co2g_kwh()
                assert len(server.requests) == requests

    @pytest.mark.parametrize("wish", ["-5", "soon", "1e9", "", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
    async def test_nonsense_and_too_much_are_not_heeded(self, wish: str) -> None:
        clock = shortly_past_noon()
        with serving(lambda handler: handler.answer(b"", 503, Retry_After=wish)) as server:
            location, _ = live(server.url, clock)
            await location.get_latest_co2g_kwh()
            clock.elapse(HOUR)
            await location.get_latest_co2g_kwh()
            assert len(server.requests) == 2


async def test_a_simulated_day_at_a_tick_a_second_is_24_requests() -> None:
    clock = shortly_past_noon()
    with serving(json_answer(ANSWER)) as server:
        location, _ = live(server.url, clock)
        async with location:
            for second in range(86_400):
                if second % 3600 == 0:
                    await location.get_latest_co2g_kwh()
                    await until_asked(location)
                await location.get_latest_co2g_kwh()
                clock.elapse(1)
    assert len(server.requests) == 24


class TestElectricityMaps:
    def test_the_address_has_the_kind_of_factor(self) -> None:
        assert "emissionFactorType=direct&" in live_address(None, "fr", "direct")

    async def test_what_is_asked(self) -> None:
        with serving(json_answer(ANSWER | {"isEstimated": True, "emissionFactorType": "direct"})) as server:
            location, _ = live(server.url, shortly_past_noon())
            await location.get_latest_co2g_kwh()
        [(path, headers)] = server.requests
        assert (path, headers["auth-token"]) == ("/?zone=FR", KEY)
        assert location.co2g_kwh_kind == "live direct, estimated"
        assert KEY not in f"{location!r} {vars(location)}"

    def test_zone_and_key_are_required(self) -> None:
        with pytest.raises(ValidationError, match="api_key"):
            ElectricityMaps.Options(zone="FR")  # type: ignore[call-arg]

    @pytest.mark.parametrize(("minutes", "lasts"), [(5, 3600), (20, 2700), (64, 60), (65, 3600), (-5, 600)])
    def test_the_next_request_is_shortly_after_the_hour(self, minutes: int, lasts: float) -> None:
        """Of the answer, however late it is: one an hour."""
        figure = figure_in(ANSWER, "FR", NOON + 60.0 * minutes)
        assert figure.lasts_seconds == pytest.approx(lasts)

    def test_an_answer_of_long_ago_is_none(self) -> None:
        with pytest.raises(TracarbonException, match="2026-05-01 12:00, more than a day ago"):
            figure_in(ANSWER, "FR", NOON + 86_401.0)

    @given(st.floats(-1e9, 86_400.0))
    def test_it_is_never_longer_than_an_hour(self, seconds: float) -> None:
        assert 0 <= figure_in(ANSWER, "FR", NOON + seconds).lasts_seconds <= HOUR


HALF_HOUR = {
    "from": "2026-05-01T12:00Z",
    "to": "2026-05-01T12:30Z",
    "intensity": {"forecast": 266, "actual": 263, "index": "moderate"},
}


class TestGreatBritain:
    async def test_the_actual_figure_and_the_forecast_while_there_is_none(self) -> None:
        open_half_hour = HALF_HOUR | {"intensity": {"forecast": 270, "actual": None, "index": "moderate"}}
        clock = ManualClock(wall=NOON + 60.0)
        with serving(json_answer({"data": [HALF_HOUR]})) as server:
            context = PluginContext("location", clock=clock)
            location = GreatBritain.from_options(GreatBritain.Options(url=server.url), context)
            assert await location.get_latest_co2g_kwh() == 263
            assert (location.name, location.co2g_kwh_kind) == ("gb", "live actual")
            assert location.co2g_kwh_source is CarbonIntensitySource.GREAT_BRITAIN
            server.respond = json_answer({"data": [open_half_hour]})
            clock.elapse(1799)
            assert await location.get_latest_co2g_kwh() == 263
            clock.elapse(1)
            assert await location.get_latest_co2g_kwh() == 270
            assert (location.co2g_kwh_kind, location.co2g_kwh_date) == ("live forecast", "2026-05-01T12:00Z")
        assert len(server.requests) == 2
        assert "auth-token" not in server.requests[0][1]

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"data": []},
            {"data": None},
            {"data": {}},
            {"data": [None]},
            {"data": [{"intensity": None}]},
            {"data": [{"intensity": {"actual": None, "forecast": None}}]},
            {"data": [{"intensity": {"actual": -1}}]},
            {"data": [{"intensity": {"actual": "266"}}]},
        ],
    )
    def test_an_answer_without_a_figure(self, answer: Mapping[str, Any]) -> None:
        with pytest.raises(TracarbonException, match="no carbon intensity"):
            british_figure_in(answer, NOON)

    def test_it_says_what_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        context = PluginContext("location")
        monkeypatch.setattr(module, "system_time_zone", lambda: "Europe/Paris")
        assert "not known to be in Great Britain: FR" in GreatBritain.probe(context).reason
        monkeypatch.setattr(module, "system_time_zone", lambda: "Europe/London")
        assert GreatBritain.probe(context).works
        monkeypatch.setattr("tracarbon.locations.great_britain.find_spec", lambda name: None)
        assert GreatBritain.probe(context).remedy == "pip install 'tracarbon-core[live]'"

    @pytest.mark.parametrize("respond", [hang, status(500), json_answer({"data": []})], ids=["hang", "500", "nothing"])
    async def test_it_falls_back_on_the_yearly_average(self, respond: Respond, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tracarbon.locations._http.TOTAL_SECONDS", 0.2)
        with serving(respond) as server:
            location = GreatBritain(url=server.url)
            assert await location.get_latest_co2g_kwh() > 0
        assert (location.co2g_kwh_source, location.co2g_kwh_kind) == (FILE, "yearly average")


class TestStatic:
    async def test_what_is_given_is_what_is_used(self) -> None:
        options = StaticLocation.Options(co2g_per_kwh=12.5, note="contract 2026", name="site-1")
        location = StaticLocation.from_options(options, PluginContext("location"))
        async with location:
            assert await location.get_latest_co2g_kwh() == 12.5
        assert (location.name, location.co2g_kwh_kind) == ("site-1", "contract 2026")
        assert location.co2g_kwh_source is CarbonIntensitySource.STATIC

    @pytest.mark.parametrize("options", [{"co2g_per_kwh": -1.0, "note": "x"}, {"co2g_per_kwh": 1.0}, {"note": "x"}])
    def test_what_makes_no_sense(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            StaticLocation.Options(**options)


class TestByAddress:
    @pytest.fixture(autouse=True)
    def _context(self) -> Iterator[None]:
        self.context = PluginContext("location")
        yield
        self.context.close()

    def country(self, **options: Any) -> Country:
        return Country.from_options(Country.Options(detect="ip", **options), self.context)

    async def test_the_service_is_asked_when_the_user_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(json_answer({"country": "DE"})) as server:
            monkeypatch.setattr(module, "_WHERE_AM_I", server.url)
            location = self.country(ipinfo_token="T0KEN")
            assert server.requests == []
            async with location:
                assert (location.name, location.detected_by) == ("de", "ip")
        assert [headers["Authorization"] for _, headers in server.requests] == ["Bearer T0KEN"]
        assert "T0KEN" not in f"{location!r} {vars(location)}"

    async def test_a_country_that_is_given_is_not_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(json_answer({"country": "DE"})) as server:
            monkeypatch.setattr(module, "_WHERE_AM_I", server.url)
            async with self.country(country="FR") as location:
                assert location.name == "fr"
        assert server.requests == []

    async def test_a_country_without_a_figure_leaves_it_to_the_time_zone(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(module, "system_time_zone", lambda: "Europe/Vaduz")
        with serving(json_answer({"country": "LI"})) as server:
            monkeypatch.setattr(module, "_WHERE_AM_I", server.url)
            async with self.country() as location:
                assert (location.name, location.detected_by) == ("world", "nothing")
        assert "no carbon intensity is known for 'li', the country of this address" in caplog.text
        assert "the country of the time zone Europe/Vaduz" in caplog.text

    async def test_no_answer_leaves_it_to_the_time_zone(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(module, "_WHERE_AM_I", refused_address())
        monkeypatch.setattr(module, "system_time_zone", lambda: "Europe/Paris")
        async with self.country() as location:
            assert (location.name, location.detected_by) == ("fr", "time zone Europe/Paris")
        assert "the time zone is asked instead" in caplog.text
