"""HTTP/1.1 as a server speaks it, MQTT over WebSockets on the same port, and a proxy for those who may not have it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tests.iothub.connection import Connection, common_name

_WEBSOCKET = b"GET /$iothub/websocket"
_PIECE = 256 * 1024


@dataclass(slots=True, frozen=True)
class Request:
    """A request; header names are in lower case, `path` is decoded, `certificate` is the peer's common name."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    certificate: str | None


@dataclass(slots=True, frozen=True)
class Response:
    """An answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, document: object) -> Response:
        """Make one with a JSON body."""
        return cls(status, json.dumps(document).encode(), {"Content-Type": "application/json; charset=utf-8"})


Answer = Callable[[Request], Response]


async def serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Answer,
    connect: Callable[[], Connection] | None = None,
) -> None:
    """Answer the requests of one connection until it ends.

    Args:
        reader: of the connection.
        writer: of the connection.
        answer: makes the answers.
        connect: makes the MQTT side of a WebSocket; None: there are none.
    """
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if connect is not None and head.startswith(_WEBSOCKET):
                await _serve_websocket(head, reader, writer, connect)
                break
            request = await _read(head, reader, writer)
            response = answer(request)
            writer.write(_encode(response, with_body=request.method != "HEAD"))
            await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        pass  # the client has gone, as it may at any time
    finally:
        writer.close()


async def _read(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, _, rest = first.partition(" ")
    target = urlsplit(rest.rpartition(" ")[0])
    headers = {name.strip().casefold(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("expect", "").casefold() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    query = {name: values[-1] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
    certificate = common_name(writer.get_extra_info("ssl_object"))
    return Request(method, unquote(target.path), query, headers, body, certificate)


def _encode(response: Response, *, with_body: bool) -> bytes:
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n{lines}\r\n"
    return head.encode() + (response.body if with_body else b"")


class _WebSocket(asyncio.Transport):
    """What an MQTT connection writes to, when it is carried by a WebSocket."""

    def __init__(self, protocol: ServerProtocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._protocol = protocol
        self._reader = reader
        self._reading = asyncio.Event()
        self._reading.set()
        self._writer = writer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.send_binary(bytes(data))
        self.flush()

    async def read(self) -> bytes:
        """Return what has arrived, when reading is not paused."""
        await self._reading.wait()
        return await self._reader.read(_PIECE)

    def flush(self) -> None:
        """Send what the WebSocket protocol wants sent."""
        self._writer.writelines(self._protocol.data_to_send())

    def close(self) -> None:
        self._protocol.send_close()
        self.flush()
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._writer.get_extra_info(name, default)


async def _serve_websocket(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connect: Callable[[], Connection]
) -> None:
    """Carry one MQTT connection (RFC 6455, subprotocol `mqtt`)."""
    protocol = ServerProtocol(subprotocols=[Subprotocol("mqtt")])
    transport = _WebSocket(protocol, reader, writer)
    connection: Connection | None = None
    data = head
    try:
        while data:
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Handshake):
                    response = protocol.accept(event)
                    protocol.send_response(response)
                    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                        connection = connect()
                        connection.connection_made(transport)
                elif isinstance(event, Frame) and connection and event.opcode in {Opcode.BINARY, Opcode.CONT}:
                    connection.data_received(bytes(event.data))
            transport.flush()
            data = await transport.read()
    finally:
        if connection is not None:
            connection.connection_lost(None)


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ports: Mapping[int, int]) -> None:
    """Be an HTTP proxy for one CONNECT.

    Args:
        reader: of the client.
        writer: to the client.
        ports: where to connect instead of some ports.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        inner, outer = await asyncio.open_connection(host, ports.get(int(port), int(port)))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(_pipe(reader, outer), _pipe(inner, writer))
    except (asyncio.IncompleteReadError, OSError):
        pass  # the client has gone, or there is nobody to connect it to
    finally:
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
