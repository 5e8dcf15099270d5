"""The windows beside a sample: neighbours of the same stream that are sent along.

Neighbours are the windows that end so many steps before or after a sample's, in one run of readings without a gap. Each
window is sent once: as a sample if it is one, else beside the nearest sample at hand when it is its turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from processor.conditions.memory import ALL, HEAD, Row
from processor.errors import Problem
from processor.filter import FilterDocument
from processor.shapes import Shape
from processor.types import StreamName
from processor.units import size_text

_MOST_BYTES: Final = 1 << 30
"""What streams may hold for the windows before samples."""


class Beside(NamedTuple):
    """A window to be sent beside a sample."""

    of: str
    """Id of the sample."""
    rule: str
    """The sample's."""
    offset: int
    """Steps from the sample; negative: before it."""


class _Wanted(NamedTuple):
    """Windows to come that are to be sent beside a sample."""

    of: str
    rule: str
    before: int
    after: int
    """Of the rule, as `before`: if they changed, it is another condition."""
    place: int
    """The sample's."""


class _Stream(msgspec.Struct):
    """What is known of a stream's last samples."""

    sent: list[int]
    """Places of windows that were sent, as far as a later sample may ask for them."""
    wanted: list[_Wanted]
    """The newest last; one of each rule and context at most, since a filter may change and change back."""


class Context:
    """Which windows of each stream were sent, and which are to be. Used by one thread."""

    def __init__(self) -> None:
        """Begin with no samples; `use` comes next."""
        self._size = self._step = 1
        self._rules: Mapping[str, tuple[int, int]] = {}
        self._most_before = 0
        self._streams: dict[str, _Stream] = {}
        self._changed: dict[str, None] = {}

    def use(self, document: FilterDocument, shape: Shape) -> None:
        """Go on with the rules of a filter; what is wanted for a rule whose context is the same as before stays so."""
        self._size, self._step = shape.size, shape.step
        self._rules = {
            rule.name: (rule.context.before, rule.context.after)
            for rule in document.rules
            if rule.context.before or rule.context.after
        }
        self._most_before = max((before for before, _ in self._rules.values()), default=0)

    def follow(self, name: StreamName, place: int) -> None:
        """Take note of a window, before anything else that is asked about it. Call it for every window of a stream.

        Args:
            name: the stream.
            place: of the window's newest reading since the stream began or had a gap.
        """
        key = _key(name)
        if place == self._size and self._streams.pop(key, None) is not None:
            self._changed[key] = None

    def beside(self, name: StreamName, place: int) -> Beside | None:
        """Return beside what a window is to be sent that is no sample; None: it is not."""
        key = _key(name)
        stream = self._streams.get(key)
        if stream is None:
            return None
        found = None
        for one in reversed(stream.wanted):
            if found is None and self._rules.get(one.rule) == (one.before, one.after) and place <= self._until(one):
                found = Beside(one.of, one.rule, (place - one.place) // self._step)
        left = [one for one in stream.wanted if self._until(one) > place]
        if found or len(left) != len(stream.wanted):
            stream.wanted = left
            self._note(key, stream, place, sent=[place] if found else [])
        return found

    def sample(self, name: StreamName, place: int, rule: str, identifier: str) -> list[int]:
        """Take note of a sample.

        Returns:
            How many steps before it the windows end that are to be sent beside it and were not sent yet, oldest first;
            what is not known any more is to be left out.
        """
        if not self._rules:
            return []
        key = _key(name)
        before, after = self._rules.get(rule, (0, 0))
        stream = self._streams.get(key) or _Stream([], [])
        if after:
            wanted = _Wanted(identifier, rule, before, after, place)
            alike = (rule, before, after)
            others = [one for one in stream.wanted if (one.rule, one.before, one.after) != alike]
            stream.wanted = [*(one for one in others if self._until(one) > place), wanted]
        steps = [
            steps
            for steps in range(before, 0, -1)
            if place - steps * self._step >= self._size and place - steps * self._step not in stream.sent
        ]
        self._note(key, stream, place, sent=[*(place - one * self._step for one in steps), place])
        return steps

    def _until(self, wanted: _Wanted) -> int:
        return wanted.place + wanted.after * self._step

    def _note(self, key: str, stream: _Stream, place: int, sent: Sequence[int]) -> None:
        """Remember what was sent while a sample may still come that has it before it."""
        oldest = place - self._most_before * self._step
        stream.sent = sorted({each for each in (*stream.sent, *sent) if each > oldest}) if self._most_before else []
        if stream.sent or stream.wanted:
            self._streams[key] = stream
        else:
            self._streams.pop(key, None)
        self._changed[key] = None

    def forget(self, names: Collection[StreamName]) -> None:
        """Let go what is known of streams that were forgotten."""
        for key in map(_key, names):
            if self._streams.pop(key, None) is not None:
                self._changed[key] = None

    def retain(self, names: Collection[StreamName]) -> None:
        """Let go what is known of all other streams."""
        known = set(map(_key, names))
        for key in self._streams.keys() - known:
            del self._streams[key]
            self._changed[key] = None

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        rows = [
            Row(key, HEAD, msgspec.json.encode(self._streams[key])) if key in self._streams else Row(key, ALL, None)
            for key in self._changed
        ]
        self._changed.clear()
        return rows

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from an earlier run's rows."""
        self._streams = {row.key: msgspec.json.decode(row.value or b"", type=_Stream) for row in rows}


def _key(name: StreamName) -> str:
    return f"{name.source}/{name.key}"


def needed(document: FilterDocument, step: int) -> tuple[int, bool]:
    """Return how many readings a filter's contexts look back on, and whether there are any contexts.

    Args:
        document: the filter.
        step: readings from one window to the next.
    """
    contexts = [rule.context for rule in document.rules]
    before = max((context.before for context in contexts), default=0)
    return before * step, any(context.before or context.after for context in contexts)


def problems(document: FilterDocument, *, step: int, channels: int | None, max_streams: int) -> Iterator[Problem]:
    """Yield where a filter looks back on what is not kept, or on more than there is memory for in so many streams.

    Args:
        document: the filter.
        step: readings from one window to the next.
        channels: values in a reading; None: it is an image.
        max_streams: streams known at a time.
    """
    for index, rule in enumerate(document.rules):
        before = rule.context.before
        if before and channels is None:
            yield Problem(
                f"rules[{index}].context.before",
                f"found {before}, expected 0: images are not kept, so none from before a sample can be sent along; "
                "context.after is possible",
            )
            continue
        size = before * step * max_streams * 8 * ((channels or 0) + 2)  # with time and number
        if size > _MOST_BYTES:
            yield Problem(
                f"rules[{index}].context.before",
                f"{before} windows before each sample are {size_text(size >> 20 << 20)} of readings for "
                f"model.window.max_streams {max_streams} streams, at most {size_text(_MOST_BYTES)} is allowed; have "
                "fewer of either",
            )
