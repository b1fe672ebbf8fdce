"""The exporter in a pipeline and by itself: what a scrape gets, over real sockets, at every moment of its life."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tracarbon import EnergyConsumptionGenerator, Metric, MetricGenerator, PrometheusExporter, Tag
from tracarbon.exceptions import PermanentExportError, TracarbonException
from tracarbon.exporters.exporter import Batch
from tracarbon.plugin import PluginContext
from tracarbon.testing import ManualClock

from tests.exporter_prometheus.test_ledger import batch, record
from tests.support.fakes import CPU, Rig, Script, constant, hang, raising

HOST = "tracarbon_energy_consumption_host"
JOULES = f"{HOST}_joules_total"
GRAMS = "tracarbon_carbon_emission_host_grams_total"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_ADDRESS", raising=False)
    monkeypatch.delenv("PROMETHEUS_PORT", raising=False)


class Scrape:
    """What an exporter shows, parsed by the official parser."""

    def __init__(self, exporter: PrometheusExporter) -> None:
        assert exporter.url is not None
        with urllib.request.urlopen(exporter.url, timeout=60) as answer:
            self.text = answer.read().decode()
        self.samples = [sample for family in text_string_to_metric_families(self.text) for sample in family.samples]

    def values(self, name: str, **labels: str) -> list[float]:
        return [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, **labels: str) -> float:
        [value] = self.values(name, **labels)
        return value


def status_of(exporter: PrometheusExporter, path: str) -> tuple[int, str]:
    assert exporter.url is not None
    try:
        with urllib.request.urlopen(exporter.url.removesuffix("/metrics") + path, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scraped(rig: Rig, exporter: PrometheusExporter | None = None, name: str = "prometheus") -> PrometheusExporter:
    """Put an exporter into a pipeline, as an assembly does."""
    exporter = exporter or PrometheusExporter(port=0, metric_prefix_name="tracarbon")
    pipeline = rig.pipeline
    component = pipeline.components.add("exporter", name)
    context = PluginContext(
        name, component=component, components=pipeline.components, clock=rig.clock, pulse=pipeline.pulse
    )
    exporter.attach(context)
    pipeline.add_exporter(component, exporter)
    return exporter


async def listening(*exporters: PrometheusExporter) -> None:
    """Wait for the servers' threads, which know nothing of the manual clock."""
    with anyio.fail_after(60):
        while any(exporter.url is None for exporter in exporters):
            await anyio.sleep(0.001)


def whole_rig(**sensor: Any) -> Rig:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(loads={CPU: constant(40.0)}, **sensor)
    rig.energy()
    rig.carbon(rig.location())
    return rig


