"""The unmodified command, scraped by a real Prometheus, against the true joules of a made-up RAPL tree."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from operator import itemgetter
from pathlib import Path

import pytest
import trustme
from tracarbon.locations._intensity import find_factor

from tests.pipelines.support import Program, Record, Result, figures, read_records, start
from tests.support.feeder import Truth, start_feeder
from tests.support.powercap_tree import PowercapTree, two_sockets_eight_zones
from tests.support.prometheus_server import Prometheus, Series, prometheus_scraping, promtool, unavailable

pytestmark = [pytest.mark.once, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]

HOST = "tracarbon_energy_consumption_host"
JOULES = f"{HOST}_joules_total"
GRAMS = "tracarbon_carbon_emission_host_grams_total"
WATTS = {"intel-rapl:0": 50.0, "intel-rapl:0:2": 4.0, "intel-rapl:1": 30.0, "intel-rapl:1:2": 3.0}
SCRAPES = 20
INTERVAL_SECONDS = 0.4
PIPELINE = """
interval = "400ms"

[location]
country = "FR"

[sensors.rapl]
path = "{powercap}"

[exporters.prometheus]
port = 0

[exporters.json]
path = "records.jsonl"
"""


def address_of(program: Program) -> str:
    """Return host and port that the command says it listens on."""
    said = program.wait_for(r"the metrics are at https?://\S+/metrics", "stderr")
    found = re.search(r"the metrics are at https?://(\S+)/metrics", said)
    assert found is not None
    return found[1]


@dataclass(frozen=True)
class Run:
    """What a Prometheus scraped, what the command wrote, and what really happened."""

    scraped: dict[str, Series]
    increase: float
    health: dict[str, str]
    units: dict[str, str]
    exposition: str
    records: list[Record]
    result: Result
    truth: Truth
    wall_offset: float

    def host(self) -> list[Record]:
        return list(figures(self.records, "energy_consumption_host"))

    def joules_by_window(self) -> dict[float, float]:
        """The total at the end of each window, by the monotonic time of the end: what JSON says, added up."""
        host = self.host()
        totals = accumulate(record["value"] * record["covered_seconds"] for record in host)
        return dict(zip(map(self.window_end, host), totals, strict=True))

    def was_merged(self, total: float) -> bool:
        """Whether JSON has but one record of the window of a total and of others: the disk was slow."""
        before = 0.0
        for record, after in zip(self.host(), self.joules_by_window().values(), strict=True):
            if before < total <= after + 1e-6:
                seconds: float = record["window_seconds"]
                return seconds > 1.5 * INTERVAL_SECONDS
            before = after
        return False

    def lateness(self) -> dict[float, float]:
        """By the end of each window, how much later than the counters' reading it is; but for a constant."""
        covered = accumulate(record["covered_seconds"] for record in self.host())
        return {end: end - seconds for end, seconds in zip(self.joules_by_window(), covered, strict=True)}

    def surest(self, ends: Sequence[float]) -> tuple[float, float]:
        """Return that end of which is best known what was used until then, and how many joules it may be off.

        The counters are read up to 0.02 s before the end is noted, or more where the program was held up between the
        two; and they show what the feeder had last written by then.
        """
        late = self.lateness()
        least = min(late[end] for end in ends)
        return min(((end, self.uncertain_joules(end, late[end] - least)) for end in ends), key=itemgetter(1))

    def uncertain_joules(self, at: float, held_up_seconds: float) -> float:
        times = [time for time, _ in self.truth.log]
        earliest = times[max(0, bisect_right(times, at - 0.02 - held_up_seconds) - 1)]
        return sum(self.truth.joules_between(zone, earliest, at) for zone in WATTS)

    def window_end(self, record: Record) -> float:
        return datetime.fromisoformat(record["timestamp"]).timestamp() - self.wall_offset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    tree = PowercapTree(folder / "sys", two_sockets_eight_zones())
    (folder / "pipeline.toml").write_text(PIPELINE.format(powercap=folder / "sys" / "class" / "powercap"))
    feeder = start_feeder(tree.root, WATTS, folder / "truth.json", period_seconds=0.01)
    try:
        with start("run", "-c", "pipeline.toml", cwd=folder) as program:
            address = address_of(program)
            with prometheus_scraping(address, folder) as prometheus:
                prometheus.wait_for(f"count_over_time({JOULES}[5m])", lambda found: has_value(found, SCRAPES))
                scraped = raw_samples(prometheus, HOST, JOULES, GRAMS)
                [increase] = prometheus.query(f"increase({JOULES}{span_of(scraped[JOULES])})")
                health = prometheus.content_target()
                units = units_of(prometheus)
                exposition = read(f"http://{address}/metrics")
                result = program.stop(signal.SIGINT)
    finally:
        feeder.terminate()
        feeder.wait()
    return Run(
        scraped,
        increase.value,
        health,
        units,
        exposition,
        read_records(folder / "records.jsonl"),
        result,
        Truth.load(folder / "truth.json"),
        time.time() - time.monotonic(),
    )


def has_value(found: list[Series], at_least: float) -> bool:
    return bool(found) and found[0].value >= at_least


def raw_samples(prometheus: Prometheus, *names: str) -> dict[str, Series]:
    """Return what was scraped, by one query: between two, there may be a scrape."""
    found = prometheus.query(f'{{__name__=~"{"|".join(names)}"}}[5m]')
    assert sorted(series.labels["__name__"] for series in found) == sorted(names)
    return {series.labels["__name__"]: series for series in found}


