"""What every bridge owes its delivery thread (protocols.Bridge), on the real thing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from processor import connection_string
from processor.admission import Bounds
from processor.bridges.files import FilesBridge
from processor.bridges.iothub.bridge import IotHubBridge
from processor.bridges.iothub.identity import Credentials, WithConnectionString
from processor.bridges.mqtt import MqttBridge
from processor.clock import SystemClock
from processor.errors import BridgeError
from processor.mqtt.client import new_client
from processor.outbox import Claim, Outbox
from processor.protocols import Bridge
from processor.store import Changes, Store
from processor.types import NS, Sample
from tests.handover import Recorder
from tests.iothub import Hub
from tests.mosquitto import Mosquitto
from tests.mqtt_client import MqttClientFactory
from tests.proxy import ProxyFactory

DAY = 86_400 * NS
COUNT = 250


class Place(Protocol):
    """A bridge with its other side."""

    bridge: Bridge

    def go_away(self) -> None:
        """Make the other side unreachable."""
        ...

    def come_back(self) -> None:
        """Make it reachable again."""
        ...

    def arrived(self, at_least: int) -> list[bytes]:
        """Return the events that have arrived there, in order; waits until there are so many."""
        ...


class FilesPlace:
    """A directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "out"
        self.bridge: Bridge = FilesBridge(self._directory, "p", max_bytes=1 << 20, max_age=0.0)

    def go_away(self) -> None:
        """Put a file where the directory was."""
        if self._directory.exists():
            self._directory.rename(self._directory.with_name("aside"))
        self._directory.write_text("not a directory")

    def come_back(self) -> None:
        """Put the directory back."""
        self._directory.unlink()
        if (aside := self._directory.with_name("aside")).exists():
            aside.rename(self._directory)

    def arrived(self, at_least: int) -> list[bytes]:
        """Read the finished files."""
        files = sorted(self._directory.glob("date=*/*.jsonl"), key=lambda path: path.name)
        events = [line for file in files for line in file.read_bytes().splitlines()]
        assert len(events) >= at_least
        return events


class MqttPlace:
    """A topic of a Mosquitto, behind a proxy that can be told to refuse."""

    def __init__(self, broker: Mosquitto, mqtt_client: MqttClientFactory, proxy: ProxyFactory) -> None:
        root = f"contract/{uuid4().hex}"
        self._proxy = proxy(broker.host, broker.port)
        self._client = mqtt_client()
        self._client.subscribe(f"{root}/#")
        self._arrived: list[bytes] = []
        clock = SystemClock()
        self.bridge: Bridge = MqttBridge(
            root, lambda: new_client(url=self._proxy.url, client_id=f"c-{uuid4().hex}", in_flight=100), clock
        )

    def go_away(self) -> None:
        """End all connections."""
        self._proxy.refuse()

    def come_back(self) -> None:
        """Let clients in."""
        self._proxy.heal()

    def arrived(self, at_least: int) -> list[bytes]:
        """Return what a subscriber has received."""
        while len(self._arrived) < at_least:
            self._arrived.append(bytes(self._client.wait_for("#").payload))
        self._arrived += [bytes(message.payload) for message in self._client.received()]
        return list(self._arrived)


class HubPlace:
    """A hub for tests."""

    def __init__(self, directory: Path) -> None:
        self._hub = Hub(directory / "hub")
        self._hub.start()
        self._device = self._hub.add_device("dev1")
        parsed = connection_string.parse(self._device.connection_string)
        credentials = Credentials(WithConnectionString(parsed), self._hub.ca.read_text())
        self.bridge: Bridge = IotHubBridge(lambda: credentials, SystemClock())

    def go_away(self) -> None:
        """End all connections, and listen no more."""
        self._hub.take_down()

    def come_back(self) -> None:
        """Listen again."""
        self._hub.bring_up()

    def arrived(self, at_least: int) -> list[bytes]:
        """Return what was received."""
        self._hub.wait_for(lambda: len(self._hub.received(self._device)) >= at_least)
        return [event.body for event in self._hub.received(self._device)]

    def stop(self) -> None:
        """End the hub."""
        self._hub.stop()


