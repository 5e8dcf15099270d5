"""What all tests share."""

from __future__ import annotations

import os
import signal

# testcontainers reads these when it is imported, which a plugin below does. Its reaper (Ryuk) is an image of its own
# that a machine without a registry does not have; the fixtures remove what they start.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
# Tests that import onnxruntime by themselves must not upload usage data either (processor/model/__init__.py).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

pytest_plugins = (
    "pytester",
    "tests.disk",
    "tests.front",
    "tests.mosquitto",
    "tests.mqtt_client",
    "tests.proxy",
    "tests.registry",
    "tests.running",
    "tests.exchanging",  # imports those above
)


def pytest_configure() -> None:
    """End on SIGTERM as on Ctrl-C: a CI that gives up waiting then leaves no broker behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
