"""A simulated plant on a broker that is there already: the demo's watches in real time, until stopped.

    python -m processor.demo.plant mqtt://mosquitto:1883

It is what `docker compose up` points the processor at. As with real sensors, what is measured while the broker is away
is lost.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from typing import Final
from urllib.parse import urlsplit

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from processor.demo.data import FIELDS, RATE_HZ, readings
from processor.demo.player import WATCHES

_PORT: Final = 1883
_LATEST: Final = 1.0
"""Seconds behind its time after which the plant goes on from the present: the machine was asleep, or too busy."""
_RETRY: Final = 5
"""Longest pause in seconds between two attempts to reach the broker."""


def main() -> None:
    """Play to the broker that the command line names, until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m processor.demo.plant", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("broker", help="its URL: mqtt://HOST or mqtt://HOST:PORT")
    broker = urlsplit(parser.parse_args().broker)
    if broker.scheme != "mqtt" or broker.hostname is None:
        parser.error("expected mqtt://HOST or mqtt://HOST:PORT")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    client = Client(CallbackAPIVersion.VERSION2, "demo-plant")
    client.reconnect_delay_set(1, _RETRY)
    client.connect_async(broker.hostname, broker.port or _PORT)
    client.loop_start()
    play(client, stop)
    client.disconnect()
    client.loop_stop()


def play(client: Client, stop: threading.Event) -> None:
    """Publish one reading of each watch RATE_HZ times a second, while the client is connected, until `stop` is set."""
    streams = [(f"wearable/{watch}/imu", readings(watch)) for watch in range(WATCHES)]
    tick, started, start_time = 0, time.monotonic(), time.time()
    while not stop.wait(max(0.0, started + tick / RATE_HZ - time.monotonic())):
        if time.monotonic() - started - tick / RATE_HZ > _LATEST:
            tick, started, start_time = 0, time.monotonic(), time.time()
        ts = round(start_time + tick / RATE_HZ, 3)
        for topic, values in streams:
            reading = {"ts": ts, **dict(zip(FIELDS, next(values), strict=True))}
            if client.is_connected():
                client.publish(topic, msgspec.json.encode(reading), qos=1)
        tick += 1


if __name__ == "__main__":
    main()
