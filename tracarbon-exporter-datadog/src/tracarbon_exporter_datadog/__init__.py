"""Energy and carbon for Datadog: the exporter `datadog` of tracarbon.

To an agent's DogStatsD, by UDP or a Unix socket, or to Datadog's HTTP API. Rates are gauges, with a count of what they
integrate to; amounts are counts; levels are gauges: sums of counts are right whatever happened on the way. Silence is
never taken for delivery: see `_agent` and `_intake` for what each of them can know.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Self

from pydantic import SecretStr, ValidationError
from tracarbon.exceptions import (
    DeliveryUnknown,
    ExportError,
    PermanentExportError,
    RetryableExportError,
    TracarbonException,
)
from tracarbon.exporters.exporter import Batch, Exporter
from tracarbon.plugin import PluginContext

from tracarbon_exporter_datadog._naming import environment_tags
from tracarbon_exporter_datadog._parcel import NotDelivered, Progress
from tracarbon_exporter_datadog._seconds import Seconds, is_taken_by_datadog, seconds_until_usable
from tracarbon_exporter_datadog.options import AgentTarget, DatadogOptions, target_of
from tracarbon_exporter_datadog.series import Catalogue, Delivery
from tracarbon_exporter_datadog.transports import made_transport, write_all

__all__ = ["DatadogExporter"]

_LONGEST_WAIT_SECONDS = 1.0
_DEFAULT_FLUSH_INTERVAL = 10
_MOST_TOLD = 1000


class DatadogExporter(Exporter):
    """Sends metrics to Datadog: to an agent's DogStatsD or, where there is a key, to the HTTP API.

    Several of them may be in a process, beside an application that uses the library `datadog` itself: none of them
    changes anything that is shared.

    Attributes:
        api_key: the API key; by default what `DATADOG_API_KEY` or `DD_API_KEY` says. Kept as a `SecretStr`.
        app_key: an application key, likewise from `DATADOG_APP_KEY` or `DD_APP_KEY`; metrics do not need one.
        stats: taken, and not used: a `ThreadStats` says that all went well whatever became of the metrics.
        disable_buffering: send each metric to the agent in a packet of its own. Requests to the API are always of many.
        datadog_flush_interval: taken, and not used: each window is sent when it is closed. How often that is, is the
            `interval` of the pipeline, or of the exporter's table.
        options: what else a `pipeline.toml` may say, as a mapping or as `DatadogOptions`.

    Raises:
        TracarbonException: a key is missing or none, or both an agent and a key are given.
    """

    Options = DatadogOptions

    api_key: str | SecretStr | None = None
    app_key: str | SecretStr | None = None
    stats: Any = None
    disable_buffering: bool = False
    datadog_flush_interval: float = _DEFAULT_FLUSH_INTERVAL
    options: DatadogOptions | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.api_key, self.app_key = _secret(self.api_key), _secret(self.app_key)
        self._context = self._own_context = PluginContext("datadog")
        self.options = _merged(self.options, self.api_key, self.app_key, self.disable_buffering)
        self._transport = made_transport(self.options)
        self._catalogue: Catalogue | None = None
        self._seconds: Seconds | None = None
        self._delivery: Delivery | None = None
        self._told: set[str] = set()
        self._tell_of_what_is_not_used()

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the exporter."""
        return "Datadog"

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it."""
        exporter = cls(
            options=options,
            api_key=options.api_key,
            app_key=options.app_key,
            disable_buffering=options.disable_buffering,
            metric_prefix_name=context.metric_prefix_name,
        )
        exporter.attach(context)
        return exporter

    def attach(self, context: PluginContext) -> None:
        """Take the pipeline's clock, thread and components."""
        self._context = context

    async def __aenter__(self) -> Self:
        """Get ready to send. Nothing is sent yet, and nobody has to listen.

        Raises:
            TracarbonException: the environment's proxies or certificates are of no use.
        """
        try:
            await self._transport.open(self._context)
        except NotDelivered as error:
            fault = str(error)
        else:
            self._context.logger.info("sends to %s", self._transport.name)
            return self
        raise TracarbonException(fault)

    async def __aexit__(self, *_: object) -> None:
        """Let go of sockets and connections."""
        refused = await self._transport.close()
        if refused:
            self._context.logger.warning("%d packets of the last windows turned out to be refused", refused)
        self._own_context.close()

    async def export(self, batch: Batch) -> None:
        """Deliver a batch. What the agent's socket or the API has taken is not sent again, come what may.

        Raises:
            RetryableExportError: what it has remaining was not taken.
            DeliveryUnknown: the API did not say; offered again, the same batch is sent with the same time.
            PermanentExportError: the receiver will never take any of it.
        """
        if not self._transport.is_open:
            await self.__aenter__()
        delivery = await self._delivery_of(batch)
        fault: NotDelivered | None = None
        try:
            await self._transport.deliver(delivery.parcels)
        except NotDelivered as error:
            fault = error
        failure = self._failure(delivery, fault)
        if not isinstance(failure, DeliveryUnknown):
            self._delivery = None
            if failure is not None and not any(parcel.has_arrived for parcel in delivery.parcels):
                self._give_second_back(delivery)
            self._tell_of_dropped(delivery, is_counted=not isinstance(failure, PermanentExportError))
        if failure is not None:
            raise failure

    async def _delivery_of(self, batch: Batch) -> Delivery:
        """Return the delivery of a batch: that which was begun, where the same batch is offered again."""
        delivery, now = self._delivery, self._context.clock.time()
        if delivery is None or delivery.batch is not batch:
            delivery = await self._context.run_blocking(self._current_catalogue().delivery, batch)
            await self._write(delivery, now)
            self._delivery = delivery
        elif self._transport.has_own_time and not is_taken_by_datadog(delivery.second, now):
            # It got too old, or the clock was put back. Should it have arrived after all, it counts twice.
            await self._write(delivery, now)
        return delivery

    async def _write(self, delivery: Delivery, now: float) -> None:
        if self._transport.has_own_time:
            generators = {record.generator for record in delivery.batch}
            ended_at = delivery.batch.window.ended_at
            self._seconds = self._seconds or Seconds(now)
            delivery.second = self._seconds.take(generators, ended_at, now)
            wait_seconds = min(_LONGEST_WAIT_SECONDS, seconds_until_usable(delivery.second, now))
            try:
                await self._context.clock.sleep_until(self._context.clock.monotonic() + wait_seconds)
            except BaseException:
                self._give_second_back(delivery)
                raise
        await self._context.run_blocking(write_all, self._transport, delivery)

    def _give_second_back(self, delivery: Delivery) -> None:
        if self._seconds is not None and self._transport.has_own_time:
            self._seconds.give_back({record.generator for record in delivery.batch}, delivery.second)

    def _failure(self, delivery: Delivery, fault: NotDelivered | None) -> ExportError | None:
        if fault is not None:
            if delivery.count(lambda parcel: parcel.progress is Progress.UNKNOWN):
                return DeliveryUnknown(f"{fault}; it may have arrived, and is sent again as it is")
            remaining = delivery.remaining(lambda parcel: parcel.progress is Progress.WAITING)
            return RetryableExportError(str(fault), remaining=remaining, retry_after_seconds=fault.retry_after_seconds)
        dropped = [parcel.dropped for parcel in delivery.parcels if parcel.dropped]
        if dropped and len(dropped) == len(delivery.parcels):
            return PermanentExportError(dropped[0])
        return None

    def _tell_of_dropped(self, delivery: Delivery, *, is_counted: bool) -> None:
        dropped: dict[tuple[str, str], int] = defaultdict(int)
        for parcel, keys in zip(delivery.parcels, delivery.keys, strict=True):
            if parcel.dropped:
                dropped[keys[0][0], parcel.dropped] += len(keys)
        for (name, reason), records in dropped.items():
            if is_counted:
                self._context.component.dropped_records += records
            if name not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(name)
                self._context.logger.warning("%s is dropped: %s", name, reason)

    def _current_catalogue(self) -> Catalogue:
        if self._catalogue is None:
            generators = [component.name for component in self._context.components if component.kind == "generator"]
            self._catalogue = Catalogue(self.metric_prefix_name, environment_tags(os.environ), generators)
        return self._catalogue

    def _tell_of_what_is_not_used(self) -> None:
        if self.stats is not None:
            self._context.logger.warning("stats is not used: a ThreadStats does not tell what was delivered")
        if self.datadog_flush_interval != _DEFAULT_FLUSH_INTERVAL:
            self._context.logger.warning(
                "datadog_flush_interval is not used: each window is sent when it is closed; give the interval instead"
            )


