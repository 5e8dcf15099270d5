"""Messages a second at QoS 1 with few and with many messages in flight, near the broker and far from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from bench import models
from bench.broker import HOST, Broker, mosquitto
from bench.load import Load
from bench.parts.throughput import SHARE, STREAMS
from bench.processes import PYTHON_MODULE, running
from bench.publisher import publisher
from bench.report import Result
from bench.sides import mlade, wait_received

_QOS: Final = 1
_WARM_UP: Final = 500
_WINDOWS: Final = (1, 100)
_ROUND_TRIP: Final = 0.020
"""Seconds to a broker that is far away and back: over a mobile network, or to another site."""


class _Limit(NamedTuple):
    """Who limits the messages in flight, and to how many."""

    title: str
    broker_settings: Sequence[str] = ()
    section: Mapping[str, Any] = MappingProxyType({})
    """Of the processor's configuration, on its broker."""
    kept: int = 0
    """The limit, where the broker is made to keep to it."""


_LIMITS: Final = (
    _Limit("Mosquitto, MQTT 3.1.1, its default: 20", (), {"protocol": "3.1.1"}),
    _Limit("Mosquitto, MQTT 3.1.1: 1000", ("max_inflight_messages 1000",), {"protocol": "3.1.1"}),
    _Limit("Mosquitto, MQTT 5: 20", (), {"receive_maximum": 20}),
    _Limit("Mosquitto, MQTT 5: 1000", (), {"receive_maximum": 1000}),
    _Limit("one that keeps to it: 20", kept=20),
    _Limit("one that keeps to it: 1000", kept=1000),
)


class Size(NamedTuple):
    """How long it takes."""

    near: int
    """Messages with the broker on this machine."""
    far: int
    """Messages with the broker far away."""
    longest: float
    """Seconds that these should take at most; where the limit allows less, fewer are sent."""


FULL: Final = Size(near=60_000, far=40_000, longest=4)
QUICK: Final = Size(near=20_000, far=10_000, longest=1.5)


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Flood the processor under each limit, with windows of 1 and of 100."""
    sections: dict[int, dict[str, Any]] = {
        1: {"path": str(models.write(models.dense(), folder / "dense.onnx"))},
        100: {
            "path": str(models.write(models.convolutional(), folder / "convolutional.onnx")),
            "window": {"size": 100, "step": 20},
            "input": {"layout": "NCT"},
        },
    }
    load = Load.random(_WARM_UP + size.near, STREAMS)
    confidence, _ = models.least_confident(folder / "dense.onnx", load.values, SHARE)
    packets = load.packets(_QOS)
    away = f"{_ROUND_TRIP * 1e3:g} ms away"
    result = Result(
        "In flight: messages a second at QoS 1, by how many the broker sends before the first is acknowledged",
        ("", *(f"{place}: windows of {window}" for place in ("near", "far") for window in _WINDOWS)),
        notes=(
            f"{STREAMS} streams, as many as the broker passes on; near: on this machine; far: {away}, there and back.",
            "Windows of 100 take 100 messages of a stream before the first is complete: many more than 20 in flight.",
            "Mosquitto 2.0 sends more than its limit once acknowledgements flow.",
            "One that keeps to it is the same Mosquitto behind a small program that holds messages back.",
        ),
    )
    for limit in _LIMITS:
        row = [limit.title]
        for delay, count in ((0.0, size.near), (_ROUND_TRIP / 2, size.far)):
            messages = int(min(count, size.longest * limit.kept / delay / 2)) if limit.kept and delay else count
            for window in _WINDOWS:
                tell(f"{limit.title}, windows of {window}, {'far' if delay else 'near'}")
                rate = _rate(limit, delay, sections[window], confidence, packets[: _WARM_UP + messages])
                row.append(f"{rate:,.0f}")
                result.figures[f"{limit.title}, windows of {window}, {'far' if delay else 'near'}"] = rate
        result.rows.append(row)
    return result


def _rate(limit: _Limit, delay: float, model: dict[str, Any], confidence: float, packets: Sequence[bytes]) -> float:
    with (
        mosquitto(*limit.broker_settings) as broker,
        _link(broker, delay, limit.kept) as port,
        mlade(broker, _QOS, model, confidence, broker={"url": f"mqtt://{HOST}:{port}", **limit.section}) as side,
        publisher(broker.port) as source,
    ):
        source.flood(packets[:_WARM_UP], _QOS)
        wait_received(side, _WARM_UP)
        started = time.perf_counter()
        source.flood(packets[_WARM_UP:], _QOS)
        wait_received(side, len(packets))
        return (len(packets) - _WARM_UP) / (time.perf_counter() - started)


@contextmanager
def _link(broker: Broker, delay: float, kept: int) -> Iterator[int]:
    """Yield the port by which the broker is as far away as that, and keeps to that limit."""
    if not delay and not kept:
        yield broker.port
        return
    command = [*PYTHON_MODULE, "bench.sides.link", str(broker.port), repr(delay), str(kept)]
    with running("link", command, broker.folder, pipes=True) as child:
        yield int(child.ask())
