"""What the hub takes, and what it refuses, byte for byte."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.iothub import Device, Hub, packets, raw
from tests.iothub.messages import LARGEST
from tests.iothub.raw import Raw, token_of, user_of


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Run a hub."""
    with Hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def device(hub: Hub) -> Device:
    """Register a device that sends nothing that is taken."""
    return hub.add_device("m")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_spoken(hub: Hub, version: ssl.TLSVersion) -> None:
    """Versions 1.2 and 1.3."""
    with Raw(hub, version=version) as client:
        assert client.tls_version == version.name.replace("_", ".")


def test_without_tls_there_is_nothing(hub: Hub) -> None:
    """Bare MQTT is not answered."""
    with socket.create_connection((hub.host, hub.port), timeout=5) as plain:
        plain.sendall(raw.connect("u", "p", "c"))
        assert plain.recv(100)[:1] in {b"", b"\x15"}  # the end, or a TLS alert


REFUSED = {
    "another hub": {"user": "other.azure-devices.net/{id}/?api-version=2021-04-12"},
    "no version": {"user": "{hub}/{id}/"},
    "unknown version": {"user": "{hub}/{id}/?api-version=1999-01-01"},
    "another client id": {"client_id": "someone"},
    "unknown device": {"user": "{hub}/nobody/?api-version=2021-04-12", "client_id": "nobody"},
    "no token": {"token": ""},
    "not a token": {"token": "SharedAccessSignature sr=a"},
    "another key": {"key": "b3RoZXI="},
    "expired": {"expires": "-1"},
    "another resource": {"resource": "{hub}/devices/other"},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_who_is_not_a_device_is_refused(hub: Hub, changes: dict[str, str]) -> None:
    """With CONNACK 5, and the end of the connection."""
    device = hub.add_device(f"refused-{len(hub.notes)}")
    filled = {name: value.format(hub=device.hub, id=device.id) for name, value in changes.items()}
    token = token_of(
        device, expires=float(filled.get("expires", "60")), key=filled.get("key"), resource=filled.get("resource")
    )
    with Raw(hub) as client:
        client.send(
            raw.connect(
                filled.get("user", user_of(device)), filled.get("token", token), filled.get("client_id", device.id)
            )
        )
        assert client.receive() == (raw.CONNACK, b"\x00\x05")
        assert client.is_ended()
    with Raw(hub) as client:
        assert not client.log_in(device)


def test_a_certificate_has_to_be_the_devices(hub: Hub) -> None:
    """No certificate, another's, and a password beside it are refused."""
    device, other = hub.add_device("certified", x509=True), hub.add_device("other", x509=True)
    for shown, password, code in [(None, "", 5), (other, "", 5), (device, "secret", 5), (device, "", 0)]:
        with Raw(hub, certificate_of=shown) as client:
            client.send(raw.connect(user_of(device), password, device.id))
            assert client.receive() == (raw.CONNACK, bytes((0, code)))


def test_a_disabled_device_is_refused(hub: Hub) -> None:
    """Until it is enabled again."""
    device = hub.add_device("disabled")
    device.enabled = False
    with Raw(hub) as client, pytest.raises(AssertionError, match="refused with 5"):
        client.log_in(device)


def test_the_connection_ends_with_its_token(hub: Hub) -> None:
    """At the second that the token says."""
    device = hub.add_device("expiring")
    with Raw(hub) as client:
        client.log_in(device, token=token_of(device, expires=1.5))
        assert client.is_ended()
    assert hub.notes[-1].detail == "its token has expired"


@pytest.mark.parametrize(
    "data",
    [
        raw.publish("devices/d/messages/events/"),
        b"\x10\xff\xff\xff\xff\x7f",
        raw.framed(0x10, raw.text("MQIsdp") + b"\x03\x02\x00\x00" + raw.text("d")),
        raw.framed(0x10, raw.text("MQTT") + b"\x05\x02\x00\x00\x00" + raw.text("d")),
        raw.framed(0x10, b"\x00"),
    ],
    ids=["no CONNECT", "no length", "MQTT 3.1", "MQTT 5", "cut short"],
)
def test_what_is_not_mqtt_311_ends_the_connection(hub: Hub, data: bytes) -> None:
    """Without an answer."""
    with Raw(hub) as client:
        client.send(data)
        assert client.is_ended()


@pytest.mark.parametrize(
    "data",
    [
        raw.publish("devices/m/messages/events/", qos=2),
        raw.publish("devices/else/messages/events/"),
        raw.publish("devices/m/messages/eventsmore/"),
        raw.publish("anything"),
        raw.publish("$iothub/twin/GET/"),
        raw.publish("devices/m/messages/events/a=1&a=2"),
        raw.publish("devices/m/messages/events/", bytes(LARGEST + 1)),
        raw.publish("devices/m/messages/events/%24.mid=1&a=b", bytes(LARGEST - 7)),
        raw.connect("u", "p", "d"),
    ],
    ids=["QoS 2", "another's", "nearly", "any topic", "no $rid", "twice", "too large", "with properties", "CONNECT"],
)
def test_what_the_hub_does_not_take_ends_the_connection(hub: Hub, device: Device, data: bytes) -> None:
    """And nothing is recorded."""
    with Raw(hub) as client:
        client.log_in(device)
        client.send(data)
        assert client.is_ended()
    assert hub.received(device) == []


def test_the_largest_message_is_taken(hub: Hub) -> None:
    """256 KB, its properties included."""
    device = hub.add_device("largest")
    with Raw(hub) as client:
        client.log_in(device)
        client.publish(raw.events(device, "%24.mid=1&a=b"), bytes(LARGEST - 8), packet_id=7)
        assert client.receive() == (raw.PUBACK, b"\x00\x07")
    (event,) = hub.received(device)
    assert (event.size, event.blocks, event.packet_id) == (LARGEST, 64, 7)


def test_properties_are_decoded(hub: Hub) -> None:
    """System properties, with `$` or `%24`, and others; RETAIN becomes a property; QoS 0 is not acknowledged."""
    device = hub.add_device("properties")
    with Raw(hub) as client:
        client.log_in(device)
        client.publish(
            raw.events(device, "$.ct=application%2Fjson&%24.ce=utf-8&a%20b=c%26d&plus=+&empty="), retain=True
        )
        assert client.receive()[0] == raw.PUBACK
        client.publish(raw.events(device)[:-1], b"last", qos=0)
        client.send(raw.PINGREQ)
        assert client.receive()[0] == raw.PINGRESP
    first, second = hub.received(device)
    assert first.system == {"$.ct": "application/json", "$.ce": "utf-8"}
    assert first.properties == {"a b": "c&d", "plus": "+", "empty": "", "mqtt-retain": "true"}
    assert (second.body, second.packet_id) == (b"last", 0)


def test_a_second_connection_ends_the_first(hub: Hub) -> None:
    """A module and its device are two identities."""
    device, module = hub.add_device("twice"), hub.add_device("twice", module="m")
    with Raw(hub) as first, Raw(hub) as beside, Raw(hub) as second:
        first.log_in(device)
        beside.log_in(module)
        second.log_in(device)
        assert first.is_ended()
        for client in (beside, second):
            client.send(raw.PINGREQ)
            assert client.receive()[0] == raw.PINGRESP


def test_silence_ends_a_connection(hub: Hub) -> None:
    """After one and a half times the keep-alive; any packet starts it anew."""
    device = hub.add_device("silent")
    with Raw(hub) as client:
        client.log_in(device, keepalive=1)
        assert client.is_ended()
    assert hub.notes[-1].detail.startswith("nothing heard for 1.")


def test_only_the_services_topics_can_be_subscribed(hub: Hub) -> None:
    """Others are refused in the SUBACK; QoS 2 is granted as 1."""
    device = hub.add_device("subscriber")
    with Raw(hub) as client:
        client.log_in(device)
        client.send(raw.subscribe("$iothub/twin/res/#", "#", "devices/other/messages/devicebound/#", qos=2))
        assert client.receive() == (raw.SUBACK, b"\x00\x01\x01\x80\x80")
    assert hub.subscriptions(device) == {"$iothub/twin/res/#"}


def test_a_session_is_kept_and_what_waits_is_sent_again(hub: Hub) -> None:
    """A message to a device comes until it is acknowledged."""
    device = hub.add_device("session")
    topic = "devices/session/messages/devicebound/#"
    with Raw(hub) as client:
        assert not client.log_in(device, clean=False)
        client.send(raw.subscribe(topic))
        assert client.receive()[0] == raw.SUBACK
        number = hub.send_c2d(device, b"hello", {"a": "b"})
        kind, body = client.receive()
        assert (kind & 0xF0, b"hello" in body) == (raw.PUBLISH, True)
    hub.wait_for(lambda: not hub.connected(device))
    with Raw(hub) as client:
        assert client.log_in(device, clean=False)
        kind, body = client.receive()
        name = body[2 : 2 + body[1]].decode()
        assert name == "devices/session/messages/devicebound/%24.to=%2Fdevices%2Fsession%2Fmessages%2Fdevicebound&a=b"
        client.send(raw.puback(int.from_bytes(body[2 + body[1] :][:2])))
        hub.wait_for(lambda: not hub.waits(device, number))
    with Raw(hub) as client:
        assert not client.log_in(device, clean=True)
        assert hub.subscriptions(device) == set()


@pytest.mark.parametrize(("end", "left"), [(b"", 1), (raw.DISCONNECT, 0)])
def test_a_will_is_a_message(hub: Hub, end: bytes, left: int) -> None:
    """Where the connection ends without DISCONNECT."""
    device = hub.add_device(f"will-{left}")
    with Raw(hub) as client:
        client.send(
            raw.connect(user_of(device), token_of(device), device.id, will=(raw.events(device, "a=b"), b"gone"))
        )
        assert client.receive() == (raw.CONNACK, b"\x00\x00")
        client.send(end)
    hub.wait_for(lambda: hub.notes[-1].kind == "disconnected" and not hub.connected(device))
    assert [(event.body, event.properties) for event in hub.received(device)] == [
        (b"gone", {"a": "b", "iothub-MessageType": "Will"})
    ] * left


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 400))
def test_packets_may_arrive_in_any_pieces(bodies: list[bytes], size: int) -> None:
    """Nothing depends on how bytes are joined."""
    data = b"".join(packets.packet(packets.PUBLISH, body, flags=2) for body in bodies)
    reader = packets.Reader(1000)
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    found = [packet for piece in pieces for packet in reader.feed(piece)]
    assert [bytes(packet.body) for packet in found] == bodies
    assert {(packet.kind, packet.flags) for packet in found} == {(packets.PUBLISH, 2)}
