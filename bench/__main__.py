"""`python -m bench [names …] [--quick] [--json]`: measures mlade beside its peers. `make bench` is all of it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console

from bench import broker, selection
from bench.errors import BenchError
from bench.parts import (
    backlog,
    conditions,
    durability,
    flood,
    formats,
    inflight,
    iothub,
    latency,
    memory,
    replay,
    saturation,
    shadow,
    swaps,
    throughput,
)
from bench.processes import others_cpu_seconds
from bench.report import Result

Measure = Callable[[Path, Callable[[str], None]], Result]
_PARTS: Final[dict[str, tuple[Measure, Measure]]] = {
    "throughput": (
        lambda folder, tell: throughput.measure(throughput.FULL, folder, tell),
        lambda folder, tell: throughput.measure(throughput.QUICK, folder, tell),
    ),
    "saturation": (
        lambda folder, tell: saturation.measure(saturation.FULL, folder, tell),
        lambda folder, tell: saturation.measure(saturation.QUICK, folder, tell),
    ),
    "latency": (
        lambda folder, tell: latency.measure(latency.FULL, folder, tell),
        lambda folder, tell: latency.measure(latency.QUICK, folder, tell),
    ),
    "memory": (
        lambda folder, tell: memory.measure(memory.FULL, folder, tell),
        lambda folder, tell: memory.measure(memory.QUICK, folder, tell),
    ),
    "durability": (
        lambda folder, tell: durability.measure(durability.FULL, folder, tell),
        lambda folder, tell: durability.measure(durability.QUICK, folder, tell),
    ),
    "inflight": (
        lambda folder, tell: inflight.measure(inflight.FULL, folder, tell),
        lambda folder, tell: inflight.measure(inflight.QUICK, folder, tell),
    ),
    "backlog": (
        lambda folder, tell: backlog.measure(backlog.FULL, folder, tell),
        lambda folder, tell: backlog.measure(backlog.QUICK, folder, tell),
    ),
    "flood": (
        lambda folder, tell: flood.measure(flood.FULL, folder, tell),
        lambda folder, tell: flood.measure(flood.QUICK, folder, tell),
    ),
    "iothub": (
        lambda folder, tell: iothub.measure(iothub.FULL, folder, tell),
        lambda folder, tell: iothub.measure(iothub.QUICK, folder, tell),
    ),
    "swaps": (
        lambda folder, tell: swaps.measure(swaps.FULL, folder, tell),
        lambda folder, tell: swaps.measure(swaps.QUICK, folder, tell),
    ),
    "replay": (
        lambda folder, tell: replay.measure(replay.FULL, folder, tell),
        lambda folder, tell: replay.measure(replay.QUICK, folder, tell),
    ),
    "formats": (
        lambda folder, tell: formats.measure(formats.FULL, folder, tell),
        lambda folder, tell: formats.measure(formats.QUICK, folder, tell),
    ),
    "conditions": (
        lambda folder, tell: conditions.measure(conditions.FULL, folder, tell),
        lambda folder, tell: conditions.measure(conditions.QUICK, folder, tell),
    ),
    "shadow": (
        lambda folder, tell: shadow.measure(shadow.FULL, folder, tell),
        lambda folder, tell: shadow.measure(shadow.QUICK, folder, tell),
    ),
    "selection": (
        lambda folder, tell: selection.measure(selection.FULL, folder, tell),
        lambda folder, tell: selection.measure(selection.QUICK, folder, tell),
    ),
}
"""Each benchmark's name, and it in full and in short."""

_QUIET: Final = 0.1
"""Cores that others may use before the figures suffer."""
_WIDTH: Final = 140
"""Characters in a line where the output is no terminal."""


def main() -> int:
    """Run the chosen benchmarks; return 0, or 1 when one could not be made. A missed target is a finding."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(_PARTS)}; all when left out")
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds: some three minutes for all")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in _PARTS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(_PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    console = Console(stderr=arguments.json)
    if not console.is_terminal:
        console.width = _WIDTH
    found: dict[str, Any] = {"machine": _machine(), "quick": arguments.quick}
    console.print(*(f"{name}: {value}" for name, value in found["machine"].items()), sep="\n", highlight=False)
    started, before = time.monotonic(), others_cpu_seconds()
    try:
        for name in arguments.names or _PARTS:
            found[name] = _run(name, console, quick=arguments.quick).as_json()
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started has been ended.")
        return 130
    except BenchError as error:
        console.print(f"[red]{name} could not be measured:[/] ", end="")
        console.print(str(error), markup=False)
        return 1
    found["seconds"] = time.monotonic() - started
    # Of the whole machine, less this process and what it started: all of that has been waited for.
    found["others"] = (others_cpu_seconds() - before) / found["seconds"]
    console.print(f"\n{found['seconds']:.0f} s in all, in which other processes took {found['others']:.0%} of a core.")
    if found["others"] > _QUIET:
        console.print("[yellow]That is much: on a quiet machine rates are higher, latencies and CPU a message lower.")
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _run(name: str, console: Console, *, quick: bool) -> Result:
    with TemporaryDirectory(prefix="mlade-bench-") as folder, console.status(name) as status:
        result = _PARTS[name][quick](Path(folder), lambda text: status.update(f"{name}: {text}"))
    result.print(console)
    return result


def _machine() -> dict[str, str]:
    packages = ("onnxruntime", "paho-mqtt", "numpy", "msgspec")
    return {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores",
        "processor": _processor(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()) + " (1, 5, 15 minutes)",
        "python": platform.python_version(),
        "packages": ", ".join(f"{package} {version(package)}" for package in packages),
        "broker": f"mosquitto {broker.version()}, fresh each time, on the loopback interface",
        "settings": broker.SETTINGS,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