@pytest.fixture(params=["files", "mqtt", "iothub"])
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mosquitto: Mosquitto,
    mqtt_client: MqttClientFactory,
    proxy: ProxyFactory,
) -> Iterator[Place]:
    """Make each bridge with its other side."""
    made: Place
    if request.param == "files":
        made = FilesPlace(tmp_path)
    elif request.param == "mqtt":
        made = MqttPlace(mosquitto, mqtt_client, proxy)
    else:
        made = HubPlace(tmp_path)
    yield made
    made.bridge.close()
    if isinstance(made, HubPlace):
        made.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a state with one bridge."""
    opened = Store(
        tmp_path / "state", durability="normal", bounds=Bounds(1 << 30, DAY, "drop_oldest"), bridges=["bridge"]
    )
    yield opened
    opened.close()


@contextmanager
def view(store: Store) -> Iterator[Outbox]:
    """Open the bridge's view of the outbox, as its thread does."""
    outbox = store.outbox("bridge")
    outbox.open()
    yield outbox
    outbox.close()


def events(count: int, first: int = 0) -> list[bytes]:
    """Return events of different sizes, and not in ASCII only."""
    return [json.dumps({"n": n, "label": "größer" * (n % 7)}, ensure_ascii=False).encode() for n in range(first, count)]


def put(store: Store, contents: Sequence[bytes], now: int = 0) -> None:
    """Let samples wait."""
    store.commit(
        Changes(
            samples=[
                Sample(f"{n:032x}", f"rule-{n % 3}", "label", "stream", "model", DAY + n, 0, event)
                for n, event in enumerate(contents)
            ]
        ),
        now,
    )


def choose(outbox: Outbox, bridge: Bridge) -> list[Claim]:
    """Put together what leaves, as a delivery thread does."""
    waiting = outbox.peek(bridge.shipment.samples, bridge.shipment.max_bytes)
    together = [sample for sample in waiting if bridge.together(waiting[0], sample)]
    if not bridge.shipment.claims:
        return [Claim(0, "", together)]
    return outbox.claim([(bridge.name(together[0]), together)])


def test_all_that_is_delivered_arrives_as_it_is_and_is_confirmed_once(place: Place, store: Store) -> None:
    """Byte by byte, in order where nothing goes wrong; several deliveries one after another."""
    contents = events(2 * COUNT)
    with view(store) as outbox:
        for first in (0, COUNT):
            put(store, contents[first : first + COUNT])
            claims = choose(outbox, place.bridge)
            recorder = Recorder(outbox)
            place.bridge.deliver(claims, recorder)
            assert sorted(recorder.confirmed) == [sample.seq for claim in claims for sample in claim.samples]
            assert (len(recorder.confirmed), recorder.refused, recorder.held) == (COUNT, {}, {})
            outbox.confirm(claims[0].samples, claims[0].number or None)
            place.bridge.idle()
    assert place.arrived(2 * COUNT) == contents


def test_a_delivery_whose_confirmation_was_lost_can_be_made_again(place: Place, store: Store) -> None:
    """After a crash the same samples come again: what arrives twice is equal, and nothing is missing."""
    contents = events(COUNT)
    put(store, contents)
    with view(store) as outbox:
        claims = choose(outbox, place.bridge)
        place.bridge.deliver(claims, Recorder(outbox))
    with view(store) as outbox:
        again = outbox.claimed() or choose(outbox, place.bridge)
        assert again == claims
        recorder = Recorder(outbox)
        place.bridge.deliver(again, recorder)
        assert len(recorder.confirmed) == COUNT
    arrived = place.arrived(COUNT)
    assert list(dict.fromkeys(arrived)) == contents


