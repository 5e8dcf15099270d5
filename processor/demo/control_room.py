"""Who looks after the processor, over MQTT and by its own topics alone: an operator and what they have on screen."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from processor.demo.broker import HOST
from processor.errors import MladeError

Document = Mapping[str, Any]
"""A JSON object that the processor has published."""

MEASURED: Final = "ambiguous"
"""The rule whose scores the demo shows: the one with a measure."""


@dataclass(slots=True)
class Seen:
    """What the processor has said so far. Written by paho's thread, replaced whole, read by any.

    Attributes:
        online: whether its status is `online`.
        metrics: the newest metrics; empty before the first.
        filters: the filter in force at each revision.
        state: the newest answer on `filter/state`; empty before the first.
        edges: of the score histogram's bins.
        scores: counts in these bins, by revision: the processor begins anew when the filter changes.
        samples: ids of the samples that came over MQTT.
        answers: to commands, by their id.
    """

    online: bool = False
    metrics: Document = field(default_factory=dict)
    filters: dict[int, Document] = field(default_factory=dict)
    state: Document = field(default_factory=dict)
    edges: list[float] = field(default_factory=list)
    scores: dict[int, list[int]] = field(default_factory=dict)
    samples: set[str] = field(default_factory=set)
    answers: dict[str, Document] = field(default_factory=dict)


class ControlRoom:
    """An MQTT client that follows one processor, gives it commands and changes its filter.

    Attributes:
        seen: what the processor has said.
        changed: set whenever it says something.
    """

    def __init__(self, root: str, heard: Callable[[Document], None]) -> None:
        """Follow the processor under `root`; `heard` is given each of its metrics, on paho's thread."""
        self.seen = Seen()
        self.changed = threading.Event()
        self._root = root
        self._heard = heard
        self._numbers = itertools.count(1)
        self._client = Client(CallbackAPIVersion.VERSION2, "demo-control-room")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message

    def connect(self, port: int) -> None:
        """Connect to the demo's broker.

        Raises:
            MladeError: it does not answer.
        """
        try:
            self._client.connect(HOST, port)
        except OSError as error:
            raise MladeError(f"The broker on {HOST}:{port} cannot be reached: {error}.") from error
        self._client.loop_start()

    def command(self, name: str) -> str:
        """Give a command; return the id under which its answer will be in `seen.answers`."""
        identifier = f"demo-{next(self._numbers)}"
        body = msgspec.json.encode({"command": name, "id": identifier})
        self._client.publish(f"{self._root}/command", body, qos=1)
        return identifier

    def set_filter(self, document: bytes) -> str:
        """Publish a filter, retained; return the digest that the processor's answer will name."""
        self._client.publish(f"{self._root}/filter", document, qos=1, retain=True)
        return hashlib.sha256(document).hexdigest()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    # paho's thread runs the rest.

    def _on_connect(self, client: Client, *_: object) -> None:
        names = ("status", "filter/state", "accepted/#", "command/response", "metrics")
        client.subscribe([(f"{self._root}/{name}", 1) for name in names])

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        seen, name = self.seen, message.topic.removeprefix(f"{self._root}/")
        if name == "status":
            seen.online = message.payload == b"online"
        else:
            body = msgspec.json.decode(message.payload)
            if name == "filter/state":
                seen.filters[body["revision"]] = body["active"]
                seen.state = body
            elif name == "metrics":
                self._note_metrics(body)
            elif name == "command/response":
                if body.get("command") == "status":
                    self._note_metrics(body)
                seen.answers[str(body.get("id"))] = body
            else:
                seen.samples.add(body["id"])
        self.changed.set()

    def _note_metrics(self, metrics: Document) -> None:
        scores = metrics["scores"]
        self.seen.edges = scores["edges"]
        if MEASURED in scores["counts"]:
            self.seen.scores[metrics["filter_revision"]] = scores["counts"][MEASURED]
        self.seen.metrics = metrics
        self._heard(metrics)
