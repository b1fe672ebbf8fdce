"""Energy and carbon for Prometheus: the exporter `prometheus` of tracarbon.

Each scrape shows the gauges of the newest window and, beside each, a total that only grows. What is shown is a snapshot
that an export leaves behind, and the server has a thread of its own: a scrape waits for nobody, and nobody for it.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from tracarbon.exceptions import PermanentExportError, RetryableExportError, TracarbonException
from tracarbon.exporters.exporter import Batch, Exporter
from tracarbon.plugin import PluginContext

from tracarbon_exporter_prometheus._certificates import CertificateError, CertificateFiles, Certificates
from tracarbon_exporter_prometheus._exposition import OPENMETRICS_END, Exposition, render
from tracarbon_exporter_prometheus._responses import Credentials, Responses
from tracarbon_exporter_prometheus._server import Server
from tracarbon_exporter_prometheus.health import NAMES, health_of, last_tick_age_seconds
from tracarbon_exporter_prometheus.ledger import Ledger, Snapshot
from tracarbon_exporter_prometheus.options import PrometheusOptions, is_port, with_variables

if TYPE_CHECKING:
    from prometheus_client import Gauge, Metric

    from tracarbon_exporter_prometheus._push import Gateway

__all__ = ["PrometheusExporter"]

logger = logging.getLogger("tracarbon")

_LONGEST_SILENCE_SECONDS = 60.0
_ATTACHED: WeakSet[PrometheusExporter] = WeakSet()
"""Those that have a pipeline: one cannot ask a pipeline which others it has."""
_ATTACHING = Lock()


class PrometheusExporter(Exporter):
    """Shows metrics to Prometheus, which scrapes them from an HTTP server; or pushes them to a Pushgateway.

    It is a collector too: an application that serves metrics of its own may put it into its registry.

    Attributes:
        prometheus_metrics: gauges of one's own, served beside those of the pipeline, by name.
        address: what to listen on; by default what `PROMETHEUS_ADDRESS` says, or else 127.0.0.1.
        port: the port, 0 for any that is free; by default what `PROMETHEUS_PORT` says, or else 8081. While it serves,
            the port that it listens on.
        options: everything else that a `pipeline.toml` may say.

    Raises:
        TracarbonException: `PROMETHEUS_PORT` is no port.
        ValueError: `port` is none, or `address` no text.
    """

    Options = PrometheusOptions

    prometheus_metrics: dict[str, Gauge] = {}  # noqa: RUF012 - each instance gets a copy
    address: str | None = None
    port: int | None = None
    options: PrometheusOptions | None = None

    def __post_init__(self) -> None:
        self._options = self.options or with_variables(PrometheusOptions())
        self.address = self._options.address if self.address is None else self.address
        self.port = self._options.port if self.port is None else self.port
        _check_place(self.address, self.port)
        self._context = self._own_context = PluginContext("prometheus")
        self._ledger: Ledger | None = None
        self._server: Server | None = None
        self._gateway: Gateway | None = None
        self._twins: set[str] = set()

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the exporter."""
        return "Prometheus"

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it; variables win over the file.

        Raises:
            TracarbonException: `PROMETHEUS_PORT` is no port, or the place is another exporter's of this pipeline.
        """
        exporter = cls(options=with_variables(options), metric_prefix_name=context.metric_prefix_name)
        exporter.attach(context)
        return exporter

    def attach(self, context: PluginContext) -> None:
        """Take the pipeline's components, ticks and clock, of which it tells as well.

        Raises:
            TracarbonException: another exporter of this pipeline is to listen on the same address and port.
        """
        with _ATTACHING:
            for other in _ATTACHED:
                if other is not self and self._is_in_place_of(other, context):
                    raise TracarbonException(
                        f"port {self.port} of {self.address} is that of exporters.{other._context.name} already; give "
                        "each another one: option port, without the variable PROMETHEUS_PORT, which is for all of them"
                    )
            self._context = context
            _ATTACHED.add(self)

    def _is_in_place_of(self, other: PrometheusExporter, context: PluginContext) -> bool:
        is_of_one_pipeline = bool(context.components) and other._context.components is context.components
        return is_of_one_pipeline and self._place is not None and self._place == other._place

    @property
    def _place(self) -> tuple[str, int] | None:
        """Where it is to listen and no other can; `None` if it pushes, or takes any port that is free."""
        if self._options.push_url is not None or not self.port or self.address is None:
            return None
        return self.address, self.port

    @property
    def url(self) -> str | None:
        """Where the metrics are, while it serves."""
        if self._server is None:
            return None
        scheme = "http" if self._options.certfile is None else "https"
        host = f"[{self.address}]" if ":" in str(self.address) else self.address
        return f"{scheme}://{host}:{self.port}/metrics"

    async def __aenter__(self) -> Self:
        """Listen, or get ready to push.

        Raises:
            TracarbonException: the port or a certificate cannot be used; says why.
        """
        if self._options.push_url is None:
            await self._listen()
        else:
            self._gateway = self._made_gateway(self._options.push_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the port. What was counted is kept."""
        server, self._server, self._gateway = self._server, None, None
        self._own_context.close()
        if server is not None:
            await server.stop()

    async def export(self, batch: Batch) -> None:
        """Count a batch and show it from now on; or push what there is with it.

        Raises:
            RetryableExportError: the Pushgateway did not take it; it is not counted.
            PermanentExportError: the Pushgateway never will; it is counted in what is pushed later.
        """
        if self._server is None and self._gateway is None:
            await self.__aenter__()
        ledger = self._current_ledger()
        snapshot = ledger.counted(batch)
        if self._gateway is not None:
            await self._push(self._gateway, ledger, snapshot)
        ledger.publish(snapshot)

    def collect(self) -> Iterator[Metric]:
        """Return what is shown, as the families of prometheus_client, for a registry of one's own."""
        return _as_metrics(self._exposition(self._current_ledger().snapshot))

    describe = collect  # so that a registry refuses a second one, whose page would not be valid

    def _current_ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger(
                self.metric_prefix_name,
                max_series=self._options.max_series,
                linger_seconds=self._options.linger_seconds,
                begins_at_zero=self._options.push_url is None,
                reserved=NAMES,
                generators=[component.name for component in self._context.components if component.kind == "generator"],
            )
        return self._ledger

    def _exposition(self, snapshot: Snapshot) -> Exposition:
        at_scrape = self._options.push_url is None
        return chain(snapshot.families(*self._now()), health_of(self._context, snapshot, at_scrape=at_scrape))

    def _now(self) -> tuple[float, float]:
        """The instant, and the interval by which figures grow old."""
        return self._context.clock.monotonic(), self._context.pulse.interval_seconds

    async def _listen(self) -> None:
        assert self.address is not None and self.port is not None
        server = Server(
            self.address,
            self.port,
            Responses(
                render=self._rendered,
                why_unhealthy=self._why_unhealthy,
                is_ready=lambda: self._current_ledger().snapshot.has_figures(*self._now()),
                credentials=self._credentials(),
            ),
            certificates=self._certificates(),
            warn=lambda message: logger.warning("exporter %s: %s", self._context.name, message),
        )
        try:
            await server.start()
        except OSError as error:
            raise TracarbonException(_why_not_listening(self.address, self.port, error)) from error
        self._server, self.port = server, server.port
        logger.info("exporter %s: the metrics are at %s", self._context.name, self.url)
        if self._options.username is not None and self._options.certfile is None and not _is_loopback(self.address):
            logger.warning(
                "exporter %s: without certfile and keyfile the password crosses the network readably",
                self._context.name,
            )

    def _credentials(self) -> Credentials | None:
        username, password = self._options.username, self._options.password
        if username is None or password is None:
            return None
        return Credentials(username, password.get_secret_value())

    def _certificates(self) -> Certificates | None:
        options = self._options
        if options.certfile is None or options.keyfile is None:
            return None
        files = CertificateFiles(
            certfile=options.certfile,
            keyfile=options.keyfile,
            client_cafile=options.client_cafile,
            client_capath=options.client_capath,
            client_auth_required=options.client_auth_required,
        )
        try:
            return Certificates(files)
        except CertificateError as error:
            raise TracarbonException(str(error)) from error

    def _rendered(self, openmetrics: bool) -> bytes:
        from tracarbon_exporter_prometheus._others import render_others

        snapshot = self._current_ledger().snapshot
        ours = render(self._exposition(snapshot), openmetrics=openmetrics)
        others = render_others(
            self.prometheus_metrics.values(), snapshot.names, openmetrics=openmetrics, tell_of_twin=self._warn_of_twin
        )
        return f"{ours}{others}{OPENMETRICS_END if openmetrics else ''}".encode()

    def _warn_of_twin(self, name: str) -> None:
        if name not in self._twins:
            self._twins.add(name)
            logger.warning(
                "exporter %s: prometheus_metrics has more than one gauge called %s: only the first is served",
                self._context.name,
                name,
            )

    def _why_unhealthy(self) -> str:
        age = last_tick_age_seconds(self._context)
        longest = max(_LONGEST_SILENCE_SECONDS, 3 * self._context.pulse.interval_seconds)
        return f"the last tick was {age:.0f} s ago" if age is not None and age > longest else ""

    def _made_gateway(self, url: str) -> Gateway:
        from tracarbon_exporter_prometheus._push import Gateway

        return Gateway(
            url=url,
            job=self._options.push_job,
            grouping={"instance": socket.gethostname(), **self._options.push_grouping},
            credentials=self._credentials(),
        )

    async def _push(self, gateway: Gateway, ledger: Ledger, snapshot: Snapshot) -> None:
        from tracarbon_exporter_prometheus._push import PushError

        try:
            await self._context.run_blocking(gateway.push, _Collector(self._exposition(snapshot)))
        except PushError as error:
            if not error.is_final:
                raise RetryableExportError(str(error)) from error
            ledger.publish(snapshot)
            raise PermanentExportError(str(error)) from error


class _Collector:
    """An exposition, to be collected once."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    def collect(self) -> Iterator[Metric]:
        return _as_metrics(self._exposition)


def _as_metrics(exposition: Exposition) -> Iterator[Metric]:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    text = render(exposition, openmetrics=True) + OPENMETRICS_END
    yield from text_string_to_metric_families(text)  # type: ignore[no-untyped-call]


def _why_not_listening(address: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"there is no address called {address!r} here; give one of this machine's, as option address"
    known = {
        errno.EADDRINUSE: f"port {port} of {address} is taken already; give another one: option port, or "
        "PROMETHEUS_PORT",
        errno.EACCES: f"port {port} is privileged: give one from 1024 on, or the capability CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: f"this machine does not have the address {address}; give one of its own: option address",
    }
    return known.get(error.errno or 0, f"{address}:{port} cannot be listened on: {error.strerror or error}")


def _check_place(address: object, port: object) -> None:
    if not isinstance(address, str):
        raise ValueError(f"address is {address!r}; give a text such as '127.0.0.1'")
    if not is_port(port):
        raise ValueError(f"port is {port!r}; give a number from 0 to 65535")


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
