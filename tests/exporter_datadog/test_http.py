"""To the HTTP API: what is posted, and what becomes of a batch whatever the API answers, or does not."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tracarbon.exceptions import (
    DeliveryUnknown,
    ExportError,
    PermanentExportError,
    RetryableExportError,
    TracarbonException,
)
from tracarbon.metrics import Batch, Window
from tracarbon.testing import SleeplessClock
from tracarbon_exporter_datadog import DatadogExporter, _intake
from tracarbon_exporter_datadog._intake import Verdict, verdict_on

from tests.exporter_datadog.batches import (
    GRAMS,
    HOST,
    JOULES,
    WALL,
    batch,
    exporter,
    joules,
    pods,
    record,
    usual,
    window,
)
from tests.exporter_datadog.receivers import APP_KEY, KEY, Fault, Intake, intake

FIRST = int(WALL) + 3
"""The first second that an exporter uses that begins at `WALL`."""


@pytest.fixture
def api() -> Iterator[Intake]:
    with intake() as receiver:
        yield receiver
        assert receiver.problems == []
        assert all(before == after for before, after in receiver.overwritten)


def to(
    api: Intake, clock: SleeplessClock | None = None, **options: Any
) -> AbstractAsyncContextManager[DatadogExporter]:
    return exporter(clock, **{"api_key": KEY, "api_url": api.url, "hostname": "here", **options})


async def refused(sender: DatadogExporter, what: Any) -> ExportError:
    with pytest.raises(ExportError) as caught:
        await sender.export(what)
    return caught.value


async def until_it_hangs(api: Intake) -> None:
    """Wait until the intake has a request, and says nothing."""
    with anyio.fail_after(60):
        while not api.hanging:
            await anyio.sleep(0.001)


async def refused_once_it_hangs(
    api: Intake, sender: DatadogExporter, what: Any, monkeypatch: pytest.MonkeyPatch
) -> ExportError:
    """Let the patience with an answer be over just when the intake has the request, however busy the machine is."""
    scopes: list[anyio.CancelScope] = []
    fail_after = anyio.fail_after

    @contextmanager
    def noted(seconds: float | None) -> Iterator[anyio.CancelScope]:
        with fail_after(seconds) as scope:
            scopes.append(scope)
            yield scope

    async def end_patience() -> None:
        await until_it_hangs(api)
        scopes[0].deadline = anyio.current_time()

    with monkeypatch.context() as patch:
        async with anyio.create_task_group() as group:
            group.start_soon(end_patience)
            await anyio.lowlevel.checkpoint()
            patch.setattr(anyio, "fail_after", noted)
            return await refused(sender, what)
    raise AssertionError


async def test_rates_amounts_and_levels(api: Intake) -> None:
    async with to(api, app_key=APP_KEY) as sender:
        await sender.export(usual(grams=0.1 + 0.2))
    assert {series["metric"]: series for series in api.series} == {
        HOST: expected(HOST, 40.0),
        JOULES: expected(JOULES, 400.0, 10),
        GRAMS: expected(GRAMS, 0.1 + 0.2, 10),
        "tracarbon.pods": expected("tracarbon.pods", 3.0),
    }
    assert api.requests == 1
    assert api.headers["DD-APPLICATION-KEY"] == APP_KEY


def expected(name: str, value: float, interval: int = 0) -> dict[str, Any]:
    return {
        "metric": name,
        "type": 1 if interval else 3,
        "points": [{"timestamp": FIRST, "value": value}],
        "tags": ["platform:Linux"],
        "resources": [{"type": "host", "name": "here"}],
        **({"interval": interval} if interval else {}),
    }


@pytest.mark.parametrize("status", [301, 401, 403, 404, 408, 413, 429, 503])
async def test_refused_for_now(api: Intake, status: int) -> None:
    """All of it goes back, to be merged; nothing has arrived."""
    async with to(api) as sender:
        api.standing = status
        error = await refused(sender, usual(0))
        assert isinstance(error, RetryableExportError)
        assert error.remaining is not None
        assert error.remaining.records == usual(0).records
        assert f"HTTP {status}" in str(error)
        api.standing = None
        await sender.export(error.remaining.merged_with(usual(1), 100))
    assert api.total(JOULES) == 800.0
    assert len(api.series) == 4


@pytest.mark.parametrize(("variable", "value"), [("HTTPS_PROXY", "ftp://x"), ("SSL_CERT_FILE", "/")])
async def test_an_environment_that_is_of_no_use(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TracarbonException, match="proxies or certificates") as caught:
        async with exporter(api_key=SecretStr(KEY)):
            pass
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert KEY not in "".join(shown)


@pytest.mark.parametrize("status", [200, 500, 502, 504, 520])
async def test_answers_after_which_it_may_have_arrived(api: Intake, status: int) -> None:
    async with to(api) as sender:
        same = usual()
        api.faults = ["lie" if status == 200 else status]
        assert isinstance(await refused(sender, same), DeliveryUnknown)
        await sender.export(same)
    assert api.total(JOULES) == 400.0


@pytest.mark.parametrize("status", [400, 415, 422])
async def test_refused_for_good(api: Intake, status: int) -> None:
    async with to(api) as sender:
        api.standing = status
        error = await refused(sender, usual())
        assert isinstance(error, PermanentExportError)
        assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(("status", "seconds"), [(429, 7.0), (503, 3.0), (403, None)])
async def test_how_long_the_api_wants_to_be_left_alone(api: Intake, status: int, seconds: float | None) -> None:
    async with to(api) as sender:
        api.standing = status
        error = await refused(sender, usual())
    assert isinstance(error, RetryableExportError)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize("fault", ["vanish", "hang"])
async def test_a_202_that_never_arrived(api: Intake, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batch is posted again with the same time, and counts once."""
    clock = SleeplessClock(wall=WALL)
    async with to(api, clock) as sender:
        same = usual()
        api.faults = [fault, 503]
        if fault == "hang":
            assert isinstance(await refused_once_it_hangs(api, sender, same, monkeypatch), DeliveryUnknown)
        else:
            assert isinstance(await refused(sender, same), DeliveryUnknown)
        clock.elapse(100.0)
        assert isinstance(await refused(sender, same), DeliveryUnknown), "the first one may still have arrived"
        await sender.export(same)
        await sender.export(usual(1))
    assert api.total(JOULES) == 800.0
    assert len(api.overwritten) == 4


