"""How a model's output is read: which one, as what, under which labels, and from its numbers to predictions."""

from __future__ import annotations

import ast
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from processor.errors import ModelError, ModelMisfit, Problem
from processor.model.inputs import NUMBER_TYPES, Tensor
from processor.types import Floats, OutputKind, Predictions

Reading = Literal["probabilities", "logits", "score", "value"]
"""What the columns of an output mean."""
Key = int | str

_METADATA_KEYS: Final = ("labels", "classes", "class_labels", "names")
_MAPS: Final = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
_REAL: Final = ("tensor(float)", "tensor(double)", "tensor(float16)", *_MAPS)
_WHOLE: Final = tuple(tensor for tensor in NUMBER_TYPES if tensor not in _REAL)
_HINTS: Final = ("prob", "softmax", "score", "logit")
"""Parts of the names of outputs worth reading, the best first."""
_LONGEST_LABEL: Final = 1000
"""Characters: labels are in topics' properties, metrics and messages."""
_SHOWN: Final = 40
_SUM_TOLERANCE: Final = 2e-3
"""How far from 1 probabilities may sum: float16 gives three digits."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The output that is read.

    Attributes:
        tensor: the output.
        remark: why this one, where others could have been meant; else empty.
        beside_label: whether the model gives the predicted label as another output.
    """

    tensor: Tensor
    remark: str
    beside_label: bool


def choose_output(file: str, tensors: Sequence[Tensor], name: str | None) -> Choice:
    """Choose the output to read: the named one, else the likeliest by type, name and order.

    Raises:
        ModelMisfit: there is none of that name, or none that holds numbers.
    """
    labels = [tensor for tensor in tensors if tensor.type in ("tensor(string)", "tensor(int64)", "tensor(int32)")]
    names = ", ".join(f'"{tensor.name}"' for tensor in tensors)
    if name is not None:
        named = next((tensor for tensor in tensors if tensor.name == name), None)
        if named is None:
            raise ModelMisfit([Problem("model.output.name", f'{file} has no output "{name}"; its outputs: {names}')])
        if named.type not in (*_REAL, *_WHOLE):
            raise ModelMisfit([Problem("model.output.name", f"the output {named} of {file} holds no numbers")])
        return Choice(named, "", any(tensor is not named for tensor in labels))
    candidates = [tensor for tensor in tensors if tensor.type in _REAL]
    candidates = candidates or [tensor for tensor in tensors if tensor.type in _WHOLE]
    if not candidates:
        raise ModelMisfit([Problem("model.path", f"{file} has no output that holds numbers; its outputs: {names}")])
    best = min(candidates, key=_unlikelihood)
    others = ", ".join(f'"{tensor.name}"' for tensor in candidates if tensor is not best)
    remark = f"chosen over {others}; model.output.name picks another" if others else ""
    return Choice(best, remark, any(tensor is not best for tensor in labels))


def _unlikelihood(tensor: Tensor) -> tuple[bool, int]:
    """Rank an output: a column or a table before more dimensions, then by what its name hints at."""
    name = tensor.name.lower()
    hint = next((place for place, part in enumerate(_HINTS) if part in name), len(_HINTS))
    return len([size for size in tensor.shape[1:] if size != 1]) > 1, hint


def map_keys(raw: object) -> tuple[Key, ...] | None:
    """Return the keys where an output is a sequence of maps (ZipMap), else None."""
    return tuple(raw[0]) if isinstance(raw, list) and raw and isinstance(raw[0], dict) else None


def read_columns(raw: object, keys: Sequence[Key] | None, rows: int) -> Floats:
    """Return what the model gave for `rows` windows as (rows, K) numbers.

    Args:
        raw: an array, or a list of maps.
        keys: the maps' keys in the order of the columns; None for an array.
        rows: how many windows the call had.

    Raises:
        ModelError: it holds another number of rows, or more than one number for each of K columns.
    """
    if keys is not None and isinstance(raw, list):
        known = set(keys)
        if any(row.keys() != known for row in raw):
            raise ModelError("the model gives numbers under other keys for one window than for another")
        raw = np.array([[row[key] for key in keys] for row in raw], np.float64)
    array: NDArray[Any] = np.asarray(raw)
    if array.ndim == 0 or len(array) != rows:
        given = "one number" if array.ndim == 0 else f"{len(array)} rows"
        raise ModelError(f"the model answered a call of {rows} windows with {given}; expected one row a window")
    if array.ndim > 2:  # noqa: PLR2004  rows and columns
        if max(array.shape[1:]) * rows != array.size:
            shape = ", ".join(str(size) for size in array.shape[1:])
            raise ModelError(f"the model's output has {shape} numbers for each window; expected one row of columns")
        array = array.reshape(rows, -1)
    elif array.ndim == 1:
        array = array[:, None]
    if not array.shape[1]:
        raise ModelError("the model gives no number for a window")
    return np.ascontiguousarray(array, np.float64)


