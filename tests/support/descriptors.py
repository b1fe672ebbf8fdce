"""The open files of this process that are a test's own: what other threads open and close is none of its business."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def descriptors_below(folder: Path) -> int:
    """Return how many descriptors lead to files in a folder, removed ones too; 0 where that cannot be known."""
    found = 0
    with suppress(FileNotFoundError):  # there is no procfs here
        for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is asked for
            with suppress(FileNotFoundError):  # closed by another thread
                found += Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(folder)
    return found