async def test_one_that_stays_unknown_for_an_hour_gets_a_new_time(api: Intake) -> None:
    """Datadog would leave it out otherwise, without a word."""
    clock = SleeplessClock(wall=WALL)
    async with to(api, clock) as sender:
        same = usual()
        api.faults = ["hang up"]
        assert isinstance(await refused(sender, same), DeliveryUnknown)
        clock.elapse(3700.0)
        await sender.export(same)
    assert {second for _, _, second in api.kept} == {FIRST + 3700 - 2}


async def test_one_that_stays_unknown_while_the_clock_is_put_back_gets_a_new_time(api: Intake) -> None:
    clock = SleeplessClock(wall=WALL)
    async with to(api, clock) as sender:
        same = usual()
        api.faults = ["hang up"]
        assert isinstance(await refused(sender, same), DeliveryUnknown)
        clock.step_wall(-7200.0)
        await sender.export(same)
    assert {second for _, _, second in api.kept} == {int(clock.time())}


async def test_a_batch_that_waited_for_an_hour_is_of_now(api: Intake) -> None:
    clock = SleeplessClock(wall=WALL)
    clock.elapse(7200.0)
    async with to(api, clock) as sender:
        await sender.export(usual())
    assert {second for _, _, second in api.kept} == {FIRST + 7200}


async def test_nobody_listens() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        async with exporter(api_key=KEY, api_url=f"http://127.0.0.1:{unused.getsockname()[1]}") as sender:
            error = await refused(sender, usual())
    assert isinstance(error, RetryableExportError)
    assert "no connection" in str(error)


async def test_windows_that_end_in_one_second(api: Intake) -> None:
    """Datadog keeps one value for a series and second: each has one of its own."""
    async with to(api) as sender:
        for watts in (10.0, 20.0, 30.0):
            await sender.export(usual(0, watts))
    assert api.total(JOULES) == 600.0
    assert sorted({second for _, _, second in api.kept}) == [FIRST, FIRST + 1, FIRST + 2]


