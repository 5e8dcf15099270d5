"""Messages a second at QoS 1 with the broker saturated, beside Mosquitto's own subscriber in C."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench import models
from bench.broker import mosquitto
from bench.load import Load
from bench.parts.throughput import SHARE, STREAMS
from bench.publisher import publisher
from bench.report import Check, Result, Spread
from bench.sides import mlade, mosquitto_sub, wait_received

_QOS: Final = 1
_WARM_UP: Final = 2000
_TARGET: Final = 0.85


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    messages: int


FULL: Final = Size(rounds=5, messages=100_000)
QUICK: Final = Size(rounds=1, messages=50_000)


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Flood mosquitto_sub and mlade in turn."""
    model = models.write(models.dense(), folder / "dense.onnx")
    load = Load.random(_WARM_UP + size.messages, STREAMS)
    confidence, _ = models.least_confident(model, load.values, SHARE)
    packets = load.packets(_QOS)
    rates: dict[str, list[float]] = {"mosquitto_sub": [], "mlade": []}
    for number in range(size.rounds):
        for side in list(rates) if number % 2 == 0 else reversed(rates):
            tell(f"round {number + 1} of {size.rounds}: {side}")
            seconds = _mosquitto_sub(packets) if side == "mosquitto_sub" else _mlade(packets, model, confidence)
            rates[side].append(size.messages / seconds)
    peer, ours = (Spread(tuple(values)) for values in rates.values())
    ratio = Spread(tuple(b / a for a, b in zip(peer.values, ours.values, strict=True)))
    return Result(
        "Saturation: messages a second at QoS 1, as many as the broker passes on",
        ("", "messages/s"),
        [("mosquitto_sub -q 1, output discarded", peer.text(0)), ("mlade run, everything on", ours.text(0))],
        [Check("mlade / mosquitto_sub", ratio.median, ">=", _TARGET)],
        {"mosquitto_sub": peer.as_json(), "mlade": ours.as_json(), "ratio": ratio.as_json()},
        notes=(f"{size.messages:,} messages, {STREAMS} streams, {SHARE:.0%} accepted, {size.rounds} rounds in turn.",),
    )


def _mosquitto_sub(packets: Sequence[bytes]) -> float:
    with (
        mosquitto() as broker,
        mosquitto_sub(broker, _QOS, len(packets)) as child,
        publisher(broker.port) as source,
    ):
        source.flood(packets[:_WARM_UP], _QOS)
        started = time.perf_counter()
        source.flood(packets[_WARM_UP:], _QOS)
        child.process.wait(timeout=120)
        return time.perf_counter() - started


def _mlade(packets: Sequence[bytes], model: Path, confidence: float) -> float:
    with (
        mosquitto() as broker,
        mlade(broker, _QOS, {"path": str(model)}, confidence) as side,
        publisher(broker.port) as source,
    ):
        source.flood(packets[:_WARM_UP], _QOS)
        wait_received(side, _WARM_UP)
        started = time.perf_counter()
        source.flood(packets[_WARM_UP:], _QOS)
        wait_received(side, len(packets))
        return time.perf_counter() - started
