"""What becomes of a batch: delivered once, merged, tried again, dropped, or handed on unchanged."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tracarbon._runner import back_off_seconds
from tracarbon._states import ComponentState
from tracarbon.exceptions import DeliveryUnknown, PermanentExportError, ReceiverGone, RetryableExportError
from tracarbon.metrics import Batch

from tests.support.fakes import MEMORY, Fault, RecordingExporter, Rig, Script, constant, hang, raising

HOST, GRAMS = "energy_consumption_host", "carbon_emission_host"
DOWN = raising(OSError("refused"))


def two_exporters(script: Script) -> tuple[Rig, RecordingExporter, RecordingExporter]:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    rig.carbon(rig.location())
    return rig, rig.exporter("bad", script=script), rig.exporter("good")


def assert_whole(exporter: RecordingExporter, joules: float) -> None:
    assert exporter.total(HOST) == pytest.approx(joules)
    assert exporter.total(GRAMS) == pytest.approx(joules)


def assert_undisturbed(rig: Rig, exporter: RecordingExporter, until: float) -> None:
    """It got each window when it was closed, in a batch of its own."""
    assert [at - rig.start for at in exporter.delivered_at] == pytest.approx([0.15, *range(10, int(until), 10), until])
    assert all(batch is attempt for batch, attempt in zip(exporter.delivered, exporter.attempts, strict=True))
    assert_whole(exporter, 10.0 * until)


@pytest.mark.parametrize("fault", [hang, DOWN], ids=["hangs", "raises"])
async def test_an_exporter_in_trouble_does_not_disturb_the_other(fault: Fault) -> None:
    """L30, L32, T14."""
    rig, bad, good = two_exporters(script=Script(then=fault))
    async with rig.running():
        await rig.to(95.0)
        assert rig.component("bad").state is ComponentState.FAILED
        assert rig.component("good").state is ComponentState.OK
    assert_undisturbed(rig, good, 95.0)
    assert bad.delivered == []


async def test_after_an_outage_one_merged_batch_has_the_whole_truth() -> None:
    rig, bad, good = two_exporters(script=Script([None, None], then=DOWN))
    async with rig.running():
        await rig.to(85.0)
        bad.script.then = None
        await rig.to(185.0)
        assert rig.component("bad").state is ComponentState.OK
    assert_whole(bad, 1850.0)
    assert_undisturbed(rig, good, 185.0)
    merged = bad.delivered[2]
    assert (merged.window.start - rig.start, merged.window.end - rig.start) == (
        10.0,
        140.0,
    )  # tried at 83 s and then at 143 s
    (host,) = [record for record in merged if record.name == HOST]
    assert [host.value, host.covered_seconds] == pytest.approx([10.0, 130.0])


async def test_back_off_doubles_up_to_a_minute_and_begins_anew_after_a_success() -> None:
    rig, bad, _ = two_exporters(script=Script([None, *[DOWN] * 9, None, DOWN]))
    async with rig.running():
        await rig.to(330.5)
    attempts = [at - rig.start for at in bad.attempted_at]
    assert attempts[:11] == pytest.approx([0.15, 10, 11, 13, 17, 25, 41, 73, 133, 193, 253])
    assert attempts[11:13] == pytest.approx([260, 261])
    assert [back_off_seconds(failures) for failures in (1, 2, 3, 7, 1000)] == [1.0, 2.0, 4.0, 60.0, 60.0]


async def test_a_receiver_that_asks_to_be_left_alone_is() -> None:
    busy = raising(RetryableExportError("429", retry_after_seconds=25.0))
    rig, bad, _ = two_exporters(script=Script([None, busy, busy]))
    async with rig.running():
        await rig.to(75.0)
    attempts = [at - rig.start for at in bad.attempted_at]
    assert attempts[:4] == pytest.approx([0.15, 10, 35, 60])
    assert_whole(bad, 750.0)


class Partial(RecordingExporter):
    """Takes the records that `takes` says, and gives back the others."""

    takes: Callable[[Batch], set[str]]

    async def export(self, batch: Batch) -> None:
        names = self.takes(batch)
        taken = {key: record for key, record in batch.records.items() if record.name in names}
        left = {key: record for key, record in batch.records.items() if key not in taken}
        self.delivered.append(Batch(taken, batch.windows, batch.window))
        if left:
            raise RetryableExportError("some", remaining=Batch(left, batch.windows, batch.window))


async def test_of_a_batch_that_was_delivered_in_part_the_rest_alone_is_tried_again() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    rig.carbon(rig.location())
    outage = {HOST}

    def takes(batch: Batch) -> set[str]:
        return {record.name for record in batch} - (outage if rig.clock.monotonic() < rig.start + 50 else set())

    exporter = Partial(clock=rig.clock, takes=takes)
    rig.pipeline.add_exporter(rig.pipeline.components.add("exporter", "partial"), exporter)
    async with rig.running():
        await rig.to(95.0)
    assert_whole(exporter, 950.0)
    assert len(exporter.records(GRAMS)) > len(exporter.records(HOST)) + 2


async def test_a_batch_that_the_receiver_will_never_take_is_dropped_counted_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig, bad, good = two_exporters(script=Script([None, raising(PermanentExportError("400 bad request"))]))
    async with rig.running():
        with caplog.at_level(logging.WARNING, "tracarbon"):
            await rig.to(15.0)
            assert (rig.component("bad").state, rig.component("bad").failures) == (ComponentState.FAILED, 1)
            await rig.to(35.0)
            assert rig.component("bad").state is ComponentState.OK
    assert [record.getMessage() for record in caplog.records] == [
        "exporter bad failed: 4 records (9.85 s, 0.02736 Wh) dropped: 400 bad request",
        "exporter bad works again",
    ]
    assert rig.component("bad").dropped_records == 4
    assert_whole(bad, 350.0 - 98.5)
    assert_undisturbed(rig, good, 35.0)
    assert [at - rig.start for at in bad.attempted_at] == pytest.approx([0.15, 10, 20, 30, 35])


@pytest.mark.parametrize("fault", [raising(DeliveryUnknown("connection lost")), hang], ids=["unknown", "time-out"])
async def test_a_batch_that_may_have_arrived_is_tried_again_unchanged_and_never_merged(fault: Fault) -> None:
    rig, bad, good = two_exporters(script=Script([None, *[fault] * 4]))
    async with rig.running():
        await rig.to(225.0)
    assert {id(batch) for batch in bad.attempts[1:6]} == {id(bad.attempts[1])}
    assert bad.attempts[1].window.seconds == pytest.approx(9.85)
    assert bad.attempts[6].window.start == bad.attempts[5].window.end
    assert_whole(bad, 2250.0)
    assert_undisturbed(rig, good, 225.0)


async def test_an_export_that_hangs_is_ended_after_its_time_out() -> None:
    rig, bad, _ = two_exporters(script=Script([None, hang]))
    async with rig.running():
        await rig.to(39.9)
        assert rig.component("bad").state is ComponentState.OK
        await rig.to(40.0)
        assert (rig.component("bad").state, rig.component("bad").reason) == (
            ComponentState.FAILED,
            "no answer within 30 s",
        )
        await rig.to(41.0)
        assert rig.component("bad").state is ComponentState.OK
    assert [at - rig.start for at in bad.attempted_at][:3] == pytest.approx([0.15, 10.0, 41.0])


async def test_an_exporter_that_raises_outside_its_verb_keeps_the_batch_in_flight() -> None:
    rig, bad, _ = two_exporters(script=Script([None, raising(SystemExit(1))]))
    async with rig.running():
        await rig.to(35.0)
    assert bad.attempts[1] is bad.attempts[2]
    assert (bad.entries, bad.exits) == (2, 2)
    assert_whole(bad, 350.0)


async def test_an_exporter_that_is_being_left_alone_at_the_stop_tries_once_more() -> None:
    """It was not entered yet, or let go of a moment ago."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    late = rig.exporter("late", optional=True, entering=Script([DOWN] * 4))
    odd = rig.exporter("odd", script=Script([None, raising(SystemExit(1))]))
    async with rig.running():
        await rig.to(10.2)
    for exporter in (late, odd):
        assert exporter.total(HOST) == pytest.approx(102.0)


