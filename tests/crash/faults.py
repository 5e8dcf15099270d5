"""What goes wrong beside the processor: the network, its files, the broker."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from tests.crash.player import Player
from tests.mosquitto import Mosquitto, MosquittoError
from tests.proxy import Proxy

FaultKind = Literal[
    "cut", "cut in mid-packet", "swallowed", "refused", "files replaced", "files unwritable", "broker restarted"
]
KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)


class Fault(NamedTuple):
    """Something that goes wrong in a life.

    Attributes:
        moment: seconds after the start.
        kind: what.
        lasts: seconds until it is mended; the next lives may begin in it.
        size: bytes after which a connection is cut in mid-packet.
    """

    moment: float
    kind: FaultKind
    lasts: float = 0.0
    size: int = 0


class Accepted:
    """The files bridge's directory, which is taken away, or made unwritable, under the bridge.

    What was in it is kept beside it; the bridge makes a new one when it can again.
    """

    def __init__(self, directory: Path) -> None:
        """Take `directory` away; it may not be there yet."""
        self._directory = directory
        self._aside = itertools.count(1)
        self._obstacles: list[Path] = []

    def replace_by_file(self) -> None:
        """Put a file where the directory was."""
        self.give_back()
        self._replace(self._directory)

    def make_unwritable(self) -> None:
        """Let nothing be made in it; root, whom no permission stops, finds files where the folders of a day were."""
        self.give_back()
        self._directory.mkdir(exist_ok=True)
        if os.geteuid():
            self._directory.chmod(0o555)
            for folder in self._directory.glob("date=*"):
                folder.chmod(0o555)
        else:
            for folder in [*self._directory.glob("date=*")]:
                self._replace(folder)

    def _replace(self, folder: Path) -> None:
        aside = self._directory.with_name(f"{self._directory.name}-{next(self._aside)}")
        if folder != self._directory:
            aside.mkdir()
            aside /= folder.name
        with suppress(FileNotFoundError):
            folder.rename(aside)
        try:
            folder.write_text("no directory")
        except IsADirectoryError:  # the bridge was faster, and has made a new one
            self._replace(folder)
        else:
            self._obstacles.append(folder)

    def give_back(self) -> None:
        """Let the bridge write again."""
        while self._obstacles:
            self._obstacles.pop().unlink()
        for folder in [self._directory, *self._directory.glob("date=*")]:
            with suppress(FileNotFoundError):
                folder.chmod(0o755)


class Faults:
    """Makes things fail around one processor, and mends them when it is time. Used by one thread.

    Attributes:
        counts: faults so far, by kind.
    """

    def __init__(self, proxy: Proxy, accepted: Accepted, restart_broker: Callable[[], bool]) -> None:
        """Fail on the way to the broker, and where the files go.

        Args:
            proxy: on the way to the broker.
            accepted: where the files go.
            restart_broker: begins a restart, and returns whether it did.
        """
        self.counts: Counter[FaultKind] = Counter()
        self._proxy = proxy
        self._accepted = accepted
        self._restart_broker = restart_broker
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def schedule(self, faults: Sequence[Fault]) -> None:
        """Let faults happen, from now on."""
        now = time.monotonic()
        for fault in faults:
            self._at(now + fault.moment, partial(self._break, fault))

    def _at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (moment, next(self._order), action))

    def _break(self, fault: Fault) -> None:
        if fault.kind == "broker restarted":
            self.counts[fault.kind] += self._restart_broker()
            return
        self.counts[fault.kind] += 1
        if fault.kind == "cut":
            self._proxy.cut()
        elif fault.kind == "cut in mid-packet":
            self._proxy.cut_after(fault.size)
        elif fault.kind == "swallowed":
            self._proxy.swallow()
        elif fault.kind == "refused":
            self._proxy.refuse()
        elif fault.kind == "files replaced":
            self._accepted.replace_by_file()
        else:
            self._accepted.make_unwritable()
        mend = self._accepted.give_back if fault.kind.startswith("files") else self._proxy.heal
        self._at(time.monotonic() + fault.lasts, mend)

    def seconds_until_due(self) -> float:
        """Return how long there is nothing to do."""
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else float("inf")

    def tick(self) -> None:
        """Do what is due."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def mend(self) -> None:
        """Mend everything at once, and let nothing more happen."""
        self._due.clear()
        self._proxy.heal()
        self._accepted.give_back()


class Restarts:
    """Restarts a broker in order, while nothing is underway to it but what processors send.

    A message on its way to a broker that ends may come to it twice, and be two messages for everybody behind it.
    """

    def __init__(self, broker: Mosquitto, players: Sequence[Player]) -> None:
        """Restart `broker`, whose publishers are `players`, connected to it first."""
        self._broker = broker
        self._players = players
        self._thread: threading.Thread | None = None
        self.failure: str | None = None

    def begin(self) -> bool:
        """Begin one in a thread of its own, unless one is underway; any thread. Returns whether it did."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._restart, name="restart", daemon=True)
        self._thread.start()
        return True

    def finish(self) -> None:
        """Wait for the one that is underway."""
        if self._thread is not None:
            self._thread.join()

    def _restart(self) -> None:
        try:
            with ExitStack() as cleanup:
                for player in self._players:
                    cleanup.enter_context(player.held())
                before = [player.connects for player in self._players]
                self._broker.restart()
                for player, connects in zip(self._players, before, strict=True):
                    player.wait_for_connection(connects)
        except (MosquittoError, TimeoutError) as error:
            self.failure = str(error)
