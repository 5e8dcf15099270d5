"""What came, in one line that harms neither a terminal nor a YAML comment."""

from __future__ import annotations

import re
from typing import Final

from processor.discover.proposals import Proposal
from processor.logs import one_line

_LONGEST: Final = 300
"""Characters."""
_BYTES: Final = 32
"""In hexadecimal digits."""
_UNPRINTABLE: Final = re.compile("[^\t\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]")


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
        digits = payload[:_BYTES].hex(" ")
        return f"hex {digits}" + (" …" if len(payload) > _BYTES else "")
    text = one_line(text.strip().replace("\r\n", "\n").replace("\n", " ⏎ "))
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def printable(text: str) -> str:
    """Return text that may stand in a YAML comment, whatever it holds."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", one_line(text))
