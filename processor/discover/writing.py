"""The configuration as text, with what was heard beside it as comments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from processor.discover.choice import Choice
from processor.discover.examples import example, printable
from processor.discover.model_part import ModelPart
from processor.discover.proposals import Proposal
from processor.model.onnx_model import OnnxModel
from processor.printing import as_flow, size

_WIDTH: Final = 118
_MOST: Final = 40
"""Families that are written as comments."""


class Session(NamedTuple):
    """What was listened to."""

    broker: Mapping[str, Any]
    """Keys of `broker`."""
    when: str
    seconds: float
    messages: int
    topics: int
    has_model: bool
    """Whether a model was given."""


def configuration(choice: Choice, part: ModelPart, session: Session) -> str:
    """Return the file's text."""
    return "\n".join(_lines(choice, part, session)) + "\n"


def _lines(choice: Choice, part: ModelPart, session: Session) -> Iterator[str]:
    yield from _comment(
        f"Written by mlade discover at {session.when}, from {_count(session.messages, 'message')} on "
        f"{_count(session.topics, 'topic')} in {session.seconds:.0f} s. CHECK marks what it could not know."
    )
    if choice.complaint:
        yield from _comment(f"CHECK: {choice.complaint}")
    yield ""
    yield "id: line-1                            # CHECK: its name in topics, client id and events"
    yield ""
    yield "broker:"
    for key, value in session.broker.items():
        yield f"  {key}: {as_flow(value)}"
    yield ""
    yield "sources:"
    for one in choice.active:
        yield from _source(one, "  ")
    inactive = [(one, reason) for one, reason in choice.others if one.source is not None]
    for one, reason in inactive[:_MOST]:
        yield from _source(one, "  ", f"Not active: {reason}.")
    if len(inactive) > _MOST:
        yield from _comment(f"And {len(inactive) - _MOST} families more; mlade discover --topic shows them.", "  ")
    unread = [(one, reason) for one, reason in choice.others if one.source is None]
    if unread:
        yield from _comment("Nothing reads these:", "  ")
    for one, reason in unread[:_MOST]:
        yield from _comment(f"{', '.join(one.family.filters[:_MOST])}: {reason}. {example(one)}", "  ")
    if len(unread) > _MOST:
        yield from _comment(f"nor {len(unread) - _MOST} families more.", "  ")
    yield ""
    yield from _model(choice, part, given=session.has_model)
    yield ""
    yield from _filter(part.model)
    yield ""
    yield "bridges:"
    yield "  - {type: files, path: ./accepted}   # a CloudEvent a line, a folder a day"
    yield "  - {type: mqtt}                      # and on mlade/<id>/accepted/<rule>"


def _source(one: Proposal, indent: str, inactive: str = "") -> Iterator[str]:
    """Yield what was heard of a source as comments, and its keys; those of an inactive one as comments, too."""
    if one.source is None:
        return
    for sentence in (inactive, _heard(one), example(one), _tried(one), *one.notes, *_beside(one)):
        if sentence:
            yield from _comment(sentence, indent)
    if one.guess:
        yield from _comment(f"CHECK, this is a guess: {one.guess}.", indent)
    indent += "# " if inactive else ""
    dash = "- "
    for key, value in one.source.items():
        yield f"{indent}{dash}{key}: {as_flow(value)}" + _remark(key, one)
        dash = "  "
    yield ""


def _beside(one: Proposal) -> Iterator[str]:
    """Yield what else the payload holds, as sentences."""
    if one.fields.left_out:
        told = "; ".join(f"{name} ({reason})" for name, reason in one.fields.left_out.items())
        yield f"Left out: {told}."
    constant = [name for name in one.fields.constant if name in one.channels]
    if constant:
        yield f"Always the same meanwhile: {', '.join(constant)}."
    if one.fields.flags:
        yield f"Only true or false, and possible as fields: {', '.join(one.fields.flags)}."


def _remark(key: str, one: Proposal) -> str:
    return "   # CHECK: in the model's order" if key == "fields" and len(one.channels) > 1 else ""


def _heard(one: Proposal) -> str:
    pace = f" at {one.pace.messages:.3g}/s" if one.pace.messages else ""
    kept = f" and {one.retained:,} retained" if one.retained else ""
    each = size(round(one.size))
    return f"{_count(len(one.family.topics), 'topic')}, {_count(one.messages, 'message')}{pace}{kept}, {each} each."


def _tried(one: Proposal) -> str:
    tried = one.tried
    if tried is None:
        return ""
    found = f"{_count(tried.readings, 'reading')} of {_count(tried.streams, 'stream')}"
    return f"Tried with {_count(tried.messages, 'message')}: {tried.decoded} decode, to {found}."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _model(choice: Choice, part: ModelPart, *, given: bool) -> Iterator[str]:
    yield "model:"
    yield f"  path: {as_flow(part.keys['path'])}" + ("" if given else "                    # CHECK: yours")
    if part.model is not None:
        yield from _comment(f"It takes {part.model.input}, and gives {_given(part.model)}.", "  ")
    elif part.problem:
        yield from _comment(f"CHECK: {part.problem}", "  ")
    elif not given and part.window:
        first, size_ = choice.active[0], part.keys["window"]["size"]
        shape = f"[N, {len(first.channels)}, {size_}] or [N, {size_}, {len(first.channels)}]"
        told = f"It has to take {shape}: {_channels(first)} in windows of {size_} readings, or another number of them."
        yield from _comment(told, "  ")
    if part.window:
        yield from _comment(f"Windows: {part.window}.", "  ")
    yield from (f"  {key}: {as_flow(value)}" for key, value in part.keys.items() if key != "path")


def _channels(one: Proposal) -> str:
    return f"{_count(len(one.channels), 'channel')} ({', '.join(one.channels)})"


def _given(model: OnnxModel) -> str:
    return f"{model.kind} of {', '.join(model.labels)}" if model.labels else f"a {model.kind}"


def _filter(model: OnnxModel | None) -> Iterator[str]:
    """Yield the recommended filter, with the measure that the model's output allows."""
    yield "filter:                               # what to keep; docs/choose-a-filter.md finds better ones"
    yield "  rules:"
    yield "    - name: audit                     # one window in a hundred, whatever it is: a fair view of everything"
    yield "      sample: 0.01"
    if model is not None and model.kind == "value":
        yield "    - name: highest                   # and one in twenty, of those with the highest values"
        yield "      measure: value"
        yield "      keep: {share: 0.05, of: highest}"
    else:
        yield "    - name: unsure                    # and one in twenty, of those the model is least sure of"
        yield "      measure: margin"
        yield "      keep: {share: 0.05, of: lowest}"
    yield "      dedup: {distance: auto}         # nearly the same ones only once"
    yield "      priority: 10"


def _comment(text: str, indent: str = "") -> Iterator[str]:
    """Yield a comment's lines, broken between words."""
    yield from (f"{indent}# {line}" for line in _wrapped(printable(text).split(" "), _WIDTH - len(indent)))


def _wrapped(words: Iterable[str], width: int) -> Sequence[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines
