"""Every processor on the broker, as its topics tell of it.

One record a processor, never changed but replaced: the watching thread writes, anyone reads what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import msgspec

from processor.allowance import Allowance
from processor.dashboard.samples import Letter, Sample, read_letter, read_sample
from processor.told import FilterState, History, Metrics, ModelState, Revision
from processor.types import MODEL_SLOT, Message

_MOST: Final = 1000
"""Processors; others are counted."""
_MODELS: Final = 64
"""Of one processor; others are not looked at."""
_SAMPLES: Final = 24
_LETTERS: Final = 20
_PER_SECOND: Final = 4.0
"""Samples, and dead letters, of a processor that are looked at; in a burst as many as are kept."""

_OF_MODELS: Final = (("filter/state", 1), ("filter/history", 1), ("model/state", 1))
"""What tells of a model of a processor: of `default` there, of others below `models/<name>/`."""
TOPICS: Final = (("status", 1), ("metrics", 0), *_OF_MODELS, *((f"models/+/{name}", qos) for name, qos in _OF_MODELS))
"""What tells of a processor, with the QoS to ask for."""
STREAMS: Final = (("accepted/#", 0), ("deadletter", 0))
"""What may come at any rate; a part of it is enough."""

_Kind = TypeVar("_Kind", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Slot:
    """What is known of one of several models.

    Attributes:
        filter: the last answer to a filter.
        revisions: the last filters, newest first.
        model: the last answer to a model.
    """

    filter: FilterState | None = None
    revisions: tuple[Revision, ...] = ()
    model: ModelState | None = None


@dataclass(frozen=True, slots=True)
class Processor:
    """One processor.

    Attributes:
        root: what its topics start with.
        online: what its status says; None: nothing.
        status_at: when the status came, on the monotonic clock.
        metrics: the last ones.
        heard: when they came, on the monotonic clock.
        every: seconds between the last two that came while we listened; 0: not known yet.
        filter: the last answer to a filter.
        revisions: the last filters, newest first.
        model: the last answer to a model.
        slots: models that have a name, beside the one whose answers these are, by it.
        samples: some of those kept lately, newest first.
        letters: some of the messages that could not be processed, newest first.
    """

    root: str
    online: bool | None = None
    status_at: float = 0.0
    metrics: Metrics | None = None
    heard: float = 0.0
    every: float = 0.0
    filter: FilterState | None = None
    revisions: tuple[Revision, ...] = ()
    model: ModelState | None = None
    slots: Mapping[str, Slot] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    letters: tuple[Letter, ...] = ()

    @property
    def id(self) -> str:
        """Its id."""
        return self.root.rpartition("/")[2]

    @property
    def models(self) -> list[str]:
        """The names of its models, where they have names."""
        return [] if self.metrics is None else list(self.metrics.models)

    def of(self, model: str) -> Processor:
        """Return what is known of one of its models, as if that were the only one."""
        own = Slot(self.filter, self.revisions, self.model) if model == MODEL_SLOT else self.slots.get(model, Slot())
        metrics = None if self.metrics is None else self.metrics.of(model)
        return replace(self, metrics=metrics, filter=own.filter, revisions=own.revisions, model=own.model, slots={})

    @property
    def active(self) -> dict[str, Any]:
        """The filter in force, as far as is known."""
        return {} if self.filter is None else self.filter.active


class Fleet:
    """All of them. `take` is called by one thread.

    Attributes:
        processors: by their topics' beginning; replaced whole when one comes or goes.
        too_many: messages of processors for which there was no room.
        foreign: messages on processors' topics that no processor has written.
    """

    def __init__(self, prefixes: Sequence[str], monotonic: Callable[[], float]) -> None:
        """Look at topics with these beginnings; `monotonic` tells the time in seconds."""
        self.processors: dict[str, Processor] = {}
        self.too_many = 0
        self.foreign = 0
        self._prefixes = [f"{prefix}/" for prefix in prefixes]
        self._monotonic = monotonic
        self._allowances: dict[tuple[str, str], Allowance] = {}

    def take(self, messages: Iterable[Message]) -> None:
        """Take note of messages that have just come."""
        for message in messages:
            root, rest = self.split(message.topic)
            if root:
                self._take(root, rest, message)

    def split(self, topic: str) -> tuple[str, str]:
        """Return a topic's beginning that names a processor, and the rest; empty where it is not one of ours."""
        for prefix in self._prefixes:
            if topic.startswith(prefix):
                name, _, rest = topic[len(prefix) :].partition("/")
                return (prefix + name, rest) if name and rest else ("", "")
        return "", ""

    def _take(self, root: str, rest: str, message: Message) -> None:
        if message.oversize or (rest.startswith(("accepted/", "deadletter")) and not self._is_looked_at(root, rest)):
            return
        before = self.processors.get(root) or Processor(root)
        if not message.payload:  # somebody has cleared what the broker retained
            if rest == "status" and root in self.processors:
                self.processors = {key: value for key, value in self.processors.items() if key != root}
            return
        told = _told(before, rest, message, self._monotonic())
        if told is None:
            self.foreign += 1
        elif root not in self.processors and len(self.processors) >= _MOST:
            self.too_many += 1
        else:
            self.processors = {**self.processors, root: replace(before, **told)}

    def _is_looked_at(self, root: str, rest: str) -> bool:
        """Whether there is time for one more of what may come at any rate."""
        if root not in self.processors:
            return False
        kind = rest.partition("/")[0]
        if (root, kind) not in self._allowances:
            self._allowances[root, kind] = Allowance(self._monotonic, _PER_SECOND, _SAMPLES)
        return bool(self._allowances[root, kind].take(1))


def _told(before: Processor, rest: str, message: Message, now: float) -> dict[str, Any] | None:
    """Return what a message changes in a processor's record; None where no processor can have written it."""
    told: dict[str, Any] | None = None
    if rest == "status" and message.payload in (b"online", b"offline"):
        told = {"online": message.payload == b"online", "status_at": now}
    elif rest == "metrics" and (metrics := _decoded(message, Metrics)) and metrics.time:
        every = before.every if message.retain or not before.heard else now - before.heard
        told = {"metrics": metrics, "heard": now, "every": every}
    elif (of_model := _of_model(rest, message)) is not None:
        told = of_model
    elif rest.startswith("models/"):
        name, _, below = rest.removeprefix("models/").partition("/")
        of_model = _of_model(below, message)
        if of_model is not None and (name in before.slots or len(before.slots) < _MODELS):
            told = {"slots": {**before.slots, name: replace(before.slots.get(name, Slot()), **of_model)}}
    elif rest == "deadletter" and (letter := read_letter(message.payload)):
        told = {"letters": (letter, *before.letters)[:_LETTERS]}
    elif rest.startswith("accepted/") and (sample := read_sample(message.payload)):
        others = (one for one in before.samples if one.id != sample.id)  # it may come again
        told = {"samples": (sample, *others)[:_SAMPLES]}
    elif rest == "command/response":
        told = {}
    return told


def _of_model(rest: str, message: Message) -> dict[str, Any] | None:
    """Return what a message changes in what is known of a model; None where no processor can have written it."""
    if rest == "filter/state" and (state := _decoded(message, FilterState)):
        return {"filter": state}
    if rest == "filter/history" and (history := _decoded(message, History)):
        return {"revisions": tuple(history.revisions)}
    if rest == "model/state" and (model := _decoded(message, ModelState)):
        return {"model": model}
    return None


def _decoded(message: Message, kind: type[_Kind]) -> _Kind | None:
    try:
        return msgspec.json.decode(message.payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
