"""Puts brokers, players and trials together."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from tests.crash.faults import FaultKind, Restarts
from tests.crash.plan import Life
from tests.crash.player import Player
from tests.crash.trial import Kind, Trial
from tests.mosquitto import MosquittoFactory

_SETTLE_PATIENCE: Final = 90.0


class Storm:
    """One or more trials on two brokers: one that is restarted, and a calm one.

    Attributes:
        trials: one a kind of processor.
    """

    def __init__(
        self, kinds: Sequence[Kind], make_broker: MosquittoFactory, directory: Path, seed: int, *, rate: float
    ) -> None:
        """Start brokers and connect players.

        Args:
            kinds: of processors.
            make_broker: makes brokers, and ends them later.
            directory: for everybody's files.
            seed: of the recordings.
            rate: messages a second, of each player.
        """
        players: list[Player] = []
        self.trials: list[Trial] = []
        self._threads: list[threading.Thread] = []
        with ExitStack() as cleanup:
            disturbed, calm = make_broker(persistence=True), make_broker()
            self._restarts = Restarts(disturbed, players)
            for kind in kinds:
                folder = directory / kind.name
                folder.mkdir()
                trial = Trial(
                    kind, folder, seed, rate=rate, disturbed=disturbed, calm=calm,
                    restart_broker=self._restarts.begin, cleanup=cleanup,
                )  # fmt: skip
                self.trials.append(trial)
                players.append(trial.player)
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """End everything that was started."""
        self._restarts.finish()
        self._cleanup.close()

    def start(self, lives: Callable[[int], Iterable[Life]]) -> None:
        """Let each trial live its lives, in a thread of its own; `lives` are those of a trial, by its number."""
        for number, trial in enumerate(self.trials):
            thread = threading.Thread(target=_live, args=(trial, lives(number)), name=trial.kind.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all lives were lived, at most so many seconds; whether they were."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def finish(self) -> list[str]:
        """Wait, let every processor finish its work in peace, and compare.

        Returns:
            What must not be, as sentences; nothing when all sets are equal.
        """
        self.wait()
        self._restarts.finish()
        for trial in self.trials:
            trial.player.stop()
        for trial in self.trials:
            trial.settle(_SETTLE_PATIENCE)
        return self.violations()

    def violations(self) -> list[str]:
        """Return what must not be, so far."""
        failures = [*(trial.player.failure for trial in self.trials), self._restarts.failure]
        told = [text for trial in self.trials for text in trial.violations]
        return [failure for failure in failures if failure] + told

    @property
    def kills(self) -> int:
        """How often a processor was killed."""
        return sum(trial.kills for trial in self.trials)

    @property
    def faults(self) -> Counter[FaultKind]:
        """What went wrong, by kind."""
        return sum((trial.faults.counts for trial in self.trials), Counter())

    @property
    def played(self) -> int:
        """Messages published."""
        return sum(trial.player.played for trial in self.trials)

    @property
    def compared(self) -> int:
        """Samples that were compared and equal."""
        return sum(trial.compared for trial in self.trials)


def _live(trial: Trial, lives: Iterable[Life]) -> None:
    try:
        trial.begin()
        for life in lives:
            trial.live(life)
    except Exception as error:  # noqa: BLE001 - told at the end, with everything else
        trial.violations.append(f"{trial.kind.name}: the trial itself failed: {error!r}")
