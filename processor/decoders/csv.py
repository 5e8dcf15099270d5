"""CSV: one reading a line, with or without a line of names before them.

Nearly always a payload holds numbers and nothing else, and with its line ends replaced it is the inside of an array in
JSON, for which there is a fast reader. Whatever is not is looked at again, slowly and with a precise answer: without
quotes a line is what lies between two line ends and a cell what lies between two delimiters; with some, Python's own
reader tells.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec
import numpy as np

from processor.decoders.checks import Checks, Unusable, refuse_too_many
from processor.decoders.times import column_to_nanoseconds
from processor.decoders.values import LONGEST_KEY, checked_key, key_field
from processor.source_sections import Source
from processor.types import Decoded, Failure, Flags, Floats, Ints, Times

_BOOLEANS: Final = {"true": 1.0, "false": 0.0}

_NUMBERS: Final = msgspec.json.Decoder(list[int | float])

_Where = Callable[[int], str]
"""Names the line of a reading, to begin a sentence with."""


class _Layout(NamedTuple):
    """Where the wanted columns are."""

    width: int
    """Cells in a line."""
    places: tuple[int, ...]
    """Of the time if the source has one, of the stream's key if it is in the payload, then of the fields. -1: there is
    no such column."""


class CsvDecoder:
    """Decoder of `format: csv`."""

    def __init__(self, source: Source) -> None:
        """Prepare for one source's columns."""
        keys = source.csv
        self._delimiter = keys.delimiter
        self._has_header = keys.header
        self._fields = source.fields
        self._time, self._key = source.time, key_field(source.stream)
        self._lead = (self._time is not None) + (self._key is not None)
        self._unit = source.time_unit
        self._missing = source.missing
        self._checks = Checks(source)
        self._names = [] if keys.header else keys.columns or source.fields  # of the last header, where there are any
        self._layout = _Layout(0, ()) if keys.header else self._lay_out(self._names)
        self._first_line = b""  # with its end: of a payload whose names are those in `_names`
        self._is_numeric = self._key is None and self._unit != "iso8601" and keys.delimiter.isascii()

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        del topics
        found = self._at_once(payloads, arrivals) if self._is_numeric else None
        return found or self._one_by_one(payloads, arrivals)

    def _at_once(self, payloads: Sequence[bytes], arrivals: Times) -> Decoded | None:
        """Decode payloads of numbers with nothing wrong; None of any others."""
        width, places = self._layout
        first, delimiter = self._first_line, self._delimiter.encode()
        if self._has_header:
            if not first or not all([payload.startswith(first) for payload in payloads]):  # noqa: C419 - a list is faster
                return None
            payloads = [payload[len(first) :] for payload in payloads]
        bodies = [payload.rstrip(b"\r\n") for payload in payloads]
        joined = b"\n".join(bodies).replace(b"\r\n", b"\n")
        lines = joined.split(b"\n")
        if [line.count(delimiter) for line in lines].count(width - 1) != len(lines) or -1 in places:
            return None
        if b"\r" in joined or (delimiter != b"," and b"," in joined):  # both may stand between numbers in JSON
            return None
        try:
            cells = _NUMBERS.decode(b"[%s]" % joined.replace(b"\n", b",").replace(delimiter, b","))
            values = np.array(cells, np.float64).reshape(len(lines), width)
            times = None if self._time is None else column_to_nanoseconds(cells[places[0] :: width], self._unit)
        except (ValueError, OverflowError):  # all of msgspec's are ValueErrors
            return None
        counts = [1] * len(bodies) if len(lines) == len(bodies) else [body.count(b"\n") + 1 for body in bodies]
        origin = np.repeat(np.arange(len(bodies)), counts)
        values = values[:, places[-len(self._fields) :]] + 0.0  # -0, a whole number here, and -0.0 are 0
        return self._checks.readings(origin, times, values, arrivals, [])

    def _one_by_one(self, payloads: Sequence[bytes], arrivals: Times) -> Decoded:
        """Decode any payloads."""
        failures: list[Failure] = []
        columns: list[list[str]] = [[] for _ in range(self._lead + len(self._fields))]
        counts = np.zeros(len(payloads), np.int64)
        cells: list[str] = []
        layout = self._layout
        for index, payload in enumerate(payloads):
            try:
                found = self._cells(payload)
                refuse_too_many(len(found) // self._layout.width, len(self._fields), len(payload))
            except Unusable as unusable:
                failures.append(Failure(index, unusable.reason, unusable.detail))
                continue
            if self._layout is not layout:
                _cut(cells, layout, columns)
                cells, layout = [], self._layout
            cells += found
            counts[index] = len(found) // layout.width
        _cut(cells, layout, columns)
        return self._readings(payloads, arrivals, np.repeat(np.arange(len(payloads)), counts), columns, failures)

    def _readings(
        self,
        payloads: Sequence[bytes],
        arrivals: Times,
        origin: Ints,
        columns: Sequence[list[str]],
        failures: list[Failure],
    ) -> Decoded:
        """Return readings of the columns' M cells each; a payload with a cell that cannot be used gives none."""
        bad: dict[int, Failure] = {}
        where = partial(self._where, payloads, origin)
        values, absent = self._numbers(columns[self._lead :], origin, where, bad)
        keys = None if self._key is None else self._checked_keys(columns[self._lead - 1], origin, where, bad)
        times: Sequence[float | str] | None = None
        if self._time is not None:
            times = columns[0] if self._unit == "iso8601" else list(map(_moment, columns[0]))
        if bad:
            failures += bad.values()
            good = ~np.isin(origin, list(bad))
            rows = np.flatnonzero(good).tolist()
            origin, values, absent = origin[good], values[good], None if absent is None else absent[good]
            keys = keys and [keys[row] for row in rows]
            times = times and [times[row] for row in rows]
        return self._checks.readings(origin, times, values, arrivals, failures, keys=keys, absent=absent)

    def _cells(self, payload: bytes) -> list[str]:
        """Return the cells of a payload's lines, one line after another; they are laid out as `_layout` says."""
        text = _text(payload)
        if '"' in text:
            return self._quoted(text)
        lines = _lines(text)
        if "" in lines:
            lines = [line for line in lines if line]
        if self._has_header and lines:
            header = lines.pop(0)
            self._begin(header.split(self._delimiter))
            first = payload[: payload.find(b"\n") + 1]
            self._first_line = first if _text(first).rstrip("\r\n") == header else b""
        if not lines:
            raise Unusable("decode", f"the payload has no line{' after the names' if self._has_header else ''}")
        delimiter, between = self._delimiter, self._layout.width - 1
        counts = [line.count(delimiter) for line in lines]
        if counts.count(between) != len(counts):
            wrong = next(row for row, count in enumerate(counts) if count != between)
            raise self._wrong_width(_line_number(text, wrong + self._has_header), counts[wrong] + 1)
        return (delimiter.join(lines) if len(lines) > 1 else lines[0]).split(delimiter)

    def _quoted(self, text: str) -> list[str]:
        """Return the cells of a text in which there are quotes."""
        cells: list[str] = []
        begun = not self._has_header
        for number, row in self._rows(text):
            if not begun:
                self._begin(row)
                begun = True
            elif len(row) != self._layout.width:
                raise self._wrong_width(number, len(row))
            else:
                cells += row
        if not cells:
            raise Unusable("decode", f"the payload has no line{' after the names' if self._has_header else ''}")
        return cells

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that are not empty, each with the number of its last line."""
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self._delimiter,
            skipinitialspace=self._delimiter != " ",
            strict=True,
        )
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise Unusable("decode", f"line {reader.line_num}: {error}") from None

    def _begin(self, header: Sequence[str]) -> None:
        """Take note of a payload's column names."""
        names = [name.strip() for name in header]
        if names != self._names:
            self._first_line = b""
            self._layout = self._lay_out(names)
            self._names = names

    def _lay_out(self, names: Sequence[str]) -> _Layout:
        """Return where the wanted columns are among those of these names."""
        lead = [name for name in (self._time, self._key) if name is not None]
        wanted = [*lead, *self._fields]
        for name in wanted:
            if names.count(name) > 1:
                raise Unusable("decode", f"the first line names the column {name!r} more than once")
            if name not in names and (name in lead or self._missing == "reject"):
                reason = "time" if name == self._time else "field"
                found = ", ".join(map(repr, names)) or "none"
                raise Unusable(reason, f"the first line names no column {name!r}; found {found:.120}")
        return _Layout(len(names), tuple(names.index(name) if name in names else -1 for name in wanted))

    def _wrong_width(self, number: int, count: int) -> Unusable:
        expected = f"{self._layout.width}: {', '.join(self._names):.120}"
        return Unusable("decode", f"line {number} has {count} cell{'s' * (count != 1)}; expected {expected}")

    def _where(self, payloads: Sequence[bytes], origin: Ints, row: int) -> str:
        """Return the beginning of a sentence about a reading: its line."""
        place = row - int(np.searchsorted(origin, origin[row]))  # among the readings of its payload
        text = _text(payloads[int(origin[row])])
        if '"' in text:
            numbers = [number for number, _ in self._rows(text)]
            return f"line {numbers[place + self._has_header]}: "
        return f"line {_line_number(text, place + self._has_header)}: "

    def _numbers(
        self, columns: Sequence[list[str]], origin: Ints, where: _Where, bad: dict[int, Failure]
    ) -> tuple[Floats, Flags | None]:
        """Return (M, C) values, and which of them are to be held; what is no number goes to `bad`, by payload."""
        values = np.empty((len(origin), len(columns)))
        absent = None
        for position, column in enumerate(columns):
            try:
                if "_" in "".join(column):
                    raise ValueError  # noqa: TRY301 - Python takes 1_0 for a number
                values[:, position] = list(map(float, column))
            except ValueError:
                values[:, position] = numbers = self._carefully(column, position, origin, where, bad)
                if self._missing == "hold" and np.isnan(numbers).any():
                    absent = np.zeros(values.shape, np.bool_) if absent is None else absent
                    absent[:, position] = [not cell.strip() for cell in column]
        return values + 0.0, absent

    def _carefully(
        self, column: Sequence[str], position: int, origin: Ints, where: _Where, bad: dict[int, Failure]
    ) -> Floats:
        """Return (M,) numbers of one field, NaN where there is none."""
        filled = self._missing if isinstance(self._missing, float) else np.nan
        numbers = np.full(len(column), filled)
        for row, cell in enumerate(column):
            written = cell.strip()
            if not written and self._missing != "reject":
                continue
            try:
                numbers[row] = float("no number" if "_" in written else written)
            except ValueError:
                found = _BOOLEANS.get(written.lower())
                if found is not None:
                    numbers[row] = found
                elif (index := int(origin[row])) not in bad:
                    detail = f"{where(row)}field {self._fields[position]!r} {self._not_a_number(written)}"
                    bad[index] = Failure(index, "field", detail)
        return numbers

    def _not_a_number(self, written: str) -> str:
        if not written:
            return "is empty; expected a number"
        comma = " with a decimal point" if "," in written else ""
        return f"is {written!r:.60}; expected a number{comma}"

    def _checked_keys(
        self, column: Sequence[str], origin: Ints, where: _Where, bad: dict[int, Failure]
    ) -> Sequence[str]:
        """Return the streams' keys."""
        keys = [cell.strip() for cell in column]
        lengths = list(map(len, keys))
        if min(lengths, default=1) < 1 or max(lengths, default=1) > LONGEST_KEY:
            for row, key in enumerate(keys):
                index = int(origin[row])
                if 0 < len(key) <= LONGEST_KEY or index in bad:
                    continue
                try:
                    checked_key(key, f"{where(row)}field {self._key!r}")
                except Unusable as unusable:
                    bad[index] = Failure(index, unusable.reason, unusable.detail)
        return keys


def _moment(cell: str) -> float | str:
    """Return a time as it is written: a number, as in JSON, or text."""
    written = cell.strip()
    if ":" in written or "_" in written or not written.isascii():
        return written
    try:
        return int(written)
    except ValueError:
        pass
    try:
        number = float(written)
    except ValueError:
        return written
    return number if math.isfinite(number) else written


def _text(payload: bytes) -> str:
    """Return what a payload says."""
    try:
        return payload.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start} is 0x{payload[error.start]:02x}, which is not UTF-8"
        raise Unusable("decode", detail) from None


def _lines(text: str) -> list[str]:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")


def _line_number(text: str, place: int) -> int:
    """Return the number of a line, counted from 1, by its place among those that are not empty, counted from 0."""
    return [number for number, line in enumerate(_lines(text), 1) if line][place]


def _cut(cells: list[str], layout: _Layout, columns: Sequence[list[str]]) -> None:
    """Append cells to the wanted columns."""
    for column, place in zip(columns, layout.places, strict=False):
        column.extend(cells[place :: layout.width] if place >= 0 else [""] * (len(cells) // layout.width))
