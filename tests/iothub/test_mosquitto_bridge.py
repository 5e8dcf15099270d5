"""mosquitto/iothub-bridge.conf: a real Mosquitto hands accepted samples to the hub by itself."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.iothub import Device, Hub
from tests.iothub.identity import make_token
from tests.mosquitto import BinaryEngine, Mosquitto, MosquittoFactory
from tests.mqtt_client import MqttClientFactory

EXAMPLE = Path(__file__).parents[2] / "mosquitto" / "iothub-bridge.conf"
ROOT = "mlade/line-1/accepted"

Bridged = Callable[[Device], Mosquitto]


@pytest.fixture
def bridged(tmp_path: Path) -> Iterator[tuple[Hub, Bridged]]:
    """A hub, and what starts brokers with the example filled in as its comments say."""
    binary = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if binary is None:
        # A broker in a container does not see the loopback interface that the hub listens on.
        assert "CI" not in os.environ, "no mosquitto binary"
        pytest.skip("there is no mosquitto binary on the PATH (on Debian: apt-get install mosquitto)")
    with ExitStack() as cleanup:
        hub = cleanup.enter_context(Hub(tmp_path / "hub"))
        factory = MosquittoFactory("binary", lambda directory, _: BinaryEngine(binary, directory), cleanup)
        yield hub, lambda device: factory(filled_in(hub, device), persistence=True)


def filled_in(hub: Hub, device: Device) -> str:
    """Return the example for this hub and this device; a device without a certificate has a token."""
    text = EXAMPLE.read_text()
    text = text.replace("HUB.azure-devices.net:8883", f"{hub.host}:{hub.port}").replace(
        "HUB.azure-devices.net", hub.name
    )
    text = text.replace("DEVICE", device.device_id).replace("/etc/ssl/certs/ca-certificates.crt", str(hub.ca))
    text = text.replace("restart_timeout 5 60", "restart_timeout 1")
    if device.certificate is None:
        token = make_token(f"{hub.name}/{device.resource}", device.key, int(time.time()) + 3600)
        text = re.sub("^bridge_(cert|key)file .*\n", "", text, flags=re.MULTILINE)
        text, count = re.subn("^#remote_password .*$", lambda _: f"remote_password {token}", text, flags=re.MULTILINE)
        assert count == 1
        return text
    return text.replace("/mosquitto/certs/device.crt", str(device.certificate)).replace(
        "/mosquitto/certs/device.key", str(device.private_key)
    )


@pytest.mark.parametrize("x509", [True, False], ids=["certificate", "token"])
def test_samples_reach_the_hub_over_an_outage(
    bridged: tuple[Hub, Bridged], mqtt_client: MqttClientFactory, x509: bool
) -> None:
    """With their rule to route on; what comes while the hub or the broker is away follows later."""
    hub, make_broker = bridged
    device = hub.add_device("line-1", x509=x509)
    broker = make_broker(device)
    client = mqtt_client(broker=broker)
    client.publish(f"{ROOT}/ambiguous", '{"n": 0}')
    client.publish(f"{ROOT}/audit", '{"n": 1}')
    hub.wait_for(lambda: len({event.body for event in hub.received(device)}) == 2)
    hub.take_down()
    client.publish(f"{ROOT}/ambiguous", '{"n": 2}')
    broker.stop()
    broker.start()
    mqtt_client(broker=broker).publish(f"{ROOT}/ambiguous", '{"n": 3}')
    hub.bring_up()
    hub.wait_for(lambda: len({event.body for event in hub.received(device)}) == 4, timeout=20)
    events = hub.received(device)  # after an outage Mosquitto does not keep their order
    assert {event.body: event.properties["rule"] for event in events} == {
        b'{"n": 0}': "ambiguous",
        b'{"n": 1}': "audit",
        b'{"n": 2}': "ambiguous",
        b'{"n": 3}': "ambiguous",
    }
    assert all(event.properties.keys() == {"rule"} for event in events)
    assert all(event.system == {"$.ct": "application/json", "$.ce": "utf-8"} for event in events)


def test_a_sample_too_large_for_the_hub_does_not_hold_up_the_next(
    bridged: tuple[Hub, Bridged], mqtt_client: MqttClientFactory
) -> None:
    """The broker drops it, as the example says; else the hub would end the connection over it again and again."""
    hub, make_broker = bridged
    device = hub.add_device("line-1", x509=True)
    client = mqtt_client(broker=make_broker(device))
    client.publish(f"{ROOT}/ambiguous", b"x" * 300_000)
    client.publish(f"{ROOT}/ambiguous", b"small")
    hub.wait_for(lambda: hub.received(device))
    assert [event.body for event in hub.received(device)] == [b"small"]
