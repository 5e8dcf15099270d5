"""What a configuration means: defaults, units, the environment, paths. What is wrong with one: test_check.py."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from processor import document
from processor.bridge_sections import FilesBridge
from processor.errors import ConfigurationError, Problem
from processor.sections import Section
from processor.settings import Settings, build, check, client_options, load, load_filter, read
from processor.types import NS

EXAMPLE = Path(__file__).parents[2] / "config" / "processor.yaml"
LEAST: dict[str, Any] = {
    "id": "line-1",
    "sources": [{"name": "imu", "topics": ["a/+"], "fields": ["x", "y"]}],
    "model": {"path": "m.onnx"},
    "filter": "filter.yaml",
}


def settings(directory: Path = Path("/etc/mlade"), **changes: Any) -> Settings:  # noqa: ANN401 - JSON
    """Build settings from the least there must be, and `changes`."""
    return build(LEAST | changes, directory)


def from_environment(tmp_path: Path, data: Mapping[str, Any] = LEAST, **variables: str) -> Settings:
    """Load a file with variables over it."""
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(data))
    return load(path, variables)


def paths(refusal: pytest.ExceptionInfo[ConfigurationError]) -> list[str]:
    """Return the paths of all problems."""
    return [problem.path for problem in refusal.value.problems]


def test_what_is_left_out_is_as_the_contract_says() -> None:
    """The defaults, in nanoseconds and bytes."""
    least = settings()
    assert (least.topic_prefix, least.root, least.client_id) == ("mlade", "mlade/line-1", "mlade-line-1")
    broker, source, window = least.needed_broker, least.sources[0], least.slots[0].model.window
    assert (broker.url, broker.protocol, broker.session_expiry) == ("mqtt://127.0.0.1:1883", 5, 3600 * NS)
    assert (broker.receive_maximum, broker.max_payload) == (1000, 1 << 20)
    assert (source.qos, source.format, source.stream, source.time) == (1, "json", "{topic}", None)
    assert (source.time_unit, source.max_ahead) == ("auto", 86_400 * NS)
    assert (window.size, window.step, window.max_gap, window.max_streams) == (1, 1, None, 10_000)
    model = least.slots[0].model
    assert (model.batch.max_size, model.batch.max_delay, model.threads) == (512, 0, 1)
    assert (least.outbox.max_bytes, least.outbox.max_age) == (1 << 30, 7 * 86_400 * NS)
    assert (least.outbox.when_full, least.outbox.durability) == ("drop_oldest", "full")
    assert [bridge.name for bridge in least.bridges] == ["mqtt"]
    assert (least.publish_inference, least.metrics.publish_every) == (False, NS)
    assert least.http is not None
    assert least.http.listen == "127.0.0.1:9464"


def test_the_example_shows_every_key_with_what_it_is_when_left_out() -> None:
    """config/processor.yaml is complete and does not lie, except where it sets up the demo's data and model."""
    chosen = {"state_dir", "sources[0].time", "model.window.size", "model.window.step", "model.window.max_gap"}
    chosen |= {"filter", "model.input.layout", "bridges", "sources[0].topics"}
    example = document.parse(EXAMPLE.read_bytes())
    assert isinstance(example, dict)
    chosen |= {"sources[0].fields"}
    found = list(differences(example, Settings, load(EXAMPLE, {}), "", chosen))
    of_other_formats = [f"sources[0].{key} is missing" for key in ("csv", "binary", "opcua", "sparkplug", "image")]
    assert set(found) == {*of_other_formats, "sources[0].model is missing", "models is missing"}


def differences(given_keys: dict[str, Any], section: type[BaseModel], values: Any, path: str, chosen: set[str]) -> Any:  # noqa: ANN401
    """Yield the paths of keys that the example lacks, or that are not what they are by default."""
    for key, field in section.model_fields.items():
        here = f"{path}{key}"
        value = getattr(values, key)
        if key not in given_keys:
            yield f"{here} is missing"
        elif isinstance(value, Section):
            yield from differences(given_keys[key], type(value), value, f"{here}.", chosen)
        elif key == "sources":
            yield from differences(given_keys[key][0], type(value[0]), value[0], "sources[0].", chosen)
        elif not field.is_required() and here not in chosen and value != field.get_default(call_default_factory=True):
            yield f"{here} is {value}"


