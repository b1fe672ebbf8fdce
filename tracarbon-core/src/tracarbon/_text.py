"""Text for humans: figures, columns, and what is not for their eyes."""

from __future__ import annotations

import math
from collections.abc import Sequence


def human(value: float) -> str:
    """Return a number with four significant digits and no exponent; 0 as `0`, and what is no number as Python says."""
    if not math.isfinite(value):
        return str(float(value))
    if value == 0:
        return "0"
    decimals = 3 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(decimals, 0), 12)}f}"


def has_gaps(text: str) -> bool:
    """Whether it has blanks, or what cannot be printed."""
    return not text.isprintable() or " " in text


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with aligned columns."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


class Secret(str):
    """A text that is used like any other, but not shown by `repr`: in logs, tracebacks and objects that hold it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'" if self else "''"
