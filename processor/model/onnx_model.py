"""The model: an ONNX file, opened, checked against the settings and run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnxruntime

from processor.errors import ModelError, ModelMisfit, Problem
from processor.model.declared import declared, digest_and_size
from processor.model.inputs import Feed, ModelInput, Tensor, fit_input
from processor.model.invariance import Execution, find_execution
from processor.model.outputs import (
    Choice,
    Interpreter,
    Key,
    Reading,
    choose_output,
    decide_labels,
    decide_reading,
    interpreter,
    map_keys,
    read_columns,
)
from processor.model.session import Provider, ProviderName, open_session, reason
from processor.model.speed import LARGEST_AUTO, fastest, measure
from processor.model.underway import LONGEST, Calls
from processor.sections import Layout
from processor.types import Array, Floats, OutputKind, Predictions

__all__ = ["ModelMisfit", "OnnxModel", "fit_problems", "load_model"]

_MOST_TRIALS: Final = 48
_FEWEST_TRIALS: Final = 6
_LARGEST_CALL_BYTES: Final = 8 * 1024 * 1024
"""Of windows in one call, as float64."""
_LARGEST_FIXED_BYTES: Final = 1 << 30
"""The same of a model that is fixed to its number of rows."""


class _Runner:
    """Calls the model once.

    Attributes:
        keys: of the output where it is a sequence of maps, in the order of the columns; known after the first call.
        columns: how many numbers it gives for a window; 0: not known before the first call.
    """

    def __init__(self, session: onnxruntime.InferenceSession, model_input: ModelInput, output: Tensor) -> None:
        """Remember what every call needs."""
        self.keys: tuple[Key, ...] | None = None
        self.columns = 0
        self._session = session
        self._input = model_input
        self._outputs = [output.name]
        self._calls = Calls()

    def __call__(self, values: Array) -> Floats:
        """Return (W, K) numbers for W windows; raises ModelError."""
        if self._calls.were_ended:
            raise ModelError(f"the model gave no answer within {LONGEST:g} s")
        arranged = self._input.arrange(values)
        try:
            with self._calls:
                (raw,) = self._session.run(self._outputs, {self._input.tensor.name: arranged}, self._calls.options)
        except Exception as error:  # onnxruntime's errors have no other base in common
            windows = "1 window" if len(values) == 1 else f"{len(values)} windows"
            raise ModelError(f"the model failed on {windows}: {reason(error)}") from error
        if self.keys is None:
            self.keys = map_keys(raw)
        answers = read_columns(raw, self.keys, len(values))
        columns = answers.shape[1]
        if columns != (self.columns or columns):
            raise ModelError(f"the model gave {columns} numbers for a window, where it had given {self.columns}")
        self.columns = columns
        return answers


class OnnxModel:
    """A loaded model, with what was found out about it. Called by the pipeline thread only.

    Attributes:
        name: the model's name in events.
        sha256: of the file, 64 hex digits; data the file keeps beside itself is not included.
        size: of the file in bytes.
        kind: what its predictions are.
        labels: as in `Predictions`.
        input: how windows go in.
        output: which output is read, and why that one.
        interpreter: how it is read.
        doubt: what speaks against reading it so; empty where nothing does.
        execution: how windows are divided into calls.
        provider: what runs it.
    """

    def __init__(
        self,
        runner: _Runner,
        *,
        name: str,
        sha256: str,
        size: int,
        model_input: ModelInput,
        output: Choice,
        reader: Interpreter,
        doubt: str,
        execution: Execution,
        provider: Provider,
    ) -> None:
        """Take what `load_model` found out."""
        self.name = name
        self.sha256 = sha256
        self.size = size
        self.kind: OutputKind = reader.kind
        self.labels = reader.labels
        self.input = model_input
        self.output = output
        self.interpreter = reader
        self.doubt = doubt
        self.execution = execution
        self.provider = provider
        self._columns = len(reader.labels) if reader.kind == "probabilities" else 1
        self._runner = runner

    @property
    def seconds_per_window(self) -> float:
        """What a window took at load, in a call as large as they get."""
        return self.execution.seconds_per_window

    def infer(self, values: Array) -> Predictions:
        """Judge W windows.

        Args:
            values: (W, size, C) raw channel values; of images (W, height, width, C) bytes.

        A row's answer does not depend on the other rows or on W. A row for which the model gives a number that is not
        finite is NaN. Raises ModelError when the model raises: then no row has an answer, and a caller that wants the
        others gives the rows one by one.
        """
        if len(values) == 0:
            return self.interpreter.predictions(np.empty((0, self._columns)))
        return self.interpreter.predictions(self.execution.run(self._runner, values))

    def speeds(self, sizes: Sequence[int]) -> dict[int, float]:
        """Measure what a window takes, in seconds, by how many are judged at once; not beyond what takes too long."""
        windows = self.input.trial_windows(_FEWEST_TRIALS)
        return measure(lambda values: self.execution.run(self._runner, values), windows, sizes)

    def describe(self) -> dict[str, str]:
        """Return what an operator wants to know, a line each, by its heading."""
        kind = f"{self.kind}, from logits" if self.interpreter.reading == "logits" else self.kind
        lines = {
            "model": f"{self.name}, {_size(self.size)}",
            "sha256": self.sha256,
            "input": str(self.input),
            "output": str(self.output.tensor) + (f"; {self.output.remark}" if self.output.remark else ""),
            "kind": kind + (f"; {self.doubt}" if self.doubt else ""),
            "labels": ", ".join(self.labels) or "none",
            "runs on": str(self.provider),
            "execution": f"{self.execution.name}: {self.execution.sentence}",
            "speed": f"{self.seconds_per_window * 1e6:.3g} µs a window in calls of {self.execution.most}",
        }
        if self.interpreter.temperature != 1:
            lines["temperature"] = f"{self.interpreter.temperature:g}"
        return lines


def load_model(
    path: Path,
    *,
    window_size: int,
    channels: int,
    name: str | None = None,
    fields: Sequence[str] = (),
    image: tuple[int, int] | None = None,
    input_name: str | None = None,
    layout: Layout | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    output_name: str | None = None,
    output_kind: Literal["auto"] | Reading = "auto",
    labels: Sequence[str] | None = None,
    temperature: float = 1.0,
    max_batch: int | Literal["auto"] = 512,
    threads: int = 1,
    providers: Sequence[ProviderName] = ("cpu",),
    custom_ops: Sequence[Path] = (),
) -> OnnxModel:
    """Open a model, check it against what the sources give, and find out how to run and to read it.

    Makes some hundred trial runs, fewer where a window takes over 10 ms.

    Args:
        path: an ONNX file; data it keeps beside itself must lie in the same folder.
        window_size: readings in a window.
        channels: values in a reading; colours of an image.
        name: the model's name; None: the file's, without its suffix.
        fields: the channels' names, for messages.
        image: (height, width) where readings are images.
        input_name: the input; None: the only one.
        layout: order of the input's axes; None: by its rank.
        mean: subtracted from the values; one number, or one a channel.
        std: then divided by; one number, or one a channel.
        output_name: the output; None: the likeliest.
        output_kind: what it means; `auto`: by what the trial runs give.
        labels: None: the metadata's, else the model's own, else the columns' numbers.
        temperature: calibration, above 0; see `Interpreter`.
        max_batch: windows in a call at most; `auto`: as few as are about as fast as any number of them.
        threads: for ONNX Runtime.
        providers: what runs it, the best first; those that are not there are passed over, with a warning.
        custom_ops: libraries of operators that are not ONNX's.

    Raises:
        ModelMisfit: the model does not fit the settings, with all that does not.
        ModelError: the file cannot be read, is no ONNX model, or raises on every trial window.
    """
    sha256, size = digest_and_size(path)
    session, provider = open_session(path, threads=threads, providers=providers, custom_ops=custom_ops)
    inputs, outputs, metadata = declared(path, session)
    problems: list[Problem] = []
    with _collecting(problems):
        feed = Feed(window_size, channels, tuple(fields), image)
        model_input = fit_input(path.name, inputs, feed, name=input_name, layout=layout, mean=mean, std=std)
    with _collecting(problems):
        output = choose_output(path.name, outputs, output_name)
    if problems:
        raise ModelMisfit(problems)
    _check_fixed_rows(path.name, model_input)

    runner = _Runner(session, model_input, output.tensor)
    at_once = max(1, _LARGEST_CALL_BYTES // (8 * model_input.values_per_window))
    windows = model_input.trial_windows(min(_MOST_TRIALS, max(_FEWEST_TRIALS, at_once)))
    most = min(LARGEST_AUTO if max_batch == "auto" else max_batch, at_once)
    trials = find_execution(runner, windows, rows=model_input.rows, most=most)
    execution = fastest(trials.execution, runner, windows) if max_batch == "auto" else trials.execution
    reading, doubt = decide_reading(path.name, output, output_kind, trials.answers)
    columns = trials.answers.shape[1]
    decided = decide_labels(
        path.name,
        reading,
        columns,
        configured=labels,
        metadata=metadata,
        keys=runner.keys,
    )
    return OnnxModel(
        runner,
        name=name or path.stem,
        sha256=sha256,
        size=size,
        model_input=model_input,
        output=output,
        reader=interpreter(reading, columns, decided, temperature),
        doubt=doubt,
        execution=execution,
        provider=provider,
    )


def fit_problems(load: Callable[[], object]) -> tuple[Problem, ...]:
    """Return everything that keeps `load`, a call of `load_model`, from succeeding; each with its path.

    >>> fit_problems(lambda: load_model(path, window_size=1, channels=3))
    """
    try:
        load()
    except ModelMisfit as misfit:
        return misfit.problems
    except ModelError as error:
        return (Problem("model.path", str(error)),)
    return ()


@contextmanager
def _collecting(problems: list[Problem]) -> Iterator[None]:
    """Gather what does not fit into `problems` and go on, so that all of it can be told at once."""
    try:
        yield
    except ModelMisfit as misfit:
        problems.extend(misfit.problems)


def _check_fixed_rows(file: str, model_input: ModelInput) -> None:
    """Refuse a model that is fixed to so many rows that one call would take the machine's memory."""
    rows = model_input.rows or 1
    if 8 * rows * model_input.values_per_window > _LARGEST_FIXED_BYTES:
        message = (
            f"the batch dimension of {file} is fixed to {rows}, which takes too much memory: export it with a free one"
        )
        raise ModelMisfit([Problem("model.path", message)])


def _size(count: int) -> str:
    """Return a number of bytes for reading."""
    return f"{count / 1024:.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f} MiB"
