"""All cards of the machine, on the real binding over the stub: who hangs, who is away, who comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pynvml
import pytest
from tracarbon_sensor_nvidia._cards import Cards, Survey
from tracarbon_sensor_nvidia._nvml import DRIVER_NOT_LOADED, GPU_IS_LOST, GPU_NOT_FOUND, LATE, NO_ANSWER, NvmlFailure

from tests.sensor_nvidia.stub import NO_PERMISSION, NOT_SUPPORTED, UNKNOWN, Stub, no_thread, our_threads, wait_for

OPEN_SECONDS = 60.0


class Clock:
    """Monotonic seconds that a test turns by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the kernel's driver shows."""
    path = tmp_path / "gpus"
    path.mkdir()
    return path


@pytest.fixture
def cards(stub: Stub, clock: Clock, folder: Path) -> Iterator[Cards]:
    with closing(Cards(clock=clock, answer_seconds=0.05, folder=folder)) as cards:
        yield cards
        stub.release()


def counters(survey: Survey) -> list[tuple[int, int | None]]:
    return [(reading.card.index, reading.millijoules) for reading in survey.readings]


def silences(survey: Survey) -> list[tuple[int, int]]:
    return [(silence.index, silence.failure.code) for silence in survey.silences]


def test_every_card_says_what_its_counter_stands_at(stub: Stub, cards: Cards) -> None:
    survey = cards.open(OPEN_SECONDS)
    assert counters(survey) == [(0, 1_000_000_000), (1, 2_000_000_000)]
    assert silences(survey) == []
    [first, second] = [reading.card for reading in survey.readings]
    assert (first.uuid, first.name, first.bus_id) == (stub.cards[0].key, "NVIDIA Stub A", "00000000:65:00.0")
    assert (first.max_watts, first.has_counter) == (400.0, True)
    assert second.uuid == stub.cards[1].key
    stub.cards[1].use(2.5)
    assert counters(cards.read()) == [(0, 1_000_000_000), (1, 2_000_002_500)]


def test_initialisations_are_undone_and_threads_end(stub: Stub, cards: Cards) -> None:
    for _ in range(3):
        cards.open(OPEN_SECONDS)
        cards.read()
        assert our_threads() == ["tracarbon-nvidia-0", "tracarbon-nvidia-1", "tracarbon-nvidia-census"]
        cards.close()
        cards.close()
        wait_for(no_thread, "the end of all threads")
        stub.check_balance()
    assert stub.control.lives == 3


def test_without_a_power_limit_that_can_be_set_the_one_in_force_counts(stub: Stub, cards: Cards) -> None:
    stub.cards[0].limit_fault = NOT_SUPPORTED
    stub.cards[1].limit_mw = 0
    assert [reading.card.max_watts for reading in cards.open(OPEN_SECONDS).readings] == [400.0, None]


def test_a_card_without_a_counter_says_its_power(stub: Stub, cards: Cards) -> None:
    stub.cards[1].energy_fault = NOT_SUPPORTED
    [first, second] = cards.open(OPEN_SECONDS).readings
    assert (first.millijoules, first.milliwatts) == (1_000_000_000, None)
    assert (second.millijoules, second.milliwatts) == (None, 100_000)


def test_a_counter_that_is_not_supported_any_more_gives_way_to_the_power_for_good(stub: Stub, cards: Cards) -> None:
    cards.open(OPEN_SECONDS)
    stub.cards[0].energy_fault = NOT_SUPPORTED
    for _ in range(2):
        survey = cards.read()
        assert [(reading.millijoules, reading.milliwatts) for reading in survey.readings] == [
            (None, 100_000),
            (2_000_000_000, None),
        ]
        assert silences(survey) == []
        stub.cards[0].energy_fault = 0
        cards.close()
        cards.open(OPEN_SECONDS)


def test_one_that_says_neither_any_more_keeps_its_counter(stub: Stub, cards: Cards) -> None:
    cards.open(OPEN_SECONDS)
    stub.cards[0].energy_fault = stub.cards[0].power_fault = NOT_SUPPORTED
    survey = cards.read()
    assert (counters(survey), silences(survey)) == ([(1, 2_000_000_000)], [(0, NOT_SUPPORTED)])
    stub.cards[0].energy_fault = 0
    assert counters(cards.read()) == [(0, 1_000_000_000), (1, 2_000_000_000)]


