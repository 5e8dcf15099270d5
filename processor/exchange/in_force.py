"""What there is to say of the model in force, of what is wanted in its place, and of what becomes of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from processor.exchange.opening import Opened
from processor.registry.fetched import Fetched
from processor.settings import Slot
from processor.shadow.timing import Kept
from processor.types import OutputKind

ModelSource = Literal["file", "topic"]


class Facts(NamedTuple):
    """What there is to say of a model; the model itself would hold its memory."""

    name: str
    sha256: str
    kind: OutputKind
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """The model that judges, and who wanted it.

    Attributes:
        model: what there is to say of it.
        slot: the configuration's, with the model's own keys.
        fetched: the file that it was opened from.
        measured: what windows took in it and its shadow, and in earlier pairs.
        source: the configuration or an operator's document.
        document: the latter; None: there is none.
        sha256: of the document as it came; that of the configuration's keys where there is none.
    """

    model: Facts
    slot: Slot
    fetched: Fetched
    measured: Sequence[Kept]
    source: ModelSource
    document: dict[str, Any] | None
    sha256: str

    @classmethod
    def of(cls, opened: Opened, document: dict[str, Any] | None, sha256: str) -> InForce:
        """Return a model that was opened for a document, or for the configuration."""
        model = opened.model
        facts = Facts(model.name, model.sha256, model.kind, model.labels)
        source: ModelSource = "file" if document is None else "topic"
        return cls(facts, opened.slot, opened.fetched, opened.measured, source, document, sha256)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A document that was accepted before the last restart, and whose model was not loaded yet."""

    source: ModelSource
    document: dict[str, Any] | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of something, once `install` is called.

    Attributes:
        swap: the model that is to be in force; None: the one that is.
        memory: what has to be on disk first; None when that is there already.
        install: makes it so.
        rejected: whether something is rejected by it.
    """

    swap: Opened | None
    memory: dict[str, Any] | None
    install: Callable[[], None]
    rejected: bool = False
