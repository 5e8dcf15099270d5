"""What the hub does wrong when it is asked to."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from ssl import create_default_context

import pytest

from tests.iothub import Device, Hub, raw
from tests.iothub.raw import Raw


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Run a hub."""
    with Hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def hub(shared: Hub) -> Iterator[Hub]:
    """Have it healthy again after each test."""
    yield shared
    shared.faults.heal()


@pytest.fixture
def device(hub: Hub, request: pytest.FixtureRequest) -> Device:
    """Make a device for one test."""
    return hub.add_device(f"{request.node.name[:40]}-{len(hub.notes)}".replace("[", "-").replace("]", ""))


@pytest.fixture
def client(hub: Hub, device: Device) -> Iterator[Raw]:
    """Connect it."""
    with Raw(hub) as connected:
        connected.log_in(device, clean=False)
        yield connected


def send(client: Raw, device: Device, packet_id: int = 1) -> None:
    """Send a message whose body is its number."""
    client.publish(raw.events(device), str(packet_id).encode(), packet_id=packet_id)


def acknowledged(client: Raw) -> int:
    """Return the number of the next PUBACK."""
    kind, body = client.receive()
    assert kind == raw.PUBACK
    return int.from_bytes(body)


def bodies(hub: Hub, device: Device) -> list[int]:
    """Return the numbers of the messages recorded."""
    return [int(event.body) for event in hub.received(device)]


def test_connecting_is_refused(hub: Hub, device: Device) -> None:
    """By MQTT with a code, or by TCP."""
    hub.faults.refuse(code=3)
    with Raw(hub) as client, pytest.raises(AssertionError, match="refused with 3"):
        client.log_in(device)
    hub.faults.refuse_tcp()
    with pytest.raises(OSError, match=r".*"):
        Raw(hub)
    hub.faults.heal()
    with Raw(hub) as client:
        client.log_in(device)


def test_pubacks_are_late(hub: Hub, device: Device, client: Raw) -> None:
    """The message is recorded before."""
    hub.faults.delay_pubacks(0.2)
    began = time.monotonic()
    send(client, device)
    hub.wait_for(lambda: bodies(hub, device) == [1])
    assert acknowledged(client) == 1
    assert time.monotonic() - began >= 0.2


def test_pubacks_are_lost(hub: Hub, device: Device, client: Raw) -> None:
    """So many of them; what they are for is recorded."""
    hub.faults.drop_pubacks(2)
    for number in (1, 2, 3):
        send(client, device, number)
    assert acknowledged(client) == 3
    assert bodies(hub, device) == [1, 2, 3]


@pytest.mark.parametrize("mid_packet", [True, False])
def test_the_connection_is_cut(hub: Hub, device: Device, client: Raw, *, mid_packet: bool) -> None:
    """At once, and both ends learn of it."""
    hub.faults.cut(mid_packet=mid_packet)
    assert client.is_ended()
    assert not hub.connected(device)


def test_the_connection_is_cut_within_a_message(hub: Hub, device: Device, client: Raw) -> None:
    """After so many messages, before the next is complete."""
    hub.faults.cut_after(1)
    send(client, device, 1)
    client.send(raw.publish(raw.events(device), bytes(1000))[:500])
    assert acknowledged(client) == 1
    assert client.is_ended()
    assert bodies(hub, device) == [1]
    with Raw(hub) as again:
        again.log_in(device)
        send(again, device, 2)
        assert acknowledged(again) == 2


def test_the_connection_is_cut_before_a_puback(hub: Hub, device: Device, client: Raw) -> None:
    """When a message is complete; it is lost."""
    hub.faults.cut_after(1, mid_packet=False)
    client.send(b"".join(raw.publish(raw.events(device), b"%d" % number, packet_id=number) for number in (1, 2, 3)))
    assert acknowledged(client) == 1
    assert client.is_ended()
    assert bodies(hub, device) == [1]


def test_the_hub_goes_silent(hub: Hub, device: Device, client: Raw) -> None:
    """Bytes are accepted and lost, TLS is not answered; after it those connections are over."""
    hub.faults.go_silent()
    send(client, device)
    client.send(raw.PINGREQ)
    assert client.is_quiet(0.2)
    with socket.create_connection((hub.host, hub.port), timeout=0.2) as waiting:
        waiting.sendall(b"\x16\x03\x01")
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        hub.faults.heal()
        with suppress(ConnectionResetError):
            assert waiting.recv(1) == b""
    assert client.is_ended()
    assert bodies(hub, device) == []


