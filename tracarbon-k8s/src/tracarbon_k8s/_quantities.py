"""Quantities as Kubernetes writes them: `250m`, `1500u`, `64Mi`, `129e6`.

Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i))?")

# Divided by rather than multiplied with, where it is a fraction: 1e9 is exact as a float, 1e-9 is not.
_DIVISORS = {"n": 1e9, "u": 1e6, "m": 1e3}
_FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_FACTORS |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)}


@lru_cache(maxsize=4096)
def quantity(text: str) -> float:
    """Return what a quantity is worth: processors, bytes, or whatever it is of.

    Args:
        text: such as `250m` (0.25), `1Ki` (1024), `1k` (1000), `1E` (10 to the 18th) or `1E3` (1000).

    Raises:
        ValueError: it is none, or more than a float can hold.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is no Kubernetes quantity, such as '250m' or '64Mi'")
    number, exponent, suffix = found.groups()
    value = float(number + exponent) if exponent else float(number)
    value = value / _DIVISORS[suffix] if suffix in _DIVISORS else value * _FACTORS.get(suffix, 1.0)
    if math.isinf(value):
        raise ValueError(f"the Kubernetes quantity {text[:80]!r} is too large")
    return value
