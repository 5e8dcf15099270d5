"""Which model a message is for: a message feeds one source, the first that matches it, and that feeds one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from processor.copies import filters, source_of
from processor.types import INPUTS, Message

if TYPE_CHECKING:
    from processor.settings import Settings
    from processor.source_sections import Source

_TOPICS: Final = 100_000
"""Topics remembered; with more, all are forgotten and found again."""
_LONGEST: Final = 1024
"""Characters of a topic that is remembered; one may have 65,535, and memory is bounded."""


class Division:
    """Divides batches among the models. Used by one thread."""

    def __init__(self, sources: Sequence[Source], models: Sequence[int], prefix: str) -> None:
        """Prepare.

        Args:
            sources: in the configuration's order.
            models: for each source the number of the model that it feeds, from 0 on.
            prefix: topics under it are processors' own and never readings.
        """
        self._filters = filters(sources)
        self._inputs = {INPUTS + one.input: position for position, one in enumerate(sources) if one.input}
        self._models = models
        self._own = f"{prefix}/"
        self._count = max(models) + 1
        self._known: dict[str, int] = {}

    @classmethod
    def of(cls, settings: Settings) -> Division:
        """Return that of a configuration; its models have the numbers of its slots."""
        models = {position: number for number, slot in enumerate(settings.slots) for position in slot.positions}
        return cls(settings.sources, [models[at] for at in range(len(settings.sources))], settings.topic_prefix)

    def divide(self, messages: Sequence[Message]) -> list[Sequence[Message]]:
        """Return the messages for each model, in their order; those that no source reads are with the first's."""
        if self._count == 1:
            return [messages]
        parts: list[list[Message]] = [[] for _ in range(self._count)]
        known = self._known
        for message in messages:
            model = known.get(message.topic)
            parts[self._find(message.topic) if model is None else model].append(message)
        return list(parts)

    def _find(self, topic: str) -> int:
        position = self._inputs.get(topic)
        if position is None:
            position = -1 if topic.startswith(self._own) else source_of(self._filters, topic)
        model = 0 if position < 0 else self._models[position]
        if len(self._known) >= _TOPICS:
            self._known.clear()
        if len(topic) <= _LONGEST:
            self._known[topic] = model
        return model