def test_units() -> None:
    """Durations become nanoseconds and sizes bytes, in every unit."""
    read_as = settings(
        broker={"session_expiry": "2h", "max_payload": "64KiB"},
        model={"path": "m", "window": {"max_gap": "500ms"}},
        outbox={"max_age": "5m", "max_bytes": 4096},
    )
    assert (read_as.needed_broker.session_expiry, read_as.needed_broker.max_payload) == (7200 * NS, 65_536)
    assert read_as.slots[0].model.window.max_gap == NS // 2
    assert (read_as.outbox.max_age, read_as.outbox.max_bytes) == (300 * NS, 4096)
    assert settings(broker={"session_expiry": 0}).needed_broker.session_expiry == 0


def test_the_environment_is_laid_over_the_file(tmp_path: Path) -> None:
    """Keys of any depth, numbers and truth values from text, lists and mappings as JSON, null."""
    loaded = from_environment(
        tmp_path,
        MLADE_ID="7",
        MLADE_BROKER='{"url": "mqtt://a", "username": "bob"}',
        MLADE_BROKER__URL="mqtt://b",
        MLADE_BROKER__PROTOCOL="5",
        MLADE_BROKER__MAX_PAYLOAD="65536",
        MLADE_BROKER__SESSION_EXPIRY="0",
        MLADE_BROKER__TLS__INSECURE_SKIP_VERIFY="true",
        MLADE_MODEL__WINDOW__SIZE="30",
        MLADE_MODEL__TEMPERATURE="1.5",
        MLADE_MODEL__INPUT__MEAN="[1, 2]",
        MLADE_MODEL__INPUT__STD="2.5",
        MLADE_SOURCES='[{"name": "other", "topics": ["b"], "fields": ["p", "q"]}]',
        MLADE_HTTP="null",
    )
    broker, model = loaded.needed_broker, loaded.slots[0].model
    assert (loaded.id, broker.url, broker.username, broker.protocol) == ("7", "mqtt://b", "bob", 5)
    assert (broker.max_payload, broker.session_expiry, broker.tls.insecure_skip_verify) == (65_536, 0, True)
    assert (model.path, model.window.size, model.temperature) == ("m.onnx", 30, 1.5)
    assert (model.input.mean, model.input.std) == ([1, 2], 2.5)
    assert (loaded.sources[0].name, loaded.http) == ("other", None)


def test_a_filter_in_the_file_can_be_changed_from_the_environment(tmp_path: Path) -> None:
    """Its values have their types, though a filter takes no text for them; a filter's file has no keys here."""
    inside = LEAST | {"filter": {"rules": [{"name": "a"}], "schedule": {"timezone": "UTC"}}}
    variables = {"MLADE_FILTER__ENABLED": "false", "MLADE_FILTER__SCHEDULE__DUTY_CYCLE__FRACTION": "0.5"}
    variables["MLADE_FILTER__SCHEDULE__DUTY_CYCLE__PERIOD"] = "10m"
    loaded, _ = load_filter(from_environment(tmp_path, inside, **variables).slots[0])
    assert not loaded.enabled
    assert loaded.schedule is not None
    assert loaded.schedule.duty_cycle is not None
    assert loaded.schedule.duty_cycle.fraction == 0.5
    with pytest.raises(ConfigurationError, match="filter is no mapping here; set filter as a whole instead"):
        from_environment(tmp_path, MLADE_FILTER__ENABLED="false")


@pytest.mark.parametrize("password", ["[1", "null", "true", "12", "{}", '"x"', " "])
def test_a_password_from_the_environment_is_what_it_is(password: str, tmp_path: Path) -> None:
    """Whatever it looks like."""
    assert from_environment(tmp_path, MLADE_BROKER__PASSWORD=password).password == password


