"""Names and tags as Datadog allows them.

Metric names are of ASCII letters, digits, `_` and `.`, start with a letter and have 200 characters at the most. Tags
are of letters of any script, digits and `_-:./`, likewise. Anything else becomes `_`. Datadog lowers the case of tags.
Sources: https://docs.datadoghq.com/metrics/custom_metrics/ and https://docs.datadoghq.com/getting_started/tagging/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MAX_CHARACTERS = 200

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_.]")
_BEFORE_NAMES = re.compile(r"^[^a-zA-Z]+")
_LETTER = re.compile(r"[^\W\d_]")
_NOT_IN_TAGS = re.compile(r"[^\w\-:/.]")


def metric_name(name: str, suffix: str = "") -> str:
    """Return a name that Datadog takes as it is, with the suffix whole."""
    good = _NOT_IN_NAMES.sub("_", _BEFORE_NAMES.sub("", name)) or "unnamed"
    return good[: MAX_CHARACTERS - len(suffix)] + suffix


def tag(key: str, value: str) -> str:
    """Return a tag that Datadog takes as it is; without a value, it is the key alone."""
    good = _NOT_IN_TAGS.sub("_", f"{key}:{value}")
    if _LETTER.match(good) is None:
        good = f"tag_{good}"
    return good[:MAX_CHARACTERS].rstrip(":")


def environment_tags(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the tags, as key and value, that Datadog's variables ask of every client.

    `DD_ENV`, `DD_SERVICE` and `DD_VERSION` are the unified service tags, and win over the same keys in `DD_TAGS` and
    `DATADOG_TAGS`. A tag without a value has an empty one.
    """
    unified = {
        key: environ[f"DD_{key.upper()}"] for key in ("env", "service", "version") if environ.get(f"DD_{key.upper()}")
    }
    written = [*_split(environ.get("DATADOG_TAGS", "")), *_split(environ.get("DD_TAGS", ""))]
    pairs = ((key, value) for key, _, value in (text.partition(":") for text in written))
    return (*unified.items(), *(pair for pair in dict.fromkeys(pairs) if pair[0] not in unified))


def _split(text: str) -> Iterable[str]:
    """Split at commas, or at spaces where there is no comma, as Datadog's clients do."""
    parts = text.split(",") if "," in text else text.split()
    return filter(None, (part.strip() for part in parts))
