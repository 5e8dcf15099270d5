"""What sources remember from message to message, as rows of the store: last values, births, halves of a join."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from processor.conditions.memory import ALL, Row
from processor.holding import Holding
from processor.memories import OF_SOURCES, Remembered
from processor.protocols import Decoder, RememberingDecoder
from processor.source_sections import Source


class SourceMemory:
    """Last values and decoders' memories of all sources. Used by the pipeline thread.

    Attributes:
        holdings: by the position of the sources whose readings may lack fields.
    """

    def __init__(self, sources: Sequence[Source], decoders: Sequence[Decoder], max_streams: int) -> None:
        """Begin with nothing."""
        self.holdings = {
            position: Holding(source.fields, max_streams)
            for position, source in enumerate(sources)
            if source.missing == "hold"
        }
        self._memories: dict[str, Holding | RememberingDecoder] = {}  # by what their rows' keys begin with
        for position, (source, decoder) in enumerate(zip(sources, decoders, strict=True)):
            prefix = f"{source.name}:{_fingerprint(source)}"
            if isinstance(decoder, RememberingDecoder):
                self._memories[f"{prefix}/decoder"] = decoder
            if position in self.holdings:
                self._memories[f"{prefix}/streams"] = self.holdings[position]
        self._useless: list[Remembered] = []

    def restore(self, rows: Iterable[Remembered]) -> None:
        """Go on from what `changes` returned over the time, ordered by key and part. Called once.

        What a source remembered while it was written otherwise is forgotten.
        """
        kept: dict[str, list[Row]] = {prefix: [] for prefix in self._memories}
        for row in rows:
            source, kind, key = row.key.split("/", 2)
            if (prefix := f"{source}/{kind}") in kept:
                kept[prefix].append(Row(key, row.part, row.value))
            else:
                self._useless.append(Remembered(OF_SOURCES, row.key, ALL, None))
        for prefix, memory in self._memories.items():
            memory.restore(kept[prefix])

    def changes(self) -> list[Remembered]:
        """Return the rows that changed since the last call."""
        found, self._useless = self._useless, []
        for prefix, memory in self._memories.items():
            found += [Remembered(OF_SOURCES, f"{prefix}/{key}", part, value) for key, part, value in memory.changes()]
        return found


def _fingerprint(source: Source) -> str:
    """Return what a source's memory depends on, in 8 hex digits."""
    says = source.model_dump_json(include={"format", "fields", "stream", "join", "opcua", "missing", "topics"})
    return sha256(says.encode()).hexdigest()[:8]
