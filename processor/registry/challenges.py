"""The answer to a registry's `WWW-Authenticate`: Basic, or a Bearer token from the server it names.

Credentials go to the registry itself, and to its token server, over https or on the same host; tokens go to the
registry only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode, urlunsplit

from processor.errors import ModelError
from processor.registry import credentials
from processor.registry.credentials import Credentials, Password, RefreshToken, posted
from processor.registry.web import OK, UNAUTHORIZED, Answer, Web, refused, same_host, split

_SCHEME: Final = re.compile(r"\s*,?\s*([A-Za-z0-9_-]+)(?:\s+|$|(?=,))")
_PARAMETER: Final = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_LONGEST: Final = 8192


def parse(header: str) -> dict[str, dict[str, str]]:
    """Return the challenges in a header: parameters by scheme, both in lower case (RFC 9110, 11.6.1)."""
    found: dict[str, dict[str, str]] = {}
    header, position = header[:_LONGEST], 0
    parameters: dict[str, str] | None = None
    while position < len(header):
        match = _PARAMETER.match(header, position)
        if match is not None and parameters is not None:
            value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
            parameters[match[1].lower()] = value
        else:
            match = _SCHEME.match(header, position)
            if match is None:
                break
            parameters = found.setdefault(match[1].lower(), {})
        position = match.end()
    return found


class Registry:
    """A server that may ask who we are. One for each fetch, in one thread.

    Attributes:
        base: `https://host`, without a slash at the end.
    """

    def __init__(self, web: Web, base: str, scope: str, *, host: str = "") -> None:
        """Send nothing yet.

        Args:
            web: asks on our behalf.
            base: scheme, host and port.
            scope: that a token is wanted for where the challenge does not say it: `repository:name:pull`.
            host: the registry, as credentials know it; empty: a server that is no registry.
        """
        self.web = web
        self.base = base
        self._scope = scope
        self._host = host
        self._known: str | None = None

    @contextmanager
    def ask(self, method: str, url: str, **how: Any) -> Iterator[Answer]:  # noqa: ANN401 - Web.ask's
        """Ask as `Web.ask`; where credentials are wanted, once more with them."""
        ours = same_host(url, self.base)
        challenge = ""
        with self.web.ask(method, url, authorization=self._known if ours else None, **how) as answer:
            if answer.status != UNAUTHORIZED or not ours or not same_host(answer.url, self.base):
                yield answer
                return
            challenge = answer.headers.get("Www-Authenticate", "")
            known = self._answer_to(challenge)
            if known is None:
                yield answer
                return
        self._known = known
        body = how.get("body")
        if body is not None and not isinstance(body, bytes):
            body.seek(0)
        with self.web.ask(method, url, authorization=known, **how) as answer:
            yield answer

    def _answer_to(self, header: str) -> str | None:
        """Return the value of an Authorization header; None: there is none to give, or it was given already."""
        challenges = parse(header)
        if not {"basic", "bearer"} & challenges.keys():
            return None
        who = (
            credentials.find(self.web, self.base, self._host)
            if self._host
            else credentials.of_settings(self.web.options)
        )
        if "bearer" in challenges and self._host:
            known = f"Bearer {self._token(challenges['bearer'], who)}"
        elif "basic" in challenges and isinstance(who, Password):
            known = who.basic
        else:
            return None
        return None if known == self._known else known

    def _token(self, challenge: Mapping[str, str], who: Credentials | None) -> str:
        """Get a token from the server that a challenge names."""
        realm = challenge.get("realm", "")
        parts = split(realm)
        plain = who is None and self.base.startswith("http:") and self.web.allows(realm)
        trusted = parts.scheme == "https" or same_host(realm, self.base) or plain
        if not parts.hostname or not trusted:
            raise ModelError(f"{self._host} wants a token from {parts.hostname or 'nowhere'} without https; refused")
        service, scope = challenge.get("service", ""), challenge.get("scope") or self._scope
        what = f"a token for {self._scope.split(':')[1]}"
        if isinstance(who, RefreshToken):
            form = {"grant_type": "refresh_token", "service": service, "scope": scope, "client_id": "mlade"}
            asked = self.web.ask("POST", realm, **posted({**form, "refresh_token": who.secret}))
        else:
            query = urlencode({key: value for key, value in (("service", service), ("scope", scope)) if value})
            url = urlunsplit(parts._replace(query="&".join(part for part in (parts.query, query) if part)))
            asked = self.web.ask("GET", url, authorization=None if who is None else who.basic)
        with asked as answer:
            if answer.status != OK:
                raise refused(answer, what)
            given = answer.mapping(f"what {answer.host} gives as {what}")
        token = given.get("access_token") or given.get("token")
        if not isinstance(token, str) or not token.isprintable():
            raise ModelError(f"{parts.hostname} gives no token for {self._host}")
        return token
