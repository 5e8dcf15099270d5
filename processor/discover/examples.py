"""What came, in one line that harms neither a terminal nor a YAML comment."""

from __future__ import annotations

import re
from typing import Final

from processor.decoders.times import TIMESTAMPS
from processor.discover.moments import moment
from processor.discover.proposals import Proposal
from processor.events import timestamp
from processor.logs import one_line

_LONGEST: Final = 200
"""Characters."""
_BYTES: Final = 32
"""In hexadecimal digits."""
_UNPRINTABLE: Final = re.compile("[^\t\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]")


def example(one: Proposal) -> str:
    """Return a message in one line: its topic and its payload."""
    return printable(f"{one.example.topic}: {payload_text(one)}")


def payload_text(one: Proposal) -> str:
    """Return an example's payload in one line, shortened: text, else what was read of it, else hexadecimal digits."""
    payload = one.example.payload
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not _UNPRINTABLE.search(text.replace("\n", " ").replace("\r", " ")):
        told = one_line(text.strip().replace("\r\n", "\n").replace("\n", " ⏎ "))
    elif one.record:
        told = "; ".join(f"{name} {_value(value)}" for name, value in one.record.items())
    else:
        told = f"hex {payload[:_BYTES].hex(' ')}" + (" …" if len(payload) > _BYTES else "")
    return told if len(told) <= _LONGEST else told[:_LONGEST] + " …"


def _value(value: object) -> str:
    found = moment(value) if isinstance(value, TIMESTAMPS) else None
    if found is not None:
        return timestamp(found[0])
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """Return text that may stand in a YAML comment, whatever it holds."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", one_line(text))
