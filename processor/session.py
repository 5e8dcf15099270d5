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

    Where several filters match, MQTT 5 brings a copy of a message for each. When the configuration changes, messages
    are under way with the copies of the former one. So a filter that was held before counts before a new one, and one
    that left the configuration is held, and counts, until `settle` says that all from before our SUBSCRIBEs is on disk.
    From then on each message has a copy for a filter of the present configuration, and those that left can go.

    Attributes:
        held: filters that may have a copy under way; of several that match a topic, the copy of the first counts.
        left: those of a former configuration that still count.
        leaving: those that count no more, to be unsubscribed.
        settled: filters of which all that came before their SUBSCRIBE, and the retained messages that it brought, is on
            disk.
    """

    def __init__(
        self, kept: Mapping[str, Any] | None, filters: Collection[str], *, wanted: bool, metrics: Metrics
    ) -> None:
        """Go on from an earlier run.

        Args:
            kept: what `memory` returned then; None at the first start.
            filters: of the present configuration, as they are subscribed to.
            wanted: whether the broker is asked to keep our session at all.
            metrics: to count in.
        """
        known = {"filters": [], "connected": False, "dropped": None} if kept is None else kept
        self.leaving = [text for text in known.get("leaving", ()) if text not in filters]
        before = [text for text in known["filters"] if text not in known.get("leaving", ())]
        self.held = tuple(dict.fromkeys((*before, *filters, *self.leaving)))
        self.left = [text for text in before if text not in filters]
        self._certain = frozenset(known.get("settled", ()))
        self.settled = self._certain & frozenset(filters)
        self._filters = tuple(filters)
        self._unsubscribed = bool(known.get("unsubscribed", False))
        self._connected_before = bool(known["connected"])
        self._dropped: int | None = known["dropped"]
        self._wanted = wanted
        self._metrics = metrics

    def connected(self, *, session_present: bool) -> None:
        """Take note of a connection; a session that should have been there and was not is said and counted."""
        if not session_present:
            self.left, self.leaving = [], []
            self.held = self._filters
            self.settled = self._certain = frozenset()
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
        """Whether the broker holds our filters and no others, and nothing from before that is under way."""
        return len(self.settled) == len(self._filters) and not (self.left or self.leaving)

    def to_subscribe(self) -> list[str]:
        """Return the filters to subscribe to, in the order in which their copies count.

        Those of `left` are held already, but where the process was killed before it could know.
        """
        doubtful = frozenset(self.left) - self._certain
        return [text for text in self.held if text in self._filters or text in doubtful]

    def settle(self) -> bool:
        """All from before this connection's SUBSCRIBEs has come; whether that is news, and to be kept on disk.

        What is in `leaving` then is to be unsubscribed once it is.
        """
        news = not self.all_settled
        self.settled = frozenset(self._filters)
        if self._unsubscribed:  # over an earlier connection, so that no copy is under way any more
            self.leaving = []
        self.leaving += self.left
        self._unsubscribed, self.left = False, []
        self.held = (*(text for text in self.held if text in self.settled), *self.leaving)
        return news

    def is_settled(self, topic: str) -> bool:
        """Whether what is retained on a topic was read before."""
        return any(topics.matches(text, topic) for text in self.settled)

    def unsubscribed(self) -> None:
        """The broker holds none of `leaving` any more; copies for them may still be under way."""
        self._unsubscribed = True

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
        return {
            "filters": list(self.held),
            "leaving": self.leaving,
            "unsubscribed": self._unsubscribed,
            "connected": self._connected_before,
            "dropped": self._dropped,
            "settled": sorted(self.settled | (self._certain & frozenset(self.left))),
        }
