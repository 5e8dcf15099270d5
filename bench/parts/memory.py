"""Memory with many streams of long windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bench import models
from bench.broker import mosquitto
from bench.load import FIELDS, Load
from bench.parts.throughput import SHARE
from bench.publisher import publisher
from bench.report import MIB, Check, Result
from bench.sides import mlade, wait_received

_STREAMS: Final = 1000
_WINDOW: Final = 100
_STEP: Final = 20
_QOS: Final = 1
_TARGET: Final = 160.0


class Size(NamedTuple):
    """How long it takes."""

    readings: int
    """Of each stream."""


FULL: Final = Size(readings=200)
QUICK: Final = Size(readings=120)


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Fill every stream's window, go on for some windows, and read the peak."""
    model = models.write(models.convolutional(), folder / "convolutional.onnx")
    load = Load.random(_STREAMS * size.readings, _STREAMS)
    by_stream = load.values.reshape(size.readings, _STREAMS, len(FIELDS))
    confidence, _ = models.least_confident(model, np.moveaxis(by_stream[:_WINDOW], 0, 2), SHARE)
    packets = load.packets(_QOS)
    section = {"path": str(model), "window": {"size": _WINDOW, "step": _STEP}, "input": {"layout": "NCT"}}
    with (
        mosquitto() as broker,
        mlade(broker, _QOS, section, confidence) as side,
        publisher(broker.port) as source,
    ):
        before = side.child.peak_bytes() / MIB
        tell(f"{len(packets):,} messages of {_STREAMS:,} streams")
        source.flood(packets, _QOS)
        wait_received(side, len(packets))
        peak = side.child.peak_bytes() / MIB
        accepted = side.accepted()
    windows = _STREAMS * ((size.readings - _WINDOW) // _STEP + 1)
    return Result(
        f"Memory: {_STREAMS:,} streams of windows of {_WINDOW} x {len(FIELDS)}",
        ("", "peak RSS MiB"),
        [("before the first message", f"{before:.0f}"), (f"after {len(packets):,} messages", f"{peak:.0f}")],
        [Check("peak RSS", peak, "<=", _TARGET, "MiB")],
        {"peak_mib": peak, "before_mib": before, "windows": windows, "accepted": accepted},
        notes=(f"A convolution over {windows:,} windows, {accepted:,} accepted, QoS 1, flooded.",),
    )
