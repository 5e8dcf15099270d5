"""Sparkplug B's topics."""

from __future__ import annotations

from typing import Final, NamedTuple

from processor.decoders.checks import Unusable

NAMESPACE: Final = "spBv1.0"
_NAMES: Final = {"NBIRTH": 2, "NDATA": 2, "NDEATH": 2, "DBIRTH": 3, "DDATA": 3, "DDEATH": 3}
"""Names in the topics of a node's messages: of a group, a node, and a device."""
_COMMANDS: Final = ("NCMD", "DCMD")
_EXPECTED: Final = f"{NAMESPACE}/<group>/<NBIRTH, NDATA, NDEATH>/<edge node>, or DBIRTH and so on with a /<device>"
_REMEMBERED: Final = 100_000
"""Topics; with more, all are forgotten and read again."""
_LONGEST: Final = 1024
"""Characters of a topic that is remembered."""


class Address(NamedTuple):
    """What a topic says."""

    kind: str
    """NBIRTH, DBIRTH, NDATA, DDATA, NDEATH or DDEATH; empty where it is a host's, and the rest, too."""
    node: str = ""
    """<group>/<edge node>."""
    party: str = ""
    """The stream."""
    past: str = ""
    """The stream of what is sent as history. No topic is of a stream of this name: devices have names."""


class Addresses:
    """Reads topics, each once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[str, Address] = {}

    def read(self, topic: str) -> Address:
        """Return what a topic says.

        Raises:
            Unusable: it is not one of Sparkplug B.
        """
        known = self._known.get(topic)
        if known is not None:
            return known
        address = _read(topic)
        if len(topic) <= _LONGEST:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[topic] = address
        return address


def _read(topic: str) -> Address:
    namespace, *levels = topic.split("/")
    kind = levels[1] if len(levels) > 1 else ""
    if namespace == NAMESPACE and ("STATE" in levels[:2] or kind in _COMMANDS):
        return Address("")
    names = [*levels[:1], *levels[2:]]
    if namespace != NAMESPACE or _NAMES.get(kind) != len(names) or not all(names):
        raise Unusable("topic", f"the topic is not one of Sparkplug B; expected {_EXPECTED}")
    party = "/".join(names)
    device = "" if kind.startswith("D") else "/"
    return Address(kind, "/".join(names[:2]), party, f"{party}{device}/historical")


def command(node: str) -> str:
    """Return the topic of commands to a node, `<group>/<edge node>`."""
    group, name = node.split("/")
    return f"{NAMESPACE}/{group}/NCMD/{name}"
