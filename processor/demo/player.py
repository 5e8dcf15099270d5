"""The watches: they publish the recordings, faster than real time, as smart watches would."""

from __future__ import annotations

import threading
import time
from typing import Final

import msgspec
from paho.mqtt.client import Client, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from processor.demo.broker import HOST
from processor.demo.data import FIELDS, RATE_HZ, readings

WATCHES: Final = 10

_MOST_BEHIND: Final = 1.0
"""Seconds' worth of readings that the processor may be behind.

A broker that is slower than the watches would otherwise hold more and more of them. It also bounds what waits for a
PUBACK: Mosquitto needs no such help, but the embedded broker gives up on a delivery after five seconds.
"""
_LEAST_BEHIND: Final = 200
"""Readings the processor may be behind in any case: its metrics are a moment old."""
_LATEST: Final = 0.2
"""Seconds after its time at which the last reading may be sent, before the rest is left out."""


class Player:
    """Publishes one reading a message, JSON, QoS 1, each watch on `wearable/<n>/imu`.

    Attributes:
        published: messages sent.
        confirmed: messages the broker has acknowledged.
        failure: why it has ended early, a sentence; None while all is well.
    """

    def __init__(self, port: int, *, seconds: float, speed: float) -> None:
        """Prepare to play to the broker on `port` for `seconds`, `speed` times faster than real time."""
        self.published = 0
        self.confirmed = 0
        self.failure: str | None = None
        self._port = port
        self._seconds = seconds
        self._rate = RATE_HZ * speed
        self._most_behind = max(_LEAST_BEHIND, round(WATCHES * self._rate * _MOST_BEHIND))
        self._speed = speed
        self._processed = 0
        self._stopping = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, "demo-watches")
        self._client.max_inflight_messages_set(0)  # no limit: `_most_behind` is one
        self._client.on_publish = self._on_publish
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def start(self) -> None:
        """Begin to play, on a thread of its own."""
        self._thread.start()

    def processed(self, messages: int) -> None:
        """Take note of how many messages the processor has taken in. Any thread."""
        self._processed = messages

    @property
    def stopping(self) -> bool:
        """Whether the watches were told to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Tell the watches to stop; they end when the broker has acknowledged everything. Any thread."""
        self._stopping.set()

    def ended(self) -> bool:
        """Tell whether everything was published and acknowledged, or the connection lost."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop, and wait a moment for the thread."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(1.0)

    # The player's thread runs the rest; it also serves the connection.

    def _run(self) -> None:
        try:
            self._client.connect(HOST, self._port)
            self._play()
            while self.confirmed < self.published:
                self._serve(0.1)
            self._client.disconnect()
        except OSError as error:
            self.failure = f"The watches have lost the broker: {str(error).rstrip('.')}."

    def _play(self) -> None:
        """Publish tick by tick; a tick is one reading of every watch."""
        while not self._client.is_connected():
            self._serve(0.1)
        streams = [(f"wearable/{watch}/imu", readings(watch)) for watch in range(WATCHES)]
        started = time.monotonic()
        # Event time runs ahead of the clock and has to end near it: a reading is never far in the future.
        event_start = round(time.time() + min(0.0, self._seconds * (1.0 - self._speed)), 1)
        ticks = round(self._seconds * self._rate)
        tick = 0
        while tick < ticks and not self._stopping.is_set():
            now = time.monotonic()
            if now > started + self._seconds + _LATEST:
                return
            wait = started + tick / self._rate - now
            if wait > 0 or self.published - self._processed > self._most_behind:
                self._serve(max(wait, 0.001))
                continue
            ts = round(event_start + tick / RATE_HZ, 1)
            for topic, values in streams:
                payload = msgspec.json.encode({"ts": ts, **dict(zip(FIELDS, next(values), strict=True))})
                self._check(self._client.publish(topic, payload, qos=1).rc)
                self.published += 1
            tick += 1

    @staticmethod
    def _check(result: MQTTErrorCode) -> None:
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ConnectionError(error_string(result))

    def _serve(self, seconds: float) -> None:
        """Exchange packets with the broker, waiting at most `seconds` for the first."""
        self._check(self._client.loop(seconds))

    def _on_publish(self, *_: object) -> None:
        self.confirmed += 1
