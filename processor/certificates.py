"""What is wrong with PEM files of certificates, as the rest of a sentence that has nothing of what is in them."""

from __future__ import annotations

import ssl
from pathlib import Path


class _Encrypted(Exception):
    """A private key needs a pass phrase."""


def problem_of_authorities(text: str) -> str | None:
    """Return what is wrong with certificates to trust; None when nothing is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return "holds no certificates in PEM"
    return None


def problem_of_pair(cert: Path, key: Path) -> tuple[str, str] | None:
    """Return which of a certificate and its private key cannot be used, `cert` or `key`, and why; None for neither.

    Raises:
        OSError: one of them cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path, kind in (("cert", cert, "CERTIFICATE"), ("key", key, "PRIVATE KEY")):
        if f"{kind}-----".encode() not in path.read_bytes():
            return name, f"{path} holds no {kind.lower()} in PEM"
    try:
        # Without a function here OpenSSL asks the terminal for the pass phrase, and waits.
        context.load_cert_chain(cert, key, password=_refuse)
    except _Encrypted:
        return "key", f"{key} needs a pass phrase; expected a private key that is not encrypted"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "key", f"{key} is not the private key of the certificate in {cert}"
        return "cert", f"{cert} and {key} cannot be used ({error.reason or 'they are damaged'})"
    return None


def _refuse() -> str:
    raise _Encrypted