def _secret(key: str | SecretStr | None) -> SecretStr | None:
    return SecretStr(key) if isinstance(key, str) else key


def _merged(
    options: DatadogOptions | Mapping[str, Any] | None,
    api_key: SecretStr | None,
    app_key: SecretStr | None,
    disable_buffering: bool,
) -> DatadogOptions:
    """Return the options, with the arguments of old among them."""
    if isinstance(options, DatadogOptions):
        options = {name: getattr(options, name) for name in options.model_fields_set}
    given = dict(options or {})
    for name, argument in (("api_key", api_key), ("app_key", app_key)):
        if argument is not None:
            if name in given and _secret(given[name]) != argument:
                raise TracarbonException(f"{name} is given twice: as an argument, and in the options")
            given[name] = argument
    found = _validated(given)
    # For the API it was always taken, and never meant anything.
    if disable_buffering and isinstance(target_of(found, os.environ), AgentTarget):
        found = _validated({**given, "disable_buffering": disable_buffering})
    return found


def _validated(options: Mapping[str, Any]) -> DatadogOptions:
    try:
        return DatadogOptions(**options)
    except ValidationError as error:
        details = error.errors(include_input=False)
    said = [": ".join([*map(str, detail["loc"]), detail["msg"].removeprefix("Value error, ")]) for detail in details]
    raise TracarbonException("; ".join(said))