async def test_an_exporter_that_cannot_be_entered_at_the_stop_is_given_up_and_its_loss_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    rig.exporter("late", optional=True, entering=Script(then=DOWN))
    async with rig.running():
        await rig.to(12.0)
        await rig.stop()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "exporter late: 2 records (12 s, 0.03333 Wh) were not delivered within 10 s and are lost"
    ]
    assert rig.component("late").dropped_records == 2
    assert rig.ended_at == rig.start + 12.0


async def test_an_exporter_that_fails_at_the_stop_is_tried_until_the_deadline() -> None:
    rig, bad, _ = two_exporters(script=Script([None, None], then=DOWN))
    async with rig.running():
        await rig.to(12.0)
        rig.pipeline.stop()
        await rig.clock.advance(3.0)
        assert not rig.has_ended()
        bad.script.then = None
        await rig.clock.advance(1.0)
        assert rig.has_ended()
    assert_whole(bad, 120.0)


async def test_an_outage_does_not_hold_up_the_stop_beyond_the_deadline() -> None:
    rig, bad, _ = two_exporters(script=Script(then=DOWN))
    async with rig.running():
        await rig.to(12.0)
        rig.pipeline.stop()
        await rig.clock.advance(10.5)
        assert rig.has_ended()
    assert len(bad.attempted_at) < 60


