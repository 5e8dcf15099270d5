"""Text that is no JSON: one number, or lines of values with something between them."""

from __future__ import annotations

import re
from typing import Final

from processor.discover.look import MOST_FIELDS, MOST_RECORDS, Look, unknown
from processor.discover.moments import is_moment
from processor.discover.trees import name

_NUMBER: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
_DELIMITERS: Final = (";", ",", "\t", "|", " ")
"""In the order in which they are tried: a line that holds semicolons and commas has the commas in its numbers."""
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f]")


def is_number_text(text: object) -> bool:
    """Whether a text is one number, in digits."""
    return isinstance(text, str) and _NUMBER.fullmatch(text) is not None


def look_at(payload: bytes) -> Look | None:
    """Return what a text payload looks like; None where it is no text."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if _UNPRINTABLE.search(text):
        return None
    if is_number_text(text):
        return Look("number", "number", [{"value": text.strip()}], 1)
    lines = [line for line in text.splitlines() if line.strip()]
    for delimiter in _DELIMITERS:
        if found := _of_lines(lines, delimiter):
            return found
    return unknown("text", "text that is neither JSON nor numbers")


def _of_lines(lines: list[str], delimiter: str) -> Look | None:
    """Return the readings in lines with that delimiter; None where they are not."""
    rows = [line.strip("\r\n").split(delimiter) for line in lines[: MOST_RECORDS + 1]]
    width = len(rows[0]) if rows else 0
    if not 1 < width <= MOST_FIELDS or any(len(row) != width for row in rows):
        return None
    cells = [[cell.strip().strip('"') for cell in row] for row in rows]
    header = len(cells) > 1 and not any(_is_value(cell) for cell in cells[0]) and len(set(cells[0])) == width
    names = tuple(cells[0]) if header and all(cells[0]) else tuple(name(n) for n in range(width))
    body = cells[1:] if header else cells
    # Most of a reading is numbers; else a sentence, of which spaces and commas make columns, would be one.
    valued = sum(_is_value(cell) for row in body for cell in row)
    if not any(is_number_text(cell) for cell in body[0]) or valued * 2 < len(body) * width:
        return None
    records = [dict(zip(names, map(_cell, row), strict=True)) for row in body[:MOST_RECORDS]]
    count = len(lines) - header
    return Look("csv", "lines", [*records], count, (delimiter, header, names))


def _is_value(cell: str) -> bool:
    return is_number_text(cell) or is_moment(cell)


def _cell(cell: str) -> object:
    return cell or None
