"""What tests of the HTTP server share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.pipelines.support import wait_until
from tests.support.http_serving import threads
from tests.support.raw_http import open_files


@pytest.fixture
def nothing_is_left_behind(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No descriptors, no threads, and no word of the event loop about tasks that nobody waited for."""
    before = open_files()
    # What an earlier test has left to its threads may come and go; what this one leaves stays.
    with caplog.at_level(logging.INFO):
        yield
        wait_until(lambda: not threads(), "the end of the server's thread")
        wait_until(lambda: open_files() <= before, "the end of what the test has opened")
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr().err == ""
