"""`mlade demo`, from start to end: broker, processor, watches, an operator who changes the filter, and a summary."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape

from processor.demo import broker, summary, workspace
from processor.demo.broker import Broker
from processor.demo.child import Child
from processor.demo.control_room import ControlRoom, Document
from processor.demo.display import Display, describe_filter
from processor.demo.player import WATCHES, Player
from processor.demo.workspace import Workspace
from processor.errors import MladeError

ROOT: Final = "mlade/demo"
"""What the processor's own topics start with, as in the demo's processor.yaml."""

_START: Final = 20.0
"""Seconds the processor may take until it is online."""
_ANSWER: Final = 10.0
"""Seconds it may take to answer, to catch up with the watches, and to hand out its last samples."""
_STOP: Final = 6.0
"""Seconds a process may take to end; the processor promises five."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The user, or the system, has ended the demo; no error, so it passes by whoever handles those.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        self.number = number
        super().__init__(f"The demo was ended by {signal.Signals(number).name}; what it had started has ended too.")


def run_demo(*, seconds: float, speed: float, out: Path, as_json: bool) -> int:
    """Run the demo and return the exit code. Main thread only, because it takes the signals.

    Ctrl-C while the watches play ends the demo early with its summary; again, or at another time, at once.

    Args:
        seconds: how long the watches play.
        speed: how much faster than real time.
        out: directory for the configuration and the samples.
        as_json: print one JSON object to stdout, and everything else to stderr.
    """
    console = Console(stderr=as_json, highlight=False)
    if not (1 <= seconds <= 86_400 and 0.1 <= speed <= 1000):  # noqa: PLR2004 - said in the next line
        console.print(
            f"Found {seconds:g} seconds at {speed:g} times real time; expected 1 to 86400 seconds at 0.1 to 1000 times."
        )
        return 2
    try:
        with ExitStack() as cleanup:
            place = cleanup.enter_context(workspace.prepare(out))
            result = _Demo(console, place, cleanup).run(seconds, speed, out)
    except Interrupted as error:
        console.print(str(error), soft_wrap=True)
        return 128 + error.number
    except MladeError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        sys.stdout.flush()
    return 0