def test_others_variables_are_left_alone(tmp_path: Path) -> None:
    """Also those with our prefix, unless they can only be meant for us."""
    from_environment(tmp_path, MLADE_TEST_MOSQUITTO="auto", PATH="x", mlade_id="-!-")
    with pytest.raises(ConfigurationError, match='MLADE_BROKR__URL: unknown key brokr; did you mean "broker"'):
        from_environment(tmp_path, MLADE_BROKR__URL="x")


def test_the_environment_does_not_change_what_was_read(tmp_path: Path) -> None:
    """The file's data are copied where they are entered."""
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(LEAST))
    before = read(path, {})
    read(path, {"MLADE_MODEL__PATH": "other"})
    assert check(before, tmp_path).slots[0].model.path == "m.onnx"


def test_text_for_numbers_is_no_licence() -> None:
    """What is not a number's text, and truth values for numbers, are refused."""
    wrong = {"size": "1_0", "step": True, "max_streams": 1.5}
    with pytest.raises(ConfigurationError) as refusal:
        settings(model={"path": "m", "window": wrong, "threads": "NaN", "temperature": "Infinity"})
    assert set(paths(refusal)) == {f"model.window.{key}" for key in wrong} | {"model.threads", "model.temperature"}


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working directory; ~ is the home, and an unknown user's home no traceback."""
    monkeypatch.setenv("HOME", "/home/ann")
    loaded = from_environment(tmp_path)
    assert loaded.path("models/m.onnx") == tmp_path / "models" / "m.onnx"
    assert loaded.path("../m.onnx") == tmp_path.parent / "m.onnx"
    assert loaded.path("/m.onnx") == Path("/m.onnx")
    assert loaded.path("~/m.onnx") == Path("/home/ann/m.onnx")
    assert loaded.path("~nobody-here/m.onnx") == tmp_path / "~nobody-here" / "m.onnx"
    (tmp_path / "loop").symlink_to("loop")
    assert loaded.path("loop/m.onnx") == tmp_path / "loop" / "m.onnx"


def test_the_password_s_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    """Without the newline that editors add, and with a sentence when it is not there."""
    loaded = settings(tmp_path, broker={"password_file": "secret", "username": "bob", "tls": {"ca": None}})
    with pytest.raises(ConfigurationError) as refusal:
        client_options(loaded)
    assert paths(refusal) == ["broker.password_file"]
    (tmp_path / "secret").write_text("hunter2\n")
    options = client_options(loaded)
    assert (options["username"], options["password"], options["tls"].ca) == ("bob", "hunter2", None)
    assert "hunter2" not in repr(settings(broker={"password": "hunter2"}))


def test_tls_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    """As absolute paths."""
    tls = {"ca": "ca.pem", "cert": "c.pem", "key": "k.pem"}
    options = client_options(settings(tmp_path, broker={"url": "mqtts://x", "tls": tls}))
    assert options["tls"][:3] == tuple(str(tmp_path / name) for name in tls.values())


@pytest.mark.parametrize(
    "url", ["mqtt://h", "mqtts://h:8883", "ws://h/mqtt", "wss://bob:pw@h:443/x", "mqtt://[::1]:1883"]
)
def test_urls_of_brokers(url: str) -> None:
    """All four schemes, with what may stand around the host."""
    assert settings(broker={"url": url}).needed_broker.url == url


@pytest.mark.parametrize(
    "url", ["", "h:1883", "mqtt://", "mqtt://h:0", "mqtt://h:x", "mqtt://[::1", "tcp://h", "MQTT//h"]
)
def test_what_is_no_url_of_a_broker(url: str) -> None:
    """A path, not a traceback."""
    with pytest.raises(ConfigurationError) as refusal:
        settings(broker={"url": url})
    assert paths(refusal) == ["broker.url"]


