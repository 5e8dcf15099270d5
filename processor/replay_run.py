"""`mlade replay` and `mlade suggest` around the replay itself: the model, the filters, the recording, the files."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast

from processor.assembly import filter_problems
from processor.computation import Outcome
from processor.errors import ConfigurationError, FilterRejected, Problem, RecordingError
from processor.filter import all_problems, parse_filter
from processor.model.onnx_model import OnnxModel
from processor.recording import Reader
from processor.replay import Candidate, Replay
from processor.settings import Settings, load_filter

_OBJECTS: Final = 100_000
"""Python looks for cycles of garbage when there are so many new objects: a batch alone makes thousands, without any."""

Progress = Callable[[Reader, Replay], None]


def configured(settings: Settings, model: OnnxModel, name: str) -> Candidate:
    """Return the configuration's own filter.

    Raises:
        ConfigurationError: it is wrong, or does not fit the model and the sources.
    """
    document, _ = load_filter(settings)
    problems = [
        Problem(f"filter.{problem.path}", problem.message) for problem in filter_problems(settings, model, document)
    ]
    if problems:
        raise ConfigurationError(problems)
    return Candidate(name, document)


def read_candidates(settings: Settings, model: OnnxModel, paths: Sequence[Path]) -> list[Candidate]:
    """Return filters from files, named as the files are.

    Raises:
        ConfigurationError: with every problem of each, its path starting with the file's name.
    """
    candidates, problems = [], []
    fits = partial(filter_problems, settings, model)
    for path in paths:
        try:
            document = parse_filter(path.read_bytes())
        except OSError as error:
            problems.append(Problem(str(path), f"cannot be read: {error.strerror}"))
        except FilterRejected as rejected:
            problems += _of_file(path, all_problems(rejected, fits))
        else:
            problems += _of_file(path, fits(document))
            candidates.append(Candidate(str(path), document))
    if problems:
        raise ConfigurationError(problems)
    return candidates


def _of_file(path: Path, problems: Sequence[Problem]) -> list[Problem]:
    return [Problem(f"{path}: {problem.path}" if problem.path else str(path), problem.message) for problem in problems]


def play(reader: Reader, replay: Replay, progress: Progress, take: Callable[[Sequence[Outcome]], None]) -> None:
    """Carry a whole recording through a replay.

    Args:
        reader: the recording, from its start.
        replay: a fresh one.
        progress: told after each piece of the file.
        take: given what came of each piece, one outcome a filter.

    Raises:
        RecordingError: the recording is damaged.
    """
    with _few_collections():
        for messages in reader:
            outcomes = replay.run(messages)
            if outcomes:
                take(outcomes)
            progress(reader, replay)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Have Python look for cycles of garbage less often: a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Events:
    """The samples' events, one a line, compressed where the file's name ends in `.gz`."""

    def __init__(self, path: Path) -> None:
        """Make the file, in place of an older one.

        Raises:
            RecordingError: it cannot be made.
        """
        self._path = path
        try:
            opened = gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")  # noqa: SIM115 - see `close`
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error.strerror}.") from error
        self._file = cast("BinaryIO", opened)

    def write(self, outcome: Outcome) -> None:
        """Append what a piece of the recording gave.

        Raises:
            RecordingError: the disk is full, or the like.
        """
        try:
            self._file.writelines(sample.event + b"\n" for sample in outcome.samples)
        except OSError as error:
            raise RecordingError(f"{self._path} cannot be written any further: {error.strerror}.") from error

    def close(self) -> None:
        """Finish the file; raises RecordingError as `write` does."""
        try:
            self._file.close()
        except OSError as error:
            raise RecordingError(f"{self._path} cannot be written any further: {error.strerror}.") from error
