"""Memory in a flood: more messages than can be passed on, and large ones, for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from paho.mqtt import client as paho

from bench import models
from bench.broker import Broker, mosquitto
from bench.errors import BenchError
from bench.load import BLOCK, FIELDS, Load, identifiers, payload, publish_packet, topic
from bench.parts.throughput import SHARE, STREAMS
from bench.processes import wait_until
from bench.publisher import publisher
from bench.report import MIB, Check, Result
from bench.sides import Mlade, mlade
from bench.sides.counting import new_client
from bench.watch import Seen, slope, watching

_WINDOW: Final = 100
_STEP: Final = 20
_SMALL: Final = 200
"""Bytes in a message."""
_CYCLE: Final = 50_000
"""Small messages that are encoded beforehand; then they come again."""
_LARGE: Final = 64 << 10
_LARGE_READINGS: Final = 640
"""In each message."""
_LARGE_CYCLE: Final = 6 * STREAMS
_OFFERED: Final = 300e6
"""Bytes a second of large messages."""
_PIECE: Final = 4
"""Large messages in one write."""
_SETTLED: Final = 0.4
"""The share of the time after which memory is expected not to grow any more: until then windows and buffers fill."""
_SLOPE: Final = 12.0
_MEMORY: Final = 200.0
_DROPPED: Final = "$SYS/broker/publish/messages/dropped"
_QUIET: Final = 2.5
"""Seconds without a change after which the counts are final."""


class Size(NamedTuple):
    """How long it takes."""

    seconds: float
    """Of each flood."""


FULL: Final = Size(seconds=20)
QUICK: Final = Size(seconds=5)


class _Load(NamedTuple):
    """What is published."""

    title: str
    payloads: Sequence[bytes]
    block: int
    """Messages in one write."""
    most: float
    """Bytes a second at most; 0: as fast as the broker reads."""

    def packets(self, qos: int) -> list[bytes]:
        """Return the messages' packets."""
        names = [topic(stream) for stream in range(STREAMS)]
        return [
            publish_packet(names[number % STREAMS], body, qos, identifier)
            for number, (body, identifier) in enumerate(zip(self.payloads, identifiers(), strict=False))
        ]


class _Flood(NamedTuple):
    """What came of one."""

    sent: int
    received: int
    dropped: int
    """By the broker, as far as it says."""
    seconds: float
    """Until the last message was taken in."""
    taken: int
    """Bytes that mlade read."""
    offered: float
    """Bytes a second that the broker took from the publisher."""
    resident: Sequence[Seen[float]]
    """Resident set, MiB, until the publisher ended."""


class _Processor(NamedTuple):
    """What mlade is told."""

    model: Mapping[str, Any]
    confidence: float


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Flood with small and with large messages at both QoS."""
    load = Load.random(_CYCLE, STREAMS)
    path = models.write(models.convolutional(), folder / "convolutional.onnx")
    by_stream = load.values.reshape(-1, STREAMS, len(FIELDS))
    confidence, _ = models.least_confident(path, np.moveaxis(by_stream[:_WINDOW], 0, 2), SHARE)
    section = {"path": str(path), "window": {"size": _WINDOW, "step": _STEP}, "input": {"layout": "NCT"}}
    result = Result(
        f"Flood: {size.seconds:g} s of more messages than can be passed on, and of {_OFFERED / 1e6:g} MB/s offered",
        ("", "QoS", "messages/s", "MB/s", "MB/s offered", "dropped", "RSS over time, MiB", "MiB/min"),
        notes=(
            f"{STREAMS} streams, windows of {_WINDOW}, step {_STEP}, about {SHARE:.0%} accepted, everything on.",
            f"{_LARGE >> 10} KiB hold {_LARGE_READINGS} readings. Offered is what the broker took from the publisher.",
            "For a slow subscriber it keeps 1,000 messages, its default; what is beyond it drops, and says how many.",
            "At QoS 1 all the others have been taken in. Each sample has been delivered.",
            f"The slope is of the last {1 - _SETTLED:.0%} of the time.",
        ),
    )
    for kind in (_small(load), _large(load)):
        for qos in (0, 1):
            tell(f"{kind.title}, QoS {qos}")
            _add(result, kind, qos, _flood(size, kind, qos, _Processor(section, confidence)))
    return result


def _small(load: Load) -> _Load:
    """Return one reading a message, padded."""
    bodies = [payload(load.start + number / 1000, row) for number, row in enumerate(load.values.tolist())]
    around = len(b',"note":""')
    padded = [body[:-1] + b',"note":"' + b"x" * (_SMALL - len(body) - around) + b'"}' for body in bodies]
    return _Load(f"{_SMALL} bytes", padded, BLOCK, 0.0)


def _large(load: Load) -> _Load:
    """Return many readings of a stream a message, padded; each stream's go on evenly."""
    rows = load.values.tolist()
    bodies = []
    for number in range(_LARGE_CYCLE):
        first = number // STREAMS * _LARGE_READINGS
        readings = [
            payload(load.start + at / 1000, rows[(number * _LARGE_READINGS + at) % _CYCLE])
            for at in range(first, first + _LARGE_READINGS)
        ]
        bodies.append((b"[" + b",".join(readings) + b"]").ljust(_LARGE))
    return _Load(f"{_LARGE >> 10} KiB", bodies, _PIECE, _OFFERED)