@pytest.mark.parametrize(
    ("stream", "topics"),
    [
        ("{topic[2]}", ["a/+/c"]),
        ("{topic[9]}", ["a/#"]),
        ("{topic[2]}", ["$share/g/a/+/c"]),
        ("{source}-{field:dev/ice}", ["a"]),
        ("one for all", ["a"]),
        ("{topic}/{topic[0]}", ["a"]),
    ],
)
def test_templates_of_streams(stream: str, topics: list[str]) -> None:
    """Levels that every matching topic has, one field of the payload, and text."""
    source = {"name": "a", "topics": topics, "fields": ["x"], "stream": stream}
    assert settings(sources=[source]).sources[0].stream == stream


@pytest.mark.parametrize(
    ("stream", "topics"),
    [
        ("", ["a"]),
        ("{topic[1]}", ["a/#", "a"]),
        ("{topic[3]}", ["$share/g/a/b/c"]),
        ("{field:a}{field:b}", ["a"]),
        ("{topic[-1]}", ["a"]),
        ("{Topic}", ["a"]),
        ("{", ["a"]),
        ("{field:}", ["a"]),
    ],
)
def test_what_is_no_template_of_a_stream(stream: str, topics: list[str]) -> None:
    """Levels that a topic may lack, a second field, and anything else in braces."""
    with pytest.raises(ConfigurationError) as refusal:
        settings(sources=[{"name": "a", "topics": topics, "fields": ["x"], "stream": stream}])
    assert paths(refusal) == ["sources[0].stream"]


def test_shared_subscriptions_are_for_point_data() -> None:
    """With windows of one reading it does not matter which processor gets it."""
    source = {"name": "a", "topics": ["$share/g/a"], "fields": ["x"]}
    assert settings(sources=[source]).sources[0].topics == ["$share/g/a"]
    for size in (2, "2"):
        with pytest.raises(ConfigurationError, match=r"\$share needs model\.window\.size 1"):
            settings(sources=[source], model={"path": "m", "window": {"size": size}})


EDGE_BRIDGE = {"type": "iothub", "edge": True}


def test_without_a_broker_all_comes_on_inputs() -> None:
    """A source is named as its input, where it has no name of its own."""
    sources = [{"input": "input1", "fields": ["x"]}, {"name": "b", "input": "input2", "fields": ["x"]}]
    without = settings(broker=None, sources=sources, bridges=[EDGE_BRIDGE])
    assert [(one.name, one.input) for one in without.sources] == [("input1", "input1"), ("b", "input2")]
    assert without.hub is not None
    with pytest.raises(ConfigurationError, match="needs an MQTT broker"):
        client_options(without)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"broker": None, "bridges": [EDGE_BRIDGE]}, ["sources[0].topics"]),
        ({"broker": None, "sources": [{"input": "a", "fields": ["x"]}]}, ["sources[0].input", "bridges"]),
        ({"sources": [{"input": "a", "fields": ["x"]}], "bridges": []}, ["sources[0].input"]),
        ({"sources": [{"input": "a/b", "fields": ["x"]}], "bridges": [EDGE_BRIDGE]}, ["sources[0].input"]),
        ({"sources": [{"name": "a", "fields": ["x"]}]}, ["sources[0].topics"]),
        ({"sources": [{"name": "a", "topics": [], "fields": ["x"]}]}, ["sources[0].topics"]),
        (
            {
                "sources": [{"input": "a", "fields": ["x"]}, {"name": "b", "input": "a", "fields": ["x"]}],
                "bridges": [EDGE_BRIDGE],
            },
            ["sources[1].input"],
        ),
        (
            {"sources": [{"input": "a", "fields": ["x"], "stream": "{topic[1]}"}], "bridges": [EDGE_BRIDGE]},
            ["sources[0].stream"],
        ),
    ],
)  # fmt: skip
def test_inputs_that_nothing_comes_on_are_refused(changes: dict[str, Any], expected: list[str]) -> None:
    """And sources without any inlet, or with one that is another's."""
    with pytest.raises(ConfigurationError) as refusal:
        settings(**changes)
    assert paths(refusal) == expected


