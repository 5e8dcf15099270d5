"""`mlade record`: what the sources receive, written down as it comes. One thread.

It listens beside the processor, as a client of its own with a clean session: the processor's session, and what waits in
it, is never touched. It joins no shared subscription (`$share/…`), so it takes nothing away from those who have.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from processor.clock import SystemClock
from processor.copies import counting_copy, filters, identifier, is_copy, source_of
from processor.errors import BrokerError, ConfigurationError, Problem
from processor.mqtt.connection import Connection
from processor.mqtt.subscriptions import Subscription
from processor.recording import Writer
from processor.remote import NoAnswer, subscribe
from processor.settings import Settings, client_options
from processor.topics import split_share
from processor.types import Message

_MOST: Final = 4096
"""Messages read at once."""
_LONGEST_READ: Final = 0.25
"""Seconds after which the progress is told at the latest."""
_FLUSH_EVERY: Final = 1.0
"""Seconds of a compressed recording that a `kill -9` may cost."""
_TOPICS: Final = 100_000
"""Topics remembered and counted; with more, only what is remembered of their routes is forgotten."""


@dataclass(slots=True)
class Recorded:
    """What was recorded so far.

    Attributes:
        messages: written.
        topics: different ones among them, up to 100,000.
        retained: messages that the broker had kept from before.
        too_large: messages over `broker.max_payload`, which are left out.
        size: bytes of the file.
        seconds: since the subscriptions stand.
        gaps: times the connection was lost; what came meanwhile is missing.
    """

    messages: int = 0
    topics: int = 0
    retained: int = 0
    too_large: int = 0
    size: int = 0
    seconds: float = 0.0
    gaps: int = 0


class Recorder:
    """Writes one recording. `stop` may be called by a signal handler or another thread, everything else by one thread.

    Attributes:
        progress: of what is recorded.
    """

    def __init__(self, settings: Settings, path: Path, tell: Callable[[str], None]) -> None:
        """Prepare; nothing is connected or written yet.

        Args:
            settings: the processor's.
            path: the recording; compressed where its name ends in .gz.
            tell: told in a sentence when the recording begins, and when the connection changes after that.

        Raises:
            ConfigurationError: there is no broker, or no source has topics.
        """
        self.progress = Recorded()
        self._path = path
        self._tell = tell
        self._clock = SystemClock()
        broker = settings.needed_broker
        plain: dict[str, int] = {}
        for position, text in filters(settings.sources):
            plain.setdefault(split_share(text).filter, position)
        self._filters = [(position, text) for text, position in plain.items()]
        if not self._filters:
            raise ConfigurationError([Problem("sources", "none of them has topics, so nothing comes over MQTT")])
        self._own = f"{settings.topic_prefix}/"
        self._wanted: dict[str, int | None] = {}
        self._retained: set[str] = set()
        self._topics: set[str] = set()
        self._stopped = False
        self._recording = False
        self._connection = Connection(
            client_id=f"{settings.client_id}-record-{secrets.token_hex(4)}",
            session_expiry=0,
            receive_maximum=broker.receive_maximum,
            max_payload=broker.max_payload,
            subscriptions=[
                Subscription(text, settings.sources[position].qos, identifier(text)) for position, text in self._filters
            ],
            clock=self._clock,
            on_state=self._note,
            **client_options(settings),
        )

    def _note(self, sentence: str) -> None:
        """Say that the connection was lost or made again; that may both happen within one look at it."""
        if self._recording:
            self._tell(sentence)

    @property
    def refused(self) -> Mapping[str, str]:
        """Topic filters that the broker does not let us listen to, with its reasons."""
        return self._connection.refused

    def stop(self) -> None:
        """Make `run` finish the file and return."""
        self._stopped = True
        self._connection.wake()

    def run(self, timeout: float, seconds: float, show: Callable[[Recorded], None]) -> Recorded:
        """Record.

        Args:
            timeout: seconds for the broker to accept us and our subscriptions.
            seconds: how long to record; infinity: until `stop`.
            show: told the progress several times a second.

        Raises:
            NoAnswer: the broker was not reached, or does not let us listen to anything.
            RecordingError: the file cannot be written.
        """
        try:
            plain = [text for _, text in self._filters]
            early = subscribe(self._connection, plain, timeout, lambda: self._stopped)
            if self._stopped:
                return self.progress
            writer = Writer(self._path)
            self._tell(f"Recording {', '.join(plain)} into {self._path}.")
            try:
                self._record(writer, early, seconds, show)
            finally:
                writer.close()
                self.progress.size = self._path.stat().st_size
        except BrokerError as error:
            raise NoAnswer(str(error)) from error
        finally:
            self._connection.close()
        return self.progress

    def _record(self, writer: Writer, early: list[Message], seconds: float, show: Callable[[Recorded], None]) -> None:
        connection, clock, progress = self._connection, self._clock, self.progress
        started = clock.monotonic()
        flush_at = started + _FLUSH_EVERY
        messages = early
        self._recording = True
        while True:
            if messages:
                writer.write(self._kept(messages))
                connection.acknowledge(messages)
            now = clock.monotonic()
            if now >= flush_at:
                writer.flush()
                flush_at = now + _FLUSH_EVERY
            progress.messages, progress.size, progress.seconds = writer.messages, writer.position, now - started
            progress.topics, progress.gaps = len(self._topics), connection.connects - connection.online
            show(progress)
            left = started + seconds - now
            if self._stopped or left <= 0:
                self._recording = False
                return
            messages = connection.read(_MOST, min(_LONGEST_READ, left))

    def _kept(self, messages: Sequence[Message]) -> list[Message]:
        """Return those that a source would read, each once."""
        kept = []
        for message in messages:
            wanted = self._copy_wanted(message.topic)
            if wanted is None or (wanted and not is_copy(message, wanted)):
                continue
            if message.retain and not self._is_first(message):
                continue
            if message.oversize:
                self.progress.too_large += 1
                continue
            self.progress.retained += message.retain
            kept.append(message)
            if len(self._topics) < _TOPICS:
                self._topics.add(message.topic)
        return kept

    def _copy_wanted(self, topic: str) -> int | None:
        """Return which subscription's copy of a topic's messages counts, 0 for any; None where no source reads them."""
        try:
            return self._wanted[topic]
        except KeyError:
            pass
        used = not topic.startswith(self._own) and source_of(self._filters, topic) >= 0
        if len(self._wanted) >= _TOPICS:
            self._wanted.clear()
        self._wanted[topic] = wanted = counting_copy((text for _, text in self._filters), topic) if used else None
        return wanted

    def _is_first(self, message: Message) -> bool:
        """Whether a retained message is new: it comes again with each matching subscription and each connection."""
        if self._connection.connects > 1 or message.topic in self._retained:
            return False
        self._retained.add(message.topic)
        return True
