"""The energy counters of Apple Silicon: group "Energy Model" of IOReport, which needs no rights."""

from __future__ import annotations

from typing import NamedTuple

from tracarbon_sensor_macos._apple import AppleLibraries
from tracarbon_sensor_macos._channels import Count, Selected, select
from tracarbon_sensor_macos._errors import SourceError

_GROUP = "Energy Model"


class _Subscription(NamedTuple):
    libraries: AppleLibraries
    reference: int
    channels: int
    subscribed: int | None


class EnergyModel:
    """Reads what the counters stand at since the machine was started.

    Samples are taken as they stand, without `IOReportCreateSamplesDelta`. A delta that nobody is there to receive,
    its reader cancelled or the sensor entered anew, would be energy lost; this way the next reading covers it.

    Not for use by several threads at once.

    Args:
        core_foundation_path: of the library CoreFoundation.
        ioreport_path: of the library IOReport.
    """

    def __init__(self, core_foundation_path: str, ioreport_path: str) -> None:
        self._paths = core_foundation_path, ioreport_path
        self._subscription: _Subscription | None = None
        self._selected: list[Selected] = []

    def open(self) -> None:
        """Subscribe to the counters.

        Raises:
            SourceError: there are none, or it was denied.
        """
        self.close()
        libraries = AppleLibraries(*self._paths)
        channels = libraries.copy_channels(_GROUP)
        try:
            reference, subscribed = libraries.subscribe(channels)
        except BaseException:
            libraries.release(channels)
            raise
        self._subscription = _Subscription(libraries, reference, channels, subscribed)
        try:
            self.read()
        except BaseException:
            self.close()
            raise

    def read(self) -> list[Count]:
        """Return what every counter that is wanted stands at.

        Raises:
            SourceError: there is no sample, or none of them in it.
        """
        if self._subscription is None:
            raise SourceError("the subscription to IOReport is not open")
        libraries, reference, channels, subscribed = self._subscription
        with libraries.sample(reference, subscribed or channels) as items:
            if not self._is_laid_out_as_before(libraries, items):
                self._selected = select([(libraries.name(item), libraries.unit(item)) for item in items])
            counts = [one.at(libraries.value(items[one.index])) for one in self._selected]
        if not counts:
            raise SourceError(f"the group {_GROUP!r} of IOReport has none of the channels that are known")
        return counts

    def close(self) -> None:
        """Give up the subscription."""
        if self._subscription is None:
            return
        libraries, reference, channels, subscribed = self._subscription
        self._subscription = None
        for owned in (reference, subscribed, channels):
            if owned:
                libraries.release(owned)

    def _is_laid_out_as_before(self, libraries: AppleLibraries, items: list[int]) -> bool:
        """There may be hundreds of channels: their names are read once, and later only those of the few wanted."""
        return bool(self._selected) and all(
            one.index < len(items)
            and libraries.name(items[one.index]) == one.name
            and libraries.unit(items[one.index]) == one.unit
            for one in self._selected
        )
