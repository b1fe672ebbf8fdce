"""What the kit takes for left over."""

from __future__ import annotations

import os

import pytest
from tracarbon.testing import _watching


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are seen in /proc")  # noqa: PTH112
def test_an_open_file_is_left_over_and_the_listing_of_files_is_not() -> None:
    probe = os.open("/dev/null", os.O_RDONLY)
    before = _watching.Belongings()  # whose listing had the next number
    os.close(probe)
    assert before.left_over() == []
    one, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    try:
        assert before.left_over() == ["file /dev/null"]
    finally:
        os.close(one)
        os.close(other)
