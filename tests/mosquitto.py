"""A real Mosquitto for pytest: a container where Docker answers, else the `mosquitto` binary, else a failure.

Needs pytest, testcontainers and trustme, and nothing of this project: copy the file and name it in `pytest_plugins`.
tests/README.md tells how to use it.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pytest
import trustme
from docker.errors import APIError, DockerException, ImageNotFound
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

HOST = "127.0.0.1"
START_TIMEOUT = 30.0
"""Seconds a broker may take until it answers a CONNECT, and until it has ended."""
PORT_ATTEMPTS = 10
"""How often other ports are tried when someone else took one between choosing and listening."""
PORTS = range(20_000, 32_000)
"""Below the ports that the kernel gives to outgoing connections: there, a client that keeps trying to reach a stopped
broker can be given the broker's own port, connect to itself, and keep the broker from coming back."""

Listener = Literal["mqtt", "websockets", "tls"]

# `user root`: a broker started by root stays root and can read and write the test's directory.
GLOBAL_SETTINGS = """\
user root
allow_anonymous true
max_queued_messages 0
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
log_type subscribe
log_type unsubscribe
"""
LISTENER_SETTINGS: Mapping[Listener, str] = {
    "mqtt": "",
    "websockets": "protocol websockets\n",
    "tls": "cafile ca.crt\ncertfile server.crt\nkeyfile server.key\n",
}
CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00"
"""An MQTT 3.1.1 CONNECT: clean session, no client id."""
CONNACK = 0x20


class MosquittoError(Exception):
    """Mosquitto did not start, or did not answer; the text holds the reason and its log."""


class PortTakenError(MosquittoError):
    """Another process listens on a port that was free a moment ago."""


class Engine(Protocol):
    """What runs one Mosquitto, in a directory that holds mosquitto.conf and the files it names."""

    def start(self) -> None:
        """Start it, or start it again on the same ports and files. Does not wait until it answers."""
        ...

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        ...

    def running(self) -> bool:
        """Tell whether the process lives."""
        ...

    def log(self) -> str:
        """Return all it has written, over all its starts."""
        ...

    def write(self, name: str, text: str) -> None:
        """Write a file beside mosquitto.conf."""
        ...

    def remove(self) -> None:
        """End it in whatever state it is and leave nothing behind."""
        ...


class BinaryEngine:
    """The `mosquitto` binary as a child process."""

    def __init__(self, binary: str, directory: Path) -> None:
        self._command = [binary, "-c", "mosquitto.conf"]
        self._directory = directory
        self._log = directory / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._directory, stdout=log, stderr=log)

    def stop(self) -> None:
        """Send SIGTERM and wait."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_TIMEOUT)

    def running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Return the log file's text."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def write(self, name: str, text: str) -> None:
        """Write into its directory."""
        (self._directory / name).write_text(text)

    def remove(self) -> None:
        """Send SIGKILL and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIMEOUT)


class ContainerEngine:
    """A container of a Mosquitto image, its ports published on the loopback interface."""

    DIRECTORY = "/mosquitto/test"

    def __init__(self, image: str, directory: Path, ports: Mapping[Listener, int]) -> None:
        self._container = DockerContainer(image)
        self._container.with_command(["mosquitto", "-c", "mosquitto.conf"])
        self._container.with_kwargs(working_dir=self.DIRECTORY)
        # Copied rather than mounted: an engine on another machine, or in one, sees no directory of this one.
        for file in directory.iterdir():
            self._container.with_copy_into_container(file, f"{self.DIRECTORY}/{file.name}")
        for port in ports.values():
            # testcontainers' types know no address, without which Docker publishes to the whole network.
            self._container.ports[f"{port}/tcp"] = (HOST, port)  # type: ignore[assignment]
        self._created = False

    def start(self) -> None:
        """Create the container, or start the stopped one again."""
        try:
            if self._created:
                self._container.get_wrapped_container().start()
            else:
                self._container.start()
                self._created = True
        except APIError as error:
            text = str(error).lower()
            if "already allocated" in text or "already in use" in text:
                raise PortTakenError(text) from error
            raise

    def stop(self) -> None:
        """Stop the container with SIGTERM; it keeps its files and ports."""
        self._container.get_wrapped_container().stop(timeout=int(START_TIMEOUT))

    def running(self) -> bool:
        """Ask the engine."""
        self._container.reload()
        return self._container.status == "running"

    def log(self) -> str:
        """Return what the container wrote."""
        return (
            "".join(stream.decode(errors="replace") for stream in self._container.get_logs()) if self._created else ""
        )

    def write(self, name: str, text: str) -> None:
        """Copy it into the container."""
        content = text.encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        self._container.get_wrapped_container().put_archive(self.DIRECTORY, archive.getvalue())

    def remove(self) -> None:
        """Remove the container, running or not, with its volumes."""
        self._container.stop(force=True, delete_volume=True)


