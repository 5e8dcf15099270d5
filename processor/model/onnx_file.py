"""What an ONNX file says of itself, read before any runtime sees it: what it was made for, and what it would reach for.

A reader of protobuf's wire format that skips everything else: of a gigabyte of weights it touches a few pages. The
field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from processor.errors import ModelError

_DEPTH: Final = 64
"""Messages inside one another at most; graphs hold nodes that hold graphs."""
_MOST_FIELDS: Final = 5_000_000
_MOST_TEXT: Final = 1 << 20
"""Bytes of one name or one piece of metadata."""
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_MEMORY: Final = "_ORT_MEM_ADDR_"
"""In a location ONNX Runtime takes what follows for an address in its own memory."""
_OTHERS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"PK\x03\x04", "a zip archive, as PyTorch and Keras write: export it to ONNX"),
    (0, b"\x80\x02", "a Python pickle, which could run anything: export it to ONNX"),
    (0, b"\x80\x03", "a Python pickle, which could run anything: export it to ONNX"),
    (0, b"\x80\x04", "a Python pickle, which could run anything: export it to ONNX"),
    (0, b"\x80\x05", "a Python pickle, which could run anything: export it to ONNX"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes: export it to ONNX"),
    (0, b"\x1f\x8b", "compressed with gzip: unpack it"),
    (4, b"ORTM", "in ONNX Runtime's own format: give the ONNX file it was made from"),
    (4, b"TFL3", "a TensorFlow Lite file: export it to ONNX"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: get the file itself, with git lfs pull"),
)
"""What is taken for a model: where it is told from, by which bytes, and what it is."""


_RUN: Final = re.compile(rb"(?:\x3d.{4}|\x40[\x80-\xff]{0,9}[\x00-\x7f]){1,100000}+", re.DOTALL)
"""Numbers of an attribute, fields 7 and 8, each a field of its own: a forest has millions. Nothing else is there."""
_LARGEST_TAG: Final = (1 << 32) - 1
_VARINT: Final = 0
_LENGTH: Final = 2
_FIXED: Final[Mapping[int, int]] = {1: 8, 5: 4}
"""Bytes by wire type."""
_MESSAGES: Final[Mapping[str, Mapping[int, tuple[str, str]]]] = {
    "Model": {
        1: ("ir_version", "number"),
        2: ("producer_name", "text"),
        3: ("producer_version", "text"),
        7: ("graph", "Graph"),
        8: ("opset_import", "OperatorSet"),
        14: ("metadata_props", "Entry"),
        20: ("training_info", "Training"),  # never run here, and read all the same
        25: ("functions", "Function"),
    },
    "Graph": {1: ("node", "Node"), 5: ("initializer", "Tensor"), 15: ("sparse_initializer", "SparseTensor")},
    "Node": {4: ("op_type", "text"), 5: ("attribute", "Attribute"), 7: ("domain", "text")},
    "Attribute": {
        5: ("t", "Tensor"),
        6: ("g", "Graph"),
        10: ("tensors", "Tensor"),
        11: ("graphs", "Graph"),
        22: ("sparse_tensor", "SparseTensor"),
        23: ("sparse_tensors", "SparseTensor"),
    },
    "SparseTensor": {1: ("values", "Tensor"), 2: ("indices", "Tensor")},
    "Tensor": {13: ("external_data", "Entry")},
    "Function": {7: ("node", "Node"), 10: ("domain", "text"), 11: ("attribute_proto", "Attribute")},
    "Training": {1: ("initialization", "Graph"), 2: ("algorithm", "Graph")},
    "OperatorSet": {1: ("domain", "text"), 2: ("version", "number")},
    "Entry": {1: ("key", "text"), 2: ("value", "text")},
}
"""What is read of each message: by field number the name, and `number`, `text` or another message."""


@dataclass(slots=True)
class OnnxFile:
    """What an ONNX file says of itself.

    Attributes:
        ir_version: of the format.
        producer: what wrote it, with its version where it says one; may be empty.
        opsets: version by domain; the standard one is `ai.onnx`.
        metadata: the model's own.
        operators: one of its nodes' operators by domain, without the domains it defines itself.
        external: files that hold its weights, as it names them.
        compiled: whether a node holds a graph that was compiled for some device.
    """

    ir_version: int = 0
    producer: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    operators: dict[str, str] = field(default_factory=dict)
    external: set[str] = field(default_factory=set)
    compiled: bool = False


class _Malformed(Exception):
    """This is no protobuf; the text says where."""


Span = tuple[int, int]
"""Start and end of a message in the file."""


class _Reader:
    """Walks through a file's messages; keeps what it meets in `found`."""

    def __init__(self, data: mmap.mmap) -> None:
        self.found = OnnxFile()
        self._data = data
        self._fields = 0
        self._own: set[str] = set()

    def read(self) -> OnnxFile:
        """Read the whole model."""
        numbers, texts = self._message("Model", (0, len(self._data)), 0)
        self.found.ir_version = numbers.get("ir_version", 0)
        self.found.producer = f"{texts.get('producer_name', '')} {texts.get('producer_version', '')}".strip()
        for domain in self._own:
            self.found.operators.pop(domain, None)
        return self.found

    def _message(self, kind: str, span: Span, depth: int) -> tuple[dict[str, int], dict[str, str]]:
        """Read a message with all that is in it; return its own numbers and texts by name."""
        if depth > _DEPTH:
            raise _Malformed(f"messages in more than {_DEPTH} levels")
        fields = _MESSAGES[kind]
        numbers: dict[str, int] = {}
        texts: dict[str, str] = {}
        for number, value in self._values(span):
            name, of = fields.get(number, ("", ""))
            if of == "number" and isinstance(value, int):
                numbers[name] = value
            elif of == "text" and not isinstance(value, int):
                texts[name] = self._text(value)
            elif of in _MESSAGES and not isinstance(value, int):
                self._met(name, *self._message(of, value, depth + 1))
        if kind == "Node":
            self.found.operators.setdefault(_named(texts.get("domain", "")), texts.get("op_type", ""))
            self.found.compiled |= texts.get("op_type") == "EPContext"
        return numbers, texts

    def _met(self, name: str, numbers: Mapping[str, int], texts: Mapping[str, str]) -> None:
        """Keep what a message in another one says."""
        match name:
            case "opset_import":
                self.found.opsets[_named(texts.get("domain", ""))] = numbers.get("version", 0)
            case "metadata_props":
                self.found.metadata[texts.get("key", "")] = texts.get("value", "")
            case "external_data" if texts.get("key") == "location":
                self.found.external.add(texts.get("value", ""))
            case "functions":
                self._own.add(_named(texts.get("domain", "")))

    def _text(self, span: Span) -> str:
        start, end = span
        if end - start > _MOST_TEXT:
            raise _Malformed(f"a name of {end - start} bytes")
        return self._data[start:end].decode("utf-8", "replace")

    def _values(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """Yield a message's fields: number, and value, or where the value is."""
        position, end = span
        while position < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise _Malformed(f"more than {_MOST_FIELDS} fields")
            run = _RUN.match(self._data, position, end)
            if run is not None:
                position = run.end()
                continue
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if tag > _LARGEST_TAG:  # protobuf would cut it off, and see another field than we do
                raise _Malformed(f"no field at byte {position}")
            if wire == _VARINT:
                value, position = self._varint(position, end)
                yield number, value
                continue
            length = _FIXED.get(wire, -1)
            if wire == _LENGTH:
                length, position = self._varint(position, end)
            if number == 0 or not 0 <= length <= end - position:
                raise _Malformed(f"no field at byte {position}")
            if wire == _LENGTH:
                yield number, (position, position + length)
            position += length

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 64, 7):
            if position >= end:
                break
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value, position
        raise _Malformed(f"no number at byte {position}")


