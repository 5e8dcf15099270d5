"""HTTP as fetching a model needs it: bounded in size and time, and careful about who gets credentials.

The only importer of urllib3.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from processor.errors import ModelError, ModelUnavailable
from processor.registry.deadline import Deadline
from processor.registry.options import Options
from processor.registry.references import is_loopback

_QUIET: Final = ("urllib3", "requests", "msal")
"""Loggers that would write addresses with what opens them in their query."""
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_ADDRESS: Final = re.compile(r"[\x21-\x7e]+")
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 5
_PIECE: Final = 256 << 10
_CONNECTING: Final = 15.0
"""Seconds."""
_LONGEST_REASON: Final = 200
_MOST_TEXT: Final = 4 << 20
"""Bytes of an answer that is read into memory: manifests, tokens."""

OK: Final = 200
CREATED: Final = 201
ACCEPTED: Final = 202
NOT_MODIFIED: Final = 304
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
_TRY_AGAIN: Final = (408, 421, 425, 429)
_SERVERS_FAULT: Final = 500


class Answer(NamedTuple):
    """An answer to read from.

    Attributes:
        status: HTTP's.
        headers: by name, in any case.
        url: whose answer it is, after redirects; for joining.
        host: the same's, for messages.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    host: str
    response: BaseHTTPResponse
    deadline: Deadline

    def pieces(self, limit: int) -> Iterator[bytes]:
        """Yield the body.

        Args:
            limit: bytes it may have, whatever it says of itself.

        Raises:
            ModelError: it has more.
            ModelUnavailable: it stops in the middle, stalls, or the time is over.
        """
        length = self._length
        if length is not None and length > limit:
            raise ModelError(_too_large(self.host, length, limit))
        got = 0
        while True:
            self.deadline.check()
            try:
                piece = self.response.read1(_PIECE)
            except (HTTPError, OSError) as error:
                raise ModelUnavailable(f"{self.host} {_reason(error)} after {got} bytes") from error
            if not piece:
                break
            got += len(piece)
            if got > limit:
                raise ModelError(_too_large(self.host, None, limit))
            yield piece
        if length is not None and got < length:
            raise ModelUnavailable(f"{self.host} ended the connection after {got} of {length} bytes")

    @property
    def _length(self) -> int | None:
        said = self.headers.get("Content-Length", "")
        return int(said) if _LENGTH.fullmatch(said) else None

    @property
    def says_its_length(self) -> bool:
        """Whether an end in the middle would be noticed."""
        return self._length is not None or "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def text(self) -> bytes:
        """Return a short body; raises as `pieces`."""
        return b"".join(self.pieces(_MOST_TEXT))

    def mapping(self, what: str) -> dict[str, Any]:
        """Return a short body that is a JSON object; `what` it is, for the error. Raises as `pieces`."""
        return mapping(self.text(), what)


class Web:
    """Asks servers. One for each fetch, in one thread."""

    def __init__(self, options: Options, deadline: Deadline) -> None:
        """Connect to nobody yet.

        Raises:
            ModelError: the certificates to trust cannot be read.
        """
        for name in _QUIET:  # each time: whoever sets up logging in between may have changed it
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.options = options
        self.deadline = deadline
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._opened: list[HTTPConnection] = []
        deadline.at_the_end(self._cut)
        try:
            self._tls = ssl.create_default_context(cafile=None if options.ca is None else str(options.ca))
        except (OSError, ssl.SSLError) as error:
            raise ModelError(
                f"model.registry.ca: {options.ca} holds no certificates that can be read: {error}"
            ) from error

    def close(self) -> None:
        """End all connections."""
        for manager in self._managers.values():
            manager.clear()

    def _cut(self) -> None:
        """End the connections that are in use, from another thread: a server may hold a call for ever."""
        for connection in list(self._opened):
            if connection.sock is not None:
                with suppress(OSError):  # it ended by itself
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # TLS's own would say goodbye

    def _pool(self, kind: type[urllib3.HTTPConnectionPool]) -> Any:  # noqa: ANN401 - a class that is made here
        """Return a class of pools that keeps their connections for `_cut`."""
        connect = kind.ConnectionCls.connect

        def noted(connection: HTTPConnection) -> None:
            self._opened.append(connection)
            connect(connection)
            self.deadline.check()  # it may have been cut before there was anything to cut

        made = type("Connection", (kind.ConnectionCls,), {"connect": noted})
        return type("Pool", (kind,), {"ConnectionCls": made})

    def allows(self, url: str) -> bool:
        """Whether the address may be asked: https, or plain HTTP to this machine or where the user allowed it."""
        parts = split(url)
        plain = self.options.insecure or is_loopback(parts.netloc)
        return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and plain))

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        body: bytes | IO[bytes] | None = None,
    ) -> Iterator[Answer]:
        """Ask, follow redirects of what only reads, and yield the answer, whatever its status.

        Args:
            method: GET, HEAD, POST or PUT.
            url: the address.
            headers: more of them.
            authorization: goes to the address's own scheme, host and port, and with no redirect to another one.
            body: what is sent.

        Raises:
            ModelError: an address must not be asked.
            ModelUnavailable: nobody answers.
        """
        first = _origin(url)
        for _ in range(_MOST_REDIRECTS + 1):
            if not self.allows(url):
                raise ModelError(_not_allowed(url))
            sent = {"Accept-Encoding": "identity", "User-Agent": "mlade", **(headers or {})}
            if _origin(url) != first:
                authorization = None  # for good: somebody else says where this goes on to
            if authorization is not None:
                sent["Authorization"] = authorization
            response = self._send(method, url, sent, body)
            try:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None or method not in ("GET", "HEAD"):
                    # One that comes several times, as challenges do, is joined with commas.
                    headers_of = {name.title(): response.headers[name] for name in response.headers}
                    yield Answer(response.status, headers_of, url, _origin(url)[1], response, self.deadline)
                    return
            finally:
                response.close()
            previous, url = url, joined(url, location)
            if split(previous).scheme == "https" and split(url).scheme != "https":
                raise ModelError(f"{_origin(previous)[1]} sends us on to an address that is not https; refused")
        raise ModelError(f"{first[1]} sends us on more than {_MOST_REDIRECTS} times")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> BaseHTTPResponse:  # noqa: ANN401
        self.deadline.check()
        patience = min(self.options.stall, max(self.deadline.left, 0.1))
        try:
            return self._manager(split(url)).request(
                method, url, headers=dict(headers), body=body, redirect=False, retries=False, preload_content=False,
                decode_content=False, timeout=Timeout(connect=min(_CONNECTING, patience), read=patience),
            )  # fmt: skip
        except (HTTPError, OSError, ValueError) as error:
            raise ModelUnavailable(f"{_origin(url)[1]} {_reason(error)}") from error

    def _manager(self, parts: SplitResult) -> urllib3.PoolManager:
        """Return the connections to use: through the environment's proxy where it names one for this address."""
        host = parts.hostname or ""
        proxy = None
        if not is_loopback(parts.netloc) and not urllib.request.proxy_bypass(host):
            proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy not in self._managers:
            if proxy is None:
                self._managers[None] = urllib3.PoolManager(ssl_context=self._tls)
            else:
                through = urlsplit(proxy)
                known = f"{unquote(through.username)}:{unquote(through.password or '')}" if through.username else None
                plain = through._replace(netloc=through.netloc.rpartition("@")[2]).geturl()
                given = None if known is None else urllib3.make_headers(proxy_basic_auth=known)
                self._managers[proxy] = urllib3.ProxyManager(plain, proxy_headers=given, ssl_context=self._tls)
            kinds = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
            self._managers[proxy].pool_classes_by_scheme = {scheme: self._pool(kind) for scheme, kind in kinds.items()}
        return self._managers[proxy]


