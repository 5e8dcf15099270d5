"""Sends messages over one connection, several under way at a time, until all are acknowledged or it is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from processor.bridges.iothub.connection import Connection
from processor.bridges.iothub.errors import explain
from processor.bridges.iothub.messages import Message, packed, single
from processor.bridges.iothub.rate import Flow, Rate
from processor.bridges.iothub.upload import LONGEST_UPLOAD, DoesNotTakeNow, Uploads, WillNeverTake
from processor.errors import BridgeError
from processor.outbox import Claim
from processor.protocols import Clock, Handover

_BYTES_UNDER_WAY: Final = 1 << 20
"""One message excepted: over a slow link what takes long to send takes long to answer."""
_SLOWEST: Final = 64 << 10
"""Bytes a second that a link is taken to carry at least; over a slower one, losses make what is under way less."""
_LOOK: Final = 0.2
"""Seconds after which it is looked whether the time is up."""


_STRIKES: Final = 3
"""Connections that a message may end while it was alone under way and others were taken, before it is the reason."""
_MOST_SUSPECTS: Final = 1000


class Lost(BridgeError):
    """The connection is of no use any more; the text is a clause that says why."""


@dataclass(slots=True)
class Sent:
    """What was brought over since the start.

    Attributes:
        messages: acknowledged.
        blocks: that the hub bills for them.
        samples: in them.
        uploads: samples that went to the storage account.
    """

    messages: int = 0
    blocks: int = 0
    samples: int = 0
    uploads: int = 0


class Parcel(NamedTuple):
    """A message, and what it brings over."""

    claim: Claim
    message: Message
    """Empty where it is to be made of what an upload gives."""
    is_whole: bool
    """Whether the claim is this message, and nothing else."""
    large: bytes | None = None
    """The event of its one sample, where that is too large for a message."""


@dataclass(slots=True)
class Exchange:
    """One delivery over one connection. The delivery thread.

    Attributes:
        connection: the connection.
        handover: who is told.
        flow: how many may be under way.
        rate: how fast.
        clock: for deadlines.
        timeout: seconds for a message's acknowledgement.
        sent: what is counted.
        uploads: for samples that are too large; None: they are refused.
        suspects: by id, the strikes of messages that were alone under way when a connection was lost; kept over
            deliveries. They are sent last, each alone, so that they hold nothing up.
        meanwhile: called now and then.
    """

    connection: Connection
    handover: Handover
    flow: Flow
    rate: Rate
    clock: Clock
    timeout: float
    sent: Sent
    uploads: Uploads | None
    suspects: dict[str, int]
    meanwhile: Callable[[], None]
    _under_way: dict[asyncio.Task[Message], tuple[Parcel, float]] = field(default_factory=dict)
    _done: deque[asyncio.Task[Message]] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _bytes: int = 0
    _complaint: str | None = None

    async def run(self, parcels: Iterator[Parcel]) -> None:
        """Send all of them.

        Raises:
            Lost: the connection was, or a message was not acknowledged in time.
            BridgeError: the day's quota is used up, or a place for uploads does not do its part.
        """
        parcels = self._suspects_last(parcels)
        try:
            waiting = next(parcels, None)
            while waiting is not None or self._under_way:
                pause = _LOOK
                while waiting is not None and self._has_room(waiting) and self.handover.seconds_left() > 0:
                    pause = self.rate.wait(waiting.message.blocks)
                    if pause > 0:
                        break
                    self._start(waiting)
                    waiting = next(parcels, None)
                if self._under_way or (waiting is not None and not self._is_over(waiting)):
                    await self._wait(min(pause, _LOOK) or _LOOK)
                else:
                    break
        finally:
            self.handover.remember(self.rate.memory())
            for task in self._under_way:
                task.cancel()
        if self._complaint:
            raise BridgeError(self._complaint)

    def _suspects_last(self, parcels: Iterator[Parcel]) -> Iterator[Parcel]:
        put_off = []
        for parcel in parcels:
            if parcel.message.id in self.suspects:
                put_off.append(parcel)
            else:
                yield parcel
        yield from put_off

    def _is_over(self, waiting: Parcel) -> bool:
        """Return whether nothing more can be sent in this delivery; nothing is under way."""
        if self.handover.seconds_left() <= 0:
            return True
        if self.rate.is_used_up(waiting.message.blocks):
            self._complaint = "the day's quota, rate.messages_per_day, is used up; going on at midnight UTC"
            return True
        return False

    def _has_room(self, parcel: Parcel) -> bool:
        if not self._under_way:
            return True
        if parcel.message.id in self.suspects:
            return False
        size = len(parcel.message.body)
        return len(self._under_way) < self.flow.window and self._bytes + size <= _BYTES_UNDER_WAY * self.flow.share

    def _start(self, parcel: Parcel) -> None:
        self.rate.take(parcel.message.blocks)
        self._bytes += len(parcel.message.body)
        task = asyncio.get_running_loop().create_task(self._send(parcel))
        until = self.clock.monotonic() + self.timeout + self._bytes / _SLOWEST
        if parcel.large is not None:
            until += LONGEST_UPLOAD
        self._under_way[task] = (parcel, until)
        task.add_done_callback(self._finished)

    async def _send(self, parcel: Parcel) -> Message:
        """Send a message, and return it."""
        message = parcel.message
        if parcel.large is not None:
            if self.uploads is None:
                raise WillNeverTake(f"its {len(parcel.large)} bytes are too large for a message, and upload is never")
            (sample,) = message.samples
            event = await self.uploads.store(self.connection, sample.id, parcel.large)
            message = packed([(sample, event)]) if parcel.claim.number else single(sample, event)
            self.sent.uploads += 1
        await self.connection.send(message)
        return message

    def _finished(self, task: asyncio.Task[Message]) -> None:
        self._done.append(task)
        self._news.set()

    async def _wait(self, seconds: float) -> None:
        """Wait until something was acknowledged, and say so."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        self.meanwhile()
        while self._done:
            self._take(self._done.popleft())
        self._check_time()

    def _take(self, task: asyncio.Task[Message]) -> None:
        parcel, _ = self._under_way.pop(task)
        self._bytes -= len(parcel.message.body)
        error = task.exception()
        if isinstance(error, WillNeverTake):
            self.handover.refuse(parcel.message.samples[0], str(error))
        elif isinstance(error, DoesNotTakeNow):
            self._put_off(parcel, str(error))
        elif error is not None:
            if not self._under_way:
                self._suspect(parcel.message)
            raise Lost(explain(error)) from error
        else:
            self._confirm(parcel, task.result())

    def _put_off(self, parcel: Parcel, why: str) -> None:
        """Go on with the others; nothing that is claimed can be held."""
        if parcel.claim.number:
            self._complaint = why
        else:
            self.handover.hold(parcel.message.samples[0], why)

    def _confirm(self, parcel: Parcel, message: Message) -> None:
        self.flow.acknowledged()
        self.suspects.pop(message.id, None)
        self.sent.messages += 1
        self.sent.blocks += message.blocks
        self.sent.samples += len(message.samples)
        self.handover.remember(self.rate.memory())
        if parcel.claim.number and parcel.is_whole:
            self.handover.confirm(parcel.claim)
        else:
            self.handover.confirm(parcel.claim, message.samples)

    def _check_time(self) -> None:
        if not self._under_way:
            return
        time_is_up = self.handover.seconds_left() <= 0
        if time_is_up or self.clock.monotonic() >= min(until for _, until in self._under_way.values()):
            if len(self._under_way) == 1 and not time_is_up:
                self._suspect(next(iter(self._under_way.values()))[0].message)
            count = len(self._under_way)
            what = "a message was" if count == 1 else f"{count} messages were"
            raise Lost(f"{what} not acknowledged in time")

    def _suspect(self, message: Message) -> None:
        """Take note that a message was alone under way when the connection was lost."""
        known = self.suspects.pop(message.id, None)
        if known is None and len(self.suspects) >= _MOST_SUSPECTS:  # of samples that have aged out
            self.suspects.clear()
        strikes = (known or 0) + (known is not None and self.connection.acknowledged > 0)
        if strikes < _STRIKES:
            self.suspects[message.id] = strikes
            return
        why = f"the hub ended {strikes} connections over its message of {message.size} bytes, and took others over them"
        for sample in message.samples:
            self.handover.refuse(sample, why)
