"""The location `country` with a live intensity, over a real server with faults, and a clock that is turned by hand."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from tracarbon._worker import current_loop_caller
from tracarbon.exceptions import CO2SignalAPIKeyIsMissing, CountryIsMissing, TracarbonException
from tracarbon.locations import _answers, _http
from tracarbon.locations import country as module
from tracarbon.locations._answers import figure_in, live_address
from tracarbon.locations._current import over_https
from tracarbon.locations._intensity import Figure, find_factor
from tracarbon.locations.country import Country
from tracarbon.locations.location import CarbonIntensitySource
from tracarbon.testing import ManualClock

from tests.core.test_location_request import FAULTS, KEY, everything_shown, refused_address
from tests.support.web_server import Handler, Respond, Server, hang, json_answer, serving, status

pytestmark = pytest.mark.anyio

LIVE, FILE, LAST_KNOWN = (
    CarbonIntensitySource.CO2SignalAPI,
    CarbonIntensitySource.FILE,
    CarbonIntensitySource.LAST_KNOWN,
)
ANSWER: dict[str, Any] = {
    "zone": "FR",
    "carbonIntensity": 42.5,
    "datetime": "2026-05-01T12:00:00.000Z",
    "emissionFactorType": "lifecycle",
}
OF_FRANCE = find_factor("fr")
assert OF_FRANCE is not None
AVERAGE = (OF_FRANCE.co2g_per_kwh, FILE, "yearly average", str(OF_FRANCE.year))

NO_FIGURE = {
    "null": {"carbonIntensity": None},
    "negative": {"carbonIntensity": -5.0},
    "true": {"carbonIntensity": True},
    "text": {"carbonIntensity": "42"},
    "nothing": {},
    "endless": {"carbonIntensity": 10**400},
    "another zone": ANSWER | {"zone": "DE"},
    "another zone below": {"data": {"carbonIntensity": 1, "countryCode": "DE"}},
    "a zone that is no text": ANSWER | {"zone": 5},
}
# the other faults of a request are told apart by its own tests alone
SOME_FAULTS = ("401", "429", "500", "garbage", "NaN", "list", "closed in the middle", "huge", "hang")
FAULTY: dict[str, Respond] = {name: FAULTS[name][0] for name in SOME_FAULTS} | {
    name: json_answer(answer) for name, answer in NO_FIGURE.items()
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "TOTAL_SECONDS", 60.0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


NOON = datetime.fromisoformat(ANSWER["datetime"]).timestamp()


def france(url: str, clock: Callable[[], float] = lambda: 0.0, name: str = "FR", co2g_kwh: float = 0.0) -> Country:
    """The wall clock shows five minutes past the answer's hour when it is made."""
    start = clock()
    return Country(
        name=name,
        co2g_kwh=co2g_kwh,
        co2g_kwh_source=LIVE,
        co2signal_api_key=KEY,
        co2signal_url=f"{url}/latest?countryCode=",
        clock=clock,
        wall_clock=lambda: NOON + 300.0 + clock() - start,
    )


def shown(location: Country) -> tuple[float, CarbonIntensitySource, str, str]:
    return location.co2g_kwh, location.co2g_kwh_source, location.co2g_kwh_kind, location.co2g_kwh_date