MakeEngine = Callable[[Path, Mapping[Listener, int]], Engine]


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of a certification authority made for one broker, and of a client certificate it has signed."""

    ca: Path
    cert: Path
    key: Path


class Mosquitto:
    """A running broker.

    Attributes:
        host: the address of all its listeners.
        port: of the plain MQTT listener.
        url: of the plain MQTT listener, `mqtt://127.0.0.1:<port>`.
        urls: of every listener: `mqtt`, and `websockets` and `tls` where they were asked for.
        ports: as `urls`, the port numbers.
        certificates: what a client of the `tls` listener needs; None where there is none.
    """

    def __init__(self, engine: Engine, ports: Mapping[Listener, int], certificates: Certificates | None) -> None:
        self._engine = engine
        self.host = HOST
        self.ports = ports
        self.port = ports["mqtt"]
        schemes: dict[Listener, str] = {"mqtt": "mqtt", "websockets": "ws", "tls": "mqtts"}
        self.urls = {name: f"{schemes[name]}://{HOST}:{port}" for name, port in ports.items()}
        self.url = self.urls["mqtt"]
        self.certificates = certificates

    def start(self) -> None:
        """Start the broker on the same ports and wait until it answers a CONNECT."""
        self._engine.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not answers_connect(self.port):
            if not self._engine.running():
                if "Address already in use" in self.log():
                    raise PortTakenError(self.log())
                message = f"Mosquitto ended instead of starting. Its log:\n{self.log()}"
                raise MosquittoError(message)
            if time.monotonic() > deadline:
                message = f"Mosquitto does not answer on {self.url} after {START_TIMEOUT:g} s. Its log:\n{self.log()}"
                raise MosquittoError(message)
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the broker as its supervisor would; connections break, with `persistence` its state is saved."""
        self._engine.stop()

    def restart(self) -> None:
        """Stop the broker and start it again."""
        self.stop()
        self.start()

    def write(self, name: str, text: str) -> None:
        """Change one of its `files`; it looks at them when it starts."""
        self._engine.write(name, text)

    def log(self) -> str:
        """Return the broker's log."""
        return self._engine.log()

    def remove(self) -> None:
        """End the broker for good."""
        self._engine.remove()


def answers_connect(port: int) -> bool:
    """Tell whether a CONNECT gets its CONNACK, be it a refusal: an open port alone may be Docker's."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(CONNECT)
            answer = connection.recv(1)
    except OSError:
        return False
    return answer == bytes([CONNACK])


def free_port() -> int:
    """Return a port that nobody listens on, as far as one can know before listening."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 -- nothing secret about it
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def _write_certificates(directory: Path) -> Certificates:
    """Make an authority, the server's certificate for the broker's configuration and one for a client."""
    authority = trustme.CA()
    server = authority.issue_cert(HOST, "localhost")
    client = authority.issue_cert("client@mosquitto.test", common_name="client")
    made = Certificates(directory / "ca.crt", directory / "client.crt", directory / "client.key")
    authority.cert_pem.write_to_path(made.ca)
    server.cert_chain_pems[0].write_to_path(directory / "server.crt")
    server.private_key_pem.write_to_path(directory / "server.key")
    client.cert_chain_pems[0].write_to_path(made.cert)
    client.private_key_pem.write_to_path(made.key)
    return made


