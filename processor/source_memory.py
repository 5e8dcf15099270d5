"""What sources remember from message to message, as rows of the store: last values, births, halves of a join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from processor.conditions.memory import ALL, Row
from processor.holding import Holding
from processor.memories import OF_SOURCES, Remembered
from processor.protocols import Decoder, RememberingDecoder
from processor.source_sections import Source
from processor.windows import WindowBuffer


class SourceMemory:
    """Last values and decoders' memories of all sources. Used by the pipeline thread.

    Attributes:
        holdings: by the position of the sources whose readings may lack fields.
    """

    def __init__(self, sources: Sequence[Source], decoders: Sequence[Decoder], windows: WindowBuffer) -> None:
        """Begin with nothing."""
        self.holdings = {
            position: Holding(source.fields) for position, source in enumerate(sources) if source.missing == "hold"
        }
        self._remembering = {
            position: decoder for position, decoder in enumerate(decoders) if isinstance(decoder, RememberingDecoder)
        }
        self._windows = windows
        self._names = [source.name for source in sources]
        self._prefixes = [f"{source.name}:{_fingerprint(source)}" for source in sources]
        self._useless: list[Remembered] = []

    def restore(self, rows: Iterable[Remembered]) -> None:
        """Go on from what `changes` returned over the time, after the windows were restored. Called once.

        What a source remembered while it was written otherwise is forgotten.
        """
        of_decoders: dict[int, list[Row]] = {position: [] for position in self._remembering}
        of_streams: dict[int, list[Row]] = {position: [] for position in self.holdings}
        for row in rows:
            prefix, kind, key = row.key.split("/", 2)
            position = self._prefixes.index(prefix) if prefix in self._prefixes else -1
            kept = of_decoders if kind == "decoder" else of_streams
            if position in kept:
                kept[position].append(Row(key, row.part, row.value))
            else:
                self._useless.append(Remembered(OF_SOURCES, row.key, ALL, None))
        for position, decoder in self._remembering.items():
            decoder.restore(of_decoders[position])
        slots = {name: slot for slot, name in enumerate(self._windows.names) if name is not None}
        for position, holding in self.holdings.items():
            name = self._names[position]
            holding.restore(
                of_streams[position], {key: slot for (source, key), slot in slots.items() if source == name}
            )

    def forget(self, slots: Iterable[int]) -> None:
        """Drop streams that are not known any more. Before their slots are used again."""
        slots = list(slots)
        for holding in self.holdings.values():
            holding.forget(slots)

    def begin_anew(self) -> None:
        """Drop all streams."""
        for holding in self.holdings.values():
            holding.begin_anew()

    def changes(self) -> list[Remembered]:
        """Return the rows that changed since the last call."""
        found, self._useless = self._useless, []
        kinds: tuple[tuple[str, Mapping[int, Holding | RememberingDecoder]], ...]
        kinds = (("decoder", self._remembering), ("stream", self.holdings))
        for kind, of_sources in kinds:
            for position, one in of_sources.items():
                prefix = f"{self._prefixes[position]}/{kind}/"
                found += [Remembered(OF_SOURCES, prefix + key, part, value) for key, part, value in one.changes()]
        return found


def _fingerprint(source: Source) -> str:
    """Return what a source's memory depends on, in 8 hex digits."""
    says = source.model_dump_json(include={"format", "fields", "stream", "join", "opcua", "missing", "topics"})
    return sha256(says.encode()).hexdigest()[:8]
