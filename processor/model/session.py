"""Opening a model with ONNX Runtime: only ONNX, only files of its own folder, on what is there to run it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import onnxruntime

from processor.errors import ModelError, ModelMisfit, Problem
from processor.logs import one_line
from processor.model.onnx_file import check_external, foreign_operators, read_file

log = logging.getLogger(__name__)

ProviderName = Literal["cuda", "openvino", "cpu"]

_RUNTIMES_NAME: Final[Mapping[ProviderName, str]] = {
    "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "openvino": "OpenVINOExecutionProvider",
}  # fmt: skip
_NEEDS: Final[Mapping[ProviderName, str]] = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu instead of onnxruntime, with NVIDIA's driver, CUDA and cuDNN",
    "openvino": "onnxruntime-openvino instead of onnxruntime",
}
_LONGEST_REASON: Final = 300
"""Characters."""


class Provider(NamedTuple):
    """What runs a model.

    Attributes:
        name: as in `model.providers`.
        missing: why none of those before it does, a sentence each.
    """

    name: ProviderName
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return both in a line."""
        return "; ".join([self.name, *self.missing])


class Opened(NamedTuple):
    """A session, and what runs it."""

    session: onnxruntime.InferenceSession
    provider: Provider


def open_session(
    path: Path, *, threads: int = 1, providers: Sequence[ProviderName] = ("cpu",), custom_ops: Sequence[Path] = ()
) -> Opened:
    """Open a model for calls of changing size from one thread, beside other work.

    Args:
        path: an ONNX file.
        threads: for ONNX Runtime.
        providers: what may run it, the best first.
        custom_ops: libraries of operators.

    Raises:
        ModelMisfit: a library of operators is missing, or does not load; none of the providers is there.
        ModelError: it is no ONNX model that may be opened, or that ONNX Runtime can open.
    """
    path = path.resolve()
    found = read_file(path)
    check_external(path, found)
    if found.compiled:
        raise ModelError(
            f"{path} holds what was compiled for some device (EPContext): give the ONNX file it was made from"
        )
    foreign = foreign_operators(found)
    if foreign and not custom_ops:
        named = one_line(", ".join(foreign))[:200]
        message = f"{path.name} has operators of {named}, which are not ONNX's: name their library, a .so file"
        raise ModelMisfit([Problem("model.custom_ops", message)])
    missing: list[str] = []
    for name in dict.fromkeys(providers):
        session = _try(path, _options(threads, custom_ops), name, missing)
        if session is not None:
            if missing:
                log.warning("The model runs on %s: %s.", name, "; ".join(missing))
            return Opened(session, Provider(name, tuple(missing)))
    raise ModelMisfit([Problem("model.providers", f"{'; '.join(missing)}; add cpu to run it all the same")])


def _try(
    path: Path, options: onnxruntime.SessionOptions, name: ProviderName, missing: list[str]
) -> onnxruntime.InferenceSession | None:
    """Return a session on a provider; None, with a sentence in `missing`, where it is not there."""
    wanted = _RUNTIMES_NAME[name]
    if wanted not in onnxruntime.get_available_providers():
        missing.append(f"{name} is not in this ONNX Runtime, it needs {_NEEDS[name]}")
        return None
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=[*dict.fromkeys([wanted, _RUNTIMES_NAME["cpu"]])],
            enable_fallback=0,  # it would print, and try the same once more
        )
    except Exception as error:  # onnxruntime's errors have no other base in common
        if name == "cpu":
            raise ModelError(f"{path} is no ONNX model that ONNX Runtime can open: {reason(error)}") from error
        missing.append(f"{name} does not start ({reason(error)}), it needs {_NEEDS[name]}")
        return None
    if session.get_providers()[0] != wanted:
        missing.append(f"{name} does not start, it needs {_NEEDS[name]}")
        return None
    # Else a call that fails on this provider would be run on the CPU, and so would all after it: with other answers.
    session.disable_fallback()
    return session


def _options(threads: int, custom_ops: Sequence[Path]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what goes wrong is raised as well
    # The arena, on by default, keeps the memory of the largest call, which the trial runs make: it grows no more, and
    # calls take a fifth less time than without. A memory pattern would be kept for every size of call.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    for position, library in enumerate(custom_ops):
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:  # as above
            message = f"{library} cannot be loaded: {reason(error)}"
            raise ModelMisfit([Problem(f"model.custom_ops[{position}]", message)]) from error
    return options


def reason(error: Exception) -> str:
    """Return what ONNX Runtime says in one line, without its codes and the places in its source."""
    text = " ".join(str(error).split())
    text = text.rpartition("Status Message: ")[2]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed: ?", "", text)
    text = re.sub(r"^/\S+:\d+ .*?\([^()]*\) ", "", text)
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + " …"
