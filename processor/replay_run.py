"""`mlade replay` and `mlade suggest` around the replay itself: the model, the filters, the recording, the files."""

from __future__ import annotations

import gc
import gzip
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from processor.assembly import filter_problems
from processor.computation import Outcome
from processor.errors import ConfigurationError, FilterRejected, MladeError, Problem, RecordingError
from processor.filter import all_problems, parse_filter
from processor.model.onnx_model import OnnxModel
from processor.recording import Reader
from processor.replay import Candidate, Replay
from processor.report.collection import Collection
from processor.settings import Settings, load_filter
from processor.shadow.judge import Shadow

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


class Done(NamedTuple):
    """A replay that has come to the recording's end.

    Attributes:
        replay: what it found.
        seconds: how long it took.
        cut_off: what is missing at the recording's end, as a sentence; else empty.
    """

    replay: Replay
    seconds: float
    cut_off: str


def replay_recording(
    settings: Settings,
    model: OnnxModel,
    candidates: Sequence[Candidate],
    recording: Path,
    *,
    progress: Progress,
    shadow: Shadow | None = None,
    out: Path | None = None,
    report: Path | None = None,
) -> Done:
    """Replay a recording with one filter or several.

    Args:
        settings: the configuration.
        model: the configured one.
        candidates: the filters, which fit the model and the sources.
        recording: the file.
        progress: told after each piece of it.
        shadow: the configured one; None: there is none.
        out: where the first filter's samples go, an event a line; None: nowhere.
        report: where to draw it all; None: nowhere.

    Raises:
        RecordingError: the recording is damaged, or a file cannot be written.
        MladeError: what draws a report is not installed.
    """
    started = time.perf_counter()
    reader = Reader(recording)
    samples = out is not None or report is not None
    replay = Replay(settings, model, candidates, shadow=shadow, samples=samples)
    collection = None if report is None else _collection(report, replay, model, settings)
    with nullcontext() if out is None else _events(out) as write:

        def take(outcomes: Sequence[Outcome]) -> None:
            if write is not None:
                write(outcomes[0])
            if collection is not None:
                collection.add(outcomes)

        play(reader, replay, progress, take)
    seconds = time.perf_counter() - started
    if report is not None and collection is not None:
        from processor.report import page  # noqa: PLC0415 - plotly is an extra, and takes a while to load

        page.write(report, replay, collection, page.Titles(recording.name, model.name))
    return Done(replay, seconds, reader.cut_off)


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
        for piece in reader:
            for start in range(0, len(piece), replay.most):
                take(replay.run(piece[start : start + replay.most]))
            progress(reader, replay)


def _collection(report: Path, replay: Replay, model: OnnxModel, settings: Settings) -> Collection:
    """Return what collects for a report; raises before a long replay rather than after it."""
    if not report.parent.is_dir():
        raise RecordingError(f"{report} cannot be written: there is no directory {report.parent}.")
    if importlib.util.find_spec("plotly") is None:
        raise MladeError("A report is drawn by plotly, which is not installed: pip install 'mlade[report]'.")
    return Collection(replay, model.kind, model.labels, {source.name: source.fields for source in settings.sources})


@contextmanager
def _few_collections() -> Iterator[None]:
    """Have Python look for cycles of garbage less often: a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _events(path: Path) -> Iterator[Callable[[Outcome], None]]:
    """Yield what writes samples' events into a file, in place of an older one; .gz in its name compresses it."""
    try:
        with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as opened:
            file = cast("BinaryIO", opened)
            yield lambda outcome: file.writelines(sample.event + b"\n" for sample in outcome.outgoing)
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}.") from error
