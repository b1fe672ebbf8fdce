"""Limits that the kernel sets to this process."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_room_in_files() -> Iterator[None]:
    """Let the kernel refuse to make any file longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
