"""Every plugin of ours passes the kit that third parties have."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tracarbon.testing import (
    ExporterContract,
    GeneratorContract,
    LocationContract,
    PluginContract,
    SensorContract,
    deviates,
)
from tracarbon_exporter_prometheus import PrometheusExporter

from tests.exporter_datadog import test_kit as datadog_kit
from tests.k8s.api_server import Cluster, write_kubeconfig
from tests.k8s.api_server import serving as api_server
from tests.k8s.cgroup_tree import container_id, uid
from tests.k8s.machine import NODE, Machine
from tests.sensor_aws.imds import Imds, ec2_machine, xen_machine
from tests.sensor_nvidia.stub import Stub, build
from tests.support.limits import no_room_in_files
from tests.support.powercap_tree import PowercapTree, two_sockets_eight_zones
from tests.support.web_server import Handler, json_answer, serving

CORE = "tracarbon-core"


class TestEstimate(SensorContract):
    plugin = "estimate"
    distribution = CORE


class TestWindows(SensorContract):
    plugin = "windows"
    distribution = CORE

    @pytest.fixture(autouse=True)
    def monitor(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr("tracarbon.hardwares.windows.platform_name", lambda: "Windows")
        monkeypatch.setattr("tracarbon.hardwares.windows._TIMEOUT_SECONDS", 60.0)
        package = {"SensorId": "/amdcpu/0/power/0", "Text": "Package", "Value": "35,1 W", "Children": []}
        with serving(json_answer({"Text": "Sensor", "Children": [package]})) as self.server:
            yield

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"url": self.server.url}


class TestWindowsEstimate(TestWindows):
    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"source": "estimate"}


class TestMacos(SensorContract):
    """By a command; over the counters in `tests/sensor_macos`."""

    plugin = "macos"
    distribution = "tracarbon-sensor-macos"

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"shell_command": "echo 12.5"}


class TestNvidia(SensorContract):
    plugin = "nvidia"
    distribution = "tracarbon-sensor-nvidia"

    @pytest.fixture(autouse=True)
    def machine(self, tmp_path: Path) -> Iterator[None]:
        if shutil.which("gcc") is None:
            pytest.skip("the stub of NVML is built with gcc, which is not here")
        self.stub = Stub(build(tmp_path), tmp_path / "nvml")
        with self.stub.in_this_process():
            yield

    async def elapse(self, folder: Path) -> None:
        for card in self.stub.cards:
            card.use(500)


class TestRapl(SensorContract):
    plugin = "rapl"
    distribution = "tracarbon-sensor-rapl"

    def host_root(self, folder: Path) -> Path:
        if not (folder / "sys").exists():
            self.tree = PowercapTree(folder / "sys", two_sockets_eight_zones())
        return folder

    async def elapse(self, folder: Path) -> None:
        for key in tuple(self.tree.keys()):
            self.tree.advance(key, 100_000_000)


class TestAws(SensorContract):
    plugin = "aws"
    distribution = "tracarbon-sensor-aws"

    def host_root(self, folder: Path) -> Path:
        return ec2_machine(folder)


def be_patient_with_the_metadata_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in this process, and with it as slow as the machine."""
    for limit in ("_TIMEOUT_SECONDS", "_LONGEST_SECONDS"):
        monkeypatch.setattr(f"tracarbon_sensor_aws.instance.{limit}", 60.0)


class TestAwsByTheMetadataService(TestAws):
    @pytest.fixture(autouse=True)
    def service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        be_patient_with_the_metadata_service(monkeypatch)
        with serving(Imds({"instance-type": "m5.large"})) as self.server:
            yield

    def host_root(self, folder: Path) -> Path:
        return xen_machine(folder)

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"imds_endpoint": self.server.url}


class TestAwsRegion(LocationContract):
    plugin = "aws"
    distribution = "tracarbon-sensor-aws"

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"region": "eu-west-1"}


class TestAwsRegionByTheMetadataService(LocationContract):
    plugin = "aws"
    distribution = "tracarbon-sensor-aws"

    @pytest.fixture(autouse=True)
    def service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        be_patient_with_the_metadata_service(monkeypatch)
        with serving(Imds({"placement/region": "eu-west-1"})) as self.server:
            yield

    def host_root(self, folder: Path) -> Path:
        return ec2_machine(folder)

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"imds_endpoint": self.server.url}


