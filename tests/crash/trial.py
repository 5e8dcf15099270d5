"""One processor that is disturbed, beside one that is not, with the same id, configuration and messages."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from processor import deadletters
from tests import models
from tests.crash.comparison import Files, Subscriber, differences, list_differences, misjudged, same
from tests.crash.expectation import SOURCE, Expectation, Shape
from tests.crash.faults import Accepted, Faults
from tests.crash.plan import FIRST_LIVES, End, Life
from tests.crash.player import Player
from tests.crash.processes import VictimProcess, rss
from tests.crash.recording import FIELDS, MAX_GAP, SECOND, Recording, document, first_filter
from tests.crash.victim import ANY_STATEMENT
from tests.mosquitto import Mosquitto
from tests.proxy import Proxy
from tests.running import ProcessorProcess

_LOOK: Final = 0.005
"""Seconds between two looks at whether a processor is connected."""
_SLOW_LOOK: Final = 0.05
_POINT_PATIENCE: Final = 15.0
_CONNECT_PATIENCE: Final = 5.0
_STOP_LIMIT: Final = 5.0
_PREFIX: Final = "mlade"


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind of processor is tried.

    Attributes:
        name: its id.
        protocol: MQTT version.
        shape: of its windows.
        receive_maximum: messages in flight; MQTT 5 only.
        batch: messages in a batch at most; of the undisturbed one it is another number.
        wide: whether it also has filters that overlap the first, and those that match its own topics.
        opening: whether there are retained readings before its first start.
        remembers: whether its filters have a rule that remembers. Not where windows may be equal: the second of two has
            the same id, and may be judged otherwise.
        sparse: whether its messages leave out what has not changed, so that its source holds values.
    """

    name: str
    protocol: int | str
    shape: Shape
    receive_maximum: int = 1000
    batch: int = 32
    wide: bool = False
    opening: bool = False
    remembers: bool = False
    sparse: bool = False


