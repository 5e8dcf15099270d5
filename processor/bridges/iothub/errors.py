"""What the SDK's errors mean, as clauses for an operator.

Their own texts are never shown: some hold addresses with signatures.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

from azure.iot.device import exceptions

from processor.errors import BridgeError

_STATUS: Final = re.compile(r"(?:returned:?|status) (?:status )?([1-5][0-9]{2})\b")
ENDED: Final = "it ended the connection"
_CAUSES: Final[tuple[tuple[type[BaseException], Callable[[Any], str]], ...]] = (
    (
        ssl.SSLCertVerificationError,
        lambda error: f"its certificate is not trusted ({error.verify_message}); see tls.ca",
    ),
    (socket.gaierror, lambda _: "its name cannot be resolved; see whether the network is there, and the name right"),
    (ssl.SSLError, lambda error: f"TLS failed ({error.reason or 'the connection ended'})"),
    (TimeoutError, lambda _: "it did not answer in time"),
    (exceptions.OperationTimeout, lambda _: "it did not answer in time"),
    (ConnectionRefusedError, lambda _: "nothing listens there"),
    (
        exceptions.CredentialError,
        lambda _: (
            "it refuses the credentials; see whether the key or certificate is this device's, the device enabled, and "
            "the clock of this machine right"
        ),
    ),
    (OSError, lambda error: f"the network failed ({error.strerror or type(error).__name__})"),
)
"""What says most of all that is in an error's chain; the first of a chain that is here."""
_WHOLE: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (exceptions.ConnectionFailedError, "it refused the connection"),
    (exceptions.ConnectionDroppedError, ENDED),
    (exceptions.NoConnectionError, ENDED),
    (exceptions.OperationCancelled, ENDED),
)


def explain(error: BaseException) -> str:
    """Return what went wrong with a connection or a send."""
    if isinstance(error, BridgeError):
        return str(error)
    for each in _chain(error):
        for kind, say in _CAUSES:
            if isinstance(each, kind):
                return say(each)
    return next((text for kind, text in _WHOLE if isinstance(error, kind)), f"the SDK failed ({type(error).__name__})")


def status_of(error: BaseException) -> int | None:
    """Return the HTTP-like status that a service answered with; None where it did not answer so."""
    for each in _chain(error):
        if isinstance(each, exceptions.ServiceError) and (found := _STATUS.search(str(each))):
            return int(found[1])
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
