from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.hardwares.counter import EnergyCounter, EnergyDelta

MICRO = 1e6
RANGE = 65_532_610_987
"""The smallest range of RAPL in use, in microjoules: 65.5 kJ."""
MAX_WATTS = 250.0
UNAMBIGUOUS_SECONDS = RANGE / MICRO / MAX_WATTS
CEILING_WATTS = 10_000.0
UPDATE_SECONDS = 0.1

start_counts = st.integers(0, RANGE - 1)
watts = st.floats(0.0, MAX_WATTS)
windows = st.floats(1e-3, 120.0)


def counter(max_watts: float | None = MAX_WATTS, range_counts: int | None = RANGE) -> EnergyCounter:
    return EnergyCounter(counts_per_joule=MICRO, range_counts=range_counts, max_watts=max_watts)


def test_first_reading_opens_the_window_and_reports_nothing() -> None:
    """T6: the first read of RAPL was reported as watts."""
    tested = counter()
    assert tested.update(5_000_000, 10.0) is None
    assert tested.lost is None
    assert tested.update(15_000_000, 12.0) == EnergyDelta(10.0, 2.0)
    assert tested.update(15_000_000, 13.0) == EnergyDelta(0.0, 1.0)


def test_mean_power_of_a_window() -> None:
    assert EnergyDelta(30.0, 2.0).watts == 15.0


@pytest.mark.parametrize("at", [10.0, 9.5])
def test_reading_an_instant_twice_or_going_back_loses_nothing(at: float) -> None:
    tested = counter()
    tested.update(0, 10.0)
    assert tested.update(1_000_000, at) is None
    assert tested.lost is None
    assert tested.update(3_000_000, 11.0) == EnergyDelta(3.0, 1.0)


@given(start_counts, st.lists(st.tuples(watts, windows), min_size=1, max_size=20))
def test_every_count_is_reported_across_wraps(counts: int, profile: list[tuple[float, float]]) -> None:
    tested = counter()
    at = 0.0
    tested.update(counts, at)
    for power, seconds in profile:
        truth = int(power * seconds * MICRO)
        counts, at = (counts + truth) % RANGE, at + seconds
        delta = tested.update(counts, at)
        assert delta is not None, tested.lost
        assert delta.joules * MICRO == pytest.approx(truth, abs=1.0)
        assert delta.seconds == pytest.approx(seconds)


@given(
    start_counts,
    st.lists(st.tuples(watts, st.one_of(windows, st.floats(120.0, 2000.0))), min_size=1, max_size=20),
    st.booleans(),
)
def test_what_is_reported_and_what_is_lost_make_up_the_truth(
    counts: int, profile: list[tuple[float, float]], published: bool
) -> None:
    """Over gaps, late reads and any power: each window is reported to one count, or lost and named."""
    tested = counter(MAX_WATTS if published else None)
    at = 0.0
    tested.update(counts, at)
    for power, seconds in profile:
        truth = int(power * seconds * MICRO)
        if not published and truth >= RANGE:  # more than one wrap cannot be told from less, where no limit is known
            continue
        counts, at = (counts + truth) % RANGE, at + seconds
        delta = tested.update(counts, at)
        if delta is None:
            assert tested.lost
        else:
            assert tested.lost is None
            assert delta.joules * MICRO == pytest.approx(truth, abs=1.0)
        if published and seconds <= UNAMBIGUOUS_SECONDS:
            assert delta is not None


@given(
    start_counts,
    st.lists(st.tuples(st.integers(0, RANGE), st.floats(1e-6, 2000.0)), max_size=20),
    st.sampled_from([None, MAX_WATTS]),
    st.sampled_from([None, RANGE]),
)
def test_never_negative_and_never_beyond_belief(
    counts: int, readings: list[tuple[int, float]], max_watts: float | None, range_counts: int | None
) -> None:
    """Whatever a counter says."""
    tested = counter(max_watts, range_counts)
    at, believed = 0.0, 2 * max_watts if max_watts else CEILING_WATTS
    tested.update(counts, at)
    for reading, seconds in readings:
        at += seconds
        delta = tested.update(reading, at)
        if delta is None:
            assert tested.lost
            continue
        assert 0.0 <= delta.joules <= believed * (delta.seconds + UPDATE_SECONDS) * (1 + 1e-9)
        if seconds >= UPDATE_SECONDS:  # a forward reading of twice the limit moves it; a wrap does not
            believed = min(CEILING_WATTS, max(believed, 2 * delta.watts))


@given(start_counts, st.lists(st.tuples(watts, windows, st.booleans()), min_size=1, max_size=20))
def test_a_reset_loses_its_window_alone_and_invents_nothing(
    counts: int, profile: list[tuple[float, float, bool]]
) -> None:
    """A reset so near to the end of the range that a wrap is as likely cannot be told from one; it stays believable."""
    tested = counter()
    at = 0.0
    tested.update(counts, at)
    for power, seconds, is_reset in profile:
        truth = int(power * seconds * MICRO)
        before, counts, at = counts, (truth if is_reset else counts + truth) % RANGE, at + seconds
        delta = tested.update(counts, at)
        if not is_reset:
            assert delta is not None
            assert delta.joules * MICRO == pytest.approx(truth, abs=1.0)
        elif delta is not None:
            wrap_is_likely = (RANGE - before + counts) / MICRO <= 2 * MAX_WATTS * (seconds + UPDATE_SECONDS)
            assert delta.joules * MICRO <= truth + 1 or wrap_is_likely
        elif counts < before:
            assert tested.lost == "the counter was reset"