async def test_tries_that_were_refused_use_up_no_seconds(api: Intake) -> None:
    clock = SleeplessClock(wall=WALL)
    async with to(api, clock) as sender:
        api.standing = 403
        for _ in range(9):
            assert isinstance(await refused(sender, usual()), RetryableExportError)
        assert clock.time() == FIRST - 2
        api.standing = None
        await sender.export(usual())
    assert {second for _, _, second in api.kept} == {FIRST}


async def test_generators_of_one_window_share_a_second(api: Intake) -> None:
    async with to(api) as sender:
        await sender.export(batch(record()))
        await sender.export(batch(record(1.0, "carbon_emission_host", "co2g", generator="carbon"), generator="carbon"))
    assert {second for _, _, second in api.kept} == {FIRST}


async def test_windows_shorter_than_a_second_wait_for_time_to_pass(api: Intake) -> None:
    clock = SleeplessClock(wall=WALL)
    async with to(api, clock) as sender:
        for _ in range(31):
            await sender.export(batch(record()))
    assert max(second for _, _, second in api.kept) == FIRST + 30
    assert clock.time() == FIRST + 30 - 2


@given(st.lists(st.lists(st.floats(0, 3), max_size=4), min_size=1, max_size=6), st.floats(0, 1))
@settings(max_examples=30)
def test_processes_one_after_the_other(lives: list[list[float]], fraction: float) -> None:
    """None uses a second of an earlier one, however soon after it that begins: nothing is overwritten."""
    clock = SleeplessClock(wall=WALL + fraction)

    async def live(pauses: list[float]) -> None:
        async with to(api, clock) as sender:
            for pause in pauses:
                clock.elapse(pause)
                now = clock.time()
                await sender.export(Batch.of_window("energy", Window(0.0, 10.0, now - 10.0, now), [record()]))

    with intake() as api:
        for pauses in lives:
            anyio.run(live, pauses)
        assert not api.problems
        assert not api.overwritten
    assert api.total(JOULES) == sum(map(len, lives)) * 400.0


async def test_a_large_batch_is_several_requests(api: Intake) -> None:
    many = pods(5000, node="n" * 150, namespace="s" * 150)
    async with to(api) as sender:
        await sender.export(many)
    assert api.requests > 1
    assert api.total(JOULES) == joules([many])


async def test_a_batch_that_does_not_compress(api: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_intake, "MOST_BYTES", 3000)
    api.most_bytes = 3000
    async with to(api) as sender:
        await sender.export(pods(1000))
    assert api.requests > 3
    assert api.too_large == 0
    assert api.total(JOULES) == joules([pods(1000)])


async def test_one_that_is_too_large_by_itself_does_not_hold_up_the_others(api: Intake) -> None:
    api.unwanted = b"tracarbon.carbon_emission_host"
    async with to(api) as sender:
        error = await refused(sender, usual())
        assert isinstance(error, RetryableExportError)
        assert "413" in str(error)
        assert error.remaining is not None
        assert [item.name for item in error.remaining] == ["carbon_emission_host"]
        assert (api.total(JOULES), api.total("tracarbon.pods")) == (400.0, 3.0)
        api.unwanted = b"series"
        before = api.requests
        assert isinstance(await refused(sender, pods(1000, 1)), RetryableExportError)
        assert api.requests - before < 30, "it is not asked for each one"


async def test_an_intake_that_takes_less_than_datadog(api: Intake) -> None:
    """413 is answered by smaller requests, at once, and larger ones are tried again later."""
    api.most_bytes = 3000
    async with to(api) as sender:
        await sender.export(pods(1000, 0))
        api.most_bytes = 512_000
        before = api.requests
        for number in range(1, 9):
            await sender.export(pods(1000, number))
        assert api.requests - before < 60
        before = api.requests
        await sender.export(pods(1000, 9))
        assert api.requests - before == 1
    assert api.total(JOULES) == joules([pods(1000)] * 10)