class TestNames:
    """What a card says of itself may be anything; what it counts is read all the same."""

    def test_a_name_that_is_no_text(self, stub: Stub, cards: Cards) -> None:
        stub.cards[0].name = b"Odd\xff\x1b[31m\nnew"
        stub.cards[1].name_fault = UNKNOWN
        survey = cards.open(OPEN_SECONDS)
        assert [reading.card.name for reading in survey.readings] == ["Odd\ufffd\ufffd[31m\ufffdnew", ""]
        assert [reading.card.uuid for reading in survey.readings] == [stub.cards[0].key, stub.cards[1].key]

    def test_without_a_uuid_the_bus_id_tells_it(self, stub: Stub, cards: Cards) -> None:
        stub.cards[0].uuid = b"GPU-\xff\xfe"
        stub.cards[1].uuid_fault = NOT_SUPPORTED
        for survey in (cards.open(OPEN_SECONDS), cards.read()):
            assert counters(survey) == [(0, 1_000_000_000), (1, 2_000_000_000)]
            assert [reading.card.uuid for reading in survey.readings] == ["00000000:65:00.0", "00000000:66:00.0"]
            assert survey.silences == []

    def test_without_either_its_place_does(self, stub: Stub, cards: Cards) -> None:
        for card in stub.cards:
            card.uuid_fault, card.pci_fault = NOT_SUPPORTED, UNKNOWN
        for survey in (cards.open(OPEN_SECONDS), cards.read()):
            assert [reading.card.uuid for reading in survey.readings] == ["index-0", "index-1"]

    def test_one_that_is_known_stays_itself_when_it_says_its_uuid_no_longer(self, stub: Stub, cards: Cards) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].uuid_fault = NOT_SUPPORTED
        assert [reading.card.uuid for reading in cards.read().readings] == [stub.cards[0].key, stub.cards[1].key]

    def test_another_card_without_a_uuid_is_told_from_it(self, stub: Stub, cards: Cards) -> None:
        stub.control.lives_on = 1
        for card in stub.cards:
            card.uuid_fault = NOT_SUPPORTED
        cards.open(OPEN_SECONDS)
        stub.cards[0].take_out()
        stub.cards[2].put_in()
        for _ in range(2):
            assert {reading.card.uuid for reading in cards.read().readings} == {"00000000:66:00.0", "00000000:67:00.0"}


@pytest.mark.parametrize("code", [NO_PERMISSION, GPU_IS_LOST, UNKNOWN, 16, 10, 2])
@pytest.mark.parametrize("fault", ["fault", "handle_fault", "energy_fault"])
def test_a_card_that_fails_is_named_and_the_other_goes_on(stub: Stub, cards: Cards, fault: str, code: int) -> None:
    setattr(stub.cards[0], fault, code)
    survey = cards.open(OPEN_SECONDS)
    assert counters(survey) == [(1, 2_000_000_000)]
    assert silences(survey) == [(0, code)]
    setattr(stub.cards[0], fault, 0)
    assert len(counters(cards.read())) == 2


class TestNoDriver:
    def test_a_driver_that_is_not_loaded_is_said_and_found_once_it_is(self, stub: Stub, cards: Cards) -> None:
        stub.control.init_fault = DRIVER_NOT_LOADED
        for _ in range(2):
            with pytest.raises(NvmlFailure, match=r"driver is not loaded\. Load the kernel module"):
                cards.open(OPEN_SECONDS)
            cards.close()
        stub.control.init_fault = 0
        assert len(cards.open(OPEN_SECONDS).readings) == 2
        cards.close()
        stub.check_balance()

    def test_one_that_hangs_is_not_waited_for_again(self, stub: Stub, cards: Cards) -> None:
        stub.control.init_hang = 1
        for _ in range(3):
            with pytest.raises(NvmlFailure, match="hangs"):
                cards.open(0.05)
            cards.close()
        assert our_threads() == ["tracarbon-nvidia-census"]
        stub.control.init_hang = 0
        wait_for(no_thread, "the end of the thread")
        assert len(cards.open(OPEN_SECONDS).readings) == 2
        cards.close()
        stub.check_balance()

    def test_somebody_else_may_have_shut_it_down(self, stub: Stub, cards: Cards) -> None:
        cards.open(OPEN_SECONDS)
        while stub.control.references:
            assert stub.shut_down() == 0
        with pytest.raises(NvmlFailure, match="Uninitialized"):
            cards.read()
        assert len(cards.read().readings) == 2


