"""Property lists, of programs that may print anything."""

from __future__ import annotations

import math
import plistlib
from collections.abc import Mapping
from typing import Any

from tracarbon_sensor_macos._errors import SourceError


def parse(data: bytes, program: str) -> object:
    """Return what an XML property list holds.

    Raises:
        SourceError: it is none.
    """
    try:
        return plistlib.loads(data, fmt=plistlib.FMT_XML)
    except Exception as error:  # expat's, and those of every conversion inside plistlib
        raise SourceError(f"{program} printed no property list ({type(error).__name__})") from error


def table(value: object, key: str) -> Mapping[str, Any]:
    """Return the dictionary under a key of a dictionary; an empty one where there is none."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def number(value: Mapping[str, Any], key: str) -> float | None:
    """Return the number under a key, if it is one that can be reckoned with."""
    found = value.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        return float(found) if math.isfinite(found) else None
    except OverflowError:
        return None
