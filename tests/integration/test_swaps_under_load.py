"""Models one after another while readings come as fast as they are taken: `python -m bench swaps`, small."""

from __future__ import annotations

import copy
import re
from typing import Any

from bench import swaps
from bench.load import FIELDS
from processor import settings
from tests.mosquitto import Mosquitto
from tests.running import ProcessorFactory

_SWAPS = 10


def test_no_window_is_lost_judged_twice_or_by_another_model_than_its_sample_names(
    make_processor: ProcessorFactory, mosquitto: Mosquitto
) -> None:
    """Every window becomes a sample, compared to the last bit with an offline run of the model that it names."""
    processor = make_processor(
        sources=[{"name": "imu", "topics": ["bench/+/imu"], "fields": list(FIELDS), "time": "ts"}],
        model={
            "path": "models/0.onnx",
            "window": {"size": swaps.WINDOW, "step": swaps.STEP},
            "input": {"layout": "NCT"},
        },
        filter=swaps.EVERYTHING,
    )
    models = processor.directory / "models"
    models.mkdir()
    swaps.write_model(models / "0.onnx", 0)
    processor.start()

    def received() -> int:
        found = re.search(r'^mlade_messages_total\{source="imu"\} (\S+)$', processor.get("/metrics"), re.MULTILINE)
        return int(float(found[1])) if found else 0

    played = swaps.play(
        settings.load(processor.file, {}), mosquitto.port, received, swaps=_SWAPS, streams=10
    )  # fmt: skip
    assert processor.stop() == 0
    events = processor.events()
    found = swaps.compare(played, events, models)
    assert found.faultless, found
    assert (found.samples, found.fewest) == (found.windows, _SWAPS + 1)

    # And it would have been noticed.
    def faults(*spoiled: dict[str, Any], without: int) -> str:
        compared = swaps.compare(played, [*events[:without], *events[without + 1 :], *spoiled], models)
        names = ("lost", "twice", "strange", "different", "backwards")
        return " ".join(name for name in names if getattr(compared, name))

    renamed, moved = copy.deepcopy(events[-1]), copy.deepcopy(events[7])
    renamed["data"]["model"]["sha256"] = played.models[0]
    moved["data"]["readings"]["values"][3][0] += 1e-9
    assert faults(without=5) == "lost"
    assert faults(events[5], events[5], without=5) == "twice"
    assert faults(renamed, without=len(events) - 1) == "different backwards"
    assert faults(moved, without=7) == "lost strange"