def test_bridges_are_named_for_their_type() -> None:
    """Two of a type need names of their own; none at all is possible."""
    files = {"type": "files", "path": "a"}
    two = settings(bridges=[files, {**files, "name": "second"}]).bridges
    assert [(type(bridge), bridge.name) for bridge in two] == [(FilesBridge, "files"), (FilesBridge, "second")]
    assert settings(bridges=[]).bridges == []
    with pytest.raises(ConfigurationError) as refusal:
        settings(bridges=[files, files, {**files, "name": "files"}])
    assert paths(refusal) == ["bridges[1].name", "bridges[2].name"]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:9464", "host.plant:65535"])
def test_addresses_to_listen_on(listen: str) -> None:
    """A host and a port; 0 for any that is free."""
    http = settings(http={"listen": listen}).http
    assert http is not None
    assert http.listen == listen


@pytest.mark.parametrize("listen", ["9464", ":9464", "h:", "h:65536", "h:-1", "h:²", "h:9 464"])
def test_what_is_no_address_to_listen_on(listen: str) -> None:
    """Refused with its path."""
    with pytest.raises(ConfigurationError) as refusal:
        settings(http={"listen": listen})
    assert paths(refusal) == ["http.listen"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "0", "5m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FULL: dict[str, Any] = document.parse(EXAMPLE.read_bytes())  # type: ignore[assignment]


def every_path(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return where every value of a document is."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [found for key, value in inner for found in every_path(value, (*path, key))]


@given(st.dictionaries(st.sampled_from(every_path(FULL)), ANYTHING, min_size=1, max_size=3))
def test_whatever_a_value_is_there_is_an_answer(changes: dict[tuple[str | int, ...], object]) -> None:
    """A document is settings, or is refused with paths that begin at one of its keys."""
    data: Any = copy.deepcopy(FULL)
    for path, value in sorted(changes.items(), key=lambda change: -len(change[0])):
        node = data
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = value
    try:
        problems: tuple[Problem, ...] = ()
        build(data, Path("/"))
    except ConfigurationError as error:
        problems = error.problems
    assert all(problem.path.startswith(tuple(data)) and problem.message for problem in problems)


SPARKPLUG = {"name": "a", "format": "sparkplug", "fields": ["x"]}


def test_sparkplug_listens_to_everything_unless_told_otherwise() -> None:
    """Streams are named in the topics; whole groups and nodes can be chosen."""
    (source,) = settings(sources=[SPARKPLUG]).sources
    assert (source.topics, source.stream_template) == (["spBv1.0/#"], "{field:stream}")
    assert (source.sparkplug.host_id, source.sparkplug.rebirth) == (None, True)
    chosen = ["#", "spBv1.0/g/#", "spBv1.0/g/+/#", "spBv1.0/g/+/n/#", "+/+/+/+/#"]
    assert settings(sources=[{**SPARKPLUG, "topics": chosen}]).sources[0].topics == chosen


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"topics": ["spBv1.0/g/DDATA/#"]}, "topics[0]"),
        ({"topics": ["spBv1.0/#", "spBv1.0/g/+/n"]}, "topics[1]"),
        ({"topics": ["spBv1.0/g/+/n/d"]}, "topics[0]"),
        ({"topics": ["$share/g/spBv1.0/#"]}, "topics[0]"),
        ({"topics": ["plant/#"]}, "topics[0]"),
        ({"stream": "{topic}"}, "stream"),
        ({"time": "t"}, "time"),
        ({"fields": []}, "fields"),
        ({"sparkplug": {"host_id": "a/b"}}, "sparkplug.host_id"),
        ({"sparkplug": {"host_id": "+"}}, "sparkplug.host_id"),
        ({"sparkplug": {"host": "a"}}, "sparkplug.host"),
        ({"format": "json", "topics": ["a"], "sparkplug": {"host_id": "a"}}, "sparkplug"),
    ],
)
def test_what_sparkplug_does_not_have_is_refused(changes: dict[str, Any], expected: str) -> None:
    """Parts of a node's messages, other ways to name streams and times, keys of its own elsewhere."""
    with pytest.raises(ConfigurationError) as refusal:
        settings(sources=[{**SPARKPLUG, **changes}])
    assert paths(refusal) == [f"sources[0].{expected}"]


