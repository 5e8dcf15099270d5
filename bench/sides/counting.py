"""Side (a): a paho subscriber that only counts. `python -m bench.sides.counting PORT QOS`."""

from __future__ import annotations

import sys
import threading
from typing import Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.broker import HOST
from bench.load import TOPIC_FILTER
from bench.sides import RECEIVE_MAXIMUM

counts: Final = [0, 0]
"""Messages received and samples kept."""


def new_client(port: int, topic_filter: str, qos: int) -> paho.Client:
    """Return a client that subscribes as soon as it is connected."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

    def on_connect(*_: object) -> None:
        client.subscribe(topic_filter, qos)

    client.on_connect = on_connect
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    client.connect(HOST, port, properties=properties)
    return client


def answer_questions() -> None:
    """Tell the counts whenever a line comes in, on a thread of its own."""

    def answer() -> None:
        for _ in sys.stdin:
            sys.stdout.write(f"{counts[0]} {counts[1]}\n")
            sys.stdout.flush()

    threading.Thread(target=answer, daemon=True).start()


def _main() -> None:
    client = new_client(int(sys.argv[1]), TOPIC_FILTER, int(sys.argv[2]))

    def on_message(_client: paho.Client, _data: object, _message: paho.MQTTMessage) -> None:
        counts[0] += 1

    client.on_message = on_message
    answer_questions()
    client.loop_forever()


if __name__ == "__main__":
    _main()
