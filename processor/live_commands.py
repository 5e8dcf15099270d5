"""What someone asks of the processor, over the broker or from the cloud, and how it is carried out and answered.

Everything here happens on the pipeline thread, between two batches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from processor import __version__
from processor.cloud import Method, Notice
from processor.delivery import Delivery
from processor.document import describe
from processor.events import timestamp
from processor.lanes import Lane
from processor.protocols import Clock
from processor.reporting import Reporting
from processor.store import Store

log = logging.getLogger(__name__)

COMMANDS: Final = ("heartbeat", "pause", "resume", "flush", "status", "reload_model")

Answer = Callable[[int, Mapping[str, Any]], None]
"""Takes a status, numbered as in HTTP and IoT Hub, and a JSON object: `status` is `ok`, or `error` with an `error`."""

OK: Final = 200
BAD_REQUEST: Final = 400
UNKNOWN: Final = 404
BUSY: Final = 409
LATER: Final = 503
"""It may work when the disk has room, or the bridges deliver, again."""

_FLUSH_PATIENCE: Final = 10.0
_FLUSH_LOOK: Final = 0.02
_MOST_FLUSHES: Final = 100
"""Commands to flush that may wait for their answer."""


@dataclass(frozen=True, slots=True)
class Command:
    """What someone asks of the processor.

    Attributes:
        name: one of `COMMANDS`.
        id: what the asker called it, returned with the answer.
    """

    name: str
    id: object


class Refusal(NamedTuple):
    """Why something is no command."""

    status: int
    sentence: str


def parse_command(payload: bytes) -> Command | Refusal:
    """Return the command in a message's payload, or what is wrong with it."""
    expected = f'expected {{"command": …, "id": …}} with one of {", ".join(COMMANDS)}'
    try:
        data = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Refusal(BAD_REQUEST, f"not JSON ({error}); {expected}")
    if not isinstance(data, dict) or not isinstance(data.get("command"), str):
        return Refusal(BAD_REQUEST, f"no command; {expected}")
    if isinstance(data.get("id"), dict | list):
        return Refusal(BAD_REQUEST, "the id is an object or an array; expected text or a number")
    if data["command"] not in COMMANDS:
        return Refusal(UNKNOWN, f"unknown command {data['command']!r:.60}; {expected}")
    return Command(data["command"], data.get("id"))


def parse_method(method: Method) -> Command | Refusal:
    """Return the command that a direct method names, or what is wrong with it."""
    if method.name not in COMMANDS:
        return Refusal(UNKNOWN, f"unknown method {method.name!r:.60}; expected one of {', '.join(COMMANDS)}")
    payload = {} if method.payload in (None, "") else method.payload
    if not isinstance(payload, dict) or payload.keys() - {"id"} or isinstance(payload.get("id"), dict | list):
        text = 'expected no payload, or {"id": …} with text or a number'
        return Refusal(BAD_REQUEST, f"found {describe(method.payload)} as the payload of {method.name}, {text}")
    return Command(method.name, payload.get("id"))


def heartbeat(processor: str) -> Notice:
    """Return the message that MLADE sent for a direct method, as a JSON text."""
    body = msgspec.json.encode(f"Module [{processor}] is Running")
    return Notice(body, {"MessageType": "heartbeat"}, output="heartbeat")


def error(sentence: str) -> dict[str, Any]:
    """Return the body of an answer that says what went wrong."""
    return {"status": "error", "error": sentence}


class _Flush(NamedTuple):
    """A command to flush that waits for its answer."""

    until: float
    """On the monotonic clock."""
    numbers: list[int]
    """Of the flush, by delivery."""
    answer: Answer


class Commands:
    """Carries commands out, whoever asked."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        store: Store,
        deliveries: Sequence[Delivery],
        reporting: Reporting,
        clock: Clock,
        reloads: Mapping[str, Callable[[Answer], None]],
    ) -> None:
        """Take what `app.build` made.

        Args:
            lanes: to pause.
            store: for what is left in the outbox.
            deliveries: to flush.
            reporting: for the answer to `status`.
            clock: for intervals.
            reloads: for each model, look again at what its path leads to, and answer.
        """
        self._lanes = lanes
        self._store = store
        self._deliveries = deliveries
        self._reporting = reporting
        self._clock = clock
        self._reloads = reloads
        self._flushes: list[_Flush] = []

    def carry_out(self, name: str, answer: Answer) -> tuple[dict[str, Any], Callable[[], None]]:
        """Find out what one of `COMMANDS` needs.

        Returns:
            What has to be on disk first; and what then carries it out and answers.
        """
        log.info("Command %s.", name)
        match name:
            case "pause" | "resume":
                wanted = name == "pause"

                def turn() -> None:
                    for lane in self._lanes:
                        lane.computation.paused = wanted
                    answer(OK, {"status": "ok", "paused": wanted})

                return {"paused": wanted}, turn
            case "flush":
                return {}, lambda: self._flush(answer)
            case "status":
                return {}, lambda: answer(OK, {"status": "ok"} | self._reporting.snapshot())
            case "reload_model":
                return {}, lambda: self._reload(answer)
            case _:
                body = {"status": "ok", "version": __version__, "time": timestamp(self._clock.wall())}
                return {}, lambda: answer(OK, body)

    def _reload(self, answer: Answer) -> None:
        """Have all models looked for anew; of several, the answers are given together."""
        if len(self._reloads) == 1:
            (only,) = self._reloads.values()
            only(answer)
            return
        told: dict[str, tuple[int, Mapping[str, Any]]] = {}

        def take(name: str, status: int, body: Mapping[str, Any]) -> None:
            told[name] = (status, body)
            if len(told) < len(self._reloads):
                return
            failed = "; ".join(f"{name}: {one['error']}" for name, (_, one) in told.items() if "error" in one)
            whole = error(failed) if failed else {"status": "ok"}
            answer(
                max(code for code, _ in told.values()), whole | {"models": {key: one for key, (_, one) in told.items()}}
            )

        for name, reload in self._reloads.items():
            reload(partial(take, name))

    def _flush(self, answer: Answer) -> None:
        if len(self._flushes) >= _MOST_FLUSHES:
            answer(BUSY, error("too many flushes are under way already; wait for their answers"))
            return
        numbers = [delivery.flush() for delivery in self._deliveries]
        self._flushes.append(_Flush(self._clock.monotonic() + _FLUSH_PATIENCE, numbers, answer))

    def seconds_until_due(self) -> float:
        """Return the seconds until `tick` has something to do; infinite where it has nothing."""
        return _FLUSH_LOOK if self._flushes else math.inf

    def tick(self) -> None:
        """Answer the flushes that are done, or will not be in time."""
        if not self._flushes:
            return
        now = self._clock.monotonic()
        left = []
        for flush in self._flushes:
            done = all(one.flushed(number) for one, number in zip(self._deliveries, flush.numbers, strict=True))
            if not done and now < flush.until:
                left.append(flush)
                continue
            errors = [f"{one.name}: {one.state.error}" for one in self._deliveries if one.state.error]
            body: dict[str, Any] = {"status": "ok", "outbox": self._store.totals.rows}
            if not done or errors:
                text = "; ".join(errors) or f"not everything was delivered within {_FLUSH_PATIENCE:.0f} s"
                body |= error(text)
            flush.answer(LATER if "error" in body else OK, body)
        self._flushes = left
