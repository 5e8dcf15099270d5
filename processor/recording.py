"""Recordings: what the sources received, as JSON Lines, compressed where the name ends in `.gz`.

    {"time": <arrival, epoch s>, "topic": str, "qos": int, "payload": <base64>}

Other keys are ignored. Times are read and written to the microsecond. Both ways hold one piece of the file at a time.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, Final, cast

import msgspec
import numpy as np

from processor.errors import RecordingError
from processor.types import Message

_PIECE: Final = 256 << 10
"""Bytes read at a time: about a thousand small messages, which then go through the computation as one batch."""
_LONGEST_LINE: Final = 512 << 20
"""Bytes; an MQTT packet has at most 256 MiB, and base64 adds a third."""
_LEVEL: Final = 4
"""Of compression: half the time of zlib's default for a few percent more bytes."""
_EXPECTED: Final = '{"time": 1790000000.25, "topic": "plant/7/press", "qos": 1, "payload": "<base64>"}'


class _Line(msgspec.Struct, gc=False, omit_defaults=True):
    """One line; only `retain` may be absent."""

    time: Annotated[float, msgspec.Meta(ge=-9e9, le=9e9)]  # within 64 bits of nanoseconds
    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=65_535)]
    qos: Annotated[int, msgspec.Meta(ge=0, le=2)]
    payload: bytes
    retain: bool = False
    """Whether the broker had kept it from before; for people, not for a replay."""


class Reader:
    """A recording, read from its start to its end.

    Attributes:
        path: the file.
        size: bytes of the file; 0 where it has no size, such as a pipe.
        position: bytes of the file read so far.
        lines: lines read so far.
        cut_off: what is missing at the end of a recording whose process was killed, as a sentence; else empty.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            RecordingError: it cannot be opened.
        """
        self.path = path
        self.lines = 0
        self.position = 0
        self.cut_off = ""
        self._decoder = msgspec.json.Decoder(_Line)
        try:
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error.strerror}.") from error

    def __iter__(self) -> Iterator[list[Message]]:
        """Yield its messages, some at a time, in order; ends with the file, which is then closed.

        Raises:
            RecordingError: it is damaged, or holds a line that is none of a recording.
        """
        with self._file:
            for text in self._texts():
                yield self._messages(text)

    def _texts(self) -> Iterator[bytes]:
        """Yield whole lines, some at a time."""
        rest: list[bytes] = []
        for piece in self._pieces():
            end = piece.rfind(b"\n") + 1
            if not end:
                rest.append(piece)
                if sum(map(len, rest)) > _LONGEST_LINE:
                    raise RecordingError(self._at(1, f"it is longer than {_LONGEST_LINE >> 20} MiB"))
                continue
            yield b"".join([*rest, piece[:end]])
            rest = [piece[end:]]
        last = b"".join(rest)
        if last.strip():
            try:
                self._decoder.decode(last)
            except ValueError:
                self.cut_off = self.cut_off or f"{self.path}: the last line is cut off and was left out."
            else:
                yield last

    def _pieces(self) -> Iterator[bytes]:
        """Yield the file's content, uncompressed."""
        # read1, because what a plain read had gathered before a cut off end would be lost.
        stream = cast("BinaryIO", gzip.GzipFile(fileobj=self._file)) if self.path.suffix == ".gz" else self._file
        try:
            while piece := stream.read1(_PIECE):  # type: ignore[attr-defined]
                self.position = self._file.tell() if self.size else 0
                yield piece
        except EOFError:
            self.cut_off = f"{self.path}: the compressed file is cut off; what came before was read."
        except (OSError, zlib.error) as error:  # gzip's own errors are OSErrors
            why = getattr(error, "strerror", None) or str(error)
            raise RecordingError(f"{self.path} cannot be read after line {self.lines}: {why}.") from error

    def _messages(self, text: bytes) -> list[Message]:
        try:
            found = self._decoder.decode_lines(text)
        except ValueError:
            found = self._one_by_one(text)
        self.lines += text.count(b"\n") or 1
        seconds = np.fromiter([line.time for line in found], np.float64, len(found))
        arrivals = (np.rint(seconds * 1e6).astype(np.int64) * 1000).tolist()
        return [
            Message(line.topic, line.payload, line.qos, 0, arrival)
            for line, arrival in zip(found, arrivals, strict=True)
        ]

    def _one_by_one(self, text: bytes) -> list[_Line]:
        """Return the lines; raise for the first that is wrong."""
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    found.append(self._decoder.decode(line))
                except ValueError as error:
                    raise RecordingError(self._at(number, str(error))) from None
        return found

    def _at(self, number: int, problem: str) -> str:
        return f"{self.path}, line {self.lines + number}: {problem}; expected {_EXPECTED}"


class Writer:
    """A recording that is written. What a killed process has written is read again, without a half line at its end.

    Attributes:
        messages: written so far.
        position: bytes of the file so far.
    """

    def __init__(self, path: Path) -> None:
        """Make the file.

        Raises:
            RecordingError: it cannot be made, or holds something already.
        """
        self.messages = 0
        self._path = path
        self._encoder = msgspec.json.Encoder()
        try:
            self._file = path.open("ab", buffering=0)
            if os.fstat(self._file.fileno()).st_size:
                self._file.close()
                raise RecordingError(f"{path} is there already and not empty; remove it, or choose another name.")
            self._gzip = None
            if path.suffix == ".gz":
                self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=self._file)
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error.strerror}.") from error

    @property
    def position(self) -> int:
        """Bytes of the file so far; of what is compressed, the last ones come with `flush`."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, messages: Sequence[Message]) -> None:
        """Append messages.

        Raises:
            RecordingError: the disk is full, or the like.
        """
        lines = [
            _Line(message.arrival // 1000 / 1e6, message.topic, message.qos, message.payload, message.retain)
            for message in messages
        ]
        text = self._encoder.encode_lines(lines)
        try:
            if self._gzip is None:
                self._write_all(text)
            else:
                self._gzip.write(text)
        except OSError as error:
            raise self._full(error) from error
        self.messages += len(messages)

    def _write_all(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            left = left[self._file.write(left) :]

    def flush(self) -> None:
        """Make what was written readable; that costs compressed files some bytes each time.

        Raises:
            RecordingError: the disk is full, or the like.
        """
        try:
            if self._gzip is not None:
                self._gzip.flush()
        except OSError as error:
            raise self._full(error) from error

    def close(self) -> None:
        """Finish the file.

        Raises:
            RecordingError: the disk is full, or the like.
        """
        try:
            if self._gzip is not None:
                self._gzip.close()
        except OSError as error:
            raise self._full(error) from error
        finally:
            self._file.close()

    def _full(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self._path} cannot be written any further: {error.strerror}.")