class TestInAPipeline:
    async def test_a_scrape_sees_power_and_totals_of_one_window(self) -> None:
        rig = whole_rig()
        exporter = scraped(rig)
        async with rig.running():
            await listening(exporter)
            for seconds, counted in ((0.15, 0.0), (10.0, 400.0), (20.0, 800.0), (35.0, 1200.0)):
                await rig.to(seconds)
                scrape = Scrape(exporter)
                assert scrape.value(HOST) == pytest.approx(40.0)
                assert scrape.value(JOULES) == pytest.approx(counted)
                # The fake location's intensity is 3.6e6 g/kWh: a gram a joule.
                assert scrape.value(GRAMS) == pytest.approx(scrape.value(JOULES))

    async def test_unknown_goes_away_and_its_total_stays(self) -> None:
        """L10: neither 0 nor the last value."""
        rig = whole_rig(script=Script([None, None, raising(OSError("gone"))], then=raising(OSError("gone"))))
        exporter = scraped(rig)
        async with rig.running():
            await listening(exporter)
            await rig.to(0.2)
            assert Scrape(exporter).values(HOST)
            await rig.to(25.0)
            scrape = Scrape(exporter)
            assert scrape.values(HOST) == []
            assert scrape.value(JOULES) > 0
            assert scrape.value("tracarbon_up", kind="sensor") == 0

    async def test_how_the_pipeline_fares(self) -> None:
        rig = whole_rig()
        rig.exporter("bad", script=Script([None], then=hang))
        exporter = scraped(rig)
        async with rig.running():
            await listening(exporter)
            await rig.to(65.0)
            scrape = Scrape(exporter)
        assert scrape.value("tracarbon_up", component="bad", kind="exporter") == 0
        assert scrape.value("tracarbon_up", component="prometheus") == 1
        assert scrape.value("tracarbon_failures_total", component="bad") == 1
        assert scrape.value("tracarbon_merged_batches_total", component="bad") > 0
        assert scrape.value("tracarbon_merged_batches_total", component="prometheus") == 0
        assert scrape.values("tracarbon_merged_batches_total", kind="sensor") == []
        assert scrape.value("tracarbon_last_tick_age_seconds") == pytest.approx(5.0)
        assert scrape.value("tracarbon_tick_interval_seconds") == 10.0
        assert scrape.value("tracarbon_tick_duration_seconds_count") == 7
        assert scrape.value("tracarbon_skipped_ticks_total") == 0
        assert scrape.value("tracarbon_build_info", version="0.1.0") == 1
        assert scrape.value("process_resident_memory_bytes") > 1e6

    async def test_a_component_that_works_in_part_is_up_and_degraded(self) -> None:
        rig = whole_rig()
        exporter = scraped(rig)
        async with rig.running():
            await listening(exporter)
            rig.component("sensor").degraded("a zone is missing")
            scrape = Scrape(exporter)
        assert (scrape.value("tracarbon_up", kind="sensor"), scrape.value("tracarbon_degraded", kind="sensor")) == (
            1,
            1,
        )
        assert scrape.value("tracarbon_degraded", kind="generator", component="energy") == 0

    async def test_what_is_dropped_and_skipped(self) -> None:
        rig = Rig(interval_seconds=10.0)
        rig.sensor(script=Script([None, None, rig.blocking(35.0)], then=rig.late(0.25)))
        rig.energy()
        rig.exporter("bad", script=Script([raising(PermanentExportError("400"))]))
        exporter = scraped(rig)
        async with rig.running():
            await listening(exporter)
            await rig.to(65.0)
            scrape = Scrape(exporter)
        assert scrape.value("tracarbon_dropped_records_total", component="bad") == 2
        assert scrape.value("tracarbon_skipped_ticks_total") == 3
        assert scrape.value("tracarbon_tick_duration_seconds_sum") > 0.5

    async def test_a_metric_cannot_take_the_place_of_the_pipelines_own(self) -> None:
        async with PrometheusExporter(port=0, metric_prefix_name="tracarbon") as exporter:
            await exporter.launch(MetricGenerator(metrics=[Metric(name="series", value=-5.0)]))
            assert Scrape(exporter).values("tracarbon_series") == [1.0]

    async def test_the_limits_are_those_of_the_options(self) -> None:
        options = PrometheusExporter.Options(max_series=1, linger_seconds=15.0)
        async with PrometheusExporter(port=0, options=options) as exporter:
            await exporter.export(batch(0, record(pod="a"), record(pod="b")))
            scrape = Scrape(exporter)
            assert scrape.value("tracarbon_refused_records_total") == 1
            assert scrape.values("energy_consumption_host_joules_total", overflow="true") == [0.0]
            for number in range(1, 4):
                await exporter.export(batch(number, record(number=number, pod="b")))
            assert Scrape(exporter).values("energy_consumption_host_joules_total", pod="a") == []

    async def test_health_is_that_of_the_ticks(self) -> None:
        rig = whole_rig()
        exporter = scraped(rig)
        async with rig.running():
            await listening(exporter)
            assert status_of(exporter, "/-/healthy") == (200, "healthy\n")
            assert status_of(exporter, "/-/ready")[0] == 503
            await rig.to(10.0)
            assert status_of(exporter, "/-/ready") == (200, "ready\n")
            rig.clock.elapse(61.0)
            assert status_of(exporter, "/-/healthy") == (503, "the last tick was 61 s ago\n")
            assert Scrape(exporter).values(HOST) == []
            assert status_of(exporter, "/-/ready")[0] == 503

    async def test_two_generators_of_one_metric_are_told_apart(self) -> None:
        """Whoever compares two sensors has each figure once, also where all their tags are the same."""
        rig = whole_rig()
        rig.energy(name="again")
        exporter = scraped(rig)
        async with rig.running():
            await listening(exporter)
            await rig.to(20.0)
            scrape = Scrape(exporter)
        assert scrape.values(JOULES) == [800.0, 800.0]
        assert scrape.values(JOULES, generator="again") == [800.0]
        assert scrape.values(HOST) == [40.0, 40.0]

    async def test_two_exporters_in_one_process(self) -> None:
        """T25."""
        rig = whole_rig()
        one, other = scraped(rig), scraped(rig, name="second")
        async with rig.running():
            await listening(one, other)
            await rig.to(10.0)
            assert one.port != other.port
            assert Scrape(one).value(JOULES) == Scrape(other).value(JOULES)

    async def test_what_was_counted_outlives_a_restart_of_the_server(self) -> None:
        exporter = PrometheusExporter(port=0)
        async with exporter:
            await exporter.export(batch(0, record(number=0)))
        assert exporter.url is None
        async with exporter:
            await exporter.export(batch(1, record(number=1)))
            assert Scrape(exporter).value("energy_consumption_host_joules_total") == 800.0


