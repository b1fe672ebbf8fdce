"""The open files of this process that are a test's own: what other threads open and close is none of its business."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """Return the files in a folder that are open, removed ones too, sorted; none where that cannot be known."""
    found = []
    with suppress(FileNotFoundError):  # there is no procfs here
        for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is asked for
            with suppress(FileNotFoundError):  # closed by another thread
                found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
    return sorted(str(path) for path in found if path.is_relative_to(folder))


def descriptors_below(folder: Path) -> int:
    """Return how many descriptors lead to files in a folder."""
    return len(open_below(folder))