def decide_reading(
    file: str, choice: Choice, wanted: Literal["auto"] | Reading, answers: Floats
) -> tuple[Reading, str]:
    """Decide what the columns mean.

    Args:
        file: the model's file name, for messages.
        choice: the output.
        wanted: the configured meaning; `auto`: by what the trial windows gave.
        answers: (P, K) for trial windows of many scales.

    Returns:
        The meaning, and what speaks against it; empty where nothing does.

    Raises:
        ModelMisfit: the output has too many columns for what is wanted.
    """
    columns = answers.shape[1]
    finite = answers[np.isfinite(answers).all(axis=1)]
    within = bool(((finite >= 0) & (finite <= 1 + _SUM_TOLERANCE)).all()) and len(finite) > 0
    if wanted == "auto" and columns == 1:
        return ("score" if choice.beside_label or within else "value"), ""
    if wanted == "auto":
        if within and bool((np.abs(finite.sum(axis=1) - 1) <= _SUM_TOLERANCE).all()):
            return "probabilities", ""
        doubt = (
            "all between 0 and 1 in trial runs: if each label has its own sigmoid, set model.output.kind: probabilities"
        )
        return "logits", doubt if within else ""
    if wanted in ("score", "value") and columns != 1:
        message = f"kind {wanted} is one number a window; {choice.tensor} of {file} has {columns}"
        raise ModelMisfit([Problem("model.output.kind", f"{message}: set probabilities or logits")])
    if wanted != "probabilities":
        return wanted, ""
    doubt = ""
    if len(finite) and not within:
        doubt = f"trial runs gave {finite.min():.4g} to {finite.max():.4g}: is it logits? Taken as 0 to 1 all the same"
    return ("score" if columns == 1 else "probabilities"), doubt


def decide_labels(
    file: str,
    reading: Reading,
    columns: int,
    *,
    configured: Sequence[str] | None,
    metadata: Mapping[str, str],
    keys: Sequence[Key] | None,
) -> tuple[str, ...]:
    """Return the K labels: the configured ones, else the metadata's, else the maps' keys, else 0, 1, 2 and so on.

    A score has two (what 1 - s and s stand for), a value none.

    Raises:
        ModelMisfit: there are more or fewer than K, or one is empty or there twice.
    """
    if reading == "value":
        if configured:
            message = f"{len(configured)} labels given; {file} gives a value, which has none: leave them out"
            raise ModelMisfit([Problem("model.output.labels", message)])
        return ()
    wanted = max(columns, 2)
    found = None if configured else labels_in(metadata)
    if columns == 1 and found is not None and len(found) != wanted:
        found = None  # of one column, metadata may name something else: the inputs, say
    labels = tuple(configured) if configured else found or tuple(str(key) for key in keys or range(wanted))
    origin = "given" if configured else f"in the metadata of {file}" if found else "among its keys"
    if len(labels) != wanted:
        shown = ", ".join(labels[:8]) + (" …" if len(labels) > 8 else "")  # noqa: PLR2004  a line's worth
        need = "a score has two, for 1 - s and s" if columns == 1 else f"the output of {file} has {columns} columns"
        message = f"{len(labels)} labels {origin} ({shown}); {need}: give {wanted}"
        raise ModelMisfit([Problem("model.output.labels", message)])
    if not all(labels) or len(set(labels)) != wanted:
        message = f"labels {origin} are {', '.join(map(repr, labels))}; expected each to be there once and not empty"
        raise ModelMisfit([Problem("model.output.labels", message)])
    unusable = next((label for label in labels if len(label) > _LONGEST_LABEL or _has_controls(label)), None)
    if unusable is not None:
        shown = ascii(unusable if len(unusable) <= _SHOWN else unusable[:_SHOWN] + " …")
        message = f"a label {origin} is {shown}; expected at most {_LONGEST_LABEL} characters, none of them a control"
        raise ModelMisfit([Problem("model.output.labels", f"{message} character or half of one")])
    return labels