class MosquittoFactory:
    """Makes brokers and removes them all at the end."""

    def __init__(self, engine: Literal["container", "binary"], make_engine: MakeEngine, cleanup: ExitStack) -> None:
        self.engine = engine
        self._make_engine = make_engine
        self._cleanup = cleanup

    def __call__(
        self,
        config: str = "",
        *,
        websockets: bool = False,
        tls: bool = False,
        persistence: bool = False,
        files: Mapping[str, str] | None = None,
    ) -> Mosquitto:
        """Start a broker and wait until it answers.

        Args:
            config: lines of mosquitto.conf to add at the end. Those about a listener are about the last one: the TLS
                listener, else the WebSockets listener, else the plain one.
            websockets: add a WebSockets listener.
            tls: add a TLS listener with a certificate of its own authority.
            persistence: keep sessions, queues and retained messages over `restart`.
            files: files beside mosquitto.conf, by name; the configuration names them without a directory.

        Raises:
            MosquittoError: the broker did not start, for instance for a mistake in `config`.
        """
        names: list[Listener] = ["mqtt"]
        names += ["websockets"] if websockets else []
        names += ["tls"] if tls else []
        for _ in range(PORT_ATTEMPTS):
            with ExitStack() as attempt:
                directory = Path(attempt.enter_context(tempfile.TemporaryDirectory(prefix="mosquitto-")))
                certificates = _write_certificates(directory) if tls else None
                ports = {name: free_port() for name in names}
                for name, text in (files or {}).items():
                    (directory / name).write_text(text)
                # In a container every interface is its own; Docker publishes to the loopback interface only.
                interface = "0.0.0.0" if self.engine == "container" else HOST  # noqa: S104
                lines = [GLOBAL_SETTINGS, "persistence true\npersistence_location ./\n" if persistence else ""]
                lines += [f"listener {port} {interface}\n{LISTENER_SETTINGS[name]}" for name, port in ports.items()]
                (directory / "mosquitto.conf").write_text("".join([*lines, config, "\n"]))
                broker = Mosquitto(self._make_engine(directory, ports), ports, certificates)
                attempt.callback(broker.remove)
                try:
                    broker.start()
                except PortTakenError:
                    continue
                self._cleanup.push(attempt.pop_all())
                return broker
        message = f"no free port found for Mosquitto in {PORT_ATTEMPTS} attempts"
        raise MosquittoError(message)


def _why_no_container(image: str) -> str | None:
    """Return what keeps `image` from being run, None when nothing does."""
    try:
        client = DockerClient(timeout=20).client
        client.ping()
    except DockerException as error:
        return f"no Docker engine answers ({error})"
    try:
        client.images.get(image)
    except ImageNotFound:
        try:
            client.images.pull(image)
        except (DockerException, OSError) as error:
            return f"the image {image} is not here and cannot be pulled ({error})"
    finally:
        client.close()
    return None


def choose_engine() -> tuple[Literal["container", "binary"], MakeEngine]:
    """Choose what runs the brokers, as MLADE_TEST_MOSQUITTO and this machine allow; fails the test if nothing can."""
    wanted = os.environ.get("MLADE_TEST_MOSQUITTO", "auto")
    image = os.environ.get("MLADE_TEST_MOSQUITTO_IMAGE", "eclipse-mosquitto:2")
    if wanted not in {"auto", "container", "binary"}:
        pytest.fail(f"MLADE_TEST_MOSQUITTO is {wanted!r}; it must be container, binary or auto", pytrace=False)
    reasons = []
    if wanted != "binary":
        reason = _why_no_container(image)
        if reason is None:
            return "container", lambda directory, ports: ContainerEngine(image, directory, ports)
        reasons.append(reason)
    if wanted != "container":
        # Debian puts it where a user's PATH does not reach.
        binary = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
        if binary is not None:
            return "binary", lambda directory, _: BinaryEngine(binary, directory)
        reasons.append("there is no mosquitto binary on the PATH (on Debian: apt-get install mosquitto)")
    pytest.fail(f"The tests need a real Mosquitto (MLADE_TEST_MOSQUITTO={wanted}): {'; '.join(reasons)}", pytrace=False)


@pytest.fixture(scope="session")
def _mosquitto_engine() -> tuple[Literal["container", "binary"], MakeEngine]:
    """Choose once a session what runs the brokers."""
    return choose_engine()


@pytest.fixture(scope="session")
def mosquitto(_mosquitto_engine: tuple[Literal["container", "binary"], MakeEngine]) -> Iterator[Mosquitto]:
    """One broker for the whole session: use topics and client ids of your own, and let it run."""
    with ExitStack() as cleanup:
        yield MosquittoFactory(*_mosquitto_engine, cleanup)()


@pytest.fixture
def mosquitto_factory(
    _mosquitto_engine: tuple[Literal["container", "binary"], MakeEngine],
) -> Iterator[MosquittoFactory]:
    """Make brokers for this test alone: to restart, or with configuration of their own."""
    with ExitStack() as cleanup:
        yield MosquittoFactory(*_mosquitto_engine, cleanup)