class Trial:
    """Lives of the disturbed processor, and what came of them.

    Attributes:
        kind: of processor.
        player: plays the recording.
        faults: what goes wrong.
        kills: lives that ended with SIGKILL.
        ends: of its lives, by how they ended.
        lives: all of them, in words.
        violations: what must not be, as sentences.
        expectation: of the recording as far as it was played.
    """

    def __init__(
        self, kind: Kind, directory: Path, seed: int, *, rate: float, disturbed: Mosquitto, calm: Mosquitto,
        restart_broker: Callable[[], bool], cleanup: ExitStack,
    ) -> None:  # fmt: skip
        """Prepare everything; nothing is started but the player's connections.

        Args:
            kind: of processor.
            directory: for its files.
            seed: of the recording.
            rate: messages a second.
            disturbed: the broker of the disturbed processor.
            calm: the broker of the other one.
            restart_broker: begins a restart of the former.
            cleanup: ends what was started.
        """
        self.kind = kind
        self.kills = 0
        self.ends: Counter[End] = Counter()
        self.lives: list[str] = []
        self.violations: list[str] = []
        self._root = f"{_PREFIX}/{kind.name}"
        prefix = f"plant-{kind.name}/"
        proxy = cleanup.enter_context(Proxy(disturbed.host, disturbed.port))
        labels = models.ACTIVITIES
        model = (
            models.dense(metadata={"labels": ",".join(labels)})
            if kind.shape.size == 1
            else models.cnn(size=kind.shape.size)
        )
        path = models.write(model, directory)
        self.expectation = Expectation(kind.name, prefix, kind.shape, path, labels, remembers=kind.remembers)
        self._directories = {}
        for name in ("disturbed", "undisturbed"):
            self._directories[name] = directory / name
            self._directories[name].mkdir()
        accepted = Accepted(self._directories["disturbed"] / "accepted")
        self.faults = Faults(proxy, accepted, restart_broker)
        self._victim = VictimProcess(self._directories["disturbed"], self._configuration(proxy.url, path, prefix))
        cleanup.callback(self._victim.kill)
        self._witness = ProcessorProcess(
            self._directories["undisturbed"],
            self._configuration(calm.url, path, prefix) | {"model": self._model(path, batch=512)},
        )
        cleanup.callback(self._witness.kill)
        recording = Recording(seed, remembers=kind.remembers, sparse=kind.sparse)
        self.player = Player(
            recording, prefix=prefix, filter_topic=f"{self._root}/filter", rate=rate, tell=self.expectation.take
        )
        cleanup.callback(self.player.close)
        self.player.connect([disturbed.port, calm.port])
        if kind.opening:
            self.player.play(recording.opening())
        self._files = Files(f"{kind.name}, files", self._directories["disturbed"])
        self._mqtt = Subscriber(f"{kind.name}, mqtt", disturbed.port, self._root)
        self._wanted_files = Files(f"{kind.name} undisturbed, files", self._directories["undisturbed"])
        self._wanted_mqtt = Subscriber(f"{kind.name} undisturbed, mqtt", calm.port, self._root)
        cleanup.callback(self._mqtt.close)
        cleanup.callback(self._wanted_mqtt.close)

    def _configuration(self, url: str, model: Path, prefix: str) -> dict[str, Any]:
        source: dict[str, Any] = {"missing": "hold"} if self.kind.sparse else {}
        topics = [f"{prefix}+", *([f"{prefix}#", f"{_PREFIX}/#"] if self.kind.wide else [])]
        return {
            "id": self.kind.name,
            "broker": {"url": url, "protocol": self.kind.protocol, "receive_maximum": self.kind.receive_maximum},
            "sources": [{"name": SOURCE, "topics": topics, "fields": FIELDS, "time": "ts", **source}],
            "model": self._model(model, batch=self.kind.batch),
            "filter": document(first_filter(remembers=self.kind.remembers)),
            "bridges": [{"type": "files", "path": "./accepted", "rotate": {"max_age": "30ms"}}, {"type": "mqtt"}],
            "metrics": {"publish_every": "1s"},
            "http": {"listen": "127.0.0.1:0"},
        }

    def _model(self, path: Path, *, batch: int) -> dict[str, Any]:
        shape = self.kind.shape
        window = {
            "size": shape.size,
            "step": shape.step,
            "max_gap": f"{MAX_GAP // SECOND}s",
            "max_streams": shape.max_streams,
        }
        return {"path": str(path), "window": window, "batch": {"max_size": batch}}

    def begin(self) -> None:
        """Start both; the disturbed one dies at the points of its first lives. Then start to play."""
        self._witness.start()
        self._wait_for(lambda: self._wanted_mqtt.status == "online", "the undisturbed processor is online")
        for life in FIRST_LIVES:
            self.live(life)
        self._victim.launch()
        self._wait_for(lambda: self._mqtt.status == "online", "the disturbed processor is online")
        self.player.start()
        self._wait_for(lambda: self._mqtt.bodies and self._files.look(), "samples in both bridges")
        self._end(self._victim.kill(), killed=True)

    def live(self, life: Life) -> None:
        """Let the disturbed processor live, and end it."""
        self.lives.append(str(life))
        self.ends[life.end] += 1
        pointed = life.end in ("at a point", "at a statement")
        if life.end == "at a point":
            self.faults.mend()
        point = (life.point or ANY_STATEMENT) if pointed else None
        self._victim.launch(point, life.nth)
        self.faults.schedule(life.faults)
        if life.connected:
            self._pass(_CONNECT_PATIENCE, until=lambda: self._victim.connected)
        code = self._pass(life.after if not pointed else _POINT_PATIENCE if life.point else _CONNECT_PATIENCE)
        if life.end == "at a point" and code is None:
            self._complain(f"the point {life.point!r} was not reached within {_POINT_PATIENCE:g} s")
        if code is None and life.end in ("stopped", "killed while it stops"):
            self._stop(killed=life.end != "stopped", after=life.after)
            return
        self._end(self._victim.kill() if code is None else code, killed=True)

    def _stop(self, *, killed: bool, after: float) -> None:
        begun = time.monotonic()
        self._victim.ask_to_stop()
        code = self._pass(after if killed else 2 * _STOP_LIMIT)
        if killed:
            self._victim.kill()
        elif code is not None and time.monotonic() - begun > _STOP_LIMIT:
            self._complain(f"it took {time.monotonic() - begun:.1f} s to stop")
        self._end(self._victim.wait(0.0), killed=killed)

    def _pass(self, seconds: float, until: Callable[[], bool] = lambda: False) -> int | None:
        """Let time pass and faults happen; return the exit code if it ends meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not until():
            self.faults.tick()
            code = self._victim.wait(min(left, self.faults.seconds_until_due(), _LOOK))
            if code is not None:
                return code
        return self._victim.wait(0.0)

    def _end(self, code: int | None, *, killed: bool) -> None:
        """Look at how a life ended."""
        log = self._victim.log()
        if killed and code == -9:
            self.kills += 1
        elif code != 0 or not (killed or "Stopped" in log):
            self._complain(f"it ended with {code}")
        if "Traceback" in log or "please report it" in log or "set aside" in log:
            self._complain("its log should not say that")
        else:
            self._victim.forget_log()

    def _complain(self, what: str) -> None:
        life = self.lives[-1] if self.lives else "the first"
        self.violations.append(f"{self.kind.name}, life {self._victim.lives} ({life}): {what}\n{self._victim.log()}")

    def _wait_for(self, condition: Callable[[], object], what: str, timeout: float = 30.0) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self._complain(f"not within {timeout:g} s: {what}")
                return False
            self.faults.tick()
            time.sleep(_SLOW_LOOK)  # between two looks
        return True

    def look(self) -> None:
        """Read what the files bridges have finished; judge the undisturbed one's."""
        self._files.look()
        self.violations += misjudged(self._wanted_files.look(), self.expectation.samples, self.kind.name)

    @property
    def compared(self) -> int:
        """Samples that both processors delivered so far, over both bridges, with the same body."""
        return same(self._files, self._wanted_files) + same(self._mqtt, self._wanted_mqtt)

    @property
    def repeats(self) -> int:
        """Samples that the disturbed one delivered again."""
        return self._files.repeats + self._mqtt.repeats

    def rss(self) -> tuple[float | None, float | None]:
        """Return the resident memory of the disturbed and the undisturbed processor, in MiB."""
        return self._victim.rss(), rss(self._witness.pid)

    def settle(self, timeout: float) -> None:
        """Let the disturbed processor finish in peace, stop both, and compare. The player has stopped."""
        self.faults.mend()
        self._victim.launch()
        everything = self.expectation.samples.keys()
        letters = len(self.expectation.garbage)

        def complete() -> bool:
            self.look()
            delivered = (self._files, self._mqtt, self._wanted_files, self._wanted_mqtt)
            return all(one.bodies.keys() >= everything for one in delivered) and all(
                len(self._letters(name)) >= letters for name in self._directories
            )

        self._wait_for(complete, "all samples and dead letters are there", timeout)
        self._wait_for(
            lambda: self._answer(self._mqtt) == self._answer(self._wanted_mqtt), "the filter is answered", 5.0
        )
        code, seconds = self._victim.stop()
        if code != 0 or seconds > _STOP_LIMIT:
            self._complain(f"it took {seconds:.1f} s to stop, with exit code {code}")
        if (code := self._witness.stop()) != 0:
            self.violations.append(f"{self.kind.name} undisturbed: it ended with {code}\n{self._witness.log()}")
        self.look()
        self._compare()

    @staticmethod
    def _answer(subscriber: Subscriber) -> dict[str, Any]:
        """Return the last answer to a filter, without its time."""
        return subscriber.filter_state | {"applied_at": None}

    def _letters(self, name: str) -> Sequence[tuple[str, bytes]]:
        """Return the dead letters of a processor."""
        state = self._directories[name] / "state"
        return [(letter.topic, letter.payload) for letter in deadletters.read(state)]

    def _compare(self) -> None:
        expected, wanted, name = self.expectation, self._wanted_files, self.kind.name
        lost = sorted(expected.samples.keys() - wanted.bodies.keys())
        more = sorted(wanted.bodies.keys() - expected.samples.keys())
        if lost or more:
            self.violations.append(f"{name} undisturbed: {len(lost)} samples less and {len(more)} more than computed")
        for found in (self._files, self._mqtt, self._wanted_mqtt):
            self.violations += differences(found.name, found, wanted)
        for collection in (self._files, self._mqtt, self._wanted_files, self._wanted_mqtt):
            self.violations += collection.violations
        if wanted.received != expected.accepted:
            self.violations.append(f"{wanted.name}: {wanted.received} samples came instead of {expected.accepted}")
        answer, wanted_answer = self._answer(self._mqtt), self._answer(self._wanted_mqtt)
        if answer != wanted_answer or answer.get("revision") != expected.revision:
            self.violations.append(f"{name}: the filter's state is {answer} instead of {wanted_answer}")
        for place in self._directories:
            self.violations += list_differences(f"{name} {place}, dead letters", self._letters(place), expected.garbage)
            with closing(sqlite3.connect(self._directories[place] / "state" / "mlade.db")) as database:
                (left,) = database.execute(
                    "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM claims)"
                ).fetchone()
            if left:
                self.violations.append(f"{name} {place}: {left} samples or claims are left in the outbox")
        if unfinished := self._files.unfinished():
            self.violations.append(f"{name}: files were begun and not finished: {unfinished}")
