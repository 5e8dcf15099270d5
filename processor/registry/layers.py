"""The layers of container images, tar archives: one model is taken out of them, and nothing else."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from processor.errors import ModelError
from processor.registry.deadline import Deadline

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE: Final = 1 << 20
_MOST_MEMBERS: Final = 1_000_000
_LARGEST_HEADER: Final = 1 << 20
"""Bytes of a member's extended header, which is read into memory: names and times, no content."""
_MOST_HEADERS: Final = 8
"""Of one member, with those that extend its own."""
_LONGEST_NUMBER: Final = 20
"""Digits."""
_BLOCK: Final = tarfile.BLOCKSIZE
_EXTENDED: Final = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_SPARSE_MORE: Final = 482
"""Where the header of a sparse file of GNU tar says that more headers follow."""
_SPARSE_EXTENSION_MORE: Final = 504
"""Where those do."""
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_GZIP: Final = b"\x1f\x8b"


class Budget:
    """Bytes that may still be unpacked, and the time for it."""

    def __init__(self, limit: int, deadline: Deadline) -> None:
        """Begin with `limit`."""
        self._left = self._limit = limit
        self._deadline = deadline

    def spend(self, count: int) -> None:
        """Take some.

        Raises:
            ModelError: there are not so many left.
            ModelUnavailable: the time is over.
        """
        self._deadline.check()
        self._left -= count
        if self._left < 0:
            raise ModelError(
                f"the image's layers unpack to more than {self._limit} bytes before the model is found; "
                "raise model.registry.max_bytes if this is right"
            )


class _Blob(io.FileIO):
    """A layer's file; reading it looks at the time, also where much of it becomes nothing."""

    def __init__(self, path: Path, budget: Budget) -> None:
        """Open it."""
        super().__init__(path)
        self._budget = budget

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read; raises ModelUnavailable where the time is over."""
        self._budget.spend(0)
        return super().readinto(buffer)


@dataclass(frozen=True, slots=True)
class Member:
    """Something in a layer.

    Attributes:
        path: in the image.
        is_plain: whether it is a regular file, with all its content.
    """

    path: PurePosixPath
    is_plain: bool

    @property
    def is_whiteout(self) -> bool:
        """Whether it is a mark that something of a lower layer is removed."""
        return self.path.name.startswith(_WHITEOUT)


class _Archive:
    """A tar archive's members, one after another.

    tarfile reads the headers. It does not walk from one to the next here: it would keep what sparse files and chains of
    extended headers hold, and goes on for ever after a size that is beyond the end.
    """

    def __init__(self, source: io.BufferedIOBase, budget: Budget) -> None:
        """Begin at the source's place."""
        self._source = source
        self._budget = budget
        self._content = 0
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """Yield each member; its `content` may be read until the next one is asked for."""
        for _ in range(_MOST_MEMBERS):
            for _ in self.content():
                pass
            self._exactly(self._padding)
            member = self._next()
            if member is None:
                return
            if ".." not in member.path.parts:
                yield member
        raise ModelError(f"a layer of the image has more than {_MOST_MEMBERS} files")

    def content(self) -> Iterator[bytes]:
        """Yield what is left of the content of the last member."""
        while self._content:
            piece = self._exactly(min(self._content, _PIECE))
            self._content -= len(piece)
            yield piece

    def _next(self) -> Member | None:
        """Read up to a member's content; None: there are no more."""
        name, size, sparse = "", None, False
        for _ in range(_MOST_HEADERS):
            block = self._read(_BLOCK)
            if not block.strip(b"\0"):
                return None
            header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
            if header.type not in _EXTENDED:
                break
            text = self._extended(header)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = _text(text.partition(b"\0")[0])
            elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                said = dict(_records(text))
                name = _text(said.get("path", b"")) or name
                size = _number(said["size"]) if "size" in said else size
                sparse |= any(key.startswith("GNU.sparse.") for key in said)
        else:
            raise tarfile.ReadError(f"more than {_MOST_HEADERS} headers of one file")
        if header.type == tarfile.GNUTYPE_SPARSE:
            sparse, more = True, block[_SPARSE_MORE]
            while more:
                more = self._exactly(_BLOCK)[_SPARSE_EXTENSION_MORE]
        has_content = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        self._content = (header.size if size is None else size) if has_content else 0
        if self._content < 0:
            raise tarfile.ReadError("a file of less than nothing")
        self._padding = -self._content % _BLOCK
        name = name or header.name
        path = PurePosixPath("/" + name.lstrip("/"))
        return Member(path, header.isreg() and not sparse and "\0" not in name)

    def _extended(self, header: tarfile.TarInfo) -> bytes:
        if not 0 <= header.size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return self._exactly(header.size + -header.size % _BLOCK)[: header.size]

    def _exactly(self, count: int) -> bytes:
        found = self._read(count)
        if len(found) < count:
            raise tarfile.ReadError("it ends in the middle")
        return found

    def _read(self, count: int) -> bytes:
        piece = self._source.read(count)
        self._budget.spend(len(piece))
        return piece


