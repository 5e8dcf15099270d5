"""The deployment template for IoT Edge: its routes lead somewhere, its twin is a filter, its configuration is one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from processor.document import parse
from processor.filter import check_against, parse_filter
from processor.settings import load
from processor.source_sections import Source
from tests.cloud import Hub
from tests.iothub.twin import Section
from tests.unit.test_pipeline import Line

FOLDER = Path(__file__).parents[2] / "config" / "iotedge"
TEMPLATE = (FOLDER / "deployment.template.json").read_text()
MANIFEST: dict[str, Any] = json.loads(TEMPLATE)["modulesContent"]
AGENT, EDGE_HUB = (MANIFEST[name]["properties.desired"] for name in ("$edgeAgent", "$edgeHub"))
DESIRED: dict[str, Any] = MANIFEST["mlade"]["properties.desired"]
ROUTE = re.compile(
    r"FROM /messages/modules/(?P<source>\w+)/outputs/(?P<output>[\w*]+)"
    r'( WHERE .+)? INTO (\$upstream|BrokeredEndpoint\("/modules/(?P<sink>\w+)/inputs/(?P<input>\w+)"\))'
)


def routes() -> list[re.Match[str]]:
    """Return the routes' parts."""
    texts = [one if isinstance(one, str) else one["route"] for one in EDGE_HUB["routes"].values()]
    found = [ROUTE.fullmatch(text) for text in texts]
    assert None not in found, texts
    return [route for route in found if route]


def test_routes_lead_from_modules_there_are_to_inputs_that_are_read() -> None:
    """And every output of ours goes to the hub."""
    modules = AGENT["modules"].keys()
    configured = load(FOLDER / "processor.yaml", {})
    inputs = {source.input for source in configured.sources}
    assert {route["source"] for route in routes()} | {route["sink"] for route in routes() if route["sink"]} <= modules
    assert {route["input"] for route in routes() if route["sink"] == "mlade"} == inputs
    ours = {route["output"] for route in routes() if route["source"] == "mlade" and not route["sink"]}
    assert ours == {"training", "inference", "heartbeat"}


def test_what_the_hub_does_not_take_is_kept() -> None:
    """As long as MLADE's deployment did; predictions not so long, and after everything else."""
    assert EDGE_HUB["schemaVersion"] == "1.1", "routes with priorities"
    assert EDGE_HUB["storeAndForwardConfiguration"] == {"timeToLiveSecs": 7200}
    assert EDGE_HUB["routes"]["inferenceToHub"]["priority"] in range(10)


@pytest.mark.parametrize("name", [*AGENT["systemModules"], *AGENT["modules"]])
def test_each_module_can_be_created(name: str) -> None:
    """Options are JSON in a text of at most 512 bytes; an image is named."""
    settings = (AGENT["systemModules"] | AGENT["modules"])[name]["settings"]
    assert isinstance(json.loads(settings["createOptions"]), dict)
    assert len(settings["createOptions"]) <= 512
    assert ":" in settings["image"]


def test_all_that_has_to_be_filled_in_is_told() -> None:
    """In the text beside it."""
    told = (FOLDER / "README.md").read_text()
    assert all(name in told for name in re.findall(r"\$\{(\w+)\}", TEMPLATE))


def test_the_twin_it_begins_with_is_one_that_a_hub_takes_and_a_filter_that_we_take(tmp_path: Path) -> None:
    """For any model of probabilities."""
    twin = Section()
    twin.patch(DESIRED)
    filter_in_it = parse_filter(json.dumps(DESIRED["filter"]).encode())
    assert check_against(filter_in_it, kind="probabilities", labels=("a", "b"), fields=()) == ()
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(lambda: hub.desire(**twin.values), [])
    assert hub.reported["filter"]["status"] == "applied"
    assert hub.reported["filter"]["active_source"] == "twin"


def test_the_configuration_needs_no_broker_and_asks_iot_edge_who_we_are() -> None:
    """Its commented lines, too, are right."""
    configured = load(FOLDER / "processor.yaml", {})
    assert configured.broker is None
    assert configured.hub is not None
    assert configured.hub.edge
    text = (FOLDER / "processor.yaml").read_text()
    other = re.search(r"# - (\{.+\}) +# instead, for OPC Publisher", text)
    assert other is not None
    source = Source.model_validate(parse(other[1]))
    assert (source.input, source.stream_template) == (configured.sources[0].input, "{topic}/{field:node}")
    assert re.search(r"# legacy: \{field: (\S+)\}", text)[1] in configured.sources[0].fields  # type: ignore[index]
