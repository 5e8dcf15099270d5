"""Text of one number: what many a sensor publishes on a topic of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from processor.decoders.checks import Checks, Unusable
from processor.decoders.codec import Codec
from processor.source_sections import Source
from processor.types import Decoded, Failure, Times


class NumberDecoder:
    """Decoder of `format: number`."""

    def __init__(self, source: Source) -> None:
        """Prepare for one source."""
        self._checks = Checks(source)

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        del topics
        failures: list[Failure] = []
        try:
            # Python takes 1_000 for a number.
            found = [] if b"_" in b"".join(payloads) else list(map(float, payloads))
        except ValueError:
            found = []
        origin = list(range(len(found)))
        if len(found) < len(payloads):
            for index, payload in enumerate(payloads):
                try:
                    found.append(_parse(payload))
                except Unusable as unusable:
                    failures.append(Failure(index, unusable.reason, unusable.detail))
                    continue
                origin.append(index)
        values = np.array(found, np.float64).reshape(-1, 1)
        return self._checks.readings(np.array(origin, np.int64), None, values, arrivals, failures)


def _read(payload: bytes) -> float:
    if b"_" in payload:
        raise ValueError("it is only Python's way to write a number")
    return float(payload)


def _parse(payload: bytes) -> float:
    try:
        return _read(payload)
    except ValueError:
        pass
    text = payload[:60].decode(errors="replace").strip()
    if not text:
        raise Unusable("decode", "the payload is empty; expected one number such as 23.5")
    hint = ", with a point instead of a comma" if "," in text else ""
    raise Unusable("decode", f"the payload is {text!r:.60}; expected one number such as 23.5{hint}")


def _typed(of_type: Any) -> Callable[[bytes], float]:  # noqa: ANN401 - any type that msgspec knows
    del of_type  # a payload can be nothing else
    return _read


def _begins_array(payload: bytes) -> bool:
    del payload
    return False


NUMBER: Final = Codec(_parse, _typed, _begins_array)