def _records(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what an extended header says: `<length> <key>=<value>` and a line's end each (POSIX, pax)."""
    position = 0
    while position < len(text):
        space = text.find(b" ", position, position + _LONGEST_NUMBER)
        end = position + _number(text[position : max(position, space)])
        key, equals, value = text[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(text) or not equals:
            raise tarfile.ReadError("an extended header that says nothing")
        yield _text(key), value
        position = end


def _number(text: bytes) -> int:
    if len(text) > _LONGEST_NUMBER or not text.isdigit():
        raise tarfile.ReadError("a header without a number")
    return int(text)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


class Hidden:
    """What upper layers have removed from those below."""

    def __init__(self) -> None:
        """Begin with the top layer: nothing."""
        self._paths: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = set()

    def covers(self, path: PurePosixPath) -> bool:
        """Whether a file of a lower layer is not in the image."""
        return path in self._paths or any(parent in self._paths or parent in self._folders for parent in path.parents)

    def add(self, whiteouts: Collection[PurePosixPath]) -> None:
        """Take a layer's marks into account for the layers below it."""
        for mark in whiteouts:
            if mark.name == _OPAQUE:
                self._folders.add(mark.parent)
            else:
                self._paths.add(mark.parent / mark.name.removeprefix(_WHITEOUT))


class Layer:
    """A layer that was downloaded and verified."""

    def __init__(self, blob: Path) -> None:
        """Open nothing yet."""
        self._blob = blob

    def members(self, budget: Budget) -> Iterator[Member]:
        """Yield what is in it, in order.

        Raises:
            ModelError: it is no archive that can be read, or too large.
            ModelUnavailable: the time is over.
        """
        with self._opened(budget) as archive:
            yield from archive.members()

    def take(self, wanted: Mapping[PurePosixPath, Path], budget: Budget) -> set[PurePosixPath]:
        """Write regular files of the layer to where they are wanted; return those that it has.

        Raises:
            ModelError, ModelUnavailable: as `members`.
        """
        taken = set()
        with self._opened(budget) as archive:
            for member in archive.members():
                if member.path not in wanted or not member.is_plain:
                    continue
                target = wanted[member.path]
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:  # of two with one path the later counts, as in an image
                    for piece in archive.content():
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                taken.add(member.path)
        return taken

    @contextmanager
    def _opened(self, budget: Budget) -> Iterator[_Archive]:
        try:
            with io.BufferedReader(_Blob(self._blob, budget)) as raw:
                head = raw.peek(4)
                if head.startswith(_ZSTD):
                    raise ModelError(
                        "a layer of the image is compressed with zstd, which mlade does not read; build it with gzip"
                    )
                if not head:
                    raise tarfile.ReadError("it is empty")
                yield _Archive(gzip.GzipFile(fileobj=raw) if head.startswith(_GZIP) else raw, budget)
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise ModelError(f"a layer of the image is no tar archive that can be read: {error}") from error