class _Demo:
    """One run. Main thread; what it starts, `cleanup` ends."""

    def __init__(self, console: Console, place: Workspace, cleanup: ExitStack) -> None:
        self._console = console
        self._place = place
        self._cleanup = cleanup
        self._children: dict[str, Child] = {}
        self._signals: list[int] = []
        self._may_end_early = False

    def run(self, seconds: float, speed: float, out: Path) -> dict[str, Any]:
        """Tell the story; return what `--json` prints."""
        self._take_signals()
        running = self._start_broker()
        self._place.configure(running.port, mqtt_5=running.mqtt_5)
        player = Player(running.port, seconds=seconds, speed=speed)
        room = ControlRoom(ROOT, heard=lambda metrics: player.processed(metrics["counters"]["messages"]))
        self._cleanup.callback(room.close)
        room.connect(running.port)
        processor = self._start_processor(room)
        self._introduce(running, room, speed, out)
        elapsed = self._play(player, room, seconds)
        self._finish(player, room)
        self._stop_processor(processor, room)
        events = self._read_back(room)
        summary.show(self._console, room.seen, events, out, self._place)
        return summary.totals(room.seen, elapsed)

    # --- Start.

    def _take_signals(self) -> None:
        def note(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)

        for number in _SIGNALS:
            self._cleanup.callback(signal.signal, number, signal.signal(number, note))

    def _start_broker(self) -> Broker:
        candidates = broker.candidates()
        for mosquitto in candidates:
            try:
                running = broker.start(self._place, mosquitto, self._look_after)
                break
            except MladeError as error:
                if mosquitto is candidates[-1]:
                    raise
                self._console.print(f"{error}\nGoing on with the embedded broker.\n", markup=False, soft_wrap=True)
        self._cleanup.callback(running.child.stop, _STOP)
        self._children["broker"] = running.child
        return running

    def _start_processor(self, room: ControlRoom) -> Child:
        # What the user has set for a processor of their own is not meant for this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLADE_")}
        command = [sys.executable, "-P", "-m", "processor", "run", "-c", str(self._place.configuration)]
        processor = Child(command, self._place.processor_log, environment)
        self._cleanup.callback(processor.stop, _STOP)
        self._children["processor"] = processor
        if not self._wait_for(room, lambda: room.seen.online and bool(room.seen.state), _START):
            raise MladeError(self._blame("processor", f"was not online within {_START:g} s"))
        return processor

    def _introduce(self, running: Broker, room: ControlRoom, speed: float, out: Path) -> None:
        say = self._console.print
        say(f"[b]mlade demo[/b]: {WATCHES} recorded smart watches, {speed:g} times faster than real time")
        say(f"  broker     {running.name} on mqtt://{broker.HOST}:{running.port}")
        say(f"  processor  mlade run -c {escape(str(out))}/processor.yaml")
        say("  model      what is the wearer doing? 4 activities, from 2 s of 6 channels")
        say(f"  filter     {describe_filter(room.seen.state['active'])}\n")

    # --- Play.

    def _play(self, player: Player, room: ControlRoom, seconds: float) -> float:
        """Let the watches play, and the operator change the filter half way; return the seconds it took."""
        self._cleanup.callback(player.close)
        self._may_end_early = True
        player.start()
        started = time.monotonic()

        def elapsed() -> float:
            return time.monotonic() - started

        with Display(self._console, seconds) as display:

            def ended() -> bool:
                if self._signals and not player.stopping:
                    player.stop()
                    display.say(f"  {elapsed():4.1f} s  the watches stop; Ctrl-C again ends everything at once")
                display.update(elapsed(), room.seen.metrics, room.seen.state["active"])
                if player.failure:
                    self._look_after()  # an ended broker explains it better
                    raise MladeError(player.failure)
                return player.ended()

            self._wait_for(room, lambda: ended() or elapsed() >= seconds / 2, seconds)
            if not player.ended() and not self._signals:
                self._tighten(room, display, elapsed())
            if not self._wait_for(room, ended, seconds + _ANSWER):
                raise MladeError(
                    f"The broker has acknowledged {player.confirmed:,} of the {player.published:,} readings, the rest "
                    f"not within {_ANSWER:g} s."
                )
        return elapsed()

    def _tighten(self, room: ControlRoom, display: Display, elapsed: float) -> None:
        """Change the filter as an operator would, and show the processor's answer."""
        display.say(f"  {elapsed:4.1f} s  an operator publishes a tighter filter on {ROOT}/filter, retained")
        room.command("status")  # how the scores stand before the change, which begins their histogram anew
        asked = time.monotonic()
        digest = room.set_filter(self._place.tightened.read_bytes())
        if not self._wait_for(room, lambda: room.seen.state.get("sha256") == digest, _ANSWER):
            raise MladeError(self._blame("processor", f"did not answer on {ROOT}/filter/state within {_ANSWER:g} s"))
        state = room.seen.state
        if state["status"] != "applied":
            raise MladeError(f"The processor rejected the demo's filter: {state['errors']}.")
        took = (time.monotonic() - asked) * 1000
        display.say(f"          {ROOT}/filter/state: applied as revision {state['revision']}, {took:.0f} ms later")
        display.say(f"          now {describe_filter(state['active'])}")

    # --- End.

    def _finish(self, player: Player, room: ControlRoom) -> None:
        """Wait until everything that the broker took has been judged and every sample has been handed out."""

        def read() -> int:
            return int(room.seen.metrics.get("counters", {}).get("messages", 0))

        if not self._wait_for(room, lambda: read() >= player.confirmed, _ANSWER):
            raise MladeError(
                self._blame("processor", f"has read {read():,} of {player.confirmed:,} messages {_ANSWER:g} s later")
            )
        flushed = self._ask(room, "flush")
        if flushed["status"] != "ok":
            raise MladeError(self._blame("processor", f"could not hand out its samples: {flushed['error']}"))
        self._ask(room, "status")  # the last metrics
        kept = room.seen.metrics["counters"]["accepted"]
        if not self._wait_for(room, lambda: len(room.seen.samples) >= kept, _ANSWER):
            raise MladeError(f"Of {kept:,} samples, {len(room.seen.samples):,} have come by MQTT.")

    def _ask(self, room: ControlRoom, command: str) -> Document:
        identifier = room.command(command)
        if not self._wait_for(room, lambda: identifier in room.seen.answers, 2 * _ANSWER):
            raise MladeError(self._blame("processor", f"did not answer the command {command}"))
        return room.seen.answers[identifier]

    def _stop_processor(self, processor: Child, room: ControlRoom) -> None:
        """End the processor as a supervisor would, and see that it says so."""
        del self._children["processor"]
        code = processor.stop(_STOP)
        if code != 0:
            found = f"did not end within {_STOP:g} s" if code is None else f"ended with exit code {code} instead of 0"
            raise MladeError(f"The processor {found} on SIGTERM; the end of its log:{processor.last_words()}")
        if not self._wait_for(room, lambda: not room.seen.online, _ANSWER):
            raise MladeError(f"The processor ended without saying offline on {ROOT}/status.")

    def _read_back(self, room: ControlRoom) -> list[Document]:
        events = summary.read_back(self._place.accepted, room.seen.filters)
        kept = room.seen.metrics["counters"]["accepted"]
        if len(events) != kept or room.seen.samples != {event["id"] for event in events}:
            raise MladeError(
                f"The processor accepted {kept:,} windows, but {len(events):,} samples are in {self._place.accepted} "
                f"and {len(room.seen.samples):,} came by MQTT."
            )
        return events

    # --- While waiting.

    def _wait_for(self, room: ControlRoom, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so; False when it was not for `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._look_after()
            if time.monotonic() >= deadline:
                return False
            room.changed.wait(0.05)
            room.changed.clear()
        return True

    def _look_after(self) -> None:
        """Raise when the demo was interrupted or something it needs has ended."""
        if self._signals and (self._signals != [signal.SIGINT] or not self._may_end_early):
            raise Interrupted(self._signals[-1])
        for name, child in self._children.items():
            if (code := child.exit_code()) is not None:
                raise MladeError(self._blame(name, f"has ended by itself, with exit code {code}"))

    def _blame(self, name: str, found: str) -> str:
        child = self._children[name]
        return f"The {name} {found}; the end of {child.log}:{child.last_words()}"
