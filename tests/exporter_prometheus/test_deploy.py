"""Rules and dashboard of deploy/prometheus: checked by promtool, and every query run by a real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.exporter_prometheus.test_real_prometheus import address_of, read
from tests.pipelines.support import environment, make_distribution, start, wait_until
from tests.support.prometheus_server import Prometheus, prometheus_scraping, promtool, unavailable

pytestmark = [pytest.mark.once, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "dashboard.json").read_text())
RULES = DEPLOY / "rules.yml"

# A GPU and two pods, as sensors and generators of such name them.
GENERATOR = """
from tracarbon import Metric, MetricGenerator, MetricKind, Tag

PLACE = [Tag("platform", "Linux"), Tag("location", "fr")]
ENERGY = [*PLACE, Tag("units", "watts"), Tag("sensor", "nvidia"), Tag("fidelity", "measured")]
CARBON = [*PLACE, Tag("units", "co2g"), Tag("source", "file"), Tag("factor_kind", "yearly average")]


class Cluster(MetricGenerator):
    async def generate(self):
        yield Metric(name="energy_consumption_gpu", value=55.0, tags=ENERGY, unit="watts", kind=MetricKind.RATE)
        yield Metric(name="carbon_emission_gpu", value=0.002, tags=CARBON, unit="co2g", kind=MetricKind.AMOUNT)
        for pod in ("web-0", "web-1"):
            which = [Tag("pod_name", pod), Tag("pod_namespace", "shop"), Tag("container_name", "app")]
            for part in ("total", "cpu", "memory"):
                name = f"energy_consumption_kubernetes_{part}"
                yield Metric(name=name, value=3.0, tags=[*ENERGY, *which], unit="watts", kind=MetricKind.RATE)
                name = f"carbon_emission_kubernetes_{part}"
                yield Metric(name=name, value=0.001, tags=[*CARBON, *which], unit="co2g", kind=MetricKind.AMOUNT)
"""
PIPELINE = """
interval = "400ms"

[location]
country = "FR"

[generators.energy]
[generators.carbon]
[generators.cluster]

[exporters.prometheus]
port = 0
"""
MACROS = {
    "$__rate_interval": "5s",
    "$__range": "5s",
    "$__interval": "1s",
    "${job}": ".*",
    "$job": ".*",
    "${instance}": ".*",
    "$instance": ".*",
}


def panels(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in of.get("panels", ()):
        yield from panels(panel)
        if panel.get("type") != "row":
            yield panel


QUERIES = {
    f"{panel['title']} {target.get('refId', '')}": target["expr"]
    for panel in panels(DASHBOARD)
    for target in panel["targets"]
}


def substituted(expression: str) -> str:
    """Return a query as Grafana sends it, with every choice of the variables."""
    for macro, value in MACROS.items():
        expression = expression.replace(macro, value)
    return re.sub(r'(job|instance)="\.\*"', r'\1=~".*"', expression)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("cluster")
    make_distribution(
        folder / "site", "cluster-plugin", entry_points={"tracarbon.generators": {"cluster": "cluster:Cluster"}},
        modules={"cluster": GENERATOR},
    )  # fmt: skip
    (folder / "pipeline.toml").write_text(PIPELINE)
    env = environment(PYTHONPATH=str(folder / "site"))
    with (
        start("run", "-c", "pipeline.toml", cwd=folder, env=env) as program,
        prometheus_scraping(address_of(program), folder, rules=[often_evaluated(folder)]) as server,
    ):
        server.wait_for("count_over_time(tracarbon_carbon_emission_kubernetes_total_grams_total[1m])", enough_samples)
        yield server


def often_evaluated(folder: Path) -> Path:
    """The rules, evaluated once a second: nobody waits two minutes here."""
    rules = folder / "rules.yml"
    rules.write_text(re.sub(r"interval: \d+m", "interval: 1s", RULES.read_text()))
    return rules


def enough_samples(found: list[Any]) -> bool:
    return bool(found) and all(series.value >= 10 for series in found)


@pytest.mark.parametrize("name", QUERIES)
def test_every_panel_has_data(prometheus: Prometheus, name: str) -> None:
    assert prometheus.wait_for(substituted(QUERIES[name]))


def test_power_of_totals_is_that_of_gauges(prometheus: Prometheus) -> None:
    """What the generator says is 55 W: so says the total's rate, whatever the scrapes."""
    gauge = prometheus.wait_for("tracarbon_energy_consumption_gpu")
    assert gauge[0].value == 55.0
    assert prometheus.wait_for("rate(tracarbon_energy_consumption_gpu_joules_total[5s]) > 50 < 60")


