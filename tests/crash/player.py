"""Publishes a recording over one MQTT connection to each broker, in order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.crash.recording import Entry, Recording
from tests.mosquitto import HOST

_TICK: Final = 0.02
_OUTSTANDING: Final = 200
"""Messages without PUBACK, of each broker."""
_PATIENCE: Final = 30.0


class Player:
    """Plays until told to stop. Nothing is underway while it is held, so that a broker may be restarted then.

    Attributes:
        played: messages so far.
        connects: connections to the first broker.
        failure: why it has stopped by itself; None while it has not.
    """

    def __init__(
        self, recording: Recording, *, prefix: str, filter_topic: str, rate: float, tell: Callable[[Entry], None]
    ) -> None:
        """Prepare.

        Args:
            recording: what to play.
            prefix: stands before the topics of readings.
            filter_topic: where filters go.
            rate: messages a second, in bursts.
            tell: called with each entry before it is published.
        """
        self.played = 0
        self.connects = 0
        self.failure: str | None = None
        self._recording = recording
        self._prefix = prefix
        self._filter_topic = filter_topic
        self._per_tick = max(1, round(rate * _TICK))
        self._tell = tell
        self._clients: list[mqtt.Client] = []
        self._outstanding: deque[mqtt.MQTTMessageInfo] = deque()
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def connect(self, ports: Sequence[int]) -> None:
        """Connect to brokers."""
        for port in ports:
            client = mqtt.Client(CallbackAPIVersion.VERSION2)
            client.max_inflight_messages_set(_OUTSTANDING)
            client.reconnect_delay_set(min_delay=1, max_delay=1)
            if port == ports[0]:
                client.on_connect = self._count_connect
            client.connect(HOST, port)
            client.loop_start()
            self._clients.append(client)

    def _count_connect(self, *_: object) -> None:
        self.connects += 1  # in paho's thread, and only there

    def play(self, entries: Sequence[Entry]) -> None:
        """Publish entries, and return when the brokers have them."""
        with self._turn:
            for entry in entries:
                self._publish(entry)
            self._drain()

    def start(self) -> None:
        """Play on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; the brokers have everything when this returns."""
        self._stopping.set()
        self._thread.join(_PATIENCE)
        with self._turn:
            self._drain()

    def close(self) -> None:
        """Disconnect."""
        self._stopping.set()
        for client in self._clients:
            client.disconnect()
            client.loop_stop()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the brokers have everything, and play nothing meanwhile."""
        with self._turn:
            self._drain()
            yield

    def wait_for_connection(self, connects: int) -> None:
        """Wait until it has been connected to the first broker more often than `connects` times."""
        deadline = time.monotonic() + _PATIENCE
        while self.connects <= connects:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the player did not come back to the broker within {_PATIENCE:g} s")
            time.sleep(_TICK)  # between two looks

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_TICK):
                with self._turn:
                    for _ in range(self._per_tick):
                        self._publish(next(self._recording))
        except Exception as error:  # noqa: BLE001 - told at the end, with everything else
            self.failure = f"the player has stopped: {error!r}"

    def _publish(self, entry: Entry) -> None:
        topic = self._filter_topic if entry.kind == "filter" else self._prefix + entry.topic
        self._tell(entry)
        for client in self._clients:
            self._outstanding.append(client.publish(topic, entry.payload, qos=1, retain=entry.retain))
        self.played += 1
        while len(self._outstanding) > _OUTSTANDING * len(self._clients):
            self._wait_for(self._outstanding.popleft())

    def _drain(self) -> None:
        while self._outstanding:
            self._wait_for(self._outstanding.popleft())

    @staticmethod
    def _wait_for(publication: mqtt.MQTTMessageInfo) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not publication.is_published():
            if time.monotonic() > deadline:
                raise TimeoutError(f"a broker did not acknowledge a message within {_PATIENCE:g} s")
            publication.wait_for_publish(1.0)
