"""The images are built, and docker-compose.yml brings a plant whose samples come out. Needs a Docker engine.

One worker does it all, so that the images are built once.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import paho.mqtt.client as paho
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion

from tests.containers.engine import (
    PASSED_ON,
    PATIENCE,
    Built,
    Composition,
    build,
    compose_commands,
    give_up,
    inspect,
    require_engine,
    run,
    wait_until,
)
from tests.mosquitto import HOST, answers_connect, free_port
from tests.mqtt_client import Client, MqttClientError
from tests.secured import FOLDER, password, passwords

pytestmark = [pytest.mark.xdist_group("containers"), pytest.mark.timeout(700)]

ROOMY = 240 * 2**20
"""Bytes that mlade and its dependencies may add to the image they begin with."""


class Images(NamedTuple):
    """What was built."""

    processor: Built
    dashboard: Built
    mosquitto: Built


class Ports(NamedTuple):
    """Where the composition is reached."""

    mqtt: int
    http: int
    dashboard: int


@pytest.fixture(scope="module")
def images() -> Images:
    """Build the images, from the Dockerfiles as they are."""
    require_engine()
    return Images(
        build("mlade-test-processor", ".", "python:3.13-slim"),
        build("mlade-test-dashboard", ".", "python:3.13-slim", EXTRAS="dashboard"),
        build("mlade-test-mosquitto", "mosquitto", "debian:bookworm-slim"),
    )


@pytest.fixture(params=compose_commands() or [[]], ids=" ".join)
def composed(request: pytest.FixtureRequest, images: Images) -> Iterator[tuple[Composition, Ports]]:
    """Prepare a composition, and remove it in the end."""
    if not request.param:
        give_up("there is no Docker Compose; on Debian: apt-get install docker-compose")
    ports = Ports(free_port(), free_port(), free_port())
    variables = {
        "PROCESSOR_IMAGE": images.processor.name,
        "DASHBOARD_IMAGE": images.dashboard.name,
        "MOSQUITTO_IMAGE": images.mosquitto.name,
        "MQTT_PORT": str(ports.mqtt),
        "HTTP_PORT": str(ports.http),
        "DASHBOARD_PORT": str(ports.dashboard),
    }
    composition = Composition(request.param, f"mlade-test-{uuid4().hex[:8]}", variables)
    try:
        yield composition, ports
    finally:
        composition.remove()


def connect(port: int) -> Client:
    """Return a client of a broker in a container, when that has started."""
    wait_until(lambda: answers_connect(port), f"a broker on port {port}")
    client = Client(paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False))
    client.connect(port)
    return client


def connect_securely(port: int, ca: Path, user: str) -> Client:
    """Return a client of a broker with TLS and users, when that has started."""
    deadline = time.monotonic() + PATIENCE
    while True:
        client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.tls_set(ca_certs=str(ca))
        client.username_pw_set(user, password(user))
        connected = Client(client)
        try:
            connected.connect(port)
        except (OSError, MqttClientError):  # Docker listens already
            if time.monotonic() > deadline:
                raise
        else:
            return connected


def get(port: int, path: str) -> tuple[int, str]:
    """Return the status and the body of an answer; 0 where there is none."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_image_holds_what_it_needs_and_no_more(images: Images) -> None:
    """No root, no installer, nothing of the machine that built it; and it is not large."""
    name, base = images.processor
    image = inspect("image", name)
    assert image["Config"]["User"] == "mlade"
    assert image["Size"] - inspect("image", base)["Size"] <= ROOMY
    history = run("docker", "history", "--no-trunc", name) + json.dumps(image)
    assert not [setting for setting in PASSED_ON if os.environ.get(setting) and os.environ[setting] in history]
    listed = run("docker", "run", "--rm", "--entrypoint=ls", name, "/opt/mlade/venv/bin").split()
    assert "mlade" in listed
    assert not [program for program in listed if program.startswith("pip")]
    assert run("docker", "run", "--rm", name, "--version").startswith("mlade ")