def _has_controls(label: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in label)


def labels_in(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the labels a model's custom metadata names, or None: `labels`, `classes`, `class_labels` or `names`."""
    return names_in(metadata, _METADATA_KEYS)


def names_in(metadata: Mapping[str, str], keys: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names under the first of some keys that a model's custom metadata has, or None.

    A JSON list, an object from index to name or from name to index, the same as Python writes it (`{0: 'cat'}`, as in
    ultralytics' exports), or names between commas.
    """
    text = next((metadata[key] for key in keys if metadata.get(key, "").strip()), None)
    if text is None:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(parsed, list | tuple):
            return tuple(str(label) for label in parsed)
        if isinstance(parsed, dict):
            return _in_order_of_index(parsed)
    return tuple(part.strip() for part in text.split(","))


def _in_order_of_index(named: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names of a mapping from index to name, or from name to index, by index; else its values."""
    for index_to_name in (named, {index: name for name, index in named.items() if not isinstance(index, list | dict)}):
        try:
            return tuple(str(name) for _, name in sorted((int(index), name) for index, name in index_to_name.items()))
        except (ValueError, TypeError, OverflowError):
            continue
    return tuple(str(name) for name in named.values())


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Turns (W, K) columns into predictions.

    Attributes:
        reading: what the columns mean.
        kind: what the predictions are.
        labels: as in `Predictions`.
        temperature: calibration T (Guo et al., 2017, "On calibration of modern neural networks"): logits are divided
            by it before softmax or sigmoid, probabilities become p^(1/T) normalised, a score strictly between 0 and 1
            becomes sigmoid(logit(s) / T). A value is left alone.
    """

    reading: Reading
    kind: OutputKind
    labels: tuple[str, ...]
    temperature: float

    def predictions(self, columns: Floats) -> Predictions:
        """Return the predictions; a row with a number that is not finite becomes NaN throughout."""
        finite = np.isfinite(columns)
        if not finite.all():
            columns = np.where(finite.all(axis=1, keepdims=True), columns, np.nan)
        with np.errstate(divide="ignore", over="ignore"):
            return self._interpreted(columns)

    def _interpreted(self, columns: Floats) -> Predictions:
        temperature = self.temperature
        if self.kind == "value":
            return Predictions("value", (), None, columns[:, 0])
        if self.kind == "probabilities":
            if self.reading == "logits":
                probabilities = _softmax(columns / temperature)
            elif temperature == 1:
                probabilities = columns.clip(0, 1)  # float32 may sum to a little over 1
            else:
                probabilities = _softmax(np.log(columns.clip(0, 1)) / temperature)
            return Predictions("probabilities", self.labels, probabilities, None)
        score = columns[:, 0]
        if self.reading == "logits":
            score = _sigmoid(score / temperature)
        elif temperature != 1:
            inside = (score > 0) & (score < 1)
            held = np.where(inside, score, 0.5)
            score = np.where(inside, _sigmoid((np.log(held) - np.log1p(-held)) / temperature), score)
        clipped = score.clip(0, 1)
        return Predictions("score", self.labels, np.stack((1 - clipped, clipped), axis=1), score)


def interpreter(reading: Reading, columns: int, labels: tuple[str, ...], temperature: float) -> Interpreter:
    """Return the interpreter of `columns` columns: one column of logits is a score."""
    kind: OutputKind = "value" if reading == "value" else "score" if columns == 1 else "probabilities"
    return Interpreter(reading, kind, labels, temperature)


def _softmax(logits: Floats) -> Floats:
    """Return exp(x) / Σ exp(x) a row, free of overflow for the largest is taken off first. NaN rows stay NaN."""
    largest = np.ascontiguousarray(logits.T).max(axis=0)  # numpy is slow along short rows
    powers = np.exp(logits - largest[:, None])
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), free of overflow."""
    power = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + power), power / (1 + power))
