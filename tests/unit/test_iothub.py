"""The parts of the IoT Hub bridge that need no hub: who we are, what is in a message, how fast they go."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from processor import connection_string, document
from processor.admission import ROW_OVERHEAD
from processor.bridges.iothub import identity
from processor.bridges.iothub.messages import LARGEST, packed, packs, reference, room, single
from processor.bridges.iothub.rate import Flow, Rate
from processor.clock import ManualClock
from processor.errors import ConfigurationError
from processor.outbox import Waiting
from processor.settings import HubBridge, Settings
from processor.types import NS
from tests.iothub.identity import Authority
from tests.unit.test_settings import paths, settings

DAY = 86_400 * NS
KEY = base64.b64encode(b"a secret of 32 bytes, or so said").decode()
DEVICE = f"HostName=plant.azure-devices.net;DeviceId=line-1;SharedAccessKey={KEY}"
SAS = {"host": "plant.azure-devices.net", "device": "line-1", "key_file": "key"}


def hub(directory: Path = Path("/etc/mlade"), **keys: Any) -> tuple[HubBridge, Settings]:  # noqa: ANN401 - JSON
    """Return settings with one bridge to a hub."""
    made = settings(directory, bridges=[{"type": "iothub", **keys}])
    bridge = made.bridges[0]
    assert isinstance(bridge, HubBridge)
    return bridge, made


def sample(number: int, size: int = 500, rule: str = "rule", model: str = "model") -> tuple[Waiting, bytes]:
    """Return a sample with an event of `size` bytes."""
    event = json.dumps({"id": f"{number:032x}", "data": ""}).encode()
    event = event[:-2] + b"x" * (size - len(event)) + event[-2:]
    waiting = Waiting(number, f"{number:032x}", rule, "label", "a/stream", model, DAY, 0, len(event) + ROW_OVERHEAD)
    return waiting, event


# Settings and identity.


def test_a_hub_s_settings_are_by_default_as_the_contract_says() -> None:
    """Window, timeout, one sample a message, upload of what is too large."""
    bridge, _ = hub(connection_string=DEVICE)
    assert (bridge.name, bridge.websockets, bridge.window, bridge.timeout) == ("iothub", False, 64, 30 * NS)
    assert (bridge.rate.messages_per_second, bridge.rate.messages_per_day) == (None, None)
    assert (bridge.pack.max_bytes, bridge.pack.linger, bridge.upload, bridge.legacy) == (0, NS, "oversize", None)
    assert KEY not in repr(bridge)


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({}, "bridges[0]"),
        ({"connection_string": DEVICE, "sas": SAS}, "bridges[0]"),
        ({"connection_string": DEVICE, "edge": True}, "bridges[0]"),
        ({"edge": False}, "bridges[0]"),
        ({"edge": True, "tls": {"ca": "ca.pem"}}, "bridges[0].tls.ca"),
        ({"sas": {**SAS, "host": "https://plant.azure-devices.net"}}, "bridges[0].sas.host"),
        ({"sas": {**SAS, "device": "line 1"}}, "bridges[0].sas.device"),
        ({"x509": {"host": "h", "device": "d", "cert": "c"}}, "bridges[0].x509.key"),
        ({"dps": {"scope": "0ne", "registration": "line-1"}}, "bridges[0].dps"),
        ({"dps": {"scope": "0ne", "registration": "d", "key_file": "k", "cert": "c", "key": "k"}}, "bridges[0].dps"),
        ({"connection_string": DEVICE, "pack": {"max_bytes": 100}}, "bridges[0].pack.max_bytes"),
        ({"connection_string": DEVICE, "pack": {"max_bytes": "1MiB"}}, "bridges[0].pack.max_bytes"),
        ({"connection_string": DEVICE, "rate": {"messages_per_second": 0}}, "bridges[0].rate.messages_per_second"),
        ({"connection_string": DEVICE, "upload": "always"}, "bridges[0].upload"),
        ({"connection_string": DEVICE, "legacy": {}}, "bridges[0].legacy.field"),
    ],
)
def test_what_is_no_identity_or_out_of_bounds_is_refused(keys: dict[str, Any], path: str) -> None:
    """With its path."""
    with pytest.raises(ConfigurationError) as refusal:
        hub(**keys)
    assert paths(refusal) == [path]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "lacks HostName, DeviceId, SharedAccessKey"),
        ("hunter2", "no connection string"),
        (f"HostName=plant.net;DeviceId=line-1;{KEY};", "no connection string"),
        (DEVICE.replace("DeviceId", "deviceid"), "has deviceid"),
        (DEVICE.replace("DeviceId=line-1;", ""), "lacks DeviceId"),
        (DEVICE + ";DeviceId=other", "DeviceId twice"),
        (f"HostName=plant.net;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}", "of the hub's own"),
        (DEVICE.replace("plant.azure-devices.net", "https://plant"), "HostName in the connection string is no host"),
        (DEVICE.replace(KEY, "not/a?key"), "SharedAccessKey in the connection string is no key"),
        ("HostName=plant.net;DeviceId=line-1;x509=true", "give x509"),
    ],
)
def test_a_malformed_connection_string_is_explained_and_not_shown(text: str, expected: str, tmp_path: Path) -> None:
    """Wherever it comes from."""
    (tmp_path / "secret").write_text(text)
    bridge, made = hub(tmp_path, connection_string_file="secret")
    with pytest.raises(ConfigurationError) as in_a_file:
        identity.load(bridge, made, {})
    with pytest.raises(ConfigurationError) as given_itself:
        hub(connection_string=text)
    assert paths(in_a_file) == ["bridges[0].connection_string_file"]
    assert paths(given_itself) == ["bridges[0].connection_string"]
    for refusal in (in_a_file, given_itself):
        assert expected in str(refusal.value)
        assert KEY not in str(refusal.value)
        assert not any(secret in str(refusal.value) for secret in ("hunter2", "not/a?key"))


def test_a_connection_string_in_a_broken_environment_variable_is_not_shown() -> None:
    """A list that is no JSON stays text, which is quoted elsewhere."""
    with pytest.raises(ConfigurationError) as refusal:
        settings(bridges=f'[{{"connection_string":"SharedAccessKey={KEY}"')
    assert paths(refusal) == ["bridges"]
    assert KEY[:8] not in str(refusal.value)


def test_connection_strings_are_of_devices_or_modules() -> None:
    """White space around them and empty parts do not matter."""
    device = connection_string.parse(f" {DEVICE};\n")
    assert (device.host, device.device, device.module, device.gateway) == (
        "plant.azure-devices.net", "line-1", None, None,
    )  # fmt: skip
    assert device.text == DEVICE
    module = connection_string.parse(f"{DEVICE};ModuleId=mlade;GatewayHostName=edge")
    assert (module.module, module.gateway) == ("mlade", "edge")
    assert KEY not in repr(module)


def test_all_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    """Files that are not there, keys that are none, certificates that are none."""
    (tmp_path / "key").write_text("geheim")
    (tmp_path / "ca.pem").write_text("no certificate")
    bridge, made = hub(tmp_path, sas=SAS, tls={"ca": "ca.pem"})
    with pytest.raises(ConfigurationError) as refusal:
        identity.load(bridge, made, {})
    assert paths(refusal) == ["bridges[0].sas.key_file", "bridges[0].tls.ca"]
    assert "geheim" not in str(refusal.value)
    x509 = {"host": "h", "device": "d", "cert": "c", "key": "k"}
    bridge, made = hub(tmp_path, x509=x509, tls={"ca": "missing"})
    with pytest.raises(ConfigurationError) as refusal:
        identity.load(bridge, made, {})
    assert paths(refusal) == ["bridges[0].x509.cert", "bridges[0].x509.key", "bridges[0].tls.ca"]
    bridge, made = hub(tmp_path, edge=True)
    with pytest.raises(ConfigurationError, match="IOTEDGE_WORKLOADURI"):
        identity.load(bridge, made, {})


SECRET_FILES: list[tuple[dict[str, Any], str]] = [
    ({"connection_string_file": DEVICE}, "connection_string_file"),
    ({"sas": SAS | {"key_file": KEY}}, "sas.key_file"),
    ({"dps": {"scope": "0ne", "registration": "r", "key_file": KEY}}, "dps.key_file"),
    ({"x509": {"host": "h", "device": "d", "cert": "c", "key": f"-----BEGIN PRIVATE KEY-----\n{KEY}"}}, "x509.key"),
]


@pytest.mark.parametrize(("keys", "path"), SECRET_FILES)
def test_a_secret_in_place_of_its_file_s_name_is_not_shown(keys: dict[str, Any], path: str, tmp_path: Path) -> None:
    """A likely slip, which must not bring the key into a log."""
    bridge, made = hub(tmp_path, **keys)
    with pytest.raises(ConfigurationError, match="the name of a file that holds it") as refusal:
        identity.load(bridge, made, {})
    assert f"bridges[0].{path}" in paths(refusal)
    assert KEY not in str(refusal.value)


def test_certificates_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    """Now, not with every connection: no PEM, the key of another, one with a pass phrase, nothing to trust."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("line-1")
    _, another = authority.issue("line-2")
    encrypted = tmp_path / "encrypted.key"
    loaded = load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(
        loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a pass phrase"))
    )
    (tmp_path / "empty").write_text("")

    def told(cert: Path, key: Path, ca: str = "ca.pem") -> list[str]:
        x509 = {"host": "h", "device": "d", "cert": str(cert), "key": str(key)}
        bridge, made = hub(tmp_path, x509=x509, tls={"ca": ca})
        try:
            identity.load(bridge, made, {})
        except ConfigurationError as error:
            return [str(problem) for problem in error.problems]
        return []

    assert told(cert, key) == []
    assert told(key, cert) == [f"bridges[0].x509.cert: {key} holds no certificate in PEM"]
    assert told(cert, cert) == [f"bridges[0].x509.key: {cert} holds no private key in PEM"]
    assert told(cert, another) == [
        f"bridges[0].x509.key: {another} is not the private key of the certificate in {cert}"
    ]
    (needs,) = told(cert, encrypted)
    assert "needs a pass phrase" in needs
    assert told(cert, key, "empty") == ["bridges[0].tls.ca: empty holds no certificates in PEM"]


