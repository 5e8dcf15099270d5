"""Per stream, readings enter their windows in the order the broker sent them, whatever the network does meanwhile."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

from tests.integration.test_run import source
from tests.mosquitto import Mosquitto
from tests.mqtt_client import MqttClientFactory
from tests.plant import configuration, measured, publish, subscribed, whole, windows
from tests.proxy import ProxyFactory
from tests.running import ProcessorFactory

READINGS = 1200
BETWEEN_CUTS = 200


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
def test_the_order_outlives_cuts_and_overlapping_filters(
    mosquitto: Mosquitto,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    proxy: ProxyFactory,
    protocol: object,
) -> None:
    """Two sources whose filters overlap, four streams at random, the link cut in mid-packet again and again."""
    link, root = proxy(mosquitto.host, mosquitto.port), f"order/{protocol}"
    chance = random.Random(20_261_124)  # noqa: S311 - a plan, not a secret
    sources = [
        source(f"{root}/+/b", name="far", stream="{topic[2]}"),
        source(f"{root}/#", name="near") | {"topics": [f"{root}/#", f"{root}/one/+"]},
    ]
    given = configuration(tmp_path, root, broker={"url": link.url, "protocol": protocol}) | {"sources": sources}
    given["model"]["batch"] = {"max_size": 7}
    processor = make_processor(**given)
    client = mqtt_client()
    processor.launch("backoff=0.1")
    subscribed(processor, mosquitto, f"{root}/one/+")
    sent: dict[str, list[int]] = defaultdict(list)
    for number in range(READINGS):
        stream = chance.choice(["one/a", "one/b", "two/a", "two/b"])
        sent[stream].append(number)
        publish(client, f"{root}/{stream}", [number])
        if not number % BETWEEN_CUTS:
            processor.wait_for_log("Connected to the broker", number // BETWEEN_CUTS + 1)
            link.cut_after(chance.randrange(1, 3000))
    expected = {stream: whole(numbers) for stream, numbers in sent.items()}
    count = sum(map(len, expected.values()))
    processor.wait_until(lambda: len(processor.events()) >= count, "all samples")
    assert measured(processor, "mlade_broker_connects_total") == READINGS // BETWEEN_CUTS + 1
    assert processor.stop() == 0
    found: dict[str, list[list[int]]] = defaultdict(list)
    for event in processor.events():
        key = event["subject"].removeprefix(f"{root}/")
        found[f"{key}/b" if event["data"]["readings"]["source"] == "far" else key] += windows([event])
    assert found == expected
