"""Changing the model under load: nothing lost, nothing judged twice, and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench import swaps
from bench.broker import mosquitto
from bench.report import MIB, Check, Result, percentile
from bench.sides import mlade
from bench.watch import watching
from processor import settings

_STREAMS: Final = 10
_PADDING: Final = 16
"""MiB of each model's file, so that a second one in memory shows."""
_LOOK_EVERY: Final = 0.05


class Size(NamedTuple):
    """How long it takes."""

    swaps: int


FULL: Final = Size(swaps=50)
QUICK: Final = Size(swaps=8)


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Swap models, and compare every sample with an offline run."""
    with mosquitto() as broker:
        models = broker.folder / "models"
        models.mkdir()
        swaps.write_model(models / "0.onnx", 0, _PADDING)
        section = {
            "path": "models/0.onnx",
            "window": {"size": swaps.WINDOW, "step": swaps.STEP},
            "input": {"layout": "NCT"},
        }
        bridge = {"type": "files", "path": str(folder / "accepted")}
        with mlade(broker, 1, section, 1.0, filter=swaps.EVERYTHING, bridges=[bridge]) as side:
            configuration = settings.load(broker.folder / "processor.yaml", {})
            before: list[float] = []  # of the first swap, with all that traffic takes

            def told(text: str) -> None:
                if not before:
                    before.append(side.child.resident_bytes() / MIB)
                tell(text)

            with watching(side.child.resident_bytes, _LOOK_EVERY) as seen:
                played = swaps.play(
                    configuration, broker.port, side.received, swaps=size.swaps, streams=_STREAMS, tell=told,
                    padding=_PADDING,
                )  # fmt: skip
            peak = side.child.peak_bytes() / MIB
            after = side.child.resident_bytes() / MIB
        tell("comparing every sample with its model")
        resident = sorted(one.value / MIB for one in seen)
        found = swaps.compare(played, swaps.read_events(folder / "accepted"), models)
    waits = sorted(played.waits)
    faults = {
        "windows lost": found.lost,
        "windows judged twice": found.twice,
        "samples of no window": found.strange,
        "samples with other probabilities than offline": found.different,
        "samples of an older model after a newer one": found.backwards,
    }
    return Result(
        f"Swaps: {size.swaps} models one after another under load",
        ("", ""),
        [
            ("messages a second meanwhile, QoS 1", f"{played.messages / played.seconds:,.0f}"),
            ("windows, each kept as a sample", f"{found.windows:,}"),
            ("seconds from document to answer, median", f"{percentile(waits, 0.5):.2f}"),
            ("seconds from document to answer, longest", f"{waits[-1]:.2f}"),
            ("models that judged in every stream", f"{found.fewest} of {len(played.models)}"),
            ("RSS MiB before the first swap", f"{before[0]:.0f}"),
            ("RSS MiB, median", f"{percentile(resident, 0.5):.0f}"),
            ("RSS MiB, peak", f"{peak:.0f}"),
            ("RSS MiB after the last swap", f"{after:.0f}"),
        ],
        [Check(name, count, "<=", 0) for name, count in faults.items()],
        {
            **{name.replace(" ", "_"): count for name, count in faults.items()},
            "swaps": size.swaps,
            "windows": found.windows,
            "samples": found.samples,
            "messages_per_second": played.messages / played.seconds,
            "seconds_to_answer": waits,
            "before_mib": before[0],
            "peak_mib": peak,
            "after_mib": after,
        },
        notes=(
            f"Each model has weights of its own and {_PADDING} MiB beside them; every window becomes a sample.",
            f"Windows of {swaps.WINDOW} x 6, every {swaps.STEP} readings, of {_STREAMS} streams.",
        ),
    )