def test_keys_are_read_again_each_time(tmp_path: Path) -> None:
    """A new one takes effect with the next connection; none is in a representation."""
    bridge, made = hub(tmp_path, sas=SAS)
    for key in (KEY, base64.b64encode(b"another").decode()):
        (tmp_path / "key").write_text(f"{key}\n")
        found = identity.load(bridge, made, {})
        assert found.identity == identity.WithKey("plant.azure-devices.net", "line-1", key)
        assert key not in repr(found)


def test_the_examples_in_the_documentation_are_valid_and_its_arithmetic_holds() -> None:
    """The configuration, and what 400,000 blocks carry."""
    text = (Path(__file__).parents[2] / "docs" / "iothub.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)```", text, re.DOTALL | re.MULTILINE)  # the second goes on with the first
    written = document.parse("".join(blocks))
    assert isinstance(written, dict)
    (bridge,) = settings(**written).bridges
    assert isinstance(bridge, HubBridge)
    assert (bridge.rate.messages_per_day, bridge.pack.max_bytes) == (400_000, 16 << 10)
    rows = re.findall(r"\| `max_bytes: (\d+)KiB` \| (\d+) \| (\d+) \| ([\d.]+) million \|", text)
    for size, count, billed, million in rows:
        fitting = room(int(size) << 10) // 751
        message = packed([sample(number, 750) for number in range(fitting)])
        assert (fitting, message.blocks) == (int(count), int(billed))
        assert fitting * 400_000 // message.blocks / 1e6 == pytest.approx(float(million), abs=0.05)
    assert len(rows) == 3


