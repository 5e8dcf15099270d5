"""What the broker keeps for us while we are away, and what it tells of having lost. Used by the pipeline thread."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from processor import topics
from processor.metrics import Metrics
from processor.types import Message

log = logging.getLogger(__name__)

DROPPED_TOPIC: Final = "$SYS/broker/publish/messages/dropped"
"""Where Mosquitto tells how many messages it has dropped because some client's queue was full."""
_LONGEST_NUMBER: Final = 20


class BrokerSession:
    """The broker's memory of us: which filters it may hold, whether it kept them, what it dropped.

    Attributes:
        left: filters of a former configuration that it may still hold.
        settled: filters whose retained messages, as the session's first SUBSCRIBE brought them, are all on disk.
    """

    def __init__(
        self, kept: Mapping[str, Any] | None, filters: Collection[str], *, wanted: bool, metrics: Metrics
    ) -> None:
        """Go on from an earlier run.

        Args:
            kept: what `memory` returned then; None at the first start.
            filters: of the present configuration.
            wanted: whether the broker is asked to keep our session at all.
            metrics: to count in.
        """
        known = {"filters": [], "connected": False, "dropped": None} if kept is None else kept
        self.left = sorted(set(known["filters"]) - set(filters))
        self.settled = frozenset(known.get("settled", ())) & frozenset(filters)
        self._filters = sorted(filters)
        self._connected_before = bool(known["connected"])
        self._dropped: int | None = known["dropped"]
        self._wanted = wanted
        self._metrics = metrics

    def connected(self, *, session_present: bool) -> None:
        """Take note of a connection; a session that should have been there and was not is said and counted."""
        if not session_present:
            self.left = []
            self.settled = frozenset()
            if self._connected_before and self._wanted:
                self._metrics.add("lost_sessions")
                log.warning(
                    "The broker had not kept our session: what was published while we were away is lost. If it was "
                    "restarted, let it keep sessions on disk (Mosquitto: persistence true); if we were away for long, "
                    "raise broker.session_expiry."
                )
        self._connected_before = True

    @property
    def all_settled(self) -> bool:
        """Whether nothing retained is new any more."""
        return len(self.settled) == len(self._filters)

    def settle(self) -> bool:
        """All that the broker sends with a SUBSCRIBE has come; whether that is news, and to be kept on disk."""
        news = not self.all_settled
        self.settled = frozenset(self._filters)
        return news

    def is_settled(self, topic: str) -> bool:
        """Whether what is retained on a topic was read before."""
        return any(topics.matches(text, topic) for text in self.settled)

    def unsubscribed(self) -> None:
        """The broker holds no filter of a former configuration any more."""
        self.left = []

    def take(self, message: Message) -> bool:
        """Compare how many messages the broker says it has dropped with what it said before, here or in another run.

        Returns:
            Whether it is news, and to be kept on disk.
        """
        text = message.payload
        if len(text) > _LONGEST_NUMBER or not text.isdigit():
            return False
        total, before = int(text), self._dropped
        self._dropped = total
        if before is None:
            return True
        more = total - before if total >= before else total  # it counts from its own start
        if more:
            self._metrics.add("broker_dropped_messages", more)
            log.warning(
                "The broker has dropped %d messages because some client's queue was full; ours may have been among "
                "them. Let it keep more for clients that are away or slow (Mosquitto: max_queued_messages).", more,
            )  # fmt: skip
        return total != before

    def memory(self) -> dict[str, Any]:
        """Return what has to survive a restart."""
        filters = sorted({*self._filters, *self.left})
        return {
            "filters": filters,
            "connected": self._connected_before,
            "dropped": self._dropped,
            "settled": sorted(self.settled),
        }
