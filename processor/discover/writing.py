"""The configuration as text, with what was heard beside it as comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from processor.discover.choice import Choice
from processor.discover.pace import window_for
from processor.discover.proposals import Proposal
from processor.logs import one_line
from processor.printing import as_flow, size

_WIDTH: Final = 118
_EXAMPLE: Final = 300
"""Characters of an example."""
_UNPRINTABLE: Final = re.compile("[^\t\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]")

FILTER: Final = """\
filter:                               # what to keep; better ones: docs/choose-a-filter.md
  rules:
    - name: audit                     # one window in a hundred, whatever it is: a fair view of everything
      sample: 0.01
    - name: unsure                    # and one in twenty, of those the model is least sure of
      measure: margin
      keep: {share: 0.05, of: lowest}
      dedup: {distance: auto}         # nearly the same ones only once
      priority: 10
"""


class Session(NamedTuple):
    """What was listened to."""

    broker: Mapping[str, Any]
    """Keys of `broker`."""
    topic: str
    when: str
    seconds: float
    messages: int
    topics: int


def configuration(choice: Choice, session: Session) -> str:
    """Return the file's text."""
    return "\n".join(_lines(choice, session)) + "\n"


def _lines(choice: Choice, session: Session) -> Iterator[str]:
    yield from _comment(
        f"Written by mlade discover at {session.when}, from {session.messages:,} messages on {session.topics:,} topics "
        f"in {session.seconds:.0f} s. CHECK marks what it could not know."
    )
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
    for one, reason in choice.others:
        yield from _source(one, "  ", f"Not active: {reason}.")
    unread = [(one, reason) for one, reason in choice.others if one.source is None]
    if unread:
        yield from _comment("Nothing reads these:", "  ")
        for one, reason in unread:
            yield from _comment(f"{', '.join(one.family.filters)}: {reason}. {example(one)}", "  ")
    yield ""
    yield from _model(choice)
    yield ""
    yield FILTER
    yield "bridges:"
    yield "  - {type: files, path: ./accepted}   # a CloudEvent a line, a folder a day"
    yield "  - {type: mqtt}                      # and on mlade/line-1/accepted/<rule>"


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
    if one.fields.flags:
        yield f"Only true or false, and possible as fields: {', '.join(one.fields.flags)}."


def _remark(key: str, one: Proposal) -> str:
    return "   # CHECK: in the model's order" if key == "fields" and len(one.channels) > 1 else ""


def _heard(one: Proposal) -> str:
    count = len(one.family.topics)
    topics = "1 topic" if count == 1 else f"{count:,} topics"
    pace = f" at {one.pace.messages:.3g}/s" if one.pace.messages else ""
    kept = f" and {one.retained:,} retained" if one.retained else ""
    return f"{topics}, {one.messages:,} messages{pace}{kept}, {size(round(one.size))} each."


def _tried(one: Proposal) -> str:
    tried = one.tried
    if tried is None:
        return ""
    streams = "1 stream" if tried.streams == 1 else f"{tried.streams:,} streams"
    return f"{tried.decoded} of {tried.messages} messages decode: {tried.readings:,} readings of {streams}."


def example(one: Proposal) -> str:
    """Return a message in one line: its topic, and its payload as text or in hexadecimal digits."""
    return printable(f"{one.example.topic}: {payload_text(one.example.payload)}")


def payload_text(payload: bytes) -> str:
    """Return a payload in one line, shortened."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or _UNPRINTABLE.search(text.replace("\n", " ").replace("\r", " ")):
        digits = payload[:32].hex(" ")
        return f"hex {digits}" + (" …" if len(payload) > 32 else "")  # noqa: PLR2004 - as many as are shown
    text = one_line(text.strip().replace("\r\n", "\n").replace("\n", " ⏎ "))
    return text if len(text) <= _EXAMPLE else text[:_EXAMPLE] + " …"


def printable(text: str) -> str:
    """Return text that may stand in a YAML comment, whatever it holds."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", one_line(text))


def _model(choice: Choice) -> Iterator[str]:
    yield "model:"
    channels = choice.active[0].channels if choice.active else ()
    window = window_for(choice.active[0].pace, None) if choice.active else None
    yield "  path: model.onnx                    # CHECK: yours"
    if window is None:
        return
    shape = f"[N, {len(channels)}, {window.size}]"
    yield from _comment(
        f"It has to take {len(channels)} channels ({', '.join(channels)}) in windows of {window.size} readings: "
        f"{shape}, or another size in the next line.",
        "  ",
    )
    keys: dict[str, object] = {"size": window.size, "step": window.step}
    if window.max_gap is not None:
        keys["max_gap"] = window.max_gap
    yield f"  window: {as_flow(keys)}   # {window.why}"


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
