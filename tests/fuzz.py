"""Fuzzes the decoders of binary formats with atheris, guided by what of their code a payload reaches.

    pip install atheris
    python -m tests.fuzz cbor -max_total_time=60    # or msgpack, binary, image, sparkplug; libFuzzer's options

Whatever a payload is: readings or a reason, never an exception. Not part of `make test`, where Hypothesis does this.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import cbor2
import msgpack
import numpy as np

from processor.source_sections import Source
from tests import sparkplug
from tests.images import encoded, noise

_NOW: Final = 1_795_341_600
_OBJECT: Final = {"ts": _NOW, "a": 1.5, "b": 2}
_SERIES: Final = {"t": _NOW, "r": 10, "values": [[1, 2], [3, 4]]}
_OBJECTS: Final[list[dict[str, Any]]] = [
    {"fields": ["a", "b"], "time": "ts", "missing": "hold"},
    {"fields": ["a", "b"], "base": {"time": "t", "rate": "r"}},
]
_SOURCES: Final[dict[str, list[dict[str, Any]]]] = {
    "msgpack": _OBJECTS,
    "cbor": _OBJECTS,
    "binary": [
        {"fields": ["a", "b"], "binary": {"rate": 100}},
        {"fields": ["a", "b"], "binary": {"dtype": ">i2", "order": "CT", "skip": 3}},
    ],
    "image": [{"image": {"height": 8, "width": 8}}],
    "sparkplug": [{"fields": ["a", "b"], "topics": ["spBv1.0/#"]}],
}


def _seeds(name: str) -> list[bytes]:
    """Return payloads to begin with."""
    metrics = [sparkplug.metric(field, 1.5, alias=alias, at=0) for alias, field in enumerate("ab")]
    seeds: dict[str, list[bytes]] = {
        "msgpack": [msgpack.packb(one) for one in (_OBJECT, _SERIES, [_OBJECT] * 2)],
        "cbor": [cbor2.dumps(one) for one in (_OBJECT, _SERIES, [_OBJECT] * 2)],
        "binary": [np.arange(8, dtype="<f4").tobytes()],
        "image": [encoded(noise(8, 8), kind) for kind in ("JPEG", "PNG")],
        "sparkplug": [sparkplug.payload(metrics, seq=0, at=0)],
    }
    return seeds[name]


def main() -> None:
    """Fuzz one format until told otherwise; libFuzzer prints what it finds and ends the process."""
    atheris = importlib.import_module("atheris")
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in _SOURCES:
        sys.exit(f"which format? {', '.join(_SOURCES)}")
    with atheris.instrument_imports(include=["processor.decoders", "PIL"]):
        decoders = importlib.import_module("processor.decoders")
        importlib.import_module("processor.decoders.image")
    made = [
        decoders.decoder(Source.model_validate({"name": "s", "topics": ["t"], "format": name, **keys}))
        for keys in _SOURCES[name]
    ]
    arrivals = np.full(2, _NOW * 10**9, np.int64)
    topics = ["spBv1.0/plant/NBIRTH/press", "spBv1.0/plant/NDATA/press"]

    def one(data: bytes) -> None:
        payloads = [data, data[:-1]]  # two, so that neighbours are in it
        for subject in made:
            decoded = subject.decode(payloads, arrivals, topics)
            if decoded.absent is None and not np.isfinite(decoded.values).all():
                raise AssertionError("a reading is not finite")

    with TemporaryDirectory() as corpus:
        for number, payload in enumerate(_seeds(name)):
            (Path(corpus) / str(number)).write_bytes(payload)
        atheris.Setup([*sys.argv, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
