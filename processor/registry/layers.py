"""The layers of container images, tar archives: one model is taken out of them, and nothing else."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from processor.errors import ModelError
from processor.registry.deadline import Deadline

_PIECE: Final = 1 << 20
_MOST_MEMBERS: Final = 1_000_000
_LARGEST_HEADER: Final = 1 << 20
"""Bytes of a member's extended header, which is read into memory: names and times, no content."""
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


class _Counted(io.RawIOBase):
    """Reads from a layer what is unpacked, within the budget."""

    def __init__(self, source: io.BufferedIOBase | gzip.GzipFile, budget: Budget) -> None:
        """Begin at the source's place."""
        super().__init__()
        self._source = source
        self._budget = budget

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read; raises ModelError where the budget is spent."""
        piece = self._source.read(min(size, _PIECE) if size >= 0 else _PIECE)
        self._budget.spend(len(piece))
        return piece


class _Member(tarfile.TarInfo):
    """A member whose extended headers are no larger than such headers are."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> _Member:
        """Read a header."""
        member = super().frombuf(buf, encoding or "utf-8", errors)
        if member.type in b"xgXLK" and member.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


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

    def members(self, budget: Budget) -> Iterator[tuple[PurePosixPath, tarfile.TarInfo]]:
        """Yield what is in it, in order, by its path in the image.

        Raises:
            ModelError: it is no archive that can be read, or too large.
            ModelUnavailable: the time is over.
        """
        with self._opened(budget) as archive:
            yield from self._members(archive)

    def take(self, wanted: Mapping[PurePosixPath, Path], budget: Budget) -> set[PurePosixPath]:
        """Write regular files of the layer to where they are wanted; return those that it has.

        Raises:
            ModelError, ModelUnavailable: as `members`.
        """
        taken = set()
        with self._opened(budget) as archive:
            for path, member in self._members(archive):
                source = archive.extractfile(member) if path in wanted and is_plain(member) else None
                if source is None:
                    continue
                target = wanted[path]
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:  # of two with one path the later counts, as in an image
                    while piece := source.read(_PIECE):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                taken.add(path)
        return taken

    def _members(self, archive: tarfile.TarFile) -> Iterator[tuple[PurePosixPath, tarfile.TarInfo]]:
        for _ in range(_MOST_MEMBERS):
            member = archive.next()
            if member is None:
                return
            archive.members.clear()  # type: ignore[attr-defined] # it would keep all of them
            path = PurePosixPath("/" + member.name.lstrip("/"))
            if ".." not in path.parts:
                yield path, member
        raise ModelError(f"a layer of the image has more than {_MOST_MEMBERS} files")

    @contextmanager
    def _opened(self, budget: Budget) -> Iterator[tarfile.TarFile]:
        try:
            with self._blob.open("rb") as raw:
                head = raw.read(4)
                raw.seek(0)
                if head == _ZSTD:
                    raise ModelError(
                        "a layer of the image is compressed with zstd, which mlade does not read; build it with gzip"
                    )
                source = gzip.GzipFile(fileobj=raw) if head.startswith(_GZIP) else raw
                stream = _Counted(source, budget)
                with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
                    yield archive
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise ModelError(f"a layer of the image is no tar archive that can be read: {error}") from error


def is_plain(member: tarfile.TarInfo) -> bool:
    """Whether it is a regular file, with all its content."""
    return member.isreg() and not member.issparse()


def is_whiteout(path: PurePosixPath) -> bool:
    """Whether it is a mark that something of a lower layer is removed."""
    return path.name.startswith(_WHITEOUT)