def span_of(series: Series) -> str:
    """Return the range from the first sample to the last one, as a query has it."""
    (first, _), (last, _) = series.samples[0], series.samples[-1]
    return f"[{round((last - first) * 1000) + 1}ms] @ {last:.3f}"


def units_of(prometheus: Prometheus) -> dict[str, str]:
    """Return the unit of each family, which only OpenMetrics tells."""
    found = json.loads(read(f"{prometheus.url}/api/v1/targets/metadata"))["data"]
    return {item["metric"]: item["unit"] for item in found}


def read(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def test_every_scraped_total_is_that_of_a_window(run: Run) -> None:
    totals = [0.0, *run.joules_by_window().values()]
    for _, value in run.scraped[JOULES].samples:
        assert run.was_merged(value) or min(abs(value - total) for total in totals) < 1e-6


def test_what_the_totals_grew_by_is_the_true_energy(run: Run) -> None:
    """Between an early and a late scrape, as raw differences: `increase()` extrapolates.

    Of the first and of the last scrapes those are taken at which nobody was held up, or the least.
    """
    by_window = run.joules_by_window()
    ends = [
        end for _, value in run.scraped[JOULES].samples for end, total in by_window.items() if abs(value - total) < 1e-6
    ]
    (start, before), (end, after) = run.surest(ends[:8]), run.surest(ends[-8:])
    true_joules = sum(run.truth.joules_between(zone, start, end) for zone in WATTS)
    tolerance = before + after
    assert by_window[end] - by_window[start] == pytest.approx(true_joules, rel=0, abs=tolerance)
    assert tolerance < 0.1 * true_joules, "too much was held up too often for this to say anything"


def test_increase_says_the_same(run: Run) -> None:
    (_, first), *_, (_, last) = run.scraped[JOULES].samples
    assert run.increase == pytest.approx(last - first, rel=0.01)


def test_totals_never_fall(run: Run) -> None:
    for name in (JOULES, GRAMS):
        assert all(later >= earlier for (_, earlier), (_, later) in pairwise(run.scraped[name].samples))


def test_energy_and_carbon_of_a_scrape_are_of_one_window(run: Run) -> None:
    """But for one that came just between the two batches of a window: then the carbon is that of the window before."""
    factor = find_factor("FR")
    assert factor is not None
    grams, scrapes = dict(run.scraped[GRAMS].samples), run.scraped[JOULES].samples
    assert grams.keys() == dict(scrapes).keys()
    totals, between = run.joules_by_window().values(), 0
    for at, joules in scrapes:
        before = [0.0, *(total for total in totals if total < joules - 1e-6)][-1]
        expected = [pytest.approx(total * factor.co2g_per_kwh / 3.6e6, rel=1e-9) for total in (before, joules)]
        assert grams[at] in expected
        between += grams[at] != expected[1]
    assert between < len(scrapes) / 4


def test_gauge_has_the_documented_labels(run: Run) -> None:
    labels = run.scraped[HOST].labels
    assert {"platform": "Linux", "location": "fr", "units": "watts"}.items() <= labels.items()
    written, totals = {record["value"] for record in run.host()}, dict(run.scraped[JOULES].samples)
    assert {value for at, value in run.scraped[HOST].samples if not run.was_merged(totals[at])} <= written
    assert run.scraped[JOULES].labels.keys() == {"__name__", "instance", "job"}


def test_prometheus_is_content(run: Run) -> None:
    assert (run.health["health"], run.health["lastError"]) == ("up", "")


def test_it_was_openmetrics(run: Run) -> None:
    assert run.units[JOULES.removesuffix("_total")] == "joules"
    assert run.units[GRAMS.removesuffix("_total")] == "grams"
    assert "# UNIT" not in run.exposition, "who states no preference gets the classic format"


def test_promtool_has_nothing_to_say(run: Run) -> None:
    assert promtool("check", "metrics", stdin=run.exposition) == (0, "")


def test_the_end_is_as_ever(run: Run) -> None:
    assert run.result.status == 0
    assert "tracarbon report:" in run.result.stderr
    assert "Traceback" not in run.result.stderr


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A scrape over TLS with client certificates and a password: settings for both sides."""
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("prometheus")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, issued in (("server", server), ("client", client)):
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    return (
        f"scheme: https\ntls_config:\n  ca_file: {tmp_path}/ca.pem\n  cert_file: {tmp_path}/client.pem\n"
        f"  key_file: {tmp_path}/client.key\nbasic_auth:\n  username: prometheus\n  password: S3CRET"
    )


def test_over_tls_with_a_client_certificate_and_a_password(tmp_path: Path, certificate: str) -> None:
    (tmp_path / "password").write_text("S3CRET\n")
    (tmp_path / "pipeline.toml").write_text(
        'interval = "400ms"\n[location]\ncountry = "FR"\n[exporters.prometheus]\nport = 0\ncertfile = "server.pem"\n'
        'keyfile = "server.key"\nclient_cafile = "ca.pem"\nclient_auth_required = true\nusername = "prometheus"\n'
        'password = { file = "password" }\n'
    )
    with start("run", "-c", "pipeline.toml", cwd=tmp_path) as program:
        address = address_of(program)
        with prometheus_scraping(address, tmp_path, scrape=certificate, interval="1s") as prometheus:
            prometheus.wait_for(JOULES)
            assert prometheus.content_target()["health"] == "up"
            with pytest.raises(OSError, match=r"refused|reset|ertificate|SSL"):
                read(f"https://{address}/metrics")
        result = program.stop()
    assert result.status == 0
    assert "S3CRET" not in result.stdout + result.stderr
