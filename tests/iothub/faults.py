"""What the double does wrong when a test asks it to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Throttling = Literal["stop reading", "disconnect"]
OverQuota = Literal["disconnect", "ignore"]


@dataclass(slots=True)
class State:
    """The faults in force; read and changed in the hub's thread."""

    refuse: int | None = None
    unreachable: bool = False
    puback_delay: float = 0.0
    dropped_pubacks: float = 0
    cut_after: int | None = None
    mid_packet: bool = True
    silent: bool = False
    throttling: Throttling | None = None
    quota_left: float = math.inf
    over_quota: OverQuota = "disconnect"
    upload_status: int | None = None
    round_trip: float = 0.0


class Levers(Protocol):
    """What acts on connections, in the hub's thread."""

    def cut(self, *, mid_packet: bool) -> None:
        """End all connections."""
        ...

    def apply_throttling(self) -> None:
        """Stop or resume reading, as the state says."""
        ...

    def expire_tokens(self) -> None:
        """End all connections made with tokens, and take none of these again."""
        ...

    def end_deaf(self) -> None:
        """End the connections whose bytes were thrown away."""
        ...


class Faults:
    """Switches for a test. Each has taken effect when its call returns, and lasts until `heal` unless it says else."""

    def __init__(
        self,
        state: State,
        run: Callable[[Callable[[], None]], None],
        hub: Levers,
        end_unheard: Callable[[], None],
    ) -> None:
        """Wire the switches.

        Args:
            state: what they set.
            run: runs something in the hub's thread and waits for it.
            hub: what acts on connections.
            end_unheard: ends what connected while the hub was silent.
        """
        self._end_unheard = end_unheard
        self._state = state
        self._run = run
        self._hub = hub

    def _set(self, **changes: object) -> None:
        def apply() -> None:
            for name, value in changes.items():
                setattr(self._state, name, value)

        self._run(apply)

    def refuse(self, code: int = 3) -> None:
        """Answer every CONNECT with a return code (3: server unavailable, 5: not authorized)."""
        self._set(refuse=code)

    def refuse_tcp(self) -> None:
        """End every new TCP connection as soon as it is made, before TLS."""
        self._set(unreachable=True)

    def delay_pubacks(self, seconds: float) -> None:
        """Send each PUBACK so much later than the message came."""
        self._set(puback_delay=seconds)

    def drop_pubacks(self, count: float = math.inf) -> None:
        """Record the next `count` messages at QoS 1, and do not acknowledge them."""
        self._set(dropped_pubacks=count)

    def cut(self, *, mid_packet: bool = True) -> None:
        """End all connections now; in mid-packet: after the first byte of a packet to the client."""
        self._run(lambda: self._hub.cut(mid_packet=mid_packet))

    def cut_after(self, messages: int, *, mid_packet: bool = True) -> None:
        """End the connection over which the message after the next `messages` comes, once.

        Args:
            messages: that are recorded and acknowledged before.
            mid_packet: as soon as the first bytes of that message are there, else when it is complete. It is not
                recorded in either case.
        """
        self._set(cut_after=messages, mid_packet=mid_packet)

    def go_silent(self) -> None:
        """Accept bytes and new connections, answer nothing and forget what comes; `heal` ends those connections."""
        self._set(silent=True)

    def throttle(self, how: Throttling = "stop reading") -> None:
        """Push back: stop reading what clients send, or end a connection when it sends a message.

        Twin requests, registrations and file uploads are answered with 429.
        """
        self._set(throttling=how)
        self._run(self._hub.apply_throttling)

    def exhaust_quota(self, after: int = 0, how: OverQuota = "disconnect") -> None:
        """Take as many messages more as the quota has left; what comes then is not recorded.

        Args:
            after: messages left; one larger than 4 KB counts as several, as the service does.
            how: what happens then: the connection ends, or the message is ignored.
        """
        self._set(quota_left=after, over_quota=how)

    def fail_uploads(self, status: int = 503) -> None:
        """Answer requests for file uploads, and for blobs, with an HTTP status."""
        self._set(upload_status=status)

    def expire_tokens(self) -> None:
        """Treat every token seen so far as expired from now on, and end the connections made with them; for good."""
        self._run(self._hub.expire_tokens)

    def slow_link(self, round_trip: float) -> None:
        """Answer everything so many seconds later; throughput is not limited."""
        self._set(round_trip=round_trip)

    def heal(self) -> None:
        """End all faults."""
        blank = State()
        was_silent = self._state.silent
        self._set(**{name: getattr(blank, name) for name in State.__slots__})
        self._run(self._hub.apply_throttling)
        if was_silent:
            self._run(self._hub.end_deaf)
            self._run(self._end_unheard)
