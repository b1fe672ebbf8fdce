"""Quantities, against exact fractions."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_k8s._quantities import quantity

WORTH = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(1000),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("0", 0.0),
        ("250m", 0.25),
        ("1500u", 0.0015),
        ("123456789n", 0.123456789),
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        ("1E", 1e18),
        ("1E-3", 0.001),
        ("512M", 512e6),
        ("1Ti", 2.0**40),
        ("128974848", 128974848.0),
        ("129e6", 129e6),
        ("129M", 129e6),
        ("123Mi", 123.0 * 2**20),
        ("1Ki", 1024.0),
        ("1k", 1000.0),
        ("500m", 0.5),
        ("128974848000m", 128974848.0),
        ("536870912", 536870912.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.5Gi", 1.5 * 2**30),
        ("-1", -1.0),
        ("+1", 1.0),
    ],
)
def test_examples(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "m", "1K", "1g", "1 Gi", " 1", "1\n", "1ki", "1mi", "1e", "1e3Ki", "1KiB", "1MiMi", "1,5", "0x1", "1_000",
     "nan", "inf", "--1", ".", "1.2.3", "٣", "1e1000", "9" * 400, "1e400m"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no Kubernetes quantity, such as|is too large") as caught:
        quantity(text)
    assert len(str(caught.value)) < 200


numbers = st.from_regex(re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,9})?|\.[0-9]{1,9})", re.ASCII), fullmatch=True)


@given(numbers, st.sampled_from(sorted(WORTH)))
def test_with_a_suffix(number: str, suffix: str) -> None:
    exact = Fraction(Decimal(number)) * WORTH[suffix]
    assert abs(Fraction(quantity(number + suffix)) - exact) <= abs(exact) * Fraction(1, 2**51)


@given(numbers, st.integers(-40, 40), st.sampled_from("eE"), st.sampled_from(["", "+"]))
def test_with_an_exponent(number: str, exponent: int, letter: str, sign: str) -> None:
    exact = Fraction(Decimal(number)) * Fraction(10) ** exponent
    text = f"{number}{letter}{sign if exponent >= 0 else ''}{exponent}"
    assert abs(Fraction(quantity(text)) - exact) <= abs(exact) * Fraction(1, 2**51)


@given(st.integers(0, 2**53), st.sampled_from("num"))
def test_whole_numbers_of_small_units_are_as_near_as_can_be(number: int, suffix: str) -> None:
    assert quantity(f"{number}{suffix}") == float(Fraction(number) * WORTH[suffix])


@given(st.text(max_size=12))
def test_any_text_is_one_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(quantity(text), float)
