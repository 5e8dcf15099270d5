"""The one loop: read → decode → window → infer → select → store → acknowledge. Delivery happens elsewhere.

One thread owns the broker's socket and everything that changes. It reads what has arrived, carries it through as one
batch, commits, acknowledges, and reads again. There is no queue: while a batch is processed the next one gathers in the
kernel's buffer and in the broker, and being busy is the back-pressure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from processor.clock import AgeClock
from processor.cloud import Desired, Input, Method, Request
from processor.division import Division
from processor.errors import StateFull
from processor.exchange.loader import Arrival
from processor.lanes import Lane
from processor.metrics import Metrics
from processor.protocols import Clock, Source
from processor.receipts import Receipts, pack
from processor.reporting import Reporting
from processor.steering import Steering
from processor.store import RECEIPT_BYTES, RECEIPTS_KEPT, Changes, Store
from processor.types import INPUTS, Message

_LONGEST_BATCH: Final = 0.25
"""Seconds a batch should take at most, so that keep-alive, commands and shutdown are never far away."""
_RETRY: Final = 0.5
"""Seconds between two tries to commit when there is no room."""
_INBOX_BYTES: Final = 64 << 20
"""Bytes of messages taken in while nothing can be committed. What comes beyond that is let pass, and asked for again by
connecting anew; from a broker that keeps no session for us it is not read."""
_BATCH_BYTES: Final = 8 << 20
"""Bytes of messages beyond which a batch waits for no more company."""
_MOST_WISHES: Final = 100
"""What the cloud may ask to change while nothing can be committed; the rest waits on its side of the link."""
_DRAIN: Final = 1.0
"""Seconds for what was read before the stop."""


@dataclass(slots=True)
class _Work:
    """A batch, or something that steers us, carried through as far as the store.

    Attributes:
        messages: to be acknowledged when it is on disk.
        receipts: of those that were new.
        changes: what is to be on disk.
        follow_up: what happens then.
    """

    messages: Sequence[Message]
    receipts: bytes
    changes: Changes
    follow_up: Callable[[], None]


class Pipeline:
    """Carries messages through, batch by batch. `run` is the pipeline thread."""

    def __init__(
        self,
        *,
        source: Source,
        requests: Sequence[Callable[[], Request | Arrival | None]],
        division: Division,
        lanes: Sequence[Lane],
        store: Store,
        receipts: Receipts,
        steering: Steering,
        reporting: Reporting,
        metrics: Metrics,
        clock: Clock,
        age: AgeClock,
        notify: Callable[[], None],
        resumes: bool,
        max_batch: int,
        max_delay: float,
        seconds_per_message: float = 0.0,
    ) -> None:
        """Take what `app.build` made.

        Args:
            source: the connection to the broker.
            requests: return what the cloud asks, and what loaders of models say, one by one; they wake `source`.
            division: which messages are for which lane.
            lanes: from messages to samples, one a model.
            store: where it all goes, in one transaction a batch.
            receipts: which messages were taken in before.
            steering: what is not data: the filter, commands, the cloud's wishes.
            reporting: what we say of ourselves.
            metrics: counters.
            clock: for deadlines.
            age: for how long samples have waited.
            notify: tells the delivery threads that there is something new.
            resumes: whether the broker sends again, over a new connection, what was not acknowledged.
            max_batch: messages in a batch at most.
            max_delay: seconds that a small batch waits for company.
            seconds_per_message: what a message may be thought to take, until that is known.
        """
        self._source = source
        self._requests = requests
        self._division = division
        self._lanes = lanes
        self._store = store
        self._receipts = receipts
        self._steering = steering
        self._reporting = reporting
        self._metrics = metrics
        self._clock = clock
        self._age = age
        self._notify = notify
        self._resumes = resumes
        self._max_batch = max_batch
        # In the last two batches: one that was held up, by whatever else the machine does, says nothing.
        self._seconds_per_message = deque([seconds_per_message] * 2, maxlen=2)
        self._limit = self._most_messages()
        self._max_delay = max_delay
        # Read only; a batch, or what steers us, each.
        self._inbox: deque[list[Message] | Desired | Method | Arrival] = deque()
        self._inbox_bytes = 0
        self._passed: int | None = None  # the connection whose messages are let pass: there was no room for some
        self._work: _Work | None = None  # carried through as far as the store, which had no room yet
        self._retry_at = 0.0
        self._unwritten = b""  # receipts of batches without effect; they are on disk with the next that has one
        self._stopping = False

    def stop(self) -> None:
        """End after the batch underway. Any thread; whoever calls wakes the source too."""
        self._stopping = True

    def _most_messages(self) -> int:
        of_models = [lane.computation.seconds_per_window for lane in self._lanes]
        seconds = max(*of_models, min(self._seconds_per_message), 1e-9)
        return max(1, min(self._max_batch, int(_LONGEST_BATCH / seconds)))

    def run(self) -> None:
        """Work until stopped, then finish what was read."""
        while not self._stopping:
            self.step(self._steering.seconds_until_due())
        deadline = self._clock.monotonic() + _DRAIN
        while self._clock.monotonic() < deadline:
            if not self._inbox:
                self._sort_in(self._wanted(self._source.buffered(self._limit)))
            if not self._advance():
                break

    def step(self, timeout: float) -> None:
        """Read what has arrived, waiting up to `timeout` seconds for it, and carry it through."""
        self._limit = self._most_messages()  # the model may be another
        self._take_requests()
        if self._work is not None:
            self._read_while_blocked(min(timeout, _RETRY))
        else:
            self._sort_in(self._gather(0.0 if self._inbox else timeout))
        while self._advance() and self._inbox and not self._stopping:
            self._source.serve(0.0)
        if self._passed is not None and self._work is None and not self._inbox:
            self._source.renew(self._passed)
        self._steering.tick()
        self._reporting.tick()

    def _gather(self, timeout: float) -> list[Message]:
        """Return what has arrived; a lone message waits for company only if it was told to."""
        messages = self._wanted(self._source.read(self._limit, timeout))
        if messages and self._max_delay:
            until = self._clock.monotonic() + self._max_delay
            size = _size(messages)
            while len(messages) < self._limit and size < _BATCH_BYTES and not self._stopping:
                left = until - self._clock.monotonic()
                if left <= 0:
                    break
                more = self._wanted(self._source.read(self._limit - len(messages), left))
                messages += more
                size += _size(more)
        return messages

    def _read_while_blocked(self, timeout: float) -> None:
        """Nothing can be committed: keep the connection alive and answer commands, but acknowledge nothing.

        QoS 1 stops at the broker's in-flight limit; what comes before that and beyond the inbox is let pass. QoS 0 has
        no limit: it is dropped and counted.
        """
        if self._inbox_bytes >= _INBOX_BYTES and self._passed is None:
            if not self._resumes:
                self._source.serve(timeout)
                return
            self._passed = max(batch[-1].connection for batch in self._inbox if isinstance(batch, list))
        kept = []
        for message in self._wanted(self._source.read(self._limit, timeout)):
            steers = self._steers(message)
            if steers and not message.qos and self._steering.answer_while_blocked(message):
                continue
            if steers or message.qos:
                kept.append(message)
            else:
                self._metrics.add("dropped_messages")
        self._sort_in(kept)

    def _take_requests(self) -> None:
        """Put what the cloud asks into the inbox; while nothing can be committed commands are answered at once."""
        blocked = self._work is not None
        for _ in range(self._limit):
            if blocked and sum(not isinstance(one, list) for one in self._inbox) >= _MOST_WISHES:
                return
            request = next((found for take in self._requests if (found := take()) is not None), None)
            if request is None:
                return
            if isinstance(request, Input):
                if blocked:  # nobody would send it again
                    self._metrics.add("dropped_messages")
                else:
                    self._sort_in([Message(INPUTS + request.name, request.payload, arrival=request.arrival)])
            elif not (blocked and self._steering.answer_while_blocked(request)):
                self._inbox.append(request)

    def _wanted(self, messages: list[Message]) -> list[Message]:
        """Return messages without those to let pass: all that the connection still brings, since their order counts."""
        if self._passed is None or not messages:
            return messages
        wanted = [message for message in messages if not message.qos or message.connection != self._passed]
        if messages[-1].connection != self._passed:
            self._passed = None
        return wanted

    def _steers(self, message: Message) -> bool:
        return message.topic in self._steering.topics and self._steering.is_ours(message)

    def _sort_in(self, messages: Sequence[Message]) -> None:
        """Put messages into the inbox: data of one connection in batches, what steers us alone at its place between."""
        if not messages:
            return
        newest = self._inbox[-1] if self._inbox else None
        batch: list[Message] = []
        if isinstance(newest, list) and not self._steers(newest[0]):
            batch = newest
            self._inbox.pop()
        for message in messages:
            steers = self._steers(message)
            if batch and (steers or len(batch) >= self._limit or batch[-1].connection != message.connection):
                self._inbox.append(batch)
                batch = []
            if steers:
                self._inbox.append([message])
            else:
                batch.append(message)
        if batch:
            self._inbox.append(batch)
        self._inbox_bytes += _size(messages)

    def _advance(self) -> bool:
        """Carry the next batch through to its acknowledgement; whether there was one, and room for it."""
        if self._work is None:
            if not self._inbox:
                return False
            self._work = self._begin(self._inbox.popleft())
        if not self._commit(self._work):
            return False
        done, self._work = self._work, None
        self._source.acknowledge(done.messages)
        done.follow_up()
        return True

    def _begin(self, what: list[Message] | Desired | Method | Arrival) -> _Work:
        if not isinstance(what, list):
            return _Work((), b"", *self._steering.apply(what))
        self._inbox_bytes -= _size(what)
        return self._steer(what[0]) if self._steers(what[0]) else self._process(what)

    def _process(self, messages: Sequence[Message]) -> _Work:
        """Carry one batch from messages to what it changes."""
        started = self._clock.monotonic()
        fresh = self._receipts.fresh(messages)
        changes = Changes()
        outcomes = [
            (lane, lane.carry(own, changes))
            for lane, own in zip(self._lanes, self._division.divide(fresh), strict=True)
            if own
        ]
        if fresh:
            self._seconds_per_message.append((self._clock.monotonic() - started) / len(fresh))

        def follow_up() -> None:
            self._reporting.count_batch(len(messages) - len(fresh), self._clock.monotonic() - started)
            for lane, outcome in outcomes:
                self._reporting.report(lane, outcome)
            if changes.samples:
                self._notify()

        return _Work(messages, pack(fresh), changes, follow_up)

    def _steer(self, message: Message) -> _Work:
        """Find out what a filter or a command changes; it is in force, and answered, when it is on disk."""
        if message.qos and not self._receipts.fresh([message]):
            return _Work([message], b"", Changes(), _nothing)
        return _Work([message], pack([message]), *self._steering.apply(message))

    def _commit(self, work: _Work) -> bool:
        """Make a piece of work durable; False when there is no room for it yet."""
        if not work.changes.matter:
            self._unwritten = (self._unwritten + work.receipts)[-RECEIPTS_KEPT * RECEIPT_BYTES :]
        else:
            if self._clock.monotonic() < self._retry_at:
                return False
            work.changes.receipts = self._unwritten + work.receipts
            try:
                self._store.commit(work.changes, self._age.now())
            except StateFull as error:
                self._retry_at = self._clock.monotonic() + _RETRY
                self._reporting.set_blocked(str(error))
                return False
            self._reporting.set_blocked(None)
            self._unwritten = b""
        self._receipts.committed(work.receipts)
        return True


def _nothing() -> None:
    """Follow up with nothing."""


def _size(messages: Sequence[Message]) -> int:
    """Return about how many bytes messages take."""
    return sum(len(message.payload) + len(message.topic) for message in messages)