@pytest.mark.parametrize(("wish", "tries"), [(None, 40), (0.1, 40), (2.0, 5), (3600.0, 4)])
async def test_a_receiver_that_wishes_to_be_left_alone_is_at_the_stop_as_well(wish: float | None, tries: int) -> None:
    busy = raising(RetryableExportError("429", retry_after_seconds=wish))
    rig, bad, _ = two_exporters(script=Script([None, None], then=busy))
    async with rig.running():
        await rig.to(12.0)
        before = len(bad.attempted_at)
        rig.pipeline.stop()
        await rig.clock.advance(10.5)
        assert rig.has_ended()
    assert len(bad.attempted_at) - before == pytest.approx(tries, abs=1)


# ---- receivers that are gone


async def test_when_the_only_receiver_is_gone_the_pipeline_ends() -> None:
    """A closed pipe: `tracarbon run | head -1`."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    exporter = rig.exporter(script=Script([None], then=raising(ReceiverGone("broken pipe"))))
    async with rig.running():
        await rig.to(10.0)
        assert rig.ended_at == rig.start + 10.0
    assert len(exporter.attempts) == 2
    assert (exporter.entries, exporter.exits) == (1, 1)


async def test_an_exporter_whose_receiver_is_gone_rests_while_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig, gone, good = two_exporters(script=Script([None], then=raising(ReceiverGone("broken pipe"))))
    async with rig.running():
        with caplog.at_level(logging.WARNING, "tracarbon"):
            await rig.to(75.0)
            assert (rig.component("bad").state, rig.component("bad").reason) == (ComponentState.FAILED, "broken pipe")
        assert not rig.has_ended()
    assert (len(gone.attempts), gone.entries, gone.exits) == (2, 1, 1)
    assert_undisturbed(rig, good, 75.0)
    assert [record.getMessage() for record in caplog.records] == ["exporter bad failed: broken pipe"]


# ---- the whole


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["ok", "down", "unknown", "hang", "exit", "late"]), max_size=20),
    st.integers(0, 400),
    st.sampled_from([None, 25.0]),
)
@example(["down"] * 6 + ["hang", "late"], 155, None)  # delivered after all, when the rest was given up on
async def test_no_sequence_of_outages_loses_or_doubles_anything(
    faults: list[str], seconds: int, interval: float | None
) -> None:
    """What was delivered is the truth, as long as one delivery succeeds in the end, and in time."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.sensor("other", loads={MEMORY: constant(7.0)}, script=Script([None, None, DOWN, None, hang]))
    rig.energy()
    rig.carbon(rig.location())
    kinds: dict[str, Fault] = {
        "down": DOWN,
        "unknown": raising(DeliveryUnknown("?")),
        "hang": hang,
        "exit": raising(SystemExit(1)),
        "late": rig.late(12.0),
    }
    exporter = rig.exporter(interval=interval, script=Script(kinds.get(name) for name in faults))
    good = rig.exporter("good")
    async with rig.running():
        await rig.to(float(seconds))
        exporter.script.faults.clear()
        stopped_at = rig.clock.monotonic()
        rig.pipeline.stop()
        await rig.clock.advance(60.0)
    is_given_up = rig.component("exporter").dropped_records > 0
    if exporter.delivered and exporter.attempts[-1] is exporter.delivered[-1] and not is_given_up:
        for name in (HOST, GRAMS, "energy_consumption_memory", "carbon_emission_memory"):
            assert exporter.total(name) == pytest.approx(good.total(name))
    assert good.total("energy_consumption_cpu") == pytest.approx(10.0 * (stopped_at - rig.start))
