"""Which cards the user means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_sensor_nvidia._nvml import Card
from tracarbon_sensor_nvidia._selection import Selection, SelectionError, problem_of

A = Card(0, "GPU-8f6b2c1e-0000-0000-0000-000000000000", "NVIDIA A", "00000000:65:00.0")
B = Card(1, "GPU-8f6b9999-0000-0000-0000-000000000000", "NVIDIA B", "00000001:65:00.0")
C = Card(2, "GPU-77777777-0000-0000-0000-000000000000", "NVIDIA C", "00000000:CA:00.0")
CARDS = [A, B, C]


def matched(*selectors: int | str) -> list[Card]:
    selection = Selection(selectors)
    selection.match(CARDS)
    selection.require_all(CARDS)
    return [card for card in CARDS if selection.has(card)]


@pytest.mark.parametrize(
    ("selector", "card"),
    [
        (0, A),
        (2, C),
        (A.uuid, A),
        (A.uuid.upper(), A),
        ("GPU-8f6b2", A),
        ("GPU-8f6b9", B),
        ("GPU-7", C),
        ("65:00.0", A),
        ("0000:65:00.0", A),
        ("00000000:65:00.0", A),
        ("65:0.0", A),
        ("65:00", A),
        ("0001:65:00.0", B),
        ("ca:00.0", C),
        ("0000:CA:00.0", C),
    ],
)
def test_one_card_is_meant(selector: int | str, card: Card) -> None:
    assert problem_of(selector) is None
    assert matched(selector) == [card]


def test_without_selectors_all_are_meant() -> None:
    assert matched() == CARDS
    assert Selection(()).may_have(7)


def test_a_card_that_is_named_twice_is_one_card() -> None:
    assert matched(0, A.uuid, "65:00.0", 2) == [A, C]


@pytest.mark.parametrize("selector", [3, "GPU-6", "66:00.0", "0002:65:00.0", "65:00.1"])
def test_a_card_that_is_not_there_is_named_and_so_are_those_that_are(selector: int | str) -> None:
    with pytest.raises(SelectionError) as caught:
        matched(0, selector)
    text = str(caught.value)
    assert repr(selector) in text
    assert all(card.uuid in text and card.bus_id in text for card in CARDS)


def test_a_beginning_of_several_uuids_is_refused_with_those_that_it_may_be() -> None:
    with pytest.raises(SelectionError, match=r"'GPU-8f6b' may be any of card 0 .*; card 1 ") as caught:
        matched("GPU-8f6b")
    assert C.uuid not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [-1, True, 1.0, None, "", "0", "-1", "gpu", "NVIDIA A", "8f6b2c1e", "GPU-", "65", "65:00.9", "x65:00.0", "GPU-zz"],
)
def test_what_can_be_no_card_is_refused(value: object) -> None:
    assert "is no index (0), UUID (" in str(problem_of(value))


def test_a_mig_instance_has_no_energy_of_its_own() -> None:
    assert "name its card" in str(problem_of("MIG-8f6b2c1e-0000-0000-0000-000000000000"))


def test_a_selector_stands_for_the_card_that_it_matched_first() -> None:
    selection = Selection([1])
    selection.match(CARDS)
    renumbered = Card(1, C.uuid, C.name, C.bus_id)
    selection.match([A, renumbered])
    assert not selection.has(renumbered)
    assert selection.has(Card(7, B.uuid, B.name, B.bus_id))


def test_a_card_of_which_only_the_index_is_known_may_be_meant() -> None:
    selection = Selection([0, 1])
    selection.match([A])
    assert selection.may_have(1)
    assert not selection.may_have(2)
    selection = Selection([0, "GPU-5"])
    selection.match([A])
    assert selection.may_have(2)


@given(
    st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7)),
    st.booleans(),
    st.booleans(),
)
def test_every_way_to_write_a_bus_id_is_the_same_one(
    address: tuple[int, int, int, int], long: bool, upper: bool
) -> None:
    domain, bus, device, function = address
    text = f"{domain:0{8 if long else 4}x}:{bus:02x}:{device:02x}.{function}"
    card = Card(0, "GPU-0", bus_id=f"{domain:08X}:{bus:02X}:{device:02X}.{function}")
    selector = text.upper() if upper else text
    assert problem_of(selector) is None
    selection = Selection([selector])
    selection.match([card])
    assert selection.has(card)
