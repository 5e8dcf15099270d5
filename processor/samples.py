"""Windows that were judged, and the samples made of those that are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from processor.events import event_id, inference, sample_event, uniform
from processor.filter import Rule
from processor.protocols import Model
from processor.topics import encode_stream
from processor.types import MODEL_SLOT, Floats, Predictions, Sample, StreamName, Windows


def told_model(model: Model, slot: str) -> dict[str, str]:
    """Return which model it was, as events have it; its slot where that is not the only one."""
    told = {"name": model.name, "sha256": model.sha256}
    return told if slot == MODEL_SLOT else told | {"slot": slot}


class Candidates:
    """W windows with the model's answers.

    Attributes:
        windows: the windows.
        predictions: the model's answers for them.
        names: their streams, by slot.
    """

    def __init__(
        self,
        processor: str,
        fields: Mapping[str, Sequence[str]],
        model: Model,
        windows: Windows,
        predictions: Predictions,
        *,
        names: Mapping[int, StreamName],
        slot: str,
    ) -> None:
        """Take what samples are made of.

        Args:
            processor: its id.
            fields: each source's, by its name.
            model: that gave the answers.
            windows: the windows.
            predictions: the answers.
            names: their streams, by slot.
            slot: the model's.
        """
        self.windows = windows
        self.predictions = predictions
        self.names = names
        self._processor = processor
        self._slot = slot
        self._fields = fields
        self._model = model
        self._identifiers: dict[int, str] = {}

    def identify(self, row: int) -> str:
        """Return a window's event id."""
        known = self._identifiers.get(row)
        if known is None:
            source, key = self.names[int(self.windows.slots[row])]
            times, values = self.windows.times[row], self._values(row)
            known = event_id(self._processor, source, key, times, values, slot=self._slot)
            self._identifiers[row] = known
        return known

    def _values(self, row: int) -> Floats | bytes:
        images = self.windows.images
        return self.windows.values[row] if images is None else images.payloads[row]

    def uniform(self, row: int, text: str) -> float:
        """Return a window's number in [0, 1) for a text."""
        return uniform(self.identify(row), text)

    def sample(self, row: int, rule: Rule, selection: Mapping[str, Any]) -> Sample:
        """Return a window as a sample of a rule; `selection` says why it is one."""
        windows, model = self.windows, self._model
        name = self.names[int(windows.slots[row])]
        answer = inference(self.predictions, row)
        event = sample_event(
            identifier=self.identify(row),
            processor=self._processor,
            source=name.source,
            stream=name.key,
            fields=self._fields[name.source],
            times=windows.times[row],
            values=self._values(row),
            answer=answer,
            selection=selection,
            model=told_model(model, self._slot),
        )
        return Sample(
            self.identify(row),
            rule.name,
            answer["label"] or "",
            encode_stream(name.key),
            model.name,
            int(windows.ends[row]),
            rule.priority,
            event,
        )