class TestHanging:
    def test_one_card_hangs_and_the_others_go_on(self, stub: Stub, cards: Cards, clock: Clock) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].hang = 1
        for joules in range(3):
            stub.cards[1].use(1)
            survey = cards.read()
            assert counters(survey) == [(1, 2_000_000_000 + 1000 * (joules + 1))]
            assert silences(survey) == [(0, NO_ANSWER if joules == 2 else LATE)]
            clock.now += 3.0
        assert stub.cards[0].hung == 1, "a card that hangs is not asked again"
        assert our_threads() == ["tracarbon-nvidia-0", "tracarbon-nvidia-1", "tracarbon-nvidia-census"]

    def test_what_it_says_at_last_counts(self, stub: Stub, cards: Cards) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].hang = 1
        cards.read()
        stub.cards[0].use(5)
        stub.cards[0].hang = 0
        wait_for(lambda: not stub.control.in_flight, "the end of the call")
        wait_for(lambda: not any(slot.is_busy for slot in cards._slots), "its answer")
        stub.cards[0].use(1)
        survey = cards.read()
        assert counters(survey) == [(0, 1_000_005_000), (0, 1_000_006_000), (1, 2_000_000_000)]
        assert silences(survey) == []
        assert survey.readings[0].at < survey.readings[1].at

    def test_one_that_is_always_late_is_read_in_full_and_named_the_same(self, stub: Stub, cards: Cards) -> None:
        cards.open(OPEN_SECONDS)
        said = set()
        for seconds in range(3):
            stub.cards[0].hang = 1
            survey = cards.read()
            assert (0, 1_000_000_000 + 1000 * (seconds - 1)) in [*counters(survey), (0, 999_999_000)]
            assert silences(survey) == [(0, LATE)]
            said.add(str(survey.silences[0]))
            stub.cards[0].use(1 if seconds else 0)
            stub.cards[0].hang = 0
            wait_for(lambda: not any(slot.is_busy for slot in cards._slots), "its answer")
        assert said == {
            f"card 0 (NVIDIA Stub A, {stub.cards[0].key}): it does not answer in time: what it says counts with a "
            "later reading"
        }

    def test_a_new_card_is_found_beside_one_that_is_always_late(self, stub: Stub, cards: Cards, folder: Path) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[2].put_in()
        (folder / "0000:67:00.0").mkdir()
        found = set()
        for _ in range(3):
            stub.cards[0].hang = 1
            found |= {reading.card.uuid for reading in cards.read().readings}
            stub.release()
            wait_for(lambda: not any(slot.is_busy for slot in cards._slots), "its answer")
        assert found == {stub.cards[number].key for number in range(3)}
        assert (stub.control.lives, stub.control.shut_below) == (2, 0)

    def test_nvml_may_take_its_time_to_be_let_go(self, stub: Stub, cards: Cards, folder: Path) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[2].put_in()
        (folder / "0000:67:00.0").mkdir()
        stub.control.shutdown_hang = 1
        survey = cards.read()
        assert (counters(survey), silences(survey)) == ([(0, 1_000_000_000), (1, 2_000_000_000)], [])
        stub.release()
        wait_for(lambda: not stub.control.references, "the end of NVML")
        wait_for(lambda: not cards._is_any_busy(), "the end of all calls")
        assert len(cards.read().readings) == 3

    def test_where_all_is_late_nothing_has_failed(self, stub: Stub, cards: Cards, clock: Clock) -> None:
        cards.open(OPEN_SECONDS)
        stub.control.count_hang = stub.cards[0].hang = stub.cards[1].hang = 1
        survey = cards.read()
        assert (counters(survey), silences(survey)) == ([], [(0, LATE), (1, LATE)])
        assert survey.trouble is not None
        assert survey.trouble.code == LATE
        clock.now += 5.0
        with pytest.raises(NvmlFailure, match="hangs"):
            cards.read()

    def test_it_may_hang_when_all_is_let_go(self, stub: Stub, cards: Cards) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].hang = 1
        cards.read()
        for _ in range(3):
            cards.close()
            survey = cards.open(1.0)
            assert counters(survey) == [(1, 2_000_000_000)]
            assert silences(survey) == [(0, LATE)]
        assert our_threads().count("tracarbon-nvidia-0") == 1
        assert stub.control.lives == 1, "the thread that hangs keeps NVML open"
        cards.close()
        assert stub.control.references == 1
        stub.release()
        wait_for(no_thread, "the end of all threads")
        stub.check_balance()
        assert len(cards.open(OPEN_SECONDS).readings) >= 2
        cards.close()
        stub.check_balance()

    def test_one_that_hangs_from_the_start_is_found_later(self, stub: Stub, cards: Cards) -> None:
        stub.cards[0].hang = 1
        survey = cards.open(0.5)
        assert counters(survey) == [(1, 2_000_000_000)]
        assert [str(silence) for silence in survey.silences] == [
            "card 0: it does not answer: a call of the driver hangs"
        ]
        stub.release()
        wait_for(lambda: not any(slot.is_busy for slot in cards._slots), "its answer")
        survey = cards.read()
        assert {reading.card.index for reading in survey.readings} == {0, 1}
        assert survey.silences == []

    def test_nvml_is_not_shut_down_below_a_call(self, stub: Stub, cards: Cards, folder: Path) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].hang = 1
        cards.read()
        (folder / "0000:67:00.0").mkdir()
        assert counters(cards.read()) == [(1, 2_000_000_000)]
        assert stub.control.lives == 1
        stub.release()
        wait_for(lambda: not any(slot.is_busy for slot in cards._slots), "its answer")
        cards.read()
        assert (stub.control.lives, stub.control.shut_below) == (2, 0)