class TestFromCode:
    def test_as_documented(self) -> None:
        exporter = PrometheusExporter(
            metric_generators=[MetricGenerator(metrics=[Metric(name="jobs", value=3.0, tags=[])])],
            metric_prefix_name="acme",
            address="127.0.0.1",
            port=0,
        )
        assert PrometheusExporter.get_name() == "Prometheus"
        exporter.start(10.0)
        try:
            scrape = Scrape(exporter)
            assert scrape.value("tracarbon_up", kind="exporter") == 1
        finally:
            exporter.stop()
        assert exporter.metric_report["jobs"].maximum == 3.0

    async def test_launch(self) -> None:
        exporter = PrometheusExporter(port=0)
        generator = MetricGenerator(metrics=[Metric(name="jobs", value=3.0), Metric(name="load", value=0.5)])
        await exporter.launch(generator)
        try:
            assert Scrape(exporter).value("jobs") == 3.0
        finally:
            await exporter.__aexit__(None, None, None)

    async def test_labels_belong_to_their_values_in_whatever_order(self) -> None:
        """L9."""
        tags = [[Tag("host", "h1"), Tag("zone", "fr")], [Tag("zone", "de"), Tag("host", "h2")]]
        generator = MetricGenerator(metrics=[Metric(name="x", value=1.0, tags=item) for item in tags])
        async with PrometheusExporter(port=0) as exporter:
            await exporter.launch(generator)
            scrape = Scrape(exporter)
            assert scrape.value("x", host="h1", zone="fr") == scrape.value("x", host="h2", zone="de") == 1.0

    async def test_gauges_of_ones_own_are_served_beside(self) -> None:
        own = Gauge("acme_queue", "Jobs that wait.", ["queue"], registry=None)
        twin = Gauge("process_cpu_seconds", "Nobody's.", registry=None)
        own.labels("a").set(7)
        taken = Gauge("x", "Another one.", registry=None)
        taken.set(-1)
        async with PrometheusExporter(
            port=0, prometheus_metrics={"acme_queue": own, "x": taken, "y": twin}
        ) as exporter:
            await exporter.launch(MetricGenerator(metrics=[Metric(name="x", value=1.0)]))
            scrape = Scrape(exporter)
            assert scrape.value("acme_queue", queue="a") == 7
            assert scrape.value("x") == 1.0
            assert "Nobody" not in scrape.text

    async def test_of_two_gauges_of_one_name_the_first_is_served_and_that_is_said_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second = (Gauge("acme_queue", "Jobs that wait.", registry=None) for _ in range(2))
        first.set(1)
        second.set(2)
        own = {"a": first, "b": second, "again": first}
        async with PrometheusExporter(port=0, prometheus_metrics=own) as exporter:
            for _ in range(2):
                scrape = Scrape(exporter)
                assert scrape.values("acme_queue") == [1]
                assert scrape.text.count("# HELP acme_queue ") == 1
        [said] = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
        assert said.endswith("prometheus_metrics has more than one gauge called acme_queue: only the first is served")

    async def test_it_is_a_collector_for_a_registry_of_ones_own(self) -> None:
        async with PrometheusExporter(port=0) as exporter:
            registry = CollectorRegistry()
            registry.register(exporter)  # type: ignore[arg-type]
            await exporter.export(batch(0, record()))
            said = generate_latest(registry).decode()
            ours, _, _ = Scrape(exporter).text.partition("# HELP process_")
            assert said.splitlines() == ours.splitlines()

    async def test_a_registry_refuses_a_second_one(self) -> None:
        registry = CollectorRegistry(auto_describe=True)
        registry.register(PrometheusExporter(port=0))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            registry.register(PrometheusExporter(port=0))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [({"port": "80"}, "port is '80'"), ({"port": 70000}, "port is 70000"), ({"address": 5}, "address is 5")],
    )
    def test_what_is_no_address_and_port(self, arguments: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            PrometheusExporter(**arguments)

    def test_nothing_happens_before_it_is_entered(self) -> None:
        exporter = PrometheusExporter()
        assert (exporter.address, exporter.port, exporter.url) == ("127.0.0.1", 8081, None)


class TestAddressAndPort:
    def test_arguments_win_over_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """L47."""
        monkeypatch.setenv("PROMETHEUS_ADDRESS", "0.0.0.0")
        monkeypatch.setenv("PROMETHEUS_PORT", "9999")
        exporter = PrometheusExporter(address="127.0.0.1", port=0)
        assert (exporter.address, exporter.port) == ("127.0.0.1", 0)

    def test_variables_win_over_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMETHEUS_ADDRESS", "::1")
        monkeypatch.setenv("PROMETHEUS_PORT", "0")
        options = PrometheusExporter.Options(address="127.0.0.1", port=8081)
        exporter = PrometheusExporter.from_options(options, PluginContext("prometheus"))
        assert (exporter.address, exporter.port) == ("::1", 0)

    @pytest.mark.parametrize("port", ["abc", "-1", "65536", "80.5"])
    def test_what_is_no_port(self, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
        monkeypatch.setenv("PROMETHEUS_PORT", port)
        with pytest.raises(TracarbonException, match=f"PROMETHEUS_PORT is '{port}', which is no port"):
            PrometheusExporter()

    def test_a_service_of_kubernetes_is_no_port(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMETHEUS_PORT", "tcp://10.0.0.1:9090")
        assert PrometheusExporter().port == 8081


class TestPassword:
    @pytest.mark.parametrize(("address", "is_said"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)])
    async def test_that_it_can_be_read_on_the_way_is_said(
        self, address: str, is_said: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = PrometheusExporter.Options(username="prometheus", password="S3CRET")
        async with PrometheusExporter(address=address, port=0, options=options):
            pass
        assert ("the password crosses the network readably" in caplog.text) is is_said
        assert "S3CRET" not in caplog.text


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"certfile": "a"}, "certfile and keyfile go together"),
            ({"username": "a"}, "username and password go together"),
            ({"username": "a:b", "password": "c"}, "username has a colon"),
            ({"client_cafile": "a"}, "need certfile and keyfile"),
            ({"certfile": "a", "keyfile": "b", "client_auth_required": True}, "needs client_cafile or client_capath"),
            ({"push_job": "a"}, "push_job needs push_url"),
            ({"username": "a", "password": ""}, "password is empty"),
            ({"push_url": "http://127.0.0.1:9091", "push_grouping": {"job": "a"}}, "say push_job"),
            ({"push_url": "http://127.0.0.1:9091", "push_grouping": {"a-b": "a"}}, "'a-b': no label name"),
            ({"push_url": "http://127.0.0.1:9091", "port": 1}, "port is for being scraped"),
            ({"push_url": "127.0.0.1:9091"}, "push_url is no address"),
            ({"push_url": "http://a:b@127.0.0.1"}, "belong into username and password"),
            ({"push_url": "http://127.0.0.1:abc"}, "push_url has a port that is no number from 1 to 65535"),
            ({"push_url": "http://127.0.0.1:99999"}, "push_url has a port"),
            ({"push_url": "http://127.0.0.1:0"}, "push_url has a port"),
            ({"push_url": "http://:9091"}, "push_url is no address"),
            ({"push_url": "http://[::1:9091"}, "push_url is no address"),
            ({"push_url": "http://a..b:9091"}, "push_url is no address"),
            ({"push_url": " http://127.0.0.1:9091"}, "push_url has a blank"),
            (
                {"push_url": "http://127.0.0.1:9091\n"},
                "push_url has a blank or a character that is not printable ASCII",
            ),
            ({"push_url": "http://push gateway:9091"}, "push_url has a blank"),
            ({"push_url": "http://127.0.0.1:9091/?a=b"}, "push_url has more than scheme, host, port and path"),
            ({"push_url": "http://bücher.example:9091"}, "not printable ASCII"),
            ({"port": 65536}, "less than or equal to 65535"),
            ({"max_series": 0}, "greater than or equal to 1"),
        ],
    )
    def test_what_makes_no_sense(self, options: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            PrometheusExporter.Options(**options)

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1",
            "HTTPS://gateway.example:443/",
            "http://[::1]:9091",
            "http://xn--bcher-kva.example:1/path",
        ],
    )
    def test_where_one_can_push_to(self, url: str) -> None:
        assert PrometheusExporter.Options(push_url=url).push_url == url

    def test_no_secret_is_shown(self) -> None:
        options = PrometheusExporter.Options(username="prometheus", password="S3CRET")
        assert "S3CRET" not in repr(options) + repr(PrometheusExporter(options=options)) + str(options.model_dump())


