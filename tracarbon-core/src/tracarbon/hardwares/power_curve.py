"""Power by load, between figures that are known at idle, 10, 50 and 100 %."""

from __future__ import annotations

from itertools import pairwise

KNOTS = (0.0, 0.1, 0.5, 1.0)
"""The loads at which a curve is known: those of the data set that Teads Engineering measured on cloud machines."""


def watts_at(curve: tuple[float, float, float, float], load: float) -> float:
    """Return the watts at a load, in proportion between the two knots beside it.

    Args:
        curve: watts at each of `KNOTS`.
        load: from 0 to 1; what is outside counts as the end that it is beyond.
    """
    knots = zip(KNOTS, curve, strict=True)
    for (x0, y0), (x1, y1) in pairwise(knots):
        if load <= x1:
            between = y0 + (y1 - y0) * (load - x0) / (x1 - x0)
            # Below the first knot it is the first; and rounding must not carry a piece beyond its own.
            return min(max(between, min(y0, y1)), max(y0, y1))
    return curve[-1]
