"""What Prometheus reads from a running processor, and what alerts and the Grafana dashboard make of it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from processor.demo.data import FIELDS, MODEL_PATH
from processor.metrics import METRICS, SCORE
from tests.mqtt_client import MqttClientFactory
from tests.promtool import promtool
from tests.running import ProcessorFactory

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus" / "alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "config" / "grafana" / "mlade.json").read_text())
OPERATE = (ROOT / "docs" / "operate.md").read_text()
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
SERIES = re.compile(r"\bmlade_\w+")


@pytest.fixture
def scraped(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory) -> str:
    """Return the metrics of a processor that has taken in, kept, refused and complained."""
    processor = make_processor(
        sources=[{"name": "imu", "topics": ["monitoring/+"], "fields": list(FIELDS), "time": "ts"}],
        model={"path": str(MODEL_PATH), "window": {"size": 20, "step": 10}},
        filter={"rules": [{"name": "unsure", "measure": "confidence", "band": {"max": 1}}, {"name": "none"}]},
    )
    processor.start()
    client = mqtt_client()
    for number in range(20):
        reading = {"ts": 1_790_000_000 + number / 10, **dict.fromkeys(FIELDS, number / 10)}
        client.publish("monitoring/1", json.dumps(reading))
    client.publish("monitoring/1", "no reading")
    processor.wait_until(
        lambda: 'mlade_dead_letters_total{reason="decode"} 1.0' in processor.get("/metrics"), "counted"
    )
    return processor.get("/metrics")


def panels() -> Iterator[dict[str, Any]]:
    """Return the dashboard's panels that show something."""
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    """Return all that the dashboard asks Prometheus, its variables filled in."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [re.sub(r"\$(instance|rule)\b", ".*", text).replace("$__rate_interval", "1m") for text in asked]


def sample_names(families: list[Metric]) -> set[str]:
    """Return the names of the series that these metrics have, or will have."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


def test_prometheus_has_nothing_to_say_about_the_metrics(scraped: str) -> None:
    """Names, units, types and help texts by its conventions, from a processor that has worked."""
    promtool("check", "metrics", stdin=scraped)


def test_alerts_and_dashboard_ask_for_what_there_is(scraped: str) -> None:
    """No series of ours in them is one that /metrics does not have; and the other way round, all is looked at."""
    families = list(text_string_to_metric_families(scraped))
    assert {family.name for family in families} >= {f"mlade_{metric.name}" for metric in (*METRICS, SCORE)}
    alerts = {name for alert in ALERTS for name in SERIES.findall(alert["expr"] + alert["annotations"]["description"])}
    shown = {name for query in queries() for name in SERIES.findall(query)}
    shown |= {name for variable in DASHBOARD["templating"]["list"] for name in SERIES.findall(str(variable["query"]))}
    there = sample_names(families)
    assert alerts | shown <= there
    unseen = {name for name in there - shown - alerts if not name.startswith("mlade_process_")}
    assert unseen == {"mlade_readings_total", "mlade_score_sum"}, "show it in config/grafana/mlade.json"


def test_labels_that_are_known_begin_at_zero(scraped: str) -> None:
    """Rules, sources and reasons: else Prometheus would not see the first event of each."""
    series = {(one.name, *one.labels.values()) for f in text_string_to_metric_families(scraped) for one in f.samples}
    assert {
        ("mlade_accepted_total", "none"),
        ("mlade_rejected_total", "cooldown"),
        ("mlade_windows_total",),
        ("mlade_messages_total", "imu"),
        ("mlade_dead_letters_total", "too_large"),
        ("mlade_outbox_lost_total", "expired"),
    } <= series


def test_prometheus_takes_configuration_and_alerts() -> None:
    """All of them."""
    promtool("check", "config", "config/prometheus/prometheus.yaml")
    promtool("check", "rules", "config/prometheus/alerts.yaml")


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    """Each has its case, with one processor in trouble and one that is not."""
    cases = yaml.safe_load((ROOT / "tests" / "prometheus" / "alerts.yaml").read_text())["tests"]
    fired = {one["alertname"] for case in cases for one in case["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {alert["alert"] for alert in ALERTS}
    promtool("test", "rules", "tests/prometheus/alerts.yaml")


def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    """Every query, as a rule of its own."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", str(path))


def test_dashboard_can_be_imported() -> None:
    """Panels have numbers of their own, a data source that is chosen at the import, and room without overlaps."""
    assert DASHBOARD["schemaVersion"] >= 36, "the classic model, as Grafana 9 and newer read it"
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_operating_page_says_what_to_do_about_each_alert() -> None:
    """In the order of the file."""
    listed = re.findall(r"^\| `(Mlade\w+)` \| (\w+) \| .{30,} \|$", OPERATE, re.MULTILINE)
    assert listed == [(alert["alert"], alert["labels"]["severity"]) for alert in ALERTS]