class TestCountry(LocationContract):
    plugin = "country"
    distribution = CORE

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"country": "FR"}


class TestCountryByTimeZone(LocationContract):
    plugin = "country"
    distribution = CORE


class TestCountryLive(LocationContract):
    plugin = "country"
    distribution = CORE

    @pytest.fixture(autouse=True)
    def service(self) -> Iterator[None]:
        answer = {"zone": "FR", "carbonIntensity": 42, "datetime": "2026-05-01T12:00:00Z"}
        with serving(json_answer(answer)) as self.server:
            yield

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"country": "FR", "co2signal_api_key": "K3Y-OF-THE-KIT", "co2signal_url": f"{self.server.url}/?zone="}


class TestElectricityMaps(TestCountryLive):
    plugin = "electricitymaps"

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"zone": "FR", "api_key": "K3Y-OF-THE-KIT", "url": f"{self.server.url}/?zone="}


class TestAwsRegionLive(TestCountryLive):
    plugin = "aws"
    distribution = "tracarbon-sensor-aws"

    def options(self, folder: Path) -> Mapping[str, Any]:
        url = f"{self.server.url}/?zone="
        return {"region": "eu-west-3", "co2signal_api_key": "K3Y-OF-THE-KIT", "co2signal_url": url}


class TestGreatBritain(LocationContract):
    plugin = "uk"
    distribution = CORE

    @pytest.fixture(autouse=True)
    def service(self) -> Iterator[None]:
        half_hour = {"from": "2026-05-01T12:00Z", "to": "2026-05-01T12:30Z", "intensity": {"forecast": 1, "actual": 2}}
        with serving(json_answer({"data": [half_hour]})) as self.server:
            yield

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"url": self.server.url}


class TestStatic(LocationContract):
    plugin = "static"
    distribution = CORE

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"co2g_per_kwh": 12.5, "note": "contract"}


class TestEnergy(GeneratorContract):
    plugin = "energy"
    distribution = CORE


class TestCarbon(GeneratorContract):
    plugin = "carbon"
    distribution = CORE


class TestEnergyKubernetes(GeneratorContract):
    """Over cgroups; over the metrics API in `TestCarbonKubernetes`."""

    plugin = "energy_kubernetes"
    distribution = "tracarbon-k8s"

    @pytest.fixture(autouse=True)
    def cluster(self) -> Iterator[None]:
        self.pods = Cluster()
        with api_server(self.pods) as self.server:
            yield

    def host_root(self, folder: Path) -> Path:
        if not (folder / "proc").exists():
            machine = Machine(folder, cluster=self.pods)
            for number in (1, 2):
                machine.start(f"pod-{number}", "main", uid=uid(number), identity=container_id(number))
        return folder

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"kubeconfig": write_kubeconfig(folder / "kubeconfig", self.server.url), "node_name": NODE}


class TestCarbonKubernetes(TestEnergyKubernetes):
    plugin = "carbon_kubernetes"

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {**super().options(folder), "usage": "metrics-api"}


class TestCarbonWithOverheadAndEmbodied(TestCarbon):
    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"pue": 1.5, "embodied_kg": 1200.0, "lifetime_years": 4.0, "share": 0.5}

    @deviates("embodied carbon is of time, which is always known")
    def test_unknown_is_left_out(self) -> None:
        pass

    @deviates("embodied carbon comes from no sensor and knows no intensity")
    def test_provenance_is_stated(self) -> None:
        pass


class TestJson(ExporterContract):
    plugin = "json"
    distribution = CORE

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"path": str(folder / "records.jsonl")}

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        path = folder / "records.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            record = json.loads(line)
            yield record["name"], record["value"]

    def failing(self, fault: str, folder: Path) -> AbstractContextManager[object]:
        return no_room_in_files()

    @deviates("a file refuses nothing for good")
    def test_what_is_refused_for_good_is_given_up(self) -> None:
        pass

    @deviates("a batch is appended by one write, whole or not at all")
    def test_what_is_taken_in_part_is_not_sent_twice(self) -> None:
        pass


class TestJsonArray(TestJson):
    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"path": str(folder / "records.json"), "indent": 2}

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        path = folder / "records.json"
        for record in json.loads(path.read_text()) if path.exists() else ():
            yield record["name"], record["value"]


