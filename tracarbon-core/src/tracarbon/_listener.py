"""Who watches a pipeline: synchronous observers, never on the data path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracarbon._states import Component
    from tracarbon.metrics import Batch


class Listener:
    """Is told of the moments of a pipeline. The methods do nothing unless overridden; they must not raise or wait."""

    def started(self) -> None:
        """Every component that is not optional has started and the first window is open."""

    def window_closed(self, batch: Batch) -> None:
        """A generator has done with a window."""

    def exported(self, exporter: str, batch: Batch) -> None:
        """A batch has arrived."""

    def state_changed(self, component: Component) -> None:
        """A component fares otherwise than before."""

    def stopped(self) -> None:
        """Every exporter was flushed, or given up on."""
