"""Who may change something: whoever knows the password; where there is none, whoever is on this machine, or nobody."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from processor.clock import SystemClock
from processor.protocols import Clock

_LIFE: Final = 12 * 3600.0
"""Seconds that a sign-in holds."""
_MOST: Final = 1000
"""Sign-ins remembered; the oldest give way."""
_LONGEST_NAME: Final = 40
_GUESSES: Final = 10
"""Wrong passwords in a minute, of all visitors, after which nobody is asked for a while."""
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in."""

    name: str
    until: float
    """On the monotonic clock."""


class Access:
    """Decides. Used by the server's thread."""

    def __init__(self, *, password: str | None, read_only: bool, clock: Clock | None = None) -> None:
        """Take what the command line says.

        Args:
            password: that changes ask for; None: they ask for none.
            read_only: nobody may change anything.
            clock: a running one.
        """
        self._password = password
        self.read_only = read_only
        self._clock = clock or SystemClock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._wrong: list[float] = []

    @property
    def asks(self) -> bool:
        """Whether changes need a sign-in."""
        return self._password is not None and not self.read_only

    def may_change(self, token: str | None) -> bool:
        """Whether whoever has this token may change something."""
        return not self.read_only and (self._password is None or self._session(token) is not None)

    def name(self, token: str | None) -> str | None:
        """Return how whoever has this token calls themselves."""
        session = self._session(token)
        return None if session is None else session.name

    def _session(self, token: str | None) -> Session | None:
        session = self._sessions.get(token or "")
        return session if session is not None and self._clock.monotonic() < session.until else None

    @property
    def too_many_guesses(self) -> bool:
        """Whether so many passwords were wrong lately that none is looked at now."""
        since = self._clock.monotonic() - _MINUTE
        self._wrong = [at for at in self._wrong if at > since]
        return len(self._wrong) >= _GUESSES

    def sign_in(self, name: str, password: str) -> str | None:
        """Return a token for whoever knows the password; None for others, and for all after too many guesses."""
        if self._password is None or self.too_many_guesses:
            return None
        if not hmac.compare_digest(password.encode(), self._password.encode()):
            self._wrong.append(self._clock.monotonic())
            return None
        token = secrets.token_urlsafe(32)
        self._sessions[token] = Session(" ".join(name.split())[:_LONGEST_NAME], self._clock.monotonic() + _LIFE)
        while len(self._sessions) > _MOST:
            self._sessions.popitem(last=False)
        return token

    def sign_out(self, token: str | None) -> None:
        """Forget a sign-in."""
        self._sessions.pop(token or "", None)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a listening address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