def _named(domain: str) -> str:
    return domain or "ai.onnx"


def read_file(path: Path) -> OnnxFile:
    """Read what an ONNX file says of itself, without running it.

    Raises:
        ModelError: it cannot be read, or is no ONNX file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
            for start, bytes_, what in _OTHERS:
                if head[start:].startswith(bytes_):
                    raise ModelError(f"{path} is no ONNX model, but {what}")
            if not head:
                raise ModelError(f"the model {path} is empty: give the path of an ONNX file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found = _Reader(data).read()
    except _Malformed as error:
        raise ModelError(f"{path} is no ONNX model: {error}") from error
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read: {error.strerror or error}") from error
    if not found.ir_version or not found.opsets:
        raise ModelError(f"{path} is no ONNX model: it names no version of ONNX")
    return found


def located(location: str) -> PurePosixPath:
    """Return where a model keeps data, relative to its own folder.

    Raises:
        ValueError: the location leaves that folder, or is no path; the text is the rest of a sentence.
    """
    path = PurePosixPath(location)
    if path.is_absolute() or ".." in path.parts or "\\" in location:
        raise ValueError("which is not in its own folder")
    if not path.parts or "\0" in location or _MEMORY in location or _SURROGATE.search(location):
        raise ValueError("which is no file's name")
    return path


def check_external(path: Path, found: OnnxFile) -> None:
    """Refuse a model whose weights are not files in its own folder, whatever their names and links say.

    Args:
        path: the model, every link in it resolved.
        found: what it says of itself.

    Raises:
        ModelError: one is elsewhere, or not there.
    """
    folder = path.parent.resolve()
    for location in sorted(found.external):
        try:
            target = (folder / located(location)).resolve()
            wrong = (
                "which leads out of its folder" if not target.is_relative_to(folder)
                else "which is not there; it belongs beside the model" if not target.is_file()
                else ""
            )  # fmt: skip
        except (ValueError, OSError, RuntimeError) as error:
            wrong = str(error)
        if wrong:
            raise ModelError(f"{path} keeps data in {location[:200]!r}, {wrong}")


_BUILT_IN: Final = frozenset(
    (
        "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft",
        "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc", "org.pytorch.aten",
    )
)  # fmt: skip


def foreign_operators(found: OnnxFile) -> list[str]:
    """Return an operator of each domain that only a library of somebody's has: `domain:operator`."""
    return [f"{domain}:{name}" for domain, name in sorted(found.operators.items()) if domain not in _BUILT_IN]