def test_reset_without_a_published_limit_is_no_wrap() -> None:
    """L3: a reset was taken for a wrap, 161 860 W for one sample."""
    tested = counter(max_watts=None, range_counts=262_143_328_850)
    tested.update(100_000_000_000, 0.0)
    assert tested.update(100_000_100_000, 10.0) is not None
    assert tested.update(50_000_000, 20.0) is None
    assert tested.lost == "the counter was reset"
    assert tested.update(350_000_000, 30.0) == EnergyDelta(300.0, 10.0)


def test_wrap_without_a_published_limit_is_believed_by_its_own_history() -> None:
    tested = counter(max_watts=None)
    tested.update(RANGE - 600_000_000, 0.0)
    assert tested.update(RANGE - 100_000_000, 10.0) == EnergyDelta(500.0, 10.0)
    assert tested.update(800_000_000, 20.0) == EnergyDelta(900.0, 10.0)


def test_wrap_that_history_makes_implausible_is_a_reset() -> None:
    tested = counter(max_watts=None)
    tested.update(RANGE - 1_600_000_000, 0.0)
    tested.update(RANGE - 1_100_000_000, 10.0)
    assert tested.update(1_000_000, 20.0) is None
    assert tested.lost == "the counter was reset"


def test_a_wrap_teaches_nothing() -> None:
    """A reset that was believed to be a wrap must not make the next one believable."""
    tested = counter()
    tested.update(RANGE - 4_000_000_000, 0.0)
    assert tested.update(0, 10.0) == EnergyDelta(4000.0, 10.0)
    tested.update(RANGE - 6_000_000_000, 265.0)
    assert tested.update(0, 275.0) is None
    assert tested.lost == "the counter was reset"


def test_several_wraps_in_one_window_are_lost_and_named() -> None:
    """L4: several wraps in one interval gave 9 W."""
    tested = counter()
    tested.update(0, 0.0)
    seconds = 3.1 * RANGE / MICRO / 200.0
    assert tested.update(int(200.0 * seconds * MICRO) % RANGE, seconds) is None
    assert tested.lost is not None and "wrapped unseen" in tested.lost


def test_several_wraps_are_noticed_by_history_where_no_limit_is_published() -> None:
    tested = counter(max_watts=None)
    tested.update(0, 0.0)
    tested.update(2_000_000_000, 10.0)
    assert tested.update(2_900_000_000, 10.0 + 3.1 * RANGE / MICRO / 200.0) is None
    assert tested.lost is not None and "wrapped unseen" in tested.lost


def test_gap_is_recovered_by_the_next_reading() -> None:
    tested = counter()
    tested.update(0, 0.0)
    assert tested.update(9_000_000_000, 90.0) == EnergyDelta(9000.0, 90.0)


def test_counter_without_a_range_never_wraps() -> None:
    tested = counter(range_counts=None)
    tested.update(10_000_000, 0.0)
    assert tested.update(9_999_999, 10.0) is None
    assert tested.lost == "the counter was reset"


def test_counter_beyond_its_range_does_not_wrap() -> None:
    tested = counter()
    tested.update(RANGE + 10, 0.0)
    assert tested.update(RANGE - 10, 10.0) is None
    assert tested.lost == "the counter was reset"


@pytest.mark.parametrize(("max_watts", "joules"), [(250.0, 5100.0), (None, 102_000.0)])
def test_jump_forward_beyond_belief_is_lost(max_watts: float | None, joules: float) -> None:
    tested = counter(max_watts, range_counts=None)
    tested.update(0, 0.0)
    assert tested.update(int(joules * MICRO), 10.0) is None
    assert tested.lost is not None and "jumped" in tested.lost
    assert tested.update(int(joules * MICRO) + 100_000_000, 20.0) == EnergyDelta(100.0, 10.0)


@given(
    watts,
    st.sampled_from([0.001, 0.05, 0.1]),
    st.lists(st.floats(1e-6, 0.5), min_size=1, max_size=30),
    st.sampled_from([None, MAX_WATTS]),
)
def test_readings_closer_than_the_counter_is_brought_up_to_date_lose_nothing(
    power: float, update_seconds: float, windows: list[float], max_watts: float | None
) -> None:
    """Two readings a microsecond apart may have the energy of a millisecond between them."""

    def counts(at: float) -> int:
        return int(at / update_seconds) * int(power * update_seconds * MICRO)

    tested = counter(max_watts)
    at, reported = 5.0, 0.0
    tested.update(counts(at), at)
    for seconds in windows:
        at += seconds
        delta = tested.update(counts(at), at)
        assert delta is not None, tested.lost
        reported += delta.joules
    assert reported == pytest.approx((counts(at) - counts(5.0)) / MICRO, abs=1e-6)


def test_readings_close_together_do_not_set_the_power_by_which_later_windows_are_judged() -> None:
    tested = counter(max_watts=None)
    tested.update(0, 0.0)
    assert tested.update(100_000, 1e-5) is not None  # 0.1 J in 10 us, 10 kW
    assert tested.update(3_000_000_000, 30.0) is not None, tested.lost
    tested.update(RANGE - 1_000, 60.0)
    assert tested.update(0, 61.0) is not None, tested.lost
