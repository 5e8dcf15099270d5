"""Is what mlade keeps worth more than a random sample? On public data, with mlade's own selection.

Of each set 30 % are held out. Of the rest 50 windows have labels; the others come as a stream, once, in five rounds:
a random forest, frozen within a round, says what it thinks of each window, a method keeps some, and after the round the
forest is trained anew with their labels. Each seed has its own split, order and forest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bench.errors import BenchError
from bench.report import Check, Result
from bench.worth.data import SETS
from bench.worth.learning import Outcome, prepare, run
from bench.worth.methods import ACTIVE, FILTERS, Active, Filter, Method
from bench.worth.promises import bias, budget

_PLOT: Final = Path(__file__).parents[1] / "docs" / "label-efficiency.svg"
_SINGLE, _BURSTS = ("as they come, 10 %", False, 0.1), ("in bursts, 1 %", True, 0.01)
_STREAMS: Final = (_SINGLE, _BURSTS)
_KEEP, _DEDUP = "margin, keep", "margin, keep, dedup"

Found = Mapping[tuple[str, str, str], Sequence[Outcome]]
"""By set, stream and method, an outcome for each seed."""


class Size(NamedTuple):
    """How long it takes."""

    sets: Sequence[str]
    seeds: int
    draws: int
    """Of the audit's hashes, for the bias; 0: it is left out, since few say nothing."""
    plots: bool


FULL: Final = Size(sets=tuple(SETS), seeds=10, draws=300, plots=True)
QUICK: Final = Size(sets=("digits",), seeds=2, draws=0, plots=False)


def measure(size: Size, _folder: Path, tell: Callable[[str], None]) -> Result:
    """Compare the methods, and look at what is promised about a share and about weights."""
    try:
        found = {
            (name, stream[0], method): [_outcome(name, stream, method, seed) for seed in range(size.seeds)]
            for name in size.sets
            for stream in _STREAMS
            for method in _told((*FILTERS, *ACTIVE), name, stream[0], tell)
        }
    except ImportError as error:
        raise BenchError(f"{error}; scripts/setup.sh bench installs what this benchmark needs") from None
    checks = [*_worth(found, size.sets), *_promises(size, tell)]
    if size.plots:
        _draw(found)
    return Result(
        "Worth: accuracy on held-out windows after five rounds, mean of "
        f"{size.seeds} seeds ± standard error, and the share of the stream that was kept",
        ("", *(f"{name}, {stream}" for name in size.sets for stream, _, _ in _STREAMS)),
        [(method, *(_cell(found[name, stream, method]) for name in size.sets for stream, _, _ in _STREAMS))
         for method in (*FILTERS, *ACTIVE)],
        checks,
        {" | ".join(key): [outcome._asdict() for outcome in outcomes] for key, outcomes in found.items()},
        notes=(
            "Random forest of 100 trees; 50 labels to start with. In bursts each window comes ten times with noise.",
            "The last four are scikit-activeml's, at the same budget; FixedUncertainty's threshold is its own.",
        ),
    )  # fmt: skip


def _told(methods: Sequence[str], name: str, stream: str, tell: Callable[[str], None]) -> Sequence[str]:
    tell(f"{name}, {stream}")
    return methods


def _outcome(name: str, stream: tuple[str, bool, float], method: str, seed: int) -> Outcome:
    _, bursts, share = stream
    task = prepare(name, seed, bursts=bursts)

    def make(count: int) -> Method:
        if method in ACTIVE:
            return Active(method, share, task.kinds, seed)
        return Filter(FILTERS[method](share, count), task.kinds, task.stream.windows.shape[2], seed)

    return run(task, seed, make)


def _last(outcomes: Sequence[Outcome]) -> Any:  # noqa: ANN401 - an array of floats
    return np.array([outcome.accuracies[-1] for outcome in outcomes])


def _cell(outcomes: Sequence[Outcome]) -> str:
    accuracies = _last(outcomes)
    error = accuracies.std(ddof=1) / np.sqrt(len(accuracies))
    spent = np.mean([outcome.spent for outcome in outcomes])
    return f"{accuracies.mean():.3f} ± {error:.3f}  {spent:.1%}"


def _worth(found: Found, sets: Sequence[str]) -> list[Check]:
    mean = {key: float(_last(outcomes).mean()) for key, outcomes in found.items()}
    checks = []
    for name, target in (("digits", 0.945), ("segments", 0.965)):
        if name in sets:
            checks += [
                Check(f"{name}, {_SINGLE[0]}: {_KEEP}", mean[name, _SINGLE[0], _KEEP], ">=", target),
                Check(
                    f"{name}, {_BURSTS[0]}: {_DEDUP}, less random",
                    mean[name, _BURSTS[0], _DEDUP] - mean[name, _BURSTS[0], "random"], ">=", 0.02,
                ),
            ]  # fmt: skip
    less = {
        (name, stream[0], method): mean[name, stream[0], method] - mean[name, stream[0], "random"]
        for name in sets
        for stream in _STREAMS
        for method in (_KEEP, _DEDUP)
    }
    worst = min(less, key=partial(_of, less))
    return [*checks, Check(f"the least gain over random, {', '.join(worst)}", less[worst], ">=", -0.005)]


def _of(less: Mapping[tuple[str, str, str], float], key: tuple[str, str, str]) -> float:
    return less[key]


def _promises(size: Size, tell: Callable[[str], None]) -> list[Check]:
    budgets, biases = [], {}
    for name in size.sets:
        tell(f"{name}, promises")
        budgets += [budget(name, share, 0) for share in (0.01, 0.1)]
        if size.draws:
            biases[name] = bias(name, 0, size.draws)
    checks = [
        Check("budget, |spent - asked| / asked, the worst", max(one.off for one in budgets), "<=", 0.02),
        Check("the densest 200 windows, in shares", max(one.densest for one in budgets), "<=", 3.0),
    ]
    if biases:
        worst = max(biases, key=lambda name: abs(biases[name][0]))
        mean, error = biases[worst]
        name = f"accuracy by weights, |bias| ± {error:.4f}, the worst: {worst}"
        checks.append(Check(name, abs(mean), "<=", 0.005))
    return checks


def _draw(found: Found) -> None:
    """Draw accuracy over labels."""
    import matplotlib as mpl  # noqa: PLC0415 - the benchmark's own dependency

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after its backend was chosen

    plt.rcParams["svg.hashsalt"] = "mlade"
    names = [name for name in ("digits", "segments") if (name, _SINGLE[0], _KEEP) in found]
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3.6), layout="constrained")
    for name, axis in zip(names, np.atleast_1d(axes), strict=True):
        for method in ("random", "fixed band", "entropy, keep", _KEEP, "Split"):
            outcomes = found[name, _SINGLE[0], method]
            labels = np.mean([outcome.labels for outcome in outcomes], axis=0)
            accuracies = np.array([outcome.accuracies for outcome in outcomes])
            error = accuracies.std(axis=0, ddof=1) / np.sqrt(len(outcomes))
            axis.errorbar(labels, accuracies.mean(axis=0), error, capsize=2, marker=".", label=method)
        axis.set(title=f"{name}, {_SINGLE[0]} kept", xlabel="labels", ylabel="accuracy, held out")
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[-1].legend(loc="lower right", fontsize="small")
    figure.savefig(_PLOT, metadata={"Date": None})
    plt.close(figure)
