"""`mlade replay` and `mlade suggest` around the replay itself: the model, the filters, the recording, the files."""

from __future__ import annotations

import gc
import gzip
import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

from processor.assembly import filter_problems
from processor.computation import Outcome
from processor.errors import ConfigurationError, FilterRejected, MladeError, Problem, RecordingError
from processor.filter import all_problems, parse_filter
from processor.model.onnx_model import OnnxModel
from processor.recording import Reader
from processor.replay import Candidate, Replay
from processor.report.collection import Collection
from processor.settings import Slot, load_filter
from processor.shadow.judge import Shadow

_OBJECTS: Final = 100_000
"""Python looks for cycles of garbage when there are so many new objects: a batch alone makes thousands, without any."""

Progress = Callable[[Reader, int], None]
"""Takes the reader and how many messages were replayed."""


def configured(slot: Slot, model: OnnxModel, name: str) -> Candidate:
    """Return a model's configured filter.

    Raises:
        ConfigurationError: it is wrong, or does not fit the model and the sources.
    """
    document, _ = load_filter(slot)
    problems = [
        Problem(f"filter.{problem.path}", problem.message) for problem in filter_problems(slot, model, document)
    ]
    if problems:
        raise ConfigurationError(slot.named(problems))
    return Candidate(name, document)


def read_candidates(slot: Slot, model: OnnxModel, paths: Sequence[Path]) -> list[Candidate]:
    """Return filters from files, named as the files are.

    Raises:
        ConfigurationError: with every problem of each, its path starting with the file's name.
    """
    candidates, problems = [], []
    fits = partial(filter_problems, slot, model)
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


class Trial(NamedTuple):
    """Filters that are tried with one model, and its shadow where it has one."""

    slot: Slot
    model: OnnxModel
    candidates: Sequence[Candidate]
    shadow: Shadow | None = None


class Done(NamedTuple):
    """A replay that has come to the recording's end.

    Attributes:
        replays: what it found, one a model.
        seconds: how long it took.
        cut_off: what is missing at the recording's end, as a sentence; else empty.
    """

    replays: Sequence[Replay]
    seconds: float
    cut_off: str

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints: of several models the sums, and each by its name."""
        found = [replay.as_json(self.seconds) for replay in self.replays]
        if len(found) == 1:
            return found[0]
        whole: dict[str, Any] = {
            key: sum(one[key] for one in found) for key in ("messages", "readings", "windows", "accepted")
        }
        for key in ("by_rule", "by_reason"):
            counts: Counter[str] = Counter()
            for one in found:
                counts.update(one[key])
            whole[key] = dict(counts)
        models = {replay.slot: one for replay, one in zip(self.replays, found, strict=True)}
        return whole | {"seconds": round(self.seconds, 3), "models": models}


def replay_recording(
    trials: Sequence[Trial],
    recording: Path,
    *,
    progress: Progress,
    out: Path | None = None,
    report: Path | None = None,
) -> Done:
    """Replay a recording with one model or several, and one filter for each or several.

    Args:
        trials: models and filters that fit them and their sources.
        recording: the file.
        progress: told after each piece of it.
        out: where the samples of each model's first filter go, an event a line; None: nowhere.
        report: where to draw it all, of the first model; None: nowhere.

    Raises:
        RecordingError: the recording is damaged, or a file cannot be written.
        MladeError: what draws a report is not installed.
    """
    started = time.perf_counter()
    reader = Reader(recording)
    samples = out is not None or report is not None
    replays = [
        Replay(trial.slot, trial.model, trial.candidates, shadow=trial.shadow, samples=samples) for trial in trials
    ]
    collection = None if report is None else _collection(report, replays[0], trials[0])
    with nullcontext() if out is None else _events(out) as write:

        def take(outcomes: Sequence[Outcome]) -> None:
            if write is not None:
                write(outcomes[0])
            if collection is not None:
                collection.add(outcomes)

        play(reader, replays, progress, take)
    seconds = time.perf_counter() - started
    if report is not None and collection is not None:
        from processor.report import page  # noqa: PLC0415 - plotly is an extra, and takes a while to load

        page.write(report, replays[0], collection, page.Titles(recording.name, trials[0].model.name))
    return Done(replays, seconds, reader.cut_off)


def play(
    reader: Reader, replays: Sequence[Replay], progress: Progress, take: Callable[[Sequence[Outcome]], None]
) -> None:
    """Carry a whole recording through replays, one a model.

    Args:
        reader: the recording, from its start.
        replays: fresh ones.
        progress: told after each piece of the file.
        take: given what came of each piece and model, one outcome a filter.

    Raises:
        RecordingError: the recording is damaged.
    """
    with _few_collections():
        for piece in reader:
            for replay in replays:
                for start in range(0, len(piece), replay.most):
                    take(replay.run(piece[start : start + replay.most]))
            progress(reader, sum(replay.messages for replay in replays))


def _collection(report: Path, replay: Replay, trial: Trial) -> Collection:
    """Return what collects for a report; raises before a long replay rather than after it."""
    if not report.parent.is_dir():
        raise RecordingError(f"{report} cannot be written: there is no directory {report.parent}.")
    if importlib.util.find_spec("plotly") is None:
        raise MladeError("A report is drawn by plotly, which is not installed: pip install 'mlade[report]'.")
    model, fields = trial.model, {source.name: source.fields for source in trial.slot.sources}
    return Collection(replay, model.kind, model.labels, fields)


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