# Messages.


def test_a_message_of_one_sample() -> None:
    """Its id is the event's; its properties are for the hub's routes."""
    waiting, event = sample(7)
    message = single(waiting, event)
    assert (message.id, message.body, message.content_type) == (waiting.id, event, "application/json")
    assert message.properties == {"rule": "rule", "label": "label", "stream": "a/stream", "model": "model"}
    assert (message.blocks, single(*sample(8, size=4096)).blocks) == (1, 2)


def test_a_pack_is_a_json_array_whose_id_its_events_give() -> None:
    """The same samples give the same message, others another one."""
    samples = [sample(number) for number in range(5)]
    message = packed(samples)
    assert json.loads(message.body) == [json.loads(event) for _, event in samples]
    assert message.content_type == "application/cloudevents-batch+json"
    assert message.properties == {"rule": "rule", "model": "model", "count": "5"}
    assert packed(samples) == message
    assert len({packed(samples[:count]).id for count in range(1, 6)}) == 5
    assert len(message.id) == 32


@given(
    st.lists(st.integers(80, 4000), min_size=1, max_size=200),
    st.integers(4 << 10, 256 << 10),
    st.text("aß€𝄞", min_size=1, max_size=40),
)
def test_packs_are_no_larger_than_was_asked_for(sizes: list[int], max_bytes: int, model: str) -> None:
    """With their properties, as long as the names are of a usual length; and the SDK takes all of them."""
    left, group = room(max_bytes), []
    for number, size in enumerate(sizes):
        if size + 1 > left:
            break
        left -= size + 1
        group.append(sample(number, size, model=model))
    if group:
        message = packed(group)
        assert message.size <= max_bytes
        assert message.fits