def in_parallel(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def time_out_once_heard(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request time out when the service has heard of it, and neither before nor long after."""
    time_outs: SimpleQueue[Callable[[], None]] = SimpleQueue()

    @contextmanager
    def fail_after(_: float) -> Iterator[None]:
        with anyio.CancelScope() as scope:
            call_in_loop = current_loop_caller()
            time_outs.put(lambda: call_in_loop(scope.cancel))
            yield
        if scope.cancelled_caught:
            raise TimeoutError

    def respond(handler: Handler) -> None:
        time_outs.get()()
        hang(handler)

    monkeypatch.setattr(_http, "anyio", SimpleNamespace(**{**vars(anyio), "fail_after": fail_after}))
    server.respond = respond


async def until_waiting(location: Country, count: int) -> None:
    assert location._feed is not None
    while len(location._feed._waiting) < count:
        await checkpoint()


async def test_one_request_an_hour() -> None:
    clock = ManualClock()
    with serving(json_answer(ANSWER)) as server:
        location = france(server.url, clock.monotonic)
        for seconds in (0, 1800, 1799):
            clock.elapse(seconds)
            assert await location.get_latest_co2g_kwh() == 42.5
        assert shown(location) == (42.5, LIVE, "live lifecycle", "2026-05-01T12:00:00.000Z")
        assert len(server.requests) == 1
        server.respond = json_answer({"data": {"carbonIntensity": 0, "datetime": "nonsense"}, "countryCode": "fr"})
        clock.elapse(1)
        assert await location.get_latest_co2g_kwh() == 0
        assert shown(location) == (0.0, LIVE, "live", "")
        assert (location.name, location.detected_by) == ("fr", "setting")
    assert [(path, headers["auth-token"]) for path, headers in server.requests] == [("/latest?countryCode=FR", KEY)] * 2


async def test_callers_share_the_request_in_flight() -> None:
    gate = threading.Event()

    def respond(handler: Handler) -> None:
        gate.wait(60)
        json_answer(ANSWER)(handler)

    values: list[float] = []
    with serving(respond) as server:
        location = france(server.url)

        async def ask(scope: anyio.CancelScope | None = None) -> None:
            with scope or anyio.CancelScope():
                values.append(await location.get_latest_co2g_kwh())

        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()
            tasks.start_soon(ask, first)
            await until_waiting(location, 1)
            for _ in range(4):
                tasks.start_soon(ask)
            await until_waiting(location, 5)
            first.cancel()
            gate.set()
    assert values == [42.5] * 4
    assert len(server.requests) == 1


def test_one_location_in_several_event_loops() -> None:
    clock = ManualClock()
    with serving(json_answer(ANSWER)) as server:
        location = france(server.url, clock.monotonic)
        values: list[float] = []

        def ask(backend: str) -> None:
            values.append(anyio.run(location.get_latest_co2g_kwh, backend=backend))

        in_parallel([threading.Thread(target=ask, args=(backend,)) for backend in ("asyncio", "trio") * 4])
        assert len(server.requests) == 1
        clock.elapse(3600)
        for backend in ("asyncio", "trio"):
            ask(backend)
    assert values == [42.5] * 10
    assert len(server.requests) == 2


async def test_a_caller_that_leaves_early_does_not_keep_the_fallback_from_the_next() -> None:
    gate = threading.Event()

    def fail_late(handler: Handler) -> None:
        gate.wait(60)
        status(500)(handler)

    with serving(fail_late) as server:
        location = france(server.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(location.get_latest_co2g_kwh)
            await until_waiting(location, 1)
            tasks.cancel_scope.cancel()
        gate.set()
        assert await location.get_latest_co2g_kwh() == AVERAGE[0]
        assert await location.get_latest_co2g_kwh() == AVERAGE[0]
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", FAULTY)
async def test_a_fault_falls_back_and_is_tried_again(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tracarbon")
    clock = ManualClock()
    with serving(FAULTY[name]) as server:
        if name == "hang":
            time_out_once_heard(server, monkeypatch)
        location = france(server.url, clock.monotonic)
        for seconds in (0, 59, 1, 60):
            clock.elapse(seconds)
            assert await location.get_latest_co2g_kwh() == AVERAGE[0]
            assert shown(location) == AVERAGE
        assert [path for path, _ in server.requests] == ["/latest?countryCode=FR"] * 3
        [warning] = [record for record in caplog.records if record.name == "tracarbon"]
        assert warning.levelno == logging.WARNING
        assert "no live carbon intensity of FR: " in warning.getMessage()
        assert KEY not in caplog.text

        server.respond = json_answer(ANSWER)
        clock.elapse(60)
        assert await location.get_latest_co2g_kwh() == 42.5
        assert shown(location)[1:3] == (LIVE, "live lifecycle")
        assert [record.levelno for record in caplog.records if record.name == "tracarbon"][1:] == [logging.INFO]


async def test_the_last_figure_holds_for_a_day() -> None:
    clock = ManualClock()
    with serving(json_answer(ANSWER)) as server:
        location = france(server.url, clock.monotonic)
        await location.get_latest_co2g_kwh()
        server.respond = status(503)
        for seconds in (3600, 82_799):
            clock.elapse(seconds)
            await location.get_latest_co2g_kwh()
            assert shown(location) == (42.5, LAST_KNOWN, "live lifecycle", ANSWER["datetime"])
        clock.elapse(1)
        await location.get_latest_co2g_kwh()
        assert shown(location) == AVERAGE


async def test_nobody_listens_from_the_start() -> None:
    async with france(refused_address()) as location:
        assert await location.get_latest_co2g_kwh() == AVERAGE[0]


async def test_a_figure_that_was_given_is_the_fallback() -> None:
    with serving(status(500)) as server:
        location = france(server.url, co2g_kwh=12.5)
        assert await location.get_latest_co2g_kwh() == 12.5
        assert shown(location) == (12.5, FILE, "", "")
        assert len(server.requests) == 1


async def test_a_zone_of_no_country_that_is_known() -> None:
    clock = ManualClock()
    with serving(status(500)) as server:
        location = france(server.url, clock.monotonic, name="ZZ-TOP")
        with pytest.raises(TracarbonException, match=r"for 'ZZ-TOP': no live one \(GET .*HTTP 500"):
            await location.get_latest_co2g_kwh()
        server.respond = json_answer({"zone": "ZZ-TOP", "carbonIntensity": 200})
        clock.elapse(60)
        assert await location.get_latest_co2g_kwh() == 200
        assert location.name == "ZZ-TOP"


async def test_a_zone_that_is_a_part_of_a_country_falls_back_on_the_country() -> None:
    clock = ManualClock()
    whole = find_factor("us")
    assert whole is not None
    with serving(status(500)) as server:
        location = france(server.url, clock.monotonic, name="US-CAL-CISO")
        assert await location.get_latest_co2g_kwh() == whole.co2g_per_kwh
        assert shown(location) == (whole.co2g_per_kwh, FILE, "yearly average of us", str(whole.year))
        server.respond = json_answer({"zone": "US-CAL-CISO", "carbonIntensity": 200})
        clock.elapse(60)
        assert await location.get_latest_co2g_kwh() == 200
        assert location.name == "US-CAL-CISO"


async def test_the_world_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "system_time_zone", lambda: None)
    with serving(json_answer(ANSWER)) as server:
        async with france(server.url, name="") as location:
            assert await location.get_latest_co2g_kwh() == 473
            assert (location.name, location.detected_by, location.co2g_kwh_source) == ("world", "nothing", FILE)
    assert server.requests == []
    assert "the world's average carbon intensity is used" in caplog.text


async def test_the_country_of_the_time_zone_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "system_time_zone", lambda: "Europe/Paris")
    with serving(json_answer(ANSWER)) as server:
        location = Country.get_location(KEY, f"{server.url}/")
        assert (location.name, location.detected_by) == ("fr", "time zone Europe/Paris")
        assert (location.co2g_kwh_source, server.requests) == (LIVE, [])
        location.wall_clock = lambda: NOON
        assert await location.get_latest_co2g_kwh() == 42.5
    assert [path for path, _ in server.requests] == ["/FR"]


@pytest.mark.parametrize("key", [None, "", " "])
async def test_without_a_key_nothing_starts(key: str | None) -> None:
    location = Country(name="fr", co2g_kwh_source=LIVE, co2signal_api_key=key)
    with pytest.raises(CO2SignalAPIKeyIsMissing, match="TRACARBON_CO2SIGNAL_API_KEY"):
        await location.__aenter__()
    with pytest.raises(CO2SignalAPIKeyIsMissing):
        await location.get_latest_co2g_kwh()


async def test_without_httpx_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    location = Country(name="fr", co2g_kwh_source=LIVE, co2signal_api_key=KEY)
    for use in (location.__aenter__, location.get_latest_co2g_kwh):
        with pytest.raises(TracarbonException, match=r"tracarbon-core\[live\]"):
            await use()
    with pytest.raises(CountryIsMissing, match=r"tracarbon-core\[live\].*TRACARBON_COUNTRY"):
        Country.get_current_country()


async def test_an_unexpected_error_is_a_fault_without_its_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError(KEY)

    monkeypatch.setattr(Country, "request", broken)
    assert await france("http://127.0.0.1:1").get_latest_co2g_kwh() == AVERAGE[0]
    assert "RuntimeError" in caplog.text
    assert KEY not in caplog.text


async def test_a_loop_that_cannot_be_had_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_loop(ask: Callable[[], Awaitable[None]]) -> None:
        raise OSError("too many open files")

    location = france("http://127.0.0.1:1")
    monkeypatch.setattr(_http.anyio, "run", no_loop)
    assert await location.get_latest_co2g_kwh() == AVERAGE[0]


async def test_the_key_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(status(401)) as server:
        location = france(server.url, name="XX-1")
        with pytest.raises(TracarbonException) as caught:
            await location.get_latest_co2g_kwh()
    assert KEY not in f"{location!r} {location} {vars(location)} {caplog.text} {everything_shown(caught.value)}"


def test_the_address_of_the_service() -> None:
    current = (
        "https://api.electricitymaps.com/v4/carbon-intensity/latest"
        "?zone=FR&emissionFactorType=lifecycle&shouldUseFallbackCallerLookup=false"
    )
    for url in (None, "", "https://api.co2signal.com/v1/latest?countryCode=", "http://API.CO2signal.com"):
        assert live_address(url, "fr") == current
    assert live_address("http://127.0.0.1/v1?countryCode=", "fr") == "http://127.0.0.1/v1?countryCode=FR"
    assert live_address(None, "a&zone=b").split("&")[0].endswith("zone=A%26ZONE%3DB")
    assert live_address("http://[", "fr") == "http://[FR"


@pytest.mark.parametrize("url", [None, "https://api.co2signal.com/v1/latest?countryCode="])
async def test_electricity_maps_has_to_say_which_zone_it_is_about(
    url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may answer for another one without a word; a service of the user's own need not name any."""
    unnamed = {key: value for key, value in ANSWER.items() if key != "zone"}
    for answer, shown_kind in ((ANSWER, "live lifecycle"), (unnamed, "yearly average")):
        with serving(json_answer(answer)) as server:
            monkeypatch.setattr(_answers, "_ELECTRICITY_MAPS", f"{server.url}/{{zone}}/{{factor_type}}")
            location = Country.live("fr", KEY, url)
            location.wall_clock = lambda: NOON
            await location.get_latest_co2g_kwh()
            assert location.co2g_kwh_kind == shown_kind
            assert [path for path, _ in server.requests] == ["/FR/lifecycle"]
    with serving(json_answer(unnamed)) as server:
        assert await france(server.url).get_latest_co2g_kwh() == 42.5


async def test_the_default_service_is_asked_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hang) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        location = Country.get_location(co2signal_api_key=KEY, country_code_alpha_iso_2="FR")
        assert await location.get_latest_co2g_kwh() == AVERAGE[0]
    assert [path for path, _ in proxy.requests] == ["api.electricitymaps.com:443"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["data", "zone", "carbonIntensity", "datetime"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["data", "zone", "carbonIntensity", "datetime", "countryCode"]), JSON))