def test_the_hub_stops_reading(hub: Hub, device: Device, client: Raw) -> None:
    """What was sent meanwhile is taken afterwards."""
    hub.faults.throttle("stop reading")
    send(client, device)
    assert client.is_quiet(0.2)
    assert bodies(hub, device) == []
    hub.faults.heal()
    assert acknowledged(client) == 1


def test_the_hub_pushes_back(hub: Hub, device: Device, client: Raw) -> None:
    """A message ends the connection, a twin request is answered with 429."""
    client.send(raw.subscribe("$iothub/twin/res/#"))
    assert client.receive()[0] == raw.SUBACK
    hub.faults.throttle("disconnect")
    client.publish("$iothub/twin/GET/?$rid=7", qos=0)
    assert client.receive() == (raw.PUBLISH, raw.text("$iothub/twin/res/429/?$rid=7"))
    send(client, device)
    assert client.is_ended()
    assert bodies(hub, device) == []


def test_the_quota_is_used_up(hub: Hub, device: Device, client: Raw) -> None:
    """A message over 4 KB counts more than once; then connections end."""
    hub.faults.exhaust_quota(after=3)
    client.publish(raw.events(device), b"%04200d" % 1, packet_id=1)
    assert acknowledged(client) == 1
    send(client, device, 2)
    assert acknowledged(client) == 2
    send(client, device, 3)
    assert client.is_ended()
    assert bodies(hub, device) == [1, 2]


def test_over_the_quota_messages_are_ignored(hub: Hub, device: Device, client: Raw) -> None:
    """The other way in which the service shows it: no PUBACK."""
    hub.faults.exhaust_quota(how="ignore")
    send(client, device)
    client.send(raw.PINGREQ)
    assert client.receive()[0] == raw.PINGRESP
    assert bodies(hub, device) == []


def test_tokens_expire(hub: Hub, device: Device) -> None:
    """Those that were seen; a new one is taken."""
    token = raw.token_of(device, expires=100)
    with Raw(hub) as client:
        client.log_in(device, token=token)
        hub.faults.expire_tokens()
        assert client.is_ended()
    with Raw(hub) as client, pytest.raises(AssertionError, match="refused with 5"):
        client.log_in(device, token=token)
    with Raw(hub) as client:
        client.log_in(device, token=raw.token_of(device, expires=200))


def test_a_slow_link_has_the_same_throughput(hub: Hub, device: Device, client: Raw) -> None:
    """All that is in flight is answered one round trip later, in order."""
    hub.faults.slow_link(0.2)
    began = time.monotonic()
    for number in range(1, 101):
        send(client, device, number)
    assert [acknowledged(client) for _ in range(100)] == list(range(1, 101))
    assert 0.2 <= time.monotonic() - began < 100 * 0.2


@pytest.mark.parametrize("kept", [True, False])
def test_the_hub_restarts(hub: Hub, device: Device, client: Raw, *, kept: bool) -> None:
    """On the same address, with its sessions or without."""
    client.send(raw.subscribe("$iothub/methods/POST/#"))
    assert client.receive()[0] == raw.SUBACK
    hub.restart(keep_sessions=kept)
    assert client.is_ended()
    with Raw(hub) as again:
        assert again.log_in(device, clean=False) == kept
        assert bool(hub.subscriptions(device)) == kept


def test_the_hub_is_down(hub: Hub) -> None:
    """Nobody listens."""
    hub.take_down()
    with pytest.raises(ConnectionRefusedError):
        Raw(hub)
    hub.bring_up()
    with Raw(hub) as client:
        assert client.tls_version is not None


def test_uploads_fail(hub: Hub, device: Device) -> None:
    """With the status that a test asks for; without a token it is 401."""
    url = f"https://{hub.host}:{hub.https_port}/devices/{device.id}/files?api-version=2021-04-12"
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=create_default_context(cafile=hub.ca))
    )
    request = urllib.request.Request(url, json.dumps({"blobName": "a"}).encode())
    statuses = []
    for token, failing in [("", False), (raw.token_of(device), True), (raw.token_of(device), False)]:
        if failing:
            hub.faults.fail_uploads(503)
        request.add_header("Authorization", token)
        try:
            with opener.open(request) as response:
                statuses.append(response.status)
        except urllib.error.HTTPError as error:
            statuses.append(error.code)
        hub.faults.heal()
    assert statuses == [401, 503, 200]


def test_two_hubs_have_addresses_of_their_own(hub: Hub, tmp_path: Path) -> None:
    """And the same port, the only one that the SDK knows."""
    with Hub(tmp_path) as second:
        assert (hub.port, second.port) == (8883, 8883)
        assert hub.host != second.host
        with Raw(second) as client, pytest.raises(AssertionError, match="refused with 5"):
            client.log_in(hub.add_device("first-only"))