@pytest.mark.parametrize("fault", [403, 429, 500, 503, "vanish", "hang up"])
async def test_what_was_accepted_of_a_batch_is_not_posted_again(
    api: Intake, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_intake, "MOST_PLAIN_BYTES", 20_000)
    async with to(api) as sender:
        sent = pods(300)
        api.faults = [None, None, fault]
        error = await refused(sender, sent)
        accepted = api.total(JOULES)
        assert 0 < accepted < joules([sent])
        before = len(api.series)
        if isinstance(error, RetryableExportError):
            assert error.remaining is not None
            assert accepted + joules([error.remaining]) == joules([sent])
            await sender.export(error.remaining.merged_with(pods(300, 1), 1000))
            assert api.total(JOULES) == 2 * joules([sent])
        else:
            await sender.export(sent)
            assert api.total(JOULES) == joules([sent])
            assert len(api.series) <= (before if fault == "vanish" else 600) + 600
    assert len(api.overwritten) < 200


async def test_a_part_refused_for_good_is_dropped_and_the_rest_arrives(
    api: Intake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_intake, "MOST_PLAIN_BYTES", 20_000)
    async with to(api) as sender:
        api.faults = [400]
        await sender.export(pods(300))
        dropped = sender._context.component.dropped_records
    assert 0 < dropped < 100
    assert len(api.series) == 2 * (300 - dropped)
    assert "energy_consumption_host is dropped: HTTP 400 Bad Request" in caplog.text


async def test_an_export_that_was_cancelled_goes_on_where_it_was(api: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's patience is over; it offers the same batch again."""
    monkeypatch.setattr(_intake, "MOST_PLAIN_BYTES", 20_000)
    async with to(api) as sender:
        sent = pods(300)
        api.faults = [None, "hang"]
        async with anyio.create_task_group() as group:
            group.start_soon(sender.export, sent)
            await until_it_hangs(api)
            group.cancel_scope.cancel()
        first = len(api.series)
        await sender.export(sent)
        assert api.total(JOULES) == joules([sent])
        assert 0 < len(api.overwritten) < first


async def test_a_hanging_api_holds_nobody_up(api: Intake) -> None:
    """An export that held up the event loop would end, and fail, before anybody else has a turn."""
    async with to(api) as sender:
        api.standing = "hang"
        async with anyio.create_task_group() as group:
            group.start_soon(sender.export, usual())
            await until_it_hangs(api)
            for _ in range(20):
                await anyio.sleep(0.005)
            group.cancel_scope.cancel()


@pytest.mark.parametrize("fault", [400, 403, 413, 429, 500, "vanish", "hang up", "lie"])
async def test_keys_are_in_no_traceback(
    api: Intake, fault: Fault, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG")
    async with to(api, app_key=APP_KEY) as sender:
        api.standing = fault
        error = await refused(sender, usual())
        shown = [
            repr(sender),
            repr(vars(sender)),
            *traceback.TracebackException.from_exception(error, capture_locals=True).format(),
        ]
        assert error.__context__ is None
    for key in (KEY, APP_KEY):
        assert key not in "".join(shown)
        assert key not in caplog.text


async def test_a_redirection_is_not_followed() -> None:
    """The keys stay where they belong."""
    with intake() as elsewhere, intake() as api:
        api.standing = 307
        async with to(api) as sender:
            assert isinstance(await refused(sender, usual()), RetryableExportError)
        assert elsewhere.requests == 0


async def test_unencrypted_to_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with exporter(api_key=KEY, api_url="http://datadog.invalid"):
        pass
    assert "the key crosses the network readably" in caplog.text


def test_only_202_is_delivery() -> None:
    assert [status for status in range(100, 600) if verdict_on(status) is Verdict.ACCEPTED] == [202]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("0", None),
        ("-5", None),
        ("1e999", None),
        ("nan", None),
        ("99999999", 3600.0),
        ("", None),
        ("x", None),
    ],
)
def test_wishes(text: str, seconds: float | None) -> None:
    assert _intake._seconds(text) == seconds


def test_a_wish_that_is_a_date() -> None:
    assert _intake._seconds("Fri, 31 Dec 2100 23:59:59 GMT") == 3600.0
    assert _intake._seconds("Fri, 31 Dec 1999 23:59:59 GMT") is None


async def test_the_window_of_a_merged_batch_is_the_interval_of_its_counts(api: Intake) -> None:
    async with to(api) as sender:
        await sender.export(usual(0).merged_with(usual(1), 100))
    assert api.intervals == {JOULES: [20], GRAMS: [20]}
    assert {second for _, _, second in api.kept} == {int(window(1).ended_at)}
    assert json.loads(json.dumps(api.values)) == [list(item) for item in api.values]
