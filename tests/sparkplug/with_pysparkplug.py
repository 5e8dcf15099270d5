"""A session of an edge node and a device, as pysparkplug sends it. How to record it again: README.md."""

from __future__ import annotations

import sys
import time

from pysparkplug import DataType, DData, Device, EdgeNode, Message, MessageType, Metric, QoS, Topic

START = 1_790_000_000_000
"""Milliseconds since the Unix epoch."""
TYPES = {
    "Temperature": DataType.FLOAT,
    "Level": DataType.INT16,
    "Running": DataType.BOOLEAN,
    "Total": DataType.INT64,
    "Small": DataType.INT8,
    "Count": DataType.UINT32,
    "Setpoint": DataType.TEXT,
    "Name": DataType.STRING,
}
FIRST = (20.5, -300, True, -5_000_000_000, -5, 4_000_000_000, "12.5", "press")
ALIASES = {name: number for number, name in enumerate(TYPES, 1)}


def metric(name: str, value: object, seconds: float, **flags: bool) -> Metric:
    """Return one metric as it was some seconds after the start."""
    moment = START + int(seconds * 1000)
    return Metric(moment, name, TYPES[name], value=value, alias=ALIASES[name], **flags)


def main(port: int) -> None:
    """Play the session."""
    uptime = Metric(START, "Uptime", DataType.INT32, value=0)
    node = EdgeNode("Plant 1", "line-1", [uptime])
    node.register(Device("press", [metric(name, value, 0) for name, value in zip(TYPES, FIRST, strict=True)]))
    node.connect("127.0.0.1", port=port)
    time.sleep(0.5)
    node.update_device("press", [metric("Temperature", 21.0, 1)])
    node.update_device("press", [metric("Temperature", 22.0, 2), metric("Level", 7, 2), metric("Temperature", 23.0, 3)])
    node.update_device("press", [metric("Level", None, 4, is_null=True)])
    node.update_device("press", [metric("Level", -1, 5)])
    node.update_device("press", [metric("Temperature", 10.0, -60, is_historical=True)])
    node.update([Metric(START + 6000, "Uptime", DataType.INT32, value=6)])
    # By their aliases, without names and types, as the specification wants it; EdgeNode has no way to say so.
    topic = Topic(message_type=MessageType.DDATA, group_id="Plant 1", edge_node_id="line-1", device_id="press")
    metrics = tuple(
        Metric(START + 7000, None, TYPES[name], value=value, alias=ALIASES[name])
        for name, value in (("Level", -2), ("Running", False), ("Small", -128))
    )
    data = DData(START + 7000, node._seq, metrics)
    node._client.publish(Message(topic, data, QoS.AT_MOST_ONCE, retain=False))
    node.deregister("press")
    node.disconnect()
    node.connect("127.0.0.1", port=port)
    time.sleep(0.5)


main(int(sys.argv[1]))