def _flood(size: Size, kind: _Load, qos: int, processor: _Processor) -> _Flood:
    packets = kind.packets(qos)
    with (
        mosquitto("max_queued_messages 1000", "sys_interval 1") as broker,
        _drops(broker) as dropped,
        mlade(
            broker,
            qos,
            processor.model,
            processor.confidence,
            bridges=[{"type": "files", "path": "accepted", "rotate": {"max_age": "2s"}}, {"type": "mqtt"}],
        ) as side,
        publisher(broker.port) as source,
    ):
        with watching(lambda: side.child.resident_bytes() / MIB, 0.25) as resident:
            started = time.perf_counter()
            sent = source.keep_flooding(packets, qos, size.seconds, block=kind.block, most=kind.most)
            published = time.perf_counter() - started
        received, last = _settled(side, dropped)
        seconds = last - started
        if qos and received + dropped[0] != sent:
            found = f"has taken in {received} of {sent} messages, of which the broker dropped {dropped[0]}"
            raise side.child.failed(found)
        _check_samples(side, broker)
        offered = sent * len(packets[0]) / published
        taken = side.metrics()["received_bytes_total"]
        return _Flood(sent, received, dropped[0], seconds, taken, offered, resident)


@contextmanager
def _drops(broker: Broker) -> Iterator[list[int]]:
    """Yield a list whose only element is how many messages the broker says it has dropped."""
    dropped = [0]
    client = new_client(broker.port, _DROPPED, 0)

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        dropped[0] = int(message.payload)

    client.on_message = on_message
    client.loop_start()
    try:
        yield dropped
    finally:
        client.disconnect()
        client.loop_stop()


def _settled(side: Mlade, dropped: Sequence[int]) -> tuple[int, float]:
    """Wait until no more messages come; return how many came, and when the last was seen to."""
    seen = (side.received(), dropped[0])
    changed = time.perf_counter()
    while time.perf_counter() < changed + _QUIET:
        time.sleep(0.1)
        if (now := (side.received(), dropped[0])) != seen:
            seen, changed = now, time.perf_counter()
    return seen[0], changed


def _check_samples(side: Mlade, broker: Broker) -> None:
    """See that each sample has been delivered, and that nothing else went wrong.

    Raises:
        BenchError: something did.
    """

    def delivered() -> bool:
        metrics = side.metrics()
        return metrics["bridge_delivered_total"] == 2 * metrics["accepted_total"]

    wait_until(delivered, "it had delivered each sample to both bridges", side.child, timeout=60)
    metrics = side.metrics()
    lines = sum(path.read_bytes().count(b"\n") for path in (broker.folder / "accepted").rglob("*.jsonl"))
    if lines != metrics["accepted_total"]:
        raise BenchError(f"{metrics['accepted_total']} samples were accepted, but {lines} are in files")
    for name in ("dead_letters_total", "outbox_lost_total", "repeated_messages_total"):
        if metrics[name]:
            raise side.child.failed(f"has {metrics[name]} {name.removesuffix('_total')}")


def _add(result: Result, kind: _Load, qos: int, flood: _Flood) -> None:
    """Put one flood into the table."""
    duration = flood.resident[-1].at
    growth = slope([look for look in flood.resident if look.at >= _SETTLED * duration]) * 60
    peak = max(look.value for look in flood.resident)
    every = max(1, len(flood.resident) // 9)
    rate, speed = flood.received / flood.seconds, flood.taken / flood.seconds / 1e6
    series = " ".join(f"{look.value:.0f}" for look in flood.resident[::every])
    result.rows.append(
        (
            kind.title,
            str(qos),
            f"{rate:,.0f}",
            f"{speed:.0f}",
            f"{flood.offered / 1e6:.0f}",
            f"{flood.dropped / flood.sent:.0%}",
            series,
            f"{growth:+.1f}",
        )
    )
    name = f"{kind.title}, QoS {qos}"
    result.checks.append(Check(f"{name}: RSS grows", growth, "<=", _SLOPE, "MiB/min"))
    result.checks.append(Check(f"{name}: peak RSS", peak, "<=", _MEMORY, "MiB"))
    result.figures[name] = {
        "sent": flood.sent,
        "received": flood.received,
        "dropped_by_broker": flood.dropped,
        "messages_per_second": rate,
        "bytes_per_second": speed * 1e6,
        "offered_bytes_per_second": flood.offered,
        "resident_mib": [[look.at, look.value] for look in flood.resident],
        "mib_per_minute": growth,
        "peak_mib": peak,
    }