def test_variables_have_values(prometheus: Prometheus) -> None:
    variables = [item for item in DASHBOARD["templating"]["list"] if item["type"] == "query"]
    assert {item["name"] for item in variables} == {"job", "instance"}
    for item in variables:
        query = item["query"] if isinstance(item["query"], str) else item["query"]["query"]
        found = re.fullmatch(r"label_values\((?:(.*), *)?(\w+)\)", query)
        assert found is not None, query
        assert prometheus.wait_for(f"count by ({found[2]}) ({substituted(found[1] or 'up')})")
        assert prometheus.label_values(found[2])


def test_promtool_objects_to_documented_names_only(prometheus: Prometheus) -> None:
    status, said = promtool("check", "metrics", stdin=read(prometheus.target()["scrapeUrl"]))
    objection = 'non-counter metrics should not have "_total" suffix'
    documented = ("carbon_emission_kubernetes_total", "energy_consumption_kubernetes_total")
    assert (status, said.splitlines()) == (3, [f"tracarbon_{name} {objection}" for name in documented])


def test_every_recording_rule_has_data(prometheus: Prometheus) -> None:
    recorded = re.findall(r"^\s*(?:- )?record: *(\S+)", RULES.read_text(), re.MULTILINE)
    assert recorded
    for name in recorded:
        assert prometheus.wait_for(name), name


def test_every_metric_that_is_named_is_there(prometheus: Prometheus) -> None:
    """A slip in a name would be a query without data, and an alert that never fires."""
    said = RULES.read_text() + json.dumps([*QUERIES.values()])
    named = set(re.findall(r"(?<![:\w])(?:tracarbon|process)_\w+", said))
    known = set(prometheus.label_values("__name__"))
    # Nothing is gone here, and a summary is known by its two parts.
    assert named - known <= {"tracarbon_gone_joules_total", "tracarbon_tick_duration_seconds"}


def test_every_rule_can_be_evaluated(prometheus: Prometheus) -> None:
    """Labels that match many to many are an error only where there are figures."""

    def rules() -> list[dict[str, Any]]:
        groups = json.loads(read(f"{prometheus.url}/api/v1/rules"))["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), "the first evaluation of every rule")
    assert [(rule["name"], rule["lastError"]) for rule in rules() if rule["health"] != "ok"] == []


def test_no_alert_fires_where_all_is_well(prometheus: Prometheus) -> None:
    assert [series.labels for series in prometheus.query('ALERTS{alertstate="firing"}')] == []


@pytest.mark.parametrize(
    ("verb", "what", "file"),
    [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml"), ("check", "config", "prometheus.yml")],
)
def test_promtool_is_content(verb: str, what: str, file: str) -> None:
    status, said = promtool(verb, what, DEPLOY / file)
    assert status == 0, said


def test_every_rule_has_a_unit_test() -> None:
    tests = (DEPLOY / "rules_test.yml").read_text()
    names = re.findall(r"(?:alert|record): *(\S+)", RULES.read_text())
    assert len(names) > 10
    assert [name for name in names if name not in tests] == []


def test_the_datasource_can_be_chosen() -> None:
    used = {json.dumps(panel.get("datasource")) for panel in panels(DASHBOARD)}
    assert all("${datasource}" in item for item in used)


def test_every_panel_says_what_it_is() -> None:
    for panel in panels(DASHBOARD):
        assert panel["title"] and panel["description"], panel
