"""The hub alone: `python -m tests.iothub [--device NAME[/MODULE]]… [--port 8883] [--directory DIR]`.

Prints how to connect, then every message as a line of JSON. Reads commands from standard input, one a line:

    fault NAME [VALUE]…         a method of `Faults`, such as `fault slow_link 0.05`; `fault heal`
    desired DEVICE JSON         patch the twin
    reported DEVICE             print what the device has reported
    invoke DEVICE METHOD [JSON] call a direct method and print its answer
    c2d DEVICE TEXT             send a message to the device
    input DEVICE INPUT TEXT     send a message to a module's input
    down | up | restart         stop listening, listen again, both
    quit                        end, as the end of standard input does
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.iothub import Device, Event, Hub


def describe(client: str, event: Event) -> dict[str, object]:
    """Return what is printed of a message."""
    try:
        body = {"body": event.body.decode()}
    except UnicodeDecodeError:
        body = {"base64": base64.b64encode(event.body).decode()}
    rest = {"properties": event.properties, "system": event.system, "packet_id": event.packet_id}
    return {"client": client, **body, **rest}


class Console:
    """Carries out commands, and prints."""

    def __init__(self, hub: Hub, devices: Mapping[str, Device]) -> None:
        """Take a running hub and its devices by id."""
        self._hub = hub
        self._devices = devices
        self._lock = threading.Lock()  # the hub's thread prints messages
        hub.on_event(lambda client, event: self.print(describe(client, event)))

    def print(self, document: object) -> None:
        """Print a line of JSON."""
        with self._lock:
            sys.stdout.write(json.dumps(document) + "\n")
            sys.stdout.flush()

    def run(self, line: str) -> bool:
        """Carry out a command and print what came of it; return whether to go on."""
        name, _, rest = line.strip().partition(" ")
        try:
            if name == "quit":
                return False
            if name:
                self.print({"command": line.strip(), "answer": self._answer(name, rest)})
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            self.print({"command": line.strip(), "error": repr(error)})
        return True

    def _answer(self, name: str, rest: str) -> object:
        hub, devices = self._hub, self._devices
        first, _, rest = rest.partition(" ")
        second, _, third = rest.partition(" ")
        commands: dict[str, Callable[[], object]] = {
            "down": hub.take_down,
            "up": hub.bring_up,
            "restart": hub.restart,
            "fault": lambda: getattr(hub.faults, first)(*(_value(word) for word in rest.split())),
            "desired": lambda: hub.set_desired(devices[first], json.loads(rest)),
            "reported": lambda: hub.reported(devices[first]),
            "c2d": lambda: hub.send_c2d(devices[first], rest.encode()),
            "invoke": lambda: hub.invoke(devices[first], second, json.loads(third or "null")),
            "input": lambda: hub.send_input(devices[first], second, third.encode()),
        }
        if name not in commands:
            raise ValueError("there is no such command")
        return commands[name]()


def _value(word: str) -> object:
    try:
        return json.loads(word)
    except ValueError:
        return word


def main() -> None:
    """Run a hub until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.iothub", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", action="append", metavar="NAME[/MODULE]", help="default: dev1; may be repeated")
    parser.add_argument("--x509", action="store_true", help="devices have certificates rather than keys")
    parser.add_argument("--host", help="a loopback address; default: one that is free")
    parser.add_argument("--port", type=int, default=0, help="of MQTT; default: 8883, the only one that the SDK knows")
    parser.add_argument("--directory", type=Path, help="for certificates; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.directory or Path(temporary)
        with Hub(directory, host=options.host, port=options.port) as hub:
            devices = {}
            for name in options.device or ["dev1"]:
                device_id, _, module = name.partition("/")
                devices[name] = hub.add_device(device_id, module or None, x509=options.x509)
            console = Console(hub, devices)
            console.print({"host": hub.host, "port": hub.port, "https_port": hub.https_port, "ca": str(hub.ca)})
            console.print({"environment": hub.environment})
            for name, device in devices.items():
                files = {"cert": str(device.certificate), "key": str(device.private_key)} if options.x509 else {}
                console.print({"device": name, "connection_string": device.connection_string, **files})
            for line in sys.stdin:
                if not console.run(line):
                    break


if __name__ == "__main__":
    main()