def test_while_the_other_side_is_away_that_is_said_and_nothing_confirmed(place: Place, store: Store) -> None:
    """From the first delivery on; when it is back the same bridge goes on."""
    place.go_away()
    contents = events(COUNT)
    put(store, contents)
    with view(store) as outbox:
        claims = choose(outbox, place.bridge)
        for _ in range(3):
            recorder = Recorder(outbox)
            with pytest.raises(BridgeError) as raised:
                place.bridge.deliver(claims, recorder)
            assert len(str(raised.value)) > 20
            assert "\n" not in str(raised.value)
            assert (recorder.confirmed, recorder.refused, recorder.held) == ([], {}, {})
            place.bridge.idle()
        place.come_back()
        recorder = Recorder(outbox)
        place.bridge.deliver(claims, recorder)
        assert len(recorder.confirmed) == COUNT
    assert place.arrived(COUNT) == contents


def test_the_other_side_may_go_away_between_deliveries(place: Place, store: Store) -> None:
    """Whatever is held open from the delivery before."""
    contents = events(2 * COUNT)
    with view(store) as outbox:
        put(store, contents[:COUNT])
        claims = choose(outbox, place.bridge)
        place.bridge.deliver(claims, Recorder(outbox))
        outbox.confirm(claims[0].samples, claims[0].number or None)
        place.arrived(COUNT)
        place.go_away()
        put(store, contents[COUNT:])
        claims = choose(outbox, place.bridge)
        recorder = Recorder(outbox)
        with pytest.raises(BridgeError):
            place.bridge.deliver(claims, recorder)
        place.come_back()
        left = [sample for sample in claims[0].samples if sample.seq not in recorder.confirmed]
        place.bridge.deliver([claims[0]._replace(samples=left)], recorder)
        assert sorted(recorder.confirmed) == [sample.seq for sample in claims[0].samples]
    assert set(place.arrived(2 * COUNT)) == set(contents)


def test_a_delivery_without_time_ends_at_once(place: Place, store: Store) -> None:
    """What it confirmed has arrived; the rest may come again."""
    contents = events(COUNT)
    put(store, contents)
    with view(store) as outbox:
        recorder = Recorder(outbox, left=-1.0)
        begun = time.monotonic()
        try:
            place.bridge.deliver(choose(outbox, place.bridge), recorder)
        except BridgeError:
            assert len(recorder.confirmed) < COUNT
        else:
            assert len(recorder.confirmed) == COUNT
        assert time.monotonic() - begun < 30, "it waited as if it had all the time"
        assert len(place.arrived(len(recorder.confirmed))) <= COUNT


def test_samples_that_aged_out_meanwhile_hold_nothing_up(place: Place, store: Store) -> None:
    """Where nothing was claimed: all of them, or some."""
    contents = events(COUNT)
    put(store, contents[: COUNT // 2])
    put(store, contents[COUNT // 2 :], now=10 * DAY)
    with view(store) as outbox:
        claims = choose(outbox, place.bridge)
        store.tidy(10 * DAY)
        recorder = Recorder(outbox)
        place.bridge.deliver(claims, recorder)
        arrived = place.arrived(COUNT if place.bridge.shipment.claims else COUNT - COUNT // 2)
        assert arrived == (contents if place.bridge.shipment.claims else contents[COUNT // 2 :])
        assert len(recorder.confirmed) == len(arrived)


def test_making_idling_and_closing_never_fail(place: Place) -> None:
    """Also while the other side is away, and before anything was delivered."""
    place.go_away()
    place.bridge.idle()
    place.bridge.close()
    place.bridge.idle()


def test_names_of_claims_are_never_given_twice(place: Place, store: Store) -> None:
    """Not even for the same sample: a lost state directory begins to count anew."""
    put(store, events(2))
    with view(store) as outbox:
        first, second = outbox.peek(2, 1 << 20)
    if place.bridge.shipment.claims:
        names = [place.bridge.name(sample) for sample in (first, second, first)]
        assert len(set(names)) == 3
        assert all(names)
    assert place.bridge.together(first, first)
    assert place.bridge.together(first, second) == place.bridge.together(second, first)
    assert place.bridge.shipment.samples >= 1
    assert place.bridge.shipment.max_bytes >= 1