def test_composition_collects_samples_from_its_plant(composed: tuple[Composition, Ports]) -> None:
    """They come by MQTT and into files; the processor is healthy, not root, and can write to its volumes alone."""
    composition, ports = composed
    composition.call("up", "--detach", "--no-build")
    client = connect(ports.mqtt)
    client.subscribe("mlade/line-1/accepted/+")
    event = json.loads(client.wait_for("mlade/line-1/accepted/+", timeout=60).payload)
    client.publish("mlade/line-1/command", '{"command": "flush"}')
    client.close()
    assert event["subject"].startswith("wearable/")
    wait_until(lambda: get(ports.http, "/readyz")[0] == 200, "ready", lambda: composition.call("logs", "processor"))
    assert composition.services() == {"mosquitto", "processor", "plant", "dashboard"}

    processor = composition.container("processor")
    found = inspect("container", processor)
    probe = found["Config"]["Healthcheck"]["Test"]
    assert probe[0] == "CMD"
    run("docker", "exec", processor, *probe[1:])
    look = "id -u; touch /opt/mlade/x /state/x /samples/x; ls -d /opt/mlade/x /state/x /samples/x; ls /samples/date=*"
    seen = run("docker", "exec", processor, "sh", "-c", look, check=False).split()
    assert seen[:3] == ["10001", "/samples/x", "/state/x"]
    wait_until(lambda: "jsonl" in run("docker", "exec", processor, "sh", "-c", "ls -R /samples"), "a finished file")
    wait_until(lambda: get(ports.dashboard, "/")[0] == 200, "the page", lambda: composition.call("logs", "dashboard"))
    for service in ("mosquitto", "plant", "dashboard"):
        state = inspect("container", composition.container(service))
        assert state["HostConfig"]["ReadonlyRootfs"]
        assert state["State"]["Running"]
        assert state["RestartCount"] == 0

    composition.call("stop", "processor")
    assert inspect("container", processor)["State"]["ExitCode"] == 0


def test_without_the_profile_a_broker_and_a_processor_wait_for_a_plant(composed: tuple[Composition, Ports]) -> None:
    """And what is published while the processor is away, over a restart of the broker, is waiting for it."""
    composition, ports = composed
    composition.variables["COMPOSE_PROFILES"] = ""
    composition.call("up", "--detach", "--no-build")
    assert composition.services() == {"mosquitto", "processor"}
    wait_until(lambda: get(ports.http, "/readyz")[0] == 200, "ready", lambda: composition.call("logs", "processor"))
    composition.call("stop", "processor")
    client = connect(ports.mqtt)
    count = 1_100  # more than Mosquitto keeps unless told otherwise
    for number in range(count):
        client.publish("wearable/7/imu", json.dumps({"ts": 1_790_000_000 + number / 10, **dict.fromkeys("xyz", 0.0)}))
    client.close()
    composition.call("restart", "mosquitto")
    composition.call("start", "processor")
    counted = f'mlade_dead_letters_total{{reason="field"}} {count}.0'
    wait_until(lambda: counted in get(ports.http, "/metrics")[1], counted, lambda: get(ports.http, "/metrics")[1])


def test_secured_broker_starts_from_the_files_that_belong_to_it(images: Images, tmp_path: Path) -> None:
    """As its comment tells: certificates and passwords beside them, mounted over the image's own."""
    authority = trustme.CA()
    server = authority.issue_cert(HOST)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.crt")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    (tmp_path / "passwords").write_text(passwords(["operator"]))
    for name in ("access.conf", "acl"):
        shutil.copy(FOLDER / "secured" / name, tmp_path)
    tmp_path.chmod(0o755)  # pytest's directories are their owner's; Mosquitto has a user of its own
    (tmp_path / "server.key").chmod(0o644)
    port = free_port()
    published, mounted = f"--publish={HOST}:{port}:8883", f"--volume={tmp_path}:/mosquitto/config/access:ro"
    container = run("docker", "run", "--detach", "--rm", published, mounted, images.mosquitto.name).strip()
    try:
        operator = connect_securely(port, tmp_path / "ca.crt", "operator")
        operator.subscribe("mlade/#")
        operator.publish("mlade/line-1/filter", "{}")
        assert operator.wait_for("mlade/line-1/filter").payload == b"{}"
        operator.close()
    finally:
        run("docker", "rm", "--force", "--volumes", container)
