"""Making an MQTT client from what the configuration says about the broker."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from processor.clock import SystemClock
from processor.errors import ConfigurationError, Problem
from processor.mqtt.fast_reader import FastClient

if TYPE_CHECKING:
    from processor.protocols import Clock

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_NEVER_EXPIRES = 0xFFFF_FFFF
"""A session expiry interval, in seconds, that means for ever (MQTT 5, 3.1.2.11.2)."""
_CONNECT_TIMEOUT = 3.0
"""Seconds for each of TCP, TLS and WebSockets to answer."""


class Tls(NamedTuple):
    """How the broker is trusted and we are known to it, on mqtts and wss."""

    ca: str | None = None
    """File of the authorities to trust; the system's when absent."""
    cert: str | None = None
    key: str | None = None
    insecure_skip_verify: bool = False


def new_client(
    *,
    url: str,
    client_id: str,
    username: str | None = None,
    password: str | None = None,
    tls: Tls | None = None,
    protocol: Literal[5, "3.1.1"] = 5,
    session_expiry: float = 0,
    receive_maximum: int = 65_535,
    max_payload: int = 1 << 20,
    keepalive: int = 30,
    will: tuple[str, bytes] | None = None,
    in_flight: int = 20,
    clock: Clock | None = None,
) -> FastClient:
    """Make a paho client that is ready for `reconnect()`, which makes its first connection too.

    Args:
        url: mqtt, mqtts, ws or wss; for the latter two with a path if it is not /mqtt.
        client_id: the client identifier.
        username: for the broker; absent: the one in the URL, if any.
        password: for the broker; absent: the one in the URL, if any.
        tls: looked at for mqtts and wss only.
        protocol: MQTT version.
        session_expiry: seconds that the broker keeps the session of an absent client; 0: a clean session. On 3.1.1 any
            other value is a persistent session.
        receive_maximum: QoS 1 and 2 messages that the broker may send before the first is acknowledged; MQTT 5 only.
        max_payload: bytes; of larger payloads only the beginning is kept.
        keepalive: seconds.
        will: retained topic and payload, published by the broker at QoS 1 when this client vanishes.
        in_flight: QoS 1 messages of our own that may wait for the broker's PUBACK at a time.
        clock: tells the arrival of messages.

    Raises:
        ConfigurationError: the URL or a TLS file cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        found = f"{url!r} is not the URL of a broker; expected mqtt, mqtts, ws or wss, like mqtt://127.0.0.1:1883"
        raise ConfigurationError([Problem("broker.url", found)])
    mqtt_5 = str(protocol) == "5"
    client = FastClient(
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5 if mqtt_5 else MQTTProtocolVersion.MQTTv311,
        clean_session=None if mqtt_5 else session_expiry == 0,
        transport="websockets" if parts.scheme in ("ws", "wss") else "tcp",
        clock=clock or SystemClock(),
        max_payload=max_payload,
    )
    client.connect_timeout = _CONNECT_TIMEOUT
    client.max_inflight_messages_set(in_flight)
    if parts.scheme in ("mqtts", "wss"):
        client.tls_set_context(_tls_context(tls or Tls()))
    if parts.scheme in ("ws", "wss") and parts.path.strip("/"):
        client.ws_set_options(path=parts.path)
    if username is None and parts.username is not None:
        username, password = unquote(parts.username), unquote(parts.password or "")
    if username is not None or password is not None:
        client.username_pw_set(username or "", password)
    if will is not None:
        client.will_set(will[0], will[1], qos=1, retain=True)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    if mqtt_5:
        asked = make_properties(PacketTypes.CONNECT, RequestProblemInformation=1, ReceiveMaximum=receive_maximum)
        if session_expiry:
            asked.SessionExpiryInterval = min(max(int(session_expiry), 1), _NEVER_EXPIRES)
        client.connect_async(parts.hostname, port, keepalive, clean_start=session_expiry == 0, properties=asked)
    else:
        client.connect_async(parts.hostname, port, keepalive)
    return client


def make_properties(packet_type: int, **values: int | bytes | list[tuple[str, str]]) -> Properties:
    """Make MQTT 5 properties from paho's names for them."""
    made = Properties(packet_type)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _tls_context(tls: Tls) -> ssl.SSLContext:
    """Make the TLS settings of a client. Raises ConfigurationError naming the file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:  # ssl.SSLError is one
        problem = Problem("broker.tls.ca", _unusable(tls.ca, "certificates to trust", error))
        raise ConfigurationError([problem]) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except OSError as error:
            expected = f"a certificate with its key ({tls.key or 'in the same file'})"
            problem = Problem("broker.tls.cert", _unusable(tls.cert, expected, error))
            raise ConfigurationError([problem]) from error
    return context


def _unusable(file: str | None, expected: str, error: OSError) -> str:
    return f"{file} cannot be used: {error.strerror or error}; expected a PEM file of {expected}"
