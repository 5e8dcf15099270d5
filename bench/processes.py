"""Child processes, and what the kernel says they used."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[1]
"""Where `python -m` finds bench, and processor as it stands in this tree."""
PYTHON_MODULE = (sys.executable, "-m")
_PATIENCE = 10.0
"""Seconds for a process to end after SIGTERM."""
_LOG_KEPT = 2000
"""Characters of a process's log that an error quotes."""

_libc = ctypes.CDLL(None)


class Child:
    """A running process of ours.

    Attributes:
        name: for messages.
        process: for its pipes.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        """Wrap `process`, whose standard error goes to `log`."""
        self.name = name
        self.process = process
        self._log = log
        clock = ctypes.c_int()
        if _libc.clock_getcpuclockid(process.pid, ctypes.byref(clock)):
            raise self.failed("ended at once")
        self._clock = clock.value

    def cpu_seconds(self) -> float:
        """Return the user and system time of all its threads so far, those that have ended included."""
        return time.clock_gettime(self._clock)

    def peak_bytes(self) -> int:
        """Return the largest resident set it has had."""
        return self._status("VmHWM")

    def resident_bytes(self) -> int:
        """Return its resident set."""
        return self._status("VmRSS")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        if found is None:
            raise self.failed(f"has no {name} in /proc: it has ended")
        return int(found[1]) * 1024

    def ask(self, question: str = "") -> str:
        """Write a line to its standard input and return the line that it answers with."""
        if self.process.stdin is None or self.process.stdout is None:
            raise self.failed("was started without pipes")
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise self.failed("does not answer")
        return answer

    def failed(self, what: str) -> BenchError:
        """Return an error saying that this process did `what`, with the end of its log."""
        log = self._log.read_text(errors="replace")[-_LOG_KEPT:]
        return BenchError(f"{self.name} {what}. Its log ends with:\n{log}")


@contextmanager
def running(name: str, command: Sequence[str], folder: Path, *, pipes: bool = False) -> Iterator[Child]:
    """Run a command until the block ends.

    Args:
        name: for messages and the log's file name.
        command: program and arguments.
        folder: where its log goes.
        pipes: connect its standard input and output; without, its output is discarded.
    """
    log = folder / f"{name}.log"
    pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
    with log.open("ab") as errors:
        # The commands are this package's own.
        process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=errors, text=True)  # noqa: S603
    try:
        yield Child(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def wait_until(true: Callable[[], bool], what: str, child: Child, *, timeout: float, every: float = 0.02) -> None:
    """Look every `every` seconds until `true`.

    Raises:
        BenchError: `child` ended, or `timeout` seconds passed before `what`.
    """
    deadline = time.monotonic() + timeout
    while not true():
        if child.process.poll() is not None:
            raise child.failed(f"ended with exit code {child.process.returncode} before {what}")
        if time.monotonic() > deadline:
            raise child.failed(f"took longer than {timeout:g} s until {what}")
        time.sleep(every)


def fsync_seconds(folder: Path, count: int = 200) -> list[float]:
    """Return how long `count` appends of 4 KiB took to reach the disk, sorted."""
    taken = []
    file = folder / "fsync"
    handle = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(count):
            os.write(handle, bytes(4096))
            started = time.perf_counter()
            os.fsync(handle)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(handle)
        file.unlink()
    return sorted(taken)


def file_system(folder: Path) -> str:
    """Return the type of the file system that `folder` is on."""
    best, kind = 0, "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, place, name, *_ = line.split()
        if folder.resolve().is_relative_to(place) and len(place) >= best:
            best, kind = len(place), name
    return kind


def others_cpu_seconds() -> float:
    """Return the CPU time of this machine since it started, less that of this process and its ended children."""
    ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = ticks
    everything = (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")
    ours = os.times()
    return everything - ours.user - ours.system - ours.children_user - ours.children_system
