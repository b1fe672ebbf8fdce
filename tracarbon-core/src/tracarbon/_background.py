"""A pipeline in a thread of its own, for code that is not asynchronous, or must not be held up."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import anyio

from tracarbon._pipeline import FLUSH_SECONDS, START_SECONDS, Pipeline
from tracarbon._worker import current_loop_caller
from tracarbon.exceptions import StartupError, TracarbonException

_START_SECONDS = START_SECONDS + 10.0
_STOP_SECONDS = 2 * FLUSH_SECONDS + 5.0


class BackgroundPipeline:
    """Runs a pipeline in a daemon thread with an event loop of its own.

    In a forked child it is inert: the thread did not come along.

    Args:
        pipeline: what to run.
        on_ended: called when the pipeline has come to its end, whyever, or could not begin.
    """

    def __init__(self, pipeline: Pipeline, on_ended: Callable[[], None] = lambda: None) -> None:
        self._pipeline = pipeline
        self._on_ended = on_ended
        self._pid = os.getpid()
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._is_to_stop = False
        self._call_in_loop: Callable[[Callable[[], object]], None] | None = None
        self._thread = threading.Thread(target=self._run, name="tracarbon", daemon=True)

    def start(self) -> None:
        """Start, and return when the first window is open.

        Raises:
            StartupError: components that are not optional did not start.
        """
        try:
            self._thread.start()
            if not self._settled.wait(_START_SECONDS):
                raise StartupError(
                    f"the pipeline did not start within {_START_SECONDS:g} s; a plugin blocks it{self._where()}"
                )
        except BaseException:
            self._ask_to_stop()
            if not self._thread.is_alive():
                self._end()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error

    def wait(self, seconds: float | None) -> bool:
        """Wait until it has come to its end, for that time at most; returns whether it has."""
        return self._ended.wait(seconds)

    def stop(self) -> None:
        """Read the last window, flush every exporter and end. A plugin that calls it only asks for that.

        Raises:
            TracarbonException: it did not come to its end in time; says where it is held up.
        """
        if self._pid != os.getpid():
            return
        self._ask_to_stop()
        if threading.current_thread() is self._thread:
            return
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise TracarbonException(
                f"the pipeline did not end within {_STOP_SECONDS:g} s; a plugin blocks it{self._where()}"
            )
        if self._error is not None:
            raise self._error

    def _where(self) -> str:
        """Say where the thread is at this moment."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "" if frame is None else f", in {frame.f_code.co_filename}, line {frame.f_lineno}"

    def _ask_to_stop(self) -> None:
        self._is_to_stop = True
        if self._call_in_loop is not None:
            self._call_in_loop(self._pipeline.stop)

    def _run(self) -> None:
        try:
            anyio.run(self._main)
        except BaseException as error:  # handed over to whoever started or stops it
            self._error = error
        finally:
            self._end()

    def _end(self) -> None:
        self._pipeline.release()
        self._on_ended()
        self._settled.set()
        self._ended.set()

    async def _main(self) -> None:
        self._call_in_loop = current_loop_caller()
        if self._is_to_stop:  # asked for while there was no loop yet
            self._pipeline.stop()
        await self._pipeline.run(on_started=self._settled.set)
