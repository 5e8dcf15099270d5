"""What a model says of itself to ONNX Runtime: its inputs, its outputs, its metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import onnxruntime

from processor.errors import ModelError
from processor.model.inputs import Tensor
from processor.model.session import open_session


class Declared(NamedTuple):
    """What a model says of itself."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    sha256: str


def read_declared(path: Path, *, custom_ops: Sequence[Path] = ()) -> Declared:
    """Return what a model says of itself, without running it.

    Args:
        path: an ONNX file.
        custom_ops: libraries of operators that are not ONNX's.

    Raises:
        ModelError: the file cannot be read, or is no ONNX model.
    """
    sha256, _ = digest_and_size(path)
    session, _ = open_session(path, custom_ops=custom_ops)
    inputs, outputs, metadata = declared(path, session)
    return Declared(tuple(inputs), tuple(outputs), metadata, sha256)


def declared(path: Path, session: onnxruntime.InferenceSession) -> tuple[list[Tensor], list[Tensor], Mapping[str, str]]:
    """Return a model's inputs, outputs and metadata."""
    try:
        inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
        return inputs, outputs, session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is no ONNX model that can be read: a name in it is no UTF-8 ({error})") from error


def digest_and_size(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file, read in pieces."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            size = file.tell()
    except FileNotFoundError:
        raise ModelError(f"there is no model at {path}: give the path of an ONNX file") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a directory: give the path of an ONNX file") from None
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise ModelError(f"the model {path} is empty: give the path of an ONNX file")
    return digest.hexdigest(), size


def _tensors(arguments: Sequence[onnxruntime.NodeArg]) -> list[Tensor]:
    return [Tensor(argument.name, argument.type, tuple(argument.shape)) for argument in arguments]
