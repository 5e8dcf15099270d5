"""Samples to a hub through the real SDK: what arrives, who we are, and what else goes over the connection."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from processor import connection_string
from processor.bridges.iothub.bridge import IotHubBridge
from processor.bridges.iothub.connection import Options
from processor.bridges.iothub.identity import (
    Certificate,
    Credentials,
    EdgeModule,
    Identity,
    Provisioned,
    WithCertificate,
    WithConnectionString,
    WithKey,
)
from processor.clock import SystemClock
from processor.cloud import CloudLink, Desired, Input, Method, Notice
from processor.deadletters import read
from processor.events import sample_event
from processor.store import Changes
from tests.hub_bridge import asked, bridge_to, numbers
from tests.images import encoded, noise
from tests.iothub import Device, Hub
from tests.iothub.hub import MQTT_PORT
from tests.iothub.identity import Authority
from tests.iothub.listeners import listen
from tests.iothub.messages import decode_bag
from tests.mosquitto import BinaryEngine, MosquittoFactory
from tests.mqtt_client import MqttClientFactory
from tests.unit.test_delivery import delivering, samples, wait_until


def test_samples_arrive_as_the_contract_says(hub: Hub, tmp_path: Path) -> None:
    """Body, id, content type and properties; once each."""
    device = hub.add_device("dev1")
    with delivering(tmp_path, bridge_to(hub, device)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 300)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        figures = delivery.figures()
    assert numbers(hub, device) == Counter(range(300))
    event = hub.received(device)[7]
    assert event.id == f"{7:032x}"
    assert event.properties == {"rule": "rule", "label": "label", "stream": "stream", "model": "model"}
    assert event.system == {"$.mid": event.id, "$.ct": "application/json", "$.ce": "utf-8"}
    assert (figures["messages"], figures["blocks"], figures["samples"], figures["connected"]) == (300, 300, 300, 1)


def test_packs_hold_samples_of_one_rule_and_model_and_come_again_as_they_were(hub: Hub, tmp_path: Path) -> None:
    """Two models may have rules of one name. When the acknowledgement was lost, the repeat has the same id and body."""
    device = hub.add_device("dev1")
    contents = [
        one._replace(event=one.event[:-1] + b', "pad": "' + b"x" * 400 + b'"}', model=f"model-{n // 3 % 2}")
        for n in range(300)
        for one in samples(n, 1, rule=f"rule-{n % 3}")
    ]
    bridge = bridge_to(hub, device, pack=4096, linger=0.1, timeout=1.0)
    hub.faults.drop_pubacks(5)
    with delivering(tmp_path, bridge) as (store, delivery):
        for first in range(0, 300, 20):
            store.commit(Changes(samples=contents[first : first + 20]), 0)
            delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.state.failures >= 1
        assert delivery.figures()["samples"] == 300
    received = hub.received(device)
    assert len({event.id for event in received}) == len({event.body for event in received})
    once = {event.id: event for event in received}.values()
    assert len(once) < len(received), "some came twice"
    assert Counter(one["n"] for event in once for one in json.loads(event.body)) == Counter(range(300))
    for event in once:
        events = json.loads(event.body)
        assert {f"rule-{one['n'] % 3}" for one in events} == {event.properties["rule"]}
        (model,) = {f"model-{one['n'] // 3 % 2}" for one in events}
        assert event.properties == {"rule": event.properties["rule"], "model": model, "count": str(len(events))}
        assert event.system["$.ct"] == "application/cloudevents-batch+json"
        assert event.size <= 4096


def test_what_is_too_large_is_uploaded_and_referred_to(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, under its id, also when it is sent again; the others do not wait for it; and no secret is in the log."""
    caplog.set_level(logging.DEBUG)
    device = hub.add_device("dev1")
    large = json.dumps({"specversion": "1.0", "id": f"{3:032x}", "data": "x" * (256 << 10)}).encode()
    contents = samples(0, 5)
    contents[3] = contents[3]._replace(event=large)
    with delivering(tmp_path, bridge_to(hub, device)) as (store, delivery):
        hub.faults.fail_uploads(503)
        store.commit(Changes(samples=contents), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 1)
        wait_until(lambda: "503" in (delivery.state.error or ""))
        hub.faults.heal()
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.figures()["uploads"] == 1
    (name,) = hub.blobs
    assert hub.blobs[name] == large
    (event,) = [event for event in hub.received(device) if event.id == f"{3:032x}"]
    assert not any(secret in caplog.text for secret in (device.key, "SharedAccess", "sig="))
    short = json.loads(event.body)
    assert short.pop("dataref").endswith(name)
    assert short == {"specversion": "1.0", "id": f"{3:032x}"}


