"""The unmodified command over a made-up RAPL tree: what arrives is what was used, also where the receiver goes away."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path

import pytest
from tracarbon.locations._intensity import find_factor

from tests.exporter_datadog.batches import GRAMS, HOST, JOULES
from tests.exporter_datadog.receivers import KEY, Agent, Fault, Intake, intake
from tests.pipelines.support import Program, Record, environment, figures, read_records, start, wait_until
from tests.support.feeder import Truth, start_feeder
from tests.support.powercap_tree import PowercapTree, two_sockets_eight_zones

pytestmark = pytest.mark.once

WATTS = {"intel-rapl:0": 50.0, "intel-rapl:0:2": 4.0, "intel-rapl:1": 30.0, "intel-rapl:1:2": 3.0}
OUTAGE_SECONDS = float(os.environ.get("TRACARBON_TEST_OUTAGE_SECONDS", "3"))
"""A receiver that is away for 30 s is tried again after 31; by hand, say TRACARBON_TEST_OUTAGE_SECONDS=30."""
PIPELINE = """
interval = "300ms"
log_level = "DEBUG"

[location]
country = "FR"

[sensors.rapl]
path = "{powercap}"

[exporters.datadog]
{options}

[exporters.json]
path = "records.jsonl"
"""


@dataclass
class Run:
    """What arrived, what JSON says, and what really was used."""

    total: Callable[[str], float]
    records: list[Record]
    truth: Truth
    wall_offset: float
    said: str

    def check(self) -> None:
        host = list(figures(self.records, "energy_consumption_host"))
        grams = math.fsum(one["value"] for one in figures(self.records, "carbon_emission_host"))
        joules = math.fsum(one["value"] * one["covered_seconds"] for one in host)
        assert self.total(JOULES) == pytest.approx(joules, rel=1e-9)
        assert self.total(GRAMS) == pytest.approx(grams, rel=1e-9)
        factor = find_factor("FR")
        assert factor is not None
        assert self.total(GRAMS) == pytest.approx(self.total(JOULES) * factor.co2g_per_kwh / 3.6e6, rel=1e-9)
        self.check_truth(host)
        assert KEY not in self.said

    def check_truth(self, host: list[Record]) -> None:
        """Nothing is missing in between, and what was read is what was used.

        The end of a window comes later than its reading, by more where the program was held up between the two; what
        is missing would make all from then on late. And the counters show what the feeder had last written.
        """
        seconds = [*accumulate(one["covered_seconds"] for one in host)]
        late = [self.monotonic(one) - until for one, until in zip(host, seconds, strict=True)]
        half = len(late) // 2
        assert min(late[half:]) - min(late[:half]) < 0.05 * seconds[-1]
        begin = self.monotonic(host[0]) - host[0]["covered_seconds"]
        true_joules = sum(self.truth.joules_between(zone, begin, begin + seconds[-1]) for zone in WATTS)
        unwritten = 2 * sum(self.truth.step_joules(zone) for zone in WATTS)
        assert self.total(JOULES) == pytest.approx(true_joules, rel=0, abs=0.02 * true_joules + unwritten)

    def monotonic(self, record: Record) -> float:
        return datetime.fromisoformat(record["timestamp"]).timestamp() - self.wall_offset


@dataclass
class Scene:
    """A machine, and the command that runs on it."""

    folder: Path
    program: Program
    truth: Path

    def wait_for_windows(self, count: int) -> None:
        path = self.folder / "records.jsonl"
        already = len(read_lines(path))
        wait_until(lambda: len(read_lines(path)) >= already + count * 6, f"{count} more windows")

    def finished(self, total: Callable[[str], float], end_feeding: Callable[[], None]) -> Run:
        result = self.program.stop()
        end_feeding()
        assert result.status == 0, result.stderr
        said = result.stdout + result.stderr
        offset = time.time() - time.monotonic()
        return Run(total, read_records(self.folder / "records.jsonl"), Truth.load(self.truth), offset, said)


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def scene(folder: Path, options: str, **variables: str) -> Iterator[tuple[Scene, Callable[[], None]]]:
    tree = PowercapTree(folder / "sys", two_sockets_eight_zones())
    powercap = folder / "sys" / "class" / "powercap"
    (folder / "pipeline.toml").write_text(PIPELINE.format(powercap=powercap, options=options))
    feeder = start_feeder(tree.root, WATTS, folder / "truth.json", period_seconds=0.01)

    def end_feeding() -> None:
        feeder.terminate()
        feeder.wait()

    try:
        with start("run", "-c", "pipeline.toml", cwd=folder, env=environment(**variables)) as program:
            yield Scene(folder, program, folder / "truth.json"), end_feeding
    finally:
        end_feeding()


@pytest.mark.parametrize("way", ["udp", "unix"])
def test_an_agent_that_goes_and_comes_back(way: str, tmp_path: Path) -> None:
    with closing(Agent.udp() if way == "udp" else Agent.unix(tmp_path / "dsd.socket")) as agent:
        agent.follow()
        variables = {"DD_ENV": "prod", "DD_SERVICE": "shop", "DD_VERSION": "1.2"}
        place = (
            {"DD_AGENT_HOST": "127.0.0.1"} if way == "udp" else {"DD_DOGSTATSD_SOCKET": str(tmp_path / "dsd.socket")}
        )
        port = {"DD_DOGSTATSD_PORT": str(agent.port)} if way == "udp" else {}
        with scene(tmp_path, "", **variables, **place, **port) as (run, end_feeding):
            wait_until(lambda: agent.total(JOULES) > 0, "the first joules")
            run.wait_for_windows(2)
            agent.stop()
            run.program.wait_for("exporter datadog failed: DogStatsD at .*: (nobody listens|there is no)", "stderr")
            before = agent.total(JOULES)
            time.sleep(OUTAGE_SECONDS)
            assert agent.total(JOULES) == before
            agent.start()
            agent.follow()
            wait_until(lambda: agent.total(JOULES) > before, "joules after the outage")
            run.program.wait_for("exporter datadog works again", "stderr")
            run.wait_for_windows(2)
            finished = run.finished(agent.total, end_feeding)
        agent.stop()
        finished.check()
        [tags] = {metric.tags for metric in agent.metrics if metric.name == HOST}
        assert {"platform:Linux", "units:watts", "env:prod", "service:shop", "version:1.2"} <= set(tags)
        merged = len([metric for metric in agent.metrics if metric.name == JOULES])
        assert merged < len(list(figures(finished.records, "energy_consumption_host")))


@pytest.mark.parametrize("fault", [500, 403, 413, 429, "vanish", "hang up"])
def test_an_api_that_fails_for_a_while(fault: Fault, tmp_path: Path) -> None:
    with intake() as api:
        began = time.time()
        options = f'api_key = {{ env = "DD_API_KEY" }}\napi_url = "{api.url}"\nhostname = "here"'
        with scene(tmp_path, options, DD_API_KEY=KEY) as (run, end_feeding):
            wait_until(lambda: api.total(JOULES) > 0, "the first joules")
            run.wait_for_windows(2)
            api.standing = fault
            run.program.wait_for("exporter datadog failed: ", "stderr")
            time.sleep(OUTAGE_SECONDS)
            api.standing = None
            run.program.wait_for("exporter datadog works again", "stderr")
            run.wait_for_windows(2)
            finished = run.finished(api.total, end_feeding)
        check_api(api, began)
        finished.check()


def check_api(api: Intake, began: float) -> None:
    assert api.problems == []
    assert all(before == after for before, after in api.overwritten)
    assert all(began - 1 < second < time.time() + 30 for _, _, second in api.kept)
    assert {name: api.kinds[name] for name in (HOST, JOULES, GRAMS)} == {HOST: 3, JOULES: 1, GRAMS: 1}
