"""Collects samples from both bridges, and compares what the disturbed processor delivered with what it should have."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.crash.expectation import Expected, identify
from tests.mosquitto import HOST

_SHOWN: Final = 5
"""Differences of one kind that are told in full."""


class Collection:
    """What one bridge of one processor delivered.

    Attributes:
        name: of the processor and the bridge.
        bodies: by id, the SHA-256 of the event.
        received: events, repeats included.
        violations: repeats with another body, as sentences.
    """

    def __init__(self, name: str) -> None:
        """Start with nothing."""
        self.name = name
        self.bodies: dict[str, bytes] = {}
        self.received = 0
        self.violations: list[str] = []

    def add(self, raw: bytes) -> dict[str, Any]:
        """Take an event as it was delivered, and return it."""
        event: dict[str, Any] = json.loads(raw)
        digest = hashlib.sha256(raw).digest()
        self.received += 1
        if self.bodies.setdefault(event["id"], digest) != digest:
            self.violations.append(f"{self.name}: {event['id']} came again with another body: {raw.decode()}")
        return event

    @property
    def repeats(self) -> int:
        """Events that came again."""
        return self.received - len(self.bodies)


class Files(Collection):
    """The files bridge's finished files, wherever faults have put them."""

    def __init__(self, name: str, directory: Path) -> None:
        """Read below the processor's `directory`."""
        super().__init__(name)
        self._directory = directory
        self._read: set[str] = set()
        self._lock = threading.Lock()

    def look(self) -> list[dict[str, Any]]:
        """Read the files that are new; return their events. Any thread."""
        events = []
        with self._lock, suppress(FileNotFoundError, NotADirectoryError):
            # A fault may take a file or its folder away meanwhile; the next look finds it where it went.
            for path in sorted(self._directory.glob("accepted*/date=*/*.jsonl")):
                if path.name not in self._read:
                    raw = path.read_bytes()
                    self._read.add(path.name)
                    events += [self.add(line) for line in raw.splitlines()]
        return events

    def unfinished(self) -> list[str]:
        """Return files that were begun and not finished."""
        return [str(path.relative_to(self._directory)) for path in self._directory.glob("accepted/date=*/.*")]


class Subscriber(Collection):
    """A persistent subscriber at QoS 1 to a processor's own topics; it comes back after a restart of the broker."""

    def __init__(self, name: str, port: int, root: str) -> None:
        """Subscribe below `root`, `<prefix>/<id>`."""
        super().__init__(name)
        self.status = ""
        self.filter_state: dict[str, Any] = {}
        self._root = root
        self._subscribed = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            f"collector-{root.replace('/', '-')}",
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect(HOST, port)
        self._client.loop_start()
        self._subscribed.wait(10)

    # paho's thread calls these two.

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(
            [(f"{self._root}/accepted/+", 1), (f"{self._root}/status", 1), (f"{self._root}/filter/state", 1)]
        )

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/status"):
            self.status = message.payload.decode()
        elif message.topic.endswith("/filter/state"):
            self.filter_state = json.loads(message.payload)
        else:
            event = self.add(bytes(message.payload))
            rule = event["data"]["selection"]["rule"]
            if message.topic != f"{self._root}/accepted/{rule}":
                self.violations.append(f"{self.name}: a sample of rule {rule} came on {message.topic}")

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def misjudged(events: Iterable[Mapping[str, Any]], expected: Mapping[str, Expected], processor: str) -> list[str]:
    """Return, as sentences, what is wrong with events: compared with what was computed, and in themselves."""
    wrong = []
    for event in events:
        data, wanted = event["data"], expected.get(event["id"])
        readings, selection, inference = data["readings"], data["selection"], data["inference"]
        times = np.array([text.removesuffix("Z") for text in readings["times"]], "datetime64[ns]").astype("<i8")
        own = identify(processor, event["subject"], times, np.array(readings["values"]))
        if own != event["id"]:
            wrong.append(f"{event['id']} is not the id of the readings in it, {own}: {json.dumps(event)}")
        elif wanted is None:
            wrong.append(f"{event['id']} of {event['subject']} at {event['time']} should not be there")
        else:
            found = (event["subject"], selection["rule"], selection["filter_revision"], inference["label"])
            if found != wanted[:4] or abs(inference["confidence"] - wanted.confidence) > 1e-6:
                wrong.append(f"{event['id']} says {(*found, inference['confidence'])} instead of {tuple(wanted)}")
    return wrong


def differences(name: str, found: Collection, wanted: Collection) -> list[str]:
    """Return, as sentences, where `found` differs from `wanted`: in its ids, and in the bodies of them."""
    lost = sorted(wanted.bodies.keys() - found.bodies.keys())
    more = sorted(found.bodies.keys() - wanted.bodies.keys())
    other = sorted(key for key in found.bodies.keys() & wanted.bodies.keys() if found.bodies[key] != wanted.bodies[key])
    told = [("lost", lost), ("not in the undisturbed run", more), ("with another body than undisturbed", other)]
    return [
        f"{name}: {len(keys)} samples {what}: {', '.join(keys[:_SHOWN])}{' …' if len(keys) > _SHOWN else ''}"
        for what, keys in told
        if keys
    ]


def same(left: Collection, right: Collection) -> int:
    """Return how many samples are in both with the same body."""
    so_far = left.bodies.copy()  # its own thread adds to it
    return sum(1 for key, body in so_far.items() if right.bodies.get(key) == body)


def list_differences(name: str, found: Sequence[object], wanted: Sequence[object]) -> list[str]:
    """Return, as sentences, where one list differs from another."""
    if list(found) == list(wanted):
        return []
    place = next((at for at, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other), None)
    if place is None:
        return [f"{name}: {len(found)} instead of {len(wanted)}; as far as both go, they are equal"]
    return [f"{name}: number {place} of {len(found)} is {found[place]!r} instead of {wanted[place]!r}"]
