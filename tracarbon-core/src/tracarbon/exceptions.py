"""Every exception of tracarbon.

```
TracarbonException
├── ConfigurationError              the file, the environment or the command line says something impossible
├── StartupError                    components that are not optional did not start
├── PluginError                     a plugin is missing, broken, or made for another core
├── UnknownUnit                     no such unit of power or carbon (also a ValueError)
├── HardwareRAPLException           no readable RAPL counter
├── HardwareNoGPUDetectedException  no GPU (never "0 W")
├── AWSSensorException              the EC2 power model cannot say anything
├── CloudProviderRegionIsMissing    the cloud region is unknown
├── CountryIsMissing                the country is unknown
├── CO2SignalAPIKeyIsMissing        a live intensity was asked for without a key
└── ExportError                     a batch, or a part of it, was not delivered
    ├── RetryableExportError        try again later; says which part is left
    ├── PermanentExportError        trying again is useless; the batch is dropped and counted
    │   └── ReceiverGone            and so are all later ones; the exporter has come to its end
    └── DeliveryUnknown             it may have arrived; retried unchanged, never merged
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracarbon._document import Problem
    from tracarbon.metrics import Batch


class TracarbonException(Exception):
    """General tracarbon exception."""


class ConfigurationError(TracarbonException):
    """What the user wrote cannot be run; says every problem at once.

    Attributes:
        source: where it was read from, such as the file's name.
        problems: everything that is wrong, each with its line and key.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = list(problems)
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        from tracarbon._document import render_problems

        return render_problems(self.source, self.problems)


class StartupError(TracarbonException):
    """Components that are not optional did not start; nothing runs."""


class PluginError(TracarbonException):
    """A plugin is missing, broken, or made for another core."""


class UnknownUnit(TracarbonException, ValueError):
    """There is no such unit of power or carbon.

    Args:
        what: what it should be a unit of.
        unit: what was given.
        known: the units that there are.
    """

    def __init__(self, what: str, unit: object, known: Sequence[str]) -> None:
        super().__init__(f"no unit of {what} is called {unit!r}; there are {' and '.join(known)}")


class HardwareRAPLException(TracarbonException):
    """The hardware is not compatible with RAPL."""


class HardwareNoGPUDetectedException(TracarbonException):
    """The hardware does not have a GPU."""


class AWSSensorException(TracarbonException):
    """Error in the AWS sensor."""


class CloudProviderRegionIsMissing(TracarbonException):
    """The region of the cloud provider is missing."""


class CountryIsMissing(TracarbonException):
    """The country is missing."""


class CO2SignalAPIKeyIsMissing(TracarbonException):
    """The CO2 Signal API key is missing."""


class ExportError(TracarbonException):
    """A batch, or a part of it, was not delivered."""


class RetryableExportError(ExportError):
    """Not delivered now; the pipeline merges what is left with what comes and tries again.

    Args:
        message: why.
        remaining: the part that was not delivered; the whole batch where it is left out.
        retry_after_seconds: how long the receiver asked to be left alone.
    """

    def __init__(
        self, message: str, *, remaining: Batch | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.remaining = remaining
        self.retry_after_seconds = retry_after_seconds


class PermanentExportError(ExportError):
    """The receiver will never take this batch: it is dropped, counted and reported."""


class ReceiverGone(PermanentExportError):
    """Nobody will ever read again (a closed pipe): the exporter ends, and the pipeline with its last exporter."""


class DeliveryUnknown(ExportError):
    """The batch may or may not have arrived: it is retried unchanged, never merged."""
