"""The hub's sockets. All but `listen` runs in the hub's thread."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.iothub import web
from tests.iothub.edge import Workload
from tests.iothub.service import Service
from tests.iothub.uploads import Uploads

_BACKLOG = 128
_PATIENCE = 5.0

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def listen(host: str | None, port: int) -> socket.socket:
    """Return a listener on an address; absent: on a loopback address where nobody listens on that port.

    Raises:
        OSError: the port is taken, or not for everyone.
    """
    while True:
        address = host or ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])  # noqa: S311 - no secret
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.settimeout(0)  # asyncio waits
        try:
            listener.bind((address, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            if host is not None or isinstance(error, PermissionError):
                raise
        else:
            return listener


class Listeners:
    """Accepts connections and gives them to whom they are for.

    Attributes:
        mqtt, https: ports.
        proxy: of an HTTP proxy to the HTTPS port for clients that know only 443; None where it is 443.
    """

    def __init__(self, service: Service, tls: ssl.SSLContext, mqtt: socket.socket, https: socket.socket) -> None:
        """Take listening sockets; `open` accepts."""
        self._service = service
        self._tls = tls
        self._host, self.mqtt = mqtt.getsockname()
        self.https = int(https.getsockname()[1])
        self._sockets = [mqtt, https]
        self.proxy: int | None = None
        if self.https != socket.getservbyname("https"):
            self._sockets.append(listen(self._host, 0))
            self.proxy = int(self._sockets[-1].getsockname()[1])
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._unheard: list[socket.socket] = []
        self._workload: asyncio.Server | None = None  # of the Edge device, which stays when the hub goes down

    def open(self, uploads: Uploads) -> None:
        """Accept connections; where `close` came before, on the same ports again."""
        if not self._sockets:
            ports = [self.mqtt, self.https, *([] if self.proxy is None else [self.proxy])]
            self._sockets = [listen(self._host, port) for port in ports]
        mqtt, https, *proxy = self._sockets
        self._start(self._accept(mqtt, self._service.accept, self._tls))
        self._start(self._accept(https, lambda: self._streams(self._answer(uploads)), self._tls))
        for listener in proxy:
            self._start(self._accept(listener, lambda: self._streams(self._tunnel), None))

    async def open_workload(self, path: Path, workload: Workload) -> None:
        """Serve the workload API on a Unix socket."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await web.serve(reader, writer, workload.answer)

        self._workload = await asyncio.start_unix_server(serve, path)

    async def close(self) -> None:
        """End all connections and stop accepting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        self._sockets.clear()
        for connection in list(self._service.connections):
            connection.end("the hub is going down")
        for writer in self._writers:
            writer.transport.abort()
        self.end_unheard()

    async def end(self) -> None:
        """Close, and leave nothing that still runs."""
        await self.close()
        if self._workload is not None:
            self._workload.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_PATIENCE)  # their connections have ended

    def end_unheard(self) -> None:
        """End what connected while the hub was silent."""
        for end in self._unheard:
            end.close()
        self._unheard.clear()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            end, _ = await loop.sock_accept(listener)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._service.faults.unreachable:
                end.close()
            elif self._service.faults.silent:
                self._unheard.append(end)
            else:
                self._start(self._greet(end, protocol, tls))

    async def _greet(
        self, end: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, end, ssl=tls)
        except OSError as error:
            self._service.note("no TLS", "", str(error))

    def _streams(self, serve: Serve) -> asyncio.Protocol:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            try:
                await serve(reader, writer)
            finally:
                self._writers.discard(writer)

        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), run)

    def _answer(self, uploads: Uploads) -> Serve:
        return lambda reader, writer: web.serve(reader, writer, uploads.answer, self._service.accept)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await web.tunnel(reader, writer, {socket.getservbyname("https"): self.https})