def test_an_answer_is_a_figure_or_an_error(answer: dict[str, object]) -> None:
    try:
        figure = figure_in(json.loads(json.dumps(answer)), "FR", NOON)
    except TracarbonException:
        return
    assert isinstance(figure, Figure)
    assert 0 <= figure.co2g_per_kwh < math.inf


async def test_the_country_of_the_address_is_asked_for_within_a_running_loop() -> None:
    with serving(json_answer({"country": "FR"})) as server:
        assert Country.get_current_country(server.url) == "fr"
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [{}, {"country": "France"}, {"country": 12}, {"country": None}, {"country": "é1"}])
def test_an_answer_without_a_country(answer: dict[str, object]) -> None:
    with (
        serving(json_answer(answer)) as server,
        pytest.raises(CountryIsMissing, match=r"/: the answer names no country\. Set country in \[location\], --count"),
    ):
        Country.get_current_country(f"{server.url}/?token=x")


def test_no_answer_for_the_country() -> None:
    with pytest.raises(CountryIsMissing, match=r"no connection: .*TRACARBON_COUNTRY") as caught:
        Country.get_current_country(refused_address())
    assert caught.value.__context__ is None
    with serving(hang) as server, pytest.raises(CountryIsMissing, match=r"no answer within 0\.2 s"):
        Country.get_current_country(server.url, timeout=0.2)


