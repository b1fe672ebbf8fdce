"""Figures for humans."""

from __future__ import annotations

import math


def human(value: float) -> str:
    """Return a number with four significant digits and no exponent; 0 as `0`, and what is no number as Python says."""
    if not math.isfinite(value):
        return str(float(value))
    if value == 0:
        return "0"
    decimals = 3 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(decimals, 0), 12)}f}"