@given(st.lists(st.integers(80, 90_000) | st.just(LARGEST + 1), min_size=1, max_size=30))
def test_a_claim_from_larger_times_is_split(sizes: list[int]) -> None:
    """Each sample is in one message, in order; what does not fit is alone."""
    samples = [sample(number, size) for number, size in enumerate(sizes)]
    messages = packs(samples)
    assert [each for message in messages for each in message.samples] == [waiting for waiting, _ in samples]
    assert all(message.fits or len(message.samples) == 1 for message in messages)


def test_what_stands_for_an_uploaded_event_is_that_event_without_its_content() -> None:
    """The same id, and where the content is."""
    whole = {"specversion": "1.0", "id": "1", "data": {"readings": []}, "time": "now"}
    short = json.loads(reference(json.dumps(whole).encode(), "https://account/container/blob"))
    assert short == {"specversion": "1.0", "id": "1", "time": "now", "dataref": "https://account/container/blob"}


# How fast.


@pytest.mark.parametrize("per_second", [0.5, 4.6, 1000.0])
def test_messages_leave_at_the_configured_rate(per_second: float) -> None:
    """Over any stretch of time, but for a second's worth that was saved up."""
    clock = ManualClock(wall=DAY)
    rate = Rate(clock, per_second=per_second, per_day=None)
    times = []
    for _ in range(1000):
        while (pause := rate.wait(1)) > 0:
            clock.advance(pause)
        rate.take(1)
        times.append(clock.monotonic())
    assert 999 / (times[-1] - times[0]) == pytest.approx(per_second, rel=0.01)
    clock.advance(3600)
    burst = 0
    while rate.wait(1) == 0:
        rate.take(1)
        burst += 1
    assert burst == max(1, int(per_second))


def test_the_day_s_quota_ends_at_midnight_utc() -> None:
    """It counts blocks; a message that is larger than all of it is a day's only one."""
    clock = ManualClock(wall=20_000 * DAY + 23 * 3600 * NS)
    rate = Rate(clock, per_second=None, per_day=10)
    for _ in range(3):
        assert rate.wait(3) == 0
        rate.take(3)
    assert (rate.left(), rate.wait(1), rate.is_used_up(2)) == (1, 0, True)
    assert rate.wait(2) == pytest.approx(3600)
    clock.advance(3600)
    assert (rate.left(), rate.wait(64)) == (10, 0)
    rate.take(64)
    assert (rate.left(), rate.is_used_up(1)) == (0, True)


def test_a_clock_that_is_set_back_gives_no_quota() -> None:
    """Nor does one that was wrong for a while hold it back for long."""
    clock = ManualClock(wall=20_000 * DAY)
    rate = Rate(clock, per_second=None, per_day=2)
    rate.take(2)
    clock.set_wall(0)
    assert rate.is_used_up(1)
    clock.advance(86_400)
    assert not rate.is_used_up(1)


def test_what_was_used_survives_a_restart() -> None:
    """Without what was kept, it is a message more; with it, none."""
    clock = ManualClock(wall=20_000 * DAY)
    rate = Rate(clock, per_second=1.0, per_day=10)
    rate.take(4)
    kept = json.loads(json.dumps(rate.memory()))
    clock.advance(0.5)
    again = Rate(clock, per_second=1.0, per_day=10, kept=kept)
    assert again.left() == 6
    assert again.wait(1) == pytest.approx(0.5)
    clock.advance(86_400)
    assert Rate(clock, per_second=1.0, per_day=10, kept=kept).left() == 10


def test_losses_narrow_the_window_and_lengthen_the_pauses() -> None:
    """What is acknowledged opens it again; a network that fails now and then is not taken for push-back."""
    flow = Flow(64)
    pauses = [flow.lost() for _ in range(10)]
    assert flow.window == 1
    assert all(later == min(2 * earlier, 30.0) for earlier, later in pairwise(pauses))
    for _ in range(64 * 64):
        flow.acknowledged()
    assert (flow.window, flow.share, flow.losses) == (64, 1.0, 0)
    assert flow.lost() == pauses[0]
    assert flow.lost(lasted=3600) == pauses[0]
    assert flow.window == 16