def test_ipinfo_is_asked_over_https(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hang) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(CountryIsMissing):
            Country.get_current_country()
    assert [path for path, _ in proxy.requests] == ["ipinfo.io:443"]
    assert over_https("http://ipinfo.io:80/json?token=x") == "https://ipinfo.io/json?token=x"
    for url in ("http://127.0.0.1/json", "https://ipinfo.io/json", "http://[", "http://ipinfo.io.example/"):
        assert over_https(url) == url


def test_a_simulated_day_is_25_requests_at_the_most() -> None:
    clock = ManualClock()

    async def day(location: Country) -> None:
        for _ in range(24 * 60):
            await location.get_latest_co2g_kwh()
            clock.elapse(60)

    with serving(json_answer(ANSWER)) as server:
        anyio.run(day, france(server.url, clock.monotonic))
        assert 24 <= len(server.requests) <= 25


def test_a_request_whose_thread_is_gone_is_sent_again() -> None:
    with serving(json_answer(ANSWER)) as server:
        location = france(server.url)
        feed = location._feed
        assert feed is not None

        async def ask() -> float:
            feed._is_asking = True  # as a forked child finds it
            feed._thread = threading.Thread()
            return await location.get_latest_co2g_kwh()

        assert anyio.run(ask) == 42.5