def test_sparkplug_comes_from_a_broker() -> None:
    """An input of a module has no topics."""
    source = {"input": "input1", **SPARKPLUG}
    with pytest.raises(ConfigurationError) as refusal:
        settings(sources=[source], bridges=[EDGE_BRIDGE])
    assert paths(refusal) == ["sources[0].input"]
    with pytest.raises(ConfigurationError) as refusal:
        settings(broker=None, sources=[SPARKPLUG], bridges=[EDGE_BRIDGE])
    assert paths(refusal) == ["sources[0].format"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"registry": {"username": "me"}}, "model.registry.username: it goes with password_file"),
        ({"registry": {"password_file": "p"}}, "model.registry.password_file: it goes with username"),
        (
            {"registry": {"username": "me", "password_file": "p", "identity": "managed"}},
            "model.registry.identity: give a user name and a password, or identity: managed, not both",
        ),
        ({"registry": {"client_id": "1"}}, "model.registry.client_id: it is a managed identity's"),
        ({"registry": {"max_bytes": 0}}, "model.registry.max_bytes: found 0B, expected 1B to 1TiB"),
        ({"registry": {"timeout": "100ms"}}, "model.registry.timeout: found 100ms, expected 1s to"),
        ({"path": "http://h/m.onnx"}, "model.path: anybody on the way could change it: use https"),
        ({"path": "oci://h/M:t"}, "model.path: found oci://h/M:t: M is no repository"),
        ({"batch": {"max_size": "all"}}, "model.batch.max_size"),
        ({"batch": {"max_size": 0}}, "model.batch.max_size"),
        ({"providers": ["tpu"]}, "model.providers[0]: "),
        ({"providers": []}, "model.providers: "),
    ],
)
def test_what_a_model_cannot_be_is_refused(model: dict[str, Any], expected: str) -> None:
    """With the key's path."""
    with pytest.raises(ConfigurationError) as raised:
        build({**LEAST, "model": {"path": "oci://h/m:t"} | model}, Path())
    assert expected in str(raised.value)


def test_models_come_from_where_they_may(tmp_path: Path) -> None:
    """Also over plain HTTP where that is wanted, and from the environment as text."""
    for path in ("http://127.0.0.1:8000/m.onnx", "http://localhost/m.onnx", "https://h/m.onnx", "oci://h/m"):
        assert build({**LEAST, "model": {"path": path}}, tmp_path).slots[0].model.path == path
    insecure = {"path": "http://h/m.onnx", "registry": {"insecure": True}}
    assert build({**LEAST, "model": insecure}, tmp_path).slots[0].model.registry.insecure
    for text, size, messages in (("auto", "auto", 512), ("64", 64, 64)):
        variables = {"MLADE_MODEL__BATCH__MAX_SIZE": text, "MLADE_MODEL__REGISTRY__INSECURE": "true"}
        model = from_environment(tmp_path, LEAST, **variables).slots[0].model
        assert (model.batch.max_size, model.batch.messages, model.registry.insecure) == (size, messages, True)


ROOT = EXAMPLE.parents[1]
CONFIGURATIONS = [EXAMPLE, ROOT / "config/iotedge/processor.yaml", ROOT / "config/several-models.yaml"]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_set_is_all_that_settings_are_made_of(path: Path) -> None:
    """A model's annotations are laid under it, and the whole is read again."""
    model = "MODELS__MOTIONS" if path.stem == "several-models" else "MODEL"
    loaded = load(path, {"MLADE_BROKER__PASSWORD": "p", f"MLADE_{model}__WINDOW__MAX_GAP": "1500ms"})
    for slot in loaded.slots:
        again = slot.with_model(slot.given)
        assert again.settings == loaded
        assert again.settings.model_fields_set == loaded.model_fields_set
        assert (again.model, again.filter, again.path("x")) == (slot.model, slot.filter, slot.path("x"))
    assert loaded.slots[0].model.window.max_gap == 1500 * 10**6
