"""The demo's broker on a free loopback port: Mosquitto where it is installed, else one in pure Python."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from processor.demo.child import Child
from processor.demo.workspace import Workspace
from processor.errors import MladeError

HOST: Final = "127.0.0.1"

CHOICE: Final = "MLADE_DEMO_BROKER"
"""Environment variable that says which broker: `mosquitto` or `embedded`; absent: Mosquitto where it runs."""

_PORTS: Final = range(20_000, 32_000)
"""Below those that the kernel gives to outgoing connections, one of which could otherwise connect to itself."""

_ATTEMPTS: Final = 5
"""How many ports are tried: another process may take one between the choice and the start."""

_PATIENCE: Final = 10.0
"""Seconds until a broker must listen."""

_SBIN: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
"""Where packages put the binary and many a PATH does not look."""

_HELLO: Final = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00" + b"\xe0\x00"
"""CONNECT, MQTT 3.1.1 with a clean session, and DISCONNECT."""
_CONNACK: Final = b"\x20"

_MOSQUITTO_CONF: Final = """\
listener {port} {host}
allow_anonymous true
max_queued_messages 0
set_tcp_nodelay true
log_dest stderr
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker.

    Attributes:
        name: for people.
        port: on the loopback interface.
        mqtt_5: whether it speaks MQTT 5; else 3.1.1.
        child: its process.
    """

    name: str
    port: int
    mqtt_5: bool
    child: Child


def candidates() -> list[str | None]:
    """Return the brokers to try in turn: the path of a Mosquitto, None for the embedded one.

    Raises:
        MladeError: what is wanted is unknown or not installed.
    """
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "mosquitto", "embedded"):
        raise MladeError(f"{CHOICE} is {choice!r}; expected mosquitto or embedded.")
    found = shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN)))
    if found is None and choice == "mosquitto":
        raise MladeError(f"{CHOICE} asks for mosquitto, and no such program is on the PATH.")
    if found is None or choice == "embedded":
        return [None]
    return [found] if choice else [found, None]


def start(workspace: Workspace, mosquitto: str | None, check: Callable[[], None]) -> Broker:
    """Start `mosquitto`, or without one the embedded broker, and return when it listens.

    Args:
        workspace: where its configuration and its log go.
        mosquitto: the binary, or None.
        check: called while waiting; what it raises ends the wait, and the broker.

    Raises:
        MladeError: it does not start.
    """
    last_words = ""
    for _ in range(_ATTEMPTS):
        port = _free_port()
        if mosquitto is None:
            # -P: a folder named like this package, where the demo was started, is not imported instead of it.
            command = [sys.executable, "-P", "-m", "processor.demo.embedded_broker", HOST, str(port)]
        else:
            conf = workspace.broker_configuration
            conf.write_text(_MOSQUITTO_CONF.format(port=port, host=HOST), encoding="utf-8")
            command = [mosquitto, "-c", str(conf)]
        child = Child(command, workspace.broker_log)
        try:
            listening = _listens(child, port, check)
        except BaseException:
            child.stop(_PATIENCE)
            raise
        if listening:
            name = "Mosquitto" if mosquitto else "the embedded amqtt"
            return Broker(name, port, mosquitto is not None, child)
        child.stop(_PATIENCE)
        last_words = child.last_words()
        if "in use" not in last_words:
            break
    raise MladeError(f"The broker {mosquitto or 'amqtt'} does not start; the end of {child.log}:{last_words}")


def _free_port() -> int:
    """Return a port that nobody listens on, as far as one can know before listening."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - nothing secret about it
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def _listens(child: Child, port: int, check: Callable[[], None]) -> bool:
    """Wait until the port answers a CONNECT; False when the process ends first or takes too long."""
    deadline = time.monotonic() + _PATIENCE
    while child.exit_code() is None and time.monotonic() < deadline:
        check()
        try:
            with socket.create_connection((HOST, port), timeout=1.0) as probe:
                probe.sendall(_HELLO)
                if probe.recv(1) == _CONNACK:
                    return child.exit_code() is None
        except OSError:
            time.sleep(0.01)
    return False