def kit_samples(text: str) -> Iterator[tuple[str, float]]:
    """The gauges of the kit's batches in an exposition."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("host") == "kit" and family.type == "gauge":
                yield sample.name, sample.value


class TestPrometheus(ExporterContract):
    """Scraped once more just before it lets go of its port."""

    plugin = "prometheus"
    distribution = "tracarbon-exporter-prometheus"

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"port": 0}

    @pytest.fixture(autouse=True)
    def last_scrape(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.scraped = ""
        leave = PrometheusExporter.__aexit__

        async def scrape_and_leave(exporter: PrometheusExporter, *details: object) -> None:
            if exporter.url is not None:
                with urllib.request.urlopen(exporter.url, timeout=60) as answer:
                    self.scraped = answer.read().decode()
            await leave(exporter, *details)

        monkeypatch.setattr(PrometheusExporter, "__aexit__", scrape_and_leave)

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        return kit_samples(self.scraped)

    @deviates("a batch is counted where it is, and scraped by whoever likes to")
    def test_what_fails_for_now_is_tried_again(self) -> None:
        pass

    @deviates("there is nobody who could refuse it")
    def test_what_is_refused_for_good_is_given_up(self) -> None:
        pass

    @deviates("there is nobody who could take a part")
    def test_what_is_taken_in_part_is_not_sent_twice(self) -> None:
        pass


class TestPrometheusPushing(ExporterContract):
    """To a Pushgateway, which keeps what was pushed last."""

    plugin = "prometheus"
    distribution = "tracarbon-exporter-prometheus"

    @pytest.fixture(autouse=True)
    def gateway(self) -> Iterator[None]:
        self.status, self.kept = 200, b""

        def respond(handler: Handler) -> None:
            if self.status == 200:
                self.kept = handler.body
            handler.answer(b"", self.status)

        with serving(respond) as self.server:
            yield

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"push_url": self.server.url}

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        return kit_samples(self.kept.decode())

    @contextmanager
    def failing(self, fault: str, folder: Path) -> Iterator[None]:
        self.status = {"retryable": 503, "permanent": 400}[fault]
        yield
        self.status = 200

    @deviates("a push is taken whole or not at all")
    def test_what_is_taken_in_part_is_not_sent_twice(self) -> None:
        pass


class TestDatadog(datadog_kit.TestByHttp):
    """By HTTP; to agents in `tests/exporter_datadog`."""

    @pytest.fixture(autouse=True)
    def no_proxies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith(("DD_", "DATADOG_")) or "proxy" in name.lower()]:
            monkeypatch.delenv(name)


class TestStdout(ExporterContract):
    """Standard output is a file here, as it often is for a service."""

    plugin = "stdout"
    distribution = CORE

    def setup_method(self) -> None:
        self.out = Path(os.devnull).open("w")  # noqa: SIM115 - closed below

    def teardown_method(self) -> None:
        self.out.close()

    def options(self, folder: Path) -> Mapping[str, Any]:
        sys.stdout = self.out  # pytest puts its own there again after the test
        lead_standard_output_to(os.open(folder / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        return {"color": "never"}

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        for line in (folder / "out").read_text().splitlines():
            _, _, name, value, *_ = line.split()
            yield name, float(value)

    def failing(self, fault: str, folder: Path) -> AbstractContextManager[object]:
        return no_room_in_files() if fault == "retryable" else nobody_reads()

    @deviates("a part of a line cannot be taken back: the same batch goes on where it was left")
    def test_what_is_taken_in_part_is_not_sent_twice(self) -> None:
        pass


def lead_standard_output_to(descriptor: int) -> None:
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


@contextmanager
def nobody_reads() -> Iterator[None]:
    reader, writer = os.pipe()
    os.close(reader)
    lead_standard_output_to(writer)
    yield


def test_none_of_ours_is_left_out() -> None:
    groups = {"tracarbon.sensors", "tracarbon.locations", "tracarbon.generators", "tracarbon.exporters"}
    ours = {
        (distribution.name, entry_point.name)
        for distribution in metadata.distributions()
        if distribution.name.startswith("tracarbon-")
        for entry_point in distribution.entry_points
        if entry_point.group in groups
    }
    tested = {
        (cls.distribution, cls.plugin)
        for cls in globals().values()
        if isinstance(cls, type) and issubclass(cls, PluginContract) and cls.__module__ == __name__
    }
    assert ours == tested
