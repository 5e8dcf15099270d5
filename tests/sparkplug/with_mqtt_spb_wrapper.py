"""A session of a device, as mqtt-spb-wrapper sends it. How to record it again: README.md."""

from __future__ import annotations

import sys
import time

from mqtt_spb_wrapper import MqttSpbEntityDevice

START = 1_790_000_000_000
"""Milliseconds since the Unix epoch."""


def main(port: int) -> None:
    """Play the session."""
    device = MqttSpbEntityDevice("Plant 1", "line-3", "oven")
    device.attributes.set_value("maker", "somebody", START)
    device.data.set_value("temperature", 180.5, START)
    device.data.set_value("power", 3, START)
    device.connect("127.0.0.1", port)
    device.publish_birth()
    device.publish_data(send_all=True)
    device.data.set_value("temperature", 181.5, START + 1000)
    device.publish_data()
    device.data.set_value("power", -4, START + 2000)
    device.publish_data()
    time.sleep(0.2)
    device.disconnect()


main(int(sys.argv[1]))