@pytest.mark.parametrize("pack", [0, 4096])
def test_large_images_are_uploaded_and_small_ones_are_sent(hub: Hub, tmp_path: Path, pack: int) -> None:
    """Whole, as the files that came; alone or packed."""
    device = hub.add_device("dev1")
    files = {"small": encoded(noise(60, 80), "JPEG"), "large": encoded(noise(300, 400))}
    contents = [
        one._replace(event=_image_event(one.id, file)) for one, file in zip(samples(0, 2), files.values(), strict=True)
    ]
    assert [len(one.event) > 256 << 10 for one in contents] == [False, True]
    with delivering(tmp_path, bridge_to(hub, device, pack=pack, linger=0.1)) as (store, delivery):
        store.commit(Changes(samples=contents), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.figures()["uploads"] == 1
    (stored,) = hub.blobs.values()
    bodies = [json.loads(event.body) for event in hub.received(device)]
    events = [one for body in bodies for one in (body if isinstance(body, list) else [body])]
    (sent,) = [one for one in events if "data" in one]
    (referred,) = [one["id"] for one in events if "dataref" in one]
    assert referred == json.loads(stored)["id"] == contents[1].id
    for event, name in ((sent, "small"), (json.loads(stored), "large")):
        assert base64.b64decode(event["data"]["readings"]["image"]["base64"]) == files[name]


def _image_event(identifier: str, payload: bytes) -> bytes:
    return sample_event(
        identifier=identifier,
        processor="line-1",
        source="eye",
        stream="camera/1",
        fields=[],
        times=np.array([1_795_341_600_000_000_000]),
        values=payload,
        answer={"label": "a", "confidence": 0.5, "probabilities": {"a": 0.5, "b": 0.5}, "value": None},
        selection={"rule": "rule"},
        model={"name": "model", "sha256": ""},
    )


@pytest.mark.parametrize("upload", [True, False])
def test_what_is_too_large_is_a_dead_letter_without_storage(hub: Hub, tmp_path: Path, *, upload: bool) -> None:
    """With its reason: none at the hub, or not wanted."""
    device = hub.add_device("dev1")
    hub.configure_storage(present=False)
    contents = samples(0, 3)
    contents[1] = contents[1]._replace(event=b"[" + b" " * (256 << 10) + b"]")
    with delivering(tmp_path, bridge_to(hub, device, upload=upload)) as (store, delivery):
        store.commit(Changes(samples=contents), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert store.totals.undeliverable == 1
        (letter,) = read(tmp_path / "state")
    assert ("upload is never" if not upload else "link a storage account") in letter.detail
    assert numbers(hub, device) == Counter([0, 2])


def test_the_cloud_steers_over_the_same_connection(hub: Hub, tmp_path: Path) -> None:
    """Twin, methods, reported properties and notices, while no sample waits; messages to the device are left alone."""
    device = hub.add_device("dev1")
    hub.set_desired(device, {"filter": {"enabled": True}})
    link = CloudLink()
    bridge = bridge_to(hub, device, link=link)
    with delivering(tmp_path, bridge) as (_, delivery):
        link.on_said(delivery.notify)
        complete = asked(link, Desired)
        assert complete.complete
        assert complete.properties["filter"] == {"enabled": True}
        hub.set_desired(device, {"filter": {"enabled": False}})
        patch = asked(link, Desired)
        assert (patch.complete, patch.properties["filter"]) == (False, {"enabled": False})
        with ThreadPoolExecutor() as pool:
            calling = pool.submit(hub.invoke, device, "heartbeat", {"a": 1})
            method = asked(link, Method)
            assert (method.name, method.payload) == ("heartbeat", {"a": 1})
            method.answer(200, {"done": True})
            assert calling.result() == (200, {"done": True})
        link.report({"filter": {"revision": 3}})
        hub.wait_for(lambda: hub.reported(device).get("filter") == {"revision": 3})
        link.notify(Notice(b"alive", {"MessageType": "heartbeat"}))
        hub.wait_for(lambda: [event.body for event in hub.received(device)] == [b"alive"])
        number = hub.send_c2d(device, b"hello")
        hub.wait_for(lambda: not hub.waits(device, number))
        hub.restart(keep_sessions=False)
        link.report({"filter": {"revision": 4}})
        hub.wait_for(lambda: hub.reported(device).get("filter") == {"revision": 4})
        assert asked(link, Desired).complete


# Who we are.


def connection_string_of(hub: Hub) -> tuple[Device, Identity]:
    """Return a module that signs with the key in its connection string."""
    device = hub.add_device("dev1", "mlade")
    return device, WithConnectionString(connection_string.parse(device.connection_string))


def key_of(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that signs with a key."""
    device = hub.add_device("dev1")
    return device, WithKey(hub.host, "dev1", device.key)


def certificate_of(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that shows a certificate."""
    device = hub.add_device("dev1", x509=True)
    return device, WithCertificate(hub.host, "dev1", files_of(device))


def files_of(device: Device) -> Certificate:
    """Return a device's certificate."""
    assert device.certificate
    assert device.private_key
    return Certificate(device.certificate, device.private_key)


def provisioned_with_key(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that the provisioning service knows by a key."""
    device = hub.enroll("dev1")
    return device, Provisioned(hub.host, hub.scope, "dev1", None, device.key)


def provisioned_with_certificate(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that the provisioning service knows by a certificate."""
    device = hub.enroll("dev1", x509=True)
    return device, Provisioned(hub.host, hub.scope, "dev1", files_of(device))


@pytest.mark.parametrize(
    "make",
    [connection_string_of, key_of, certificate_of, provisioned_with_key, provisioned_with_certificate],
    ids=lambda make: make.__name__,
)
def test_each_identity_connects(make: Callable[[Hub], tuple[Device, Identity]], hub: Hub, tmp_path: Path) -> None:
    """And is told in words when it is refused."""
    device, identity = make(hub)
    credentials = Credentials(identity, hub.ca.read_text())
    bridge = IotHubBridge(lambda: credentials, SystemClock())
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 3)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert set(numbers(hub, device)) == {0, 1, 2}
        assert len(list(repr(credentials))) > 0
        assert not device.key or device.key not in repr(credentials)


def test_web_sockets_carry_the_same(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over port 443, where another one is closed."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    device = hub.add_device("dev1")
    with delivering(tmp_path, bridge_to(hub, device, options=Options(websockets=True))) as (store, delivery):
        store.commit(Changes(samples=samples(0, 200)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
    assert numbers(hub, device) == Counter(range(200))


def test_a_module_of_iot_edge_gets_everything_from_its_environment(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trust, its signatures; and its inputs come to the pipeline."""
    device = hub.add_device("dev1", "mlade")
    for name, value in hub.edge_environment(device).items():
        monkeypatch.setenv(name, value)
    link = CloudLink()
    bridge = IotHubBridge(lambda: Credentials(EdgeModule(), None), SystemClock(), link=link)
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 3)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert set(numbers(hub, device)) == {0, 1, 2}
        assert {event.output for event in hub.received(device)} == {"training"}
        assert asked(link, Desired).complete
        hub.send_input(device, "input1", b"7")
        request = asked(link, Input)
        assert (request.name, request.payload) == ("input1", b"7")
        link.on_said(delivery.notify)
        link.notify(Notice(b"inference", {}, "output1"))
        hub.wait_for(lambda: hub.received(device)[-1].output == "output1")


def test_a_plain_broker_with_tls_gets_the_same(tmp_path: Path, mqtt_client: MqttClientFactory) -> None:
    """On port 8883, with the hub's topics; that it knows nothing of twins and methods does not matter."""
    binary = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if binary is None:
        pytest.skip("there is no mosquitto binary on the PATH (on Debian: apt-get install mosquitto)")
    probe = listen(None, MQTT_PORT)
    address = probe.getsockname()[0]
    probe.close()
    authority = Authority(tmp_path)
    certificate, key = authority.issue("broker", address)
    listener = f"listener {MQTT_PORT} {address}\ncertfile {certificate}\nkeyfile {key}\ncafile {authority.file}\n"
    with ExitStack() as cleanup:
        factory = MosquittoFactory("binary", lambda directory, _: BinaryEngine(binary, directory), cleanup)
        receiver = mqtt_client(broker=factory(listener))
        receiver.subscribe("devices/dev1/messages/events/#")
        text = f"HostName=plant.azure-devices.net;DeviceId=dev1;SharedAccessKey=c2VjcmV0;GatewayHostName={address}"
        credentials = Credentials(WithConnectionString(connection_string.parse(text)), authority.file.read_text())
        bridge = IotHubBridge(lambda: credentials, SystemClock(), link=CloudLink())
        with delivering(tmp_path, bridge) as (store, delivery):
            store.commit(Changes(samples=samples(0, 200)), 0)
            delivery.notify()
            wait_until(lambda: store.totals.rows == 0)
        received = [receiver.wait_for("devices/#") for _ in range(200)]
    assert Counter(json.loads(message.payload)["n"] for message in received) == Counter(range(200))
    bag = decode_bag(received[7].topic.removeprefix("devices/dev1/messages/events/"))
    assert bag == {
        "$.mid": f"{7:032x}", "$.ct": "application/json", "$.ce": "utf-8",
        "rule": "rule", "label": "label", "stream": "stream", "model": "model",
    }  # fmt: skip