def refused(answer: Answer, what: str) -> ModelError:
    """Return the error for an answer that does not bring `what`, as `the tag stable of models/motions`."""
    status = answer.status
    if status == UNAUTHORIZED:
        return ModelError(f"{answer.host} does not accept our credentials for {what} (HTTP 401): see model.registry")
    if status == FORBIDDEN:
        return ModelError(f"{answer.host} does not let us have {what} (HTTP 403): does our account have the right?")
    if status == NOT_FOUND:
        return ModelError(f"{answer.host} does not have {what} (HTTP 404)")
    kind = ModelUnavailable if status >= _SERVERS_FAULT or status in _TRY_AGAIN else ModelError
    return kind(f"{answer.host} answered HTTP {status} when asked for {what}")


def mapping(text: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object; raises ModelError, naming `what` it was to be."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"{what} is no JSON object")
    return found


def split(url: str) -> SplitResult:
    """Return an address's parts; raises ModelError where somebody gives us what is none."""
    try:
        parts = urlsplit(url)
        sound = (parts.port is None or parts.port > 0) and _ADDRESS.fullmatch(parts.netloc or "-")
    except ValueError:
        sound = None
    if not sound:
        raise ModelError(f"a server names {url.partition('?')[0][:_LONGEST_REASON]!r}, which is no address; refused")
    return parts


def joined(url: str, location: str) -> str:
    """Return where a `Location` in the answer of an address leads; raises ModelError, as `split`."""
    try:
        return urljoin(url, location)
    except ValueError:
        split(location)
        raise ModelError(f"{_origin(url)[1]} sends us on to what is no address; refused") from None


def same_host(url: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str]:
    parts = split(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = parts.port
    return parts.scheme, host if port in (None, usual) else f"{host}:{port}"


def _not_allowed(url: str) -> str:
    scheme, host = _origin(url)
    if scheme == "http":
        return f"{host} would be asked over plain HTTP; use https, or set model.registry.insecure: true"
    return f"{scheme or 'an address without a scheme'} at {host or 'no host'} is not https; refused"


def _too_large(host: str, length: int | None, limit: int) -> str:
    size = "more" if length is None else f"{length} bytes"
    return f"{host} sends {size}, and model.registry.max_bytes leaves {limit} bytes for it; raise it if this is right"


def _reason(error: BaseException) -> str:
    """Return what went wrong as the rest of a sentence about a host."""
    known: list[tuple[tuple[type[BaseException], ...], str]] = [
        ((NameResolutionError,), "is not known to the name server"),
        ((ProxyError,), "cannot be reached through the proxy that the environment names"),
        ((ConnectTimeoutError, ReadTimeoutError, TimeoutError), "does not answer in time"),
    ]
    for kinds, sentence in known:
        if isinstance(error, kinds) and type(error) is not NewConnectionError:  # which calls itself a timeout
            return sentence
    causes = list(_causes(error))
    untrusted = next((one for one in causes if isinstance(one, ssl.SSLCertVerificationError)), None)
    if untrusted is not None:
        return f"shows a certificate that is not trusted ({untrusted.verify_message}); model.registry.ca names others"
    if any(isinstance(one, ssl.SSLError) for one in causes):
        return "does not speak TLS as expected"
    said = next((one.strerror for one in causes if isinstance(one, OSError) and one.strerror), None)
    return f"cannot be reached ({said})" if isinstance(error, NewConnectionError) else "broke the connection off"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of."""
    while error is not None:
        yield error
        inner = [one for one in error.args if isinstance(one, BaseException)]
        error = error.__cause__ or error.__context__ or (inner[0] if inner else None)
