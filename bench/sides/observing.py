"""Notes how old each sample is when it comes out. `python -m bench.sides.observing PORT TOPIC_FILTER`.

Answers a line with the ages of the samples seen since the last one, in milliseconds.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Final

from paho.mqtt import client as paho

from bench.sides.counting import new_client

_ages: Final[list[float]] = []


def _main() -> None:
    client = new_client(int(sys.argv[1]), sys.argv[2], 1)

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        now = time.time()
        event = json.loads(message.payload)
        _ages.append((now - datetime.fromisoformat(event["time"]).timestamp()) * 1e3)

    client.on_message = on_message
    client.loop_start()
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(_ages) + "\n")
        sys.stdout.flush()
        _ages.clear()


if __name__ == "__main__":
    _main()