def test_every_tag_of_ours_is_known_to_describe_and_not_to_tell_apart() -> None:
    """A tag that the generators `energy` and `carbon` get would begin new totals whenever its value changes."""
    exporter = PrometheusExporter(port=0)
    exporter.start(10.0)
    exporter.stop()
    lines = [line for family, lines in exporter._current_ledger().snapshot.totals.items() for line in lines]
    assert lines
    assert not [line for line in lines if "{" in line]


def records_of(exporter: PrometheusExporter) -> Iterator[float]:
    for lines in exporter._current_ledger().snapshot.totals.values():
        yield from lines.values()


async def test_of_a_batch_either_all_or_nothing_is_seen() -> None:
    """A scrape during an export sees the window before."""
    exporter = PrometheusExporter(port=0)
    exporter.attach(PluginContext("prometheus", clock=ManualClock(20.0)))
    await exporter.__aenter__()
    seen: list[list[float]] = []

    class Watching(Batch):
        def is_current(self, record: Any) -> bool:
            seen.append(Scrape(exporter).values("energy_consumption_host"))
            return super().is_current(record)

    first = [record(float(pod), pod=str(pod)) for pod in range(3)]
    second = [record(10.0 + pod, number=1, pod=str(pod)) for pod in range(3)]
    await exporter.export(batch(0, *first))
    made = batch(1, *second)
    await exporter.export(Watching(made.records, made.windows, made.window))
    assert seen == [[0.0, 1.0, 2.0]] * 3
    assert Scrape(exporter).values("energy_consumption_host") == [10.0, 11.0, 12.0]
    await exporter.__aexit__(None, None, None)


def test_a_generator_of_ours_alone() -> None:
    exporter = PrometheusExporter(port=0, metric_generators=[EnergyConsumptionGenerator()])
    exporter.start(10.0)
    exporter.stop()
    assert [*records_of(exporter)]