class TestComingBack:
    def test_a_card_that_falls_off_the_bus_is_named(self, stub: Stub, cards: Cards) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].take_out()
        for _ in range(2):
            survey = cards.read()
            assert counters(survey) == [(1, 2_000_000_000)]
            assert silences(survey) == [(0, GPU_IS_LOST)]
            assert f"card 0 (NVIDIA Stub A, {stub.cards[0].key}): the card is lost" in str(survey.silences[0])

    @pytest.mark.parametrize("number", [0, 1])
    def test_it_is_found_when_the_kernel_shows_it(self, stub: Stub, cards: Cards, folder: Path, number: int) -> None:
        (folder / "0000:65:00.0").mkdir()
        cards.open(OPEN_SECONDS)
        stub.cards[number].take_out()
        (folder / "0000:65:00.0").rmdir()
        survey = cards.read()
        assert silences(survey) == [(number, GPU_NOT_FOUND)]
        assert stub.control.lives == 2
        assert {reading.card.uuid for reading in survey.readings} == {stub.cards[1 - number].key}
        cards.read()
        assert stub.control.lives == 2
        stub.cards[number].put_in()
        (folder / "0000:65:00.0").mkdir()
        survey = cards.read()
        assert silences(survey) == []
        assert {reading.card.uuid for reading in survey.readings} == {stub.cards[0].key, stub.cards[1].key}

    def test_elsewhere_it_is_looked_for_less_and_less_often(self, stub: Stub, cards: Cards, clock: Clock) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].take_out()
        cards.read()
        restarts = []
        for second in range(1, 400):
            clock.now += 1.0
            before = stub.control.lives
            cards.read()
            restarts += [second] * (stub.control.lives - before)
        waits = [later - earlier for earlier, later in pairwise(restarts)]
        assert restarts[0] in (10, 11)
        assert [round(wait / 10) for wait in waits] == [2, 4, 8, 16]
        stub.cards[0].put_in()
        clock.now += 640
        assert silences(cards.read()) == silences(cards.read()) == []
        stub.cards[0].take_out()
        lives = stub.control.lives
        cards.read()
        clock.now += 11.0
        cards.read()
        assert stub.control.lives == lives + 1, "after it was there again, it begins at the shortest wait"

    def test_faults_that_it_would_not_mend_are_left_alone(self, stub: Stub, cards: Cards, clock: Clock) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[0].fault = NO_PERMISSION
        stub.cards[1].fault = NOT_SUPPORTED
        for _ in range(20):
            clock.now += 100.0
            cards.read()
        assert stub.control.lives == 1

    def test_the_counters_before_it_are_kept(self, stub: Stub, cards: Cards, folder: Path) -> None:
        stub.control.forgets = 1
        cards.open(OPEN_SECONDS)
        stub.cards[1].use(7)
        (folder / "0000:99:00.0").mkdir()
        assert counters(cards.read()) == [(0, 1_000_000_000), (1, 2_000_007_000), (0, 0), (1, 0)]

    def test_they_are_kept_also_where_it_fails(self, stub: Stub, cards: Cards, folder: Path) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[1].use(7)
        stub.control.init_fault = DRIVER_NOT_LOADED
        (folder / "0000:99:00.0").mkdir()
        survey = cards.read()
        assert counters(survey) == [(0, 1_000_000_000), (1, 2_000_007_000)]
        assert survey.trouble is not None
        assert survey.trouble.code == DRIVER_NOT_LOADED
        with pytest.raises(NvmlFailure):
            cards.read()
        stub.control.init_fault = 0
        assert len(cards.read().readings) == 2

    def test_a_new_card_is_found(self, stub: Stub, cards: Cards, folder: Path) -> None:
        cards.open(OPEN_SECONDS)
        stub.cards[2].put_in()
        (folder / "0000:67:00.0").mkdir()
        assert {reading.card.uuid for reading in cards.read().readings} == {
            stub.cards[number].key for number in range(3)
        }

    def test_a_numbering_that_lives_on_needs_no_initialisation(self, stub: Stub, cards: Cards) -> None:
        stub.control.lives_on = 1
        cards.open(OPEN_SECONDS)
        stub.cards[0].take_out()
        cards.read()
        survey = cards.read()
        assert [(reading.card.index, reading.card.uuid) for reading in survey.readings] == [(0, stub.cards[1].key)]
        assert silences(survey) == [(0, GPU_NOT_FOUND)]
        stub.cards[0].put_in()
        stub.cards[2].put_in()
        cards.read()
        survey = cards.read()
        assert [reading.card.uuid for reading in survey.readings] == [stub.cards[number].key for number in range(3)]
        assert silences(survey) == []
        assert stub.control.lives == 1

    def test_a_handle_that_leads_to_another_card_is_noticed(self, stub: Stub, cards: Cards) -> None:
        stub.control.lives_on = 1
        cards.open(OPEN_SECONDS)
        stub.cards[0].take_out()
        stub.cards[2].put_in()
        for _ in range(2):
            survey = cards.read()
            assert {reading.card.uuid: reading.millijoules for reading in survey.readings} == {
                stub.cards[1].key: 2_000_000_000,
                stub.cards[2].key: 3_000_000_000,
            }
            assert silences(survey) == [(0, GPU_NOT_FOUND)]

    def test_a_place_that_is_taken_by_another_card_is_not_named_after_the_former_one(
        self, stub: Stub, cards: Cards
    ) -> None:
        stub.control.lives_on = 1
        cards.open(OPEN_SECONDS)
        stub.cards[0].take_out()
        stub.cards[2].put_in()
        stub.cards[2].handle_fault = NO_PERMISSION
        cards.read()
        survey = cards.read()
        assert [(reading.card.index, reading.card.uuid) for reading in survey.readings] == [(0, stub.cards[1].key)]
        assert [str(silence).partition(":")[0] for silence in survey.silences] == [
            "card 1",
            f"card 0 (NVIDIA Stub A, {stub.cards[0].key})",
        ]

    def test_a_place_that_is_no_more_has_no_thread(self, stub: Stub, cards: Cards) -> None:
        stub.control.lives_on = 1
        cards.open(OPEN_SECONDS)
        stub.cards[0].take_out()
        cards.read()
        wait_for(lambda: our_threads() == ["tracarbon-nvidia-0", "tracarbon-nvidia-census"], "the end of a thread")

    def test_all_may_be_away(self, stub: Stub, cards: Cards, clock: Clock) -> None:
        cards.open(OPEN_SECONDS)
        for card in stub.cards:
            card.take_out()
        assert silences(cards.read()) == [(0, GPU_IS_LOST), (1, GPU_IS_LOST)]
        cards.close()
        survey = cards.open(OPEN_SECONDS)
        assert (counters(survey), silences(survey)) == ([], [(0, GPU_NOT_FOUND), (1, GPU_NOT_FOUND)])
        stub.cards[1].put_in()
        cards.close()
        survey = cards.open(OPEN_SECONDS)
        assert counters(survey) == [(0, 2_000_000_000)]


def test_once_forgets_what_was_there_before(stub: Stub, cards: Cards) -> None:
    assert len(cards.once(OPEN_SECONDS).readings) == 2
    stub.cards[0].take_out()
    survey = cards.once(OPEN_SECONDS)
    assert (len(survey.readings), survey.silences) == (1, [])
    stub.cards[1].energy_fault = NOT_SUPPORTED
    assert [reading.milliwatts for reading in cards.once(OPEN_SECONDS).readings] == [100_000]
    wait_for(no_thread, "the end of all threads")
    stub.check_balance()


def test_what_is_not_nvmls_is_named_too(stub: Stub, cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption")  # as an old binding has none
    survey = cards.open(OPEN_SECONDS)
    assert counters(survey) == []
    assert {silence.failure.code for silence in survey.silences} == {UNKNOWN}
    assert "AttributeError" in str(survey.silences[0])


def test_several_ask_at_once_and_each_gets_an_answer(stub: Stub, cards: Cards) -> None:
    surveys: list[Survey] = []
    ask: Callable[[], None] = lambda: surveys.append(cards.once(OPEN_SECONDS))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(OPEN_SECONDS)
    assert [len(survey.readings) for survey in surveys] == [2] * 4
    stub.check_balance()
