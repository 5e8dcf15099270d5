"""Models from a real registry: pulled, verified, kept, and what happens when it fails."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
import trustme

from processor.assembly import obtain_model
from processor.errors import ModelError, ModelMisfit, ModelUnavailable
from processor.obtaining import prune
from processor.registry import references
from processor.registry.cache import KEPT_REFERENCES, Cache, Content
from processor.registry.fetched import Fetched
from processor.registry.fetching import current, fetch, fetch_or_last_good
from processor.registry.options import Options
from processor.settings import Slot, build
from tests import models, recordings
from tests.commands import mlade_here
from tests.front import Asked, FrontFactory, Told, passed_on
from tests.proxy import ProxyFactory
from tests.registry import INDEX, MANIFEST, ROOT, Registry, RegistryFactory, digest_of
from tests.running import ProcessorFactory

MODEL = models.dense(metadata={"labels": "a,b,c,d"}).SerializeToString()
OTHER = models.dense(softmax=False).SerializeToString()
ONNX = "application/vnd.onnx.model"
HASTY = Options(stall=0.5, timeout=10)


def pull(text: str, cache: Path, **options: Any) -> Fetched:  # noqa: ANN401 - Options'
    """Fetch a model."""
    return fetch(references.parse(text), cache, Options(**options))


def configured(path: str, directory: Path, **model: Any) -> Slot:  # noqa: ANN401 - settings'
    """Return settings for a model of six channels."""
    source = {"name": "s", "topics": ["t"], "fields": list("abcdef")}
    data = {"id": "p", "sources": [source], "model": {"path": path, **model}, "filter": {"rules": []}}
    (slot,) = build(data, directory).slots
    return slot


def incoming(cache: Path) -> list[Path]:
    """Return what fetches have left behind."""
    return [*cache.glob("incoming-*"), *cache.glob("references/tmp*")]


def test_an_artifact_is_pulled_verified_and_kept(registry: Registry, tmp_path: Path) -> None:
    """And comes from the cache afterwards, as long as its tag stands for it."""
    digest = registry.put("models/motions", "stable", [(ONNX, "motions.onnx", MODEL)], {"who": "me"})
    text = f"oci://{registry.host}/models/motions:stable"
    found = pull(text, tmp_path)
    assert (found.digest, found.version, found.name) == (digest, digest, "motions")
    assert (found.path, found.annotations) == (tmp_path / digest[7:] / "motions.onnx", {"who": "me"})
    assert found.path.read_bytes() == MODEL
    assert current(found.reference, Options()) == digest
    before = found.path.stat()
    assert pull(text, tmp_path) == found
    assert found.path.stat() == before
    moved = registry.put("models/motions", "stable", [(ONNX, "motions.onnx", OTHER)])
    assert current(found.reference, Options()) == moved
    assert pull(text, tmp_path).path.read_bytes() == OTHER
    assert pull(f"{text}@{digest}", tmp_path).path.read_bytes() == MODEL
    assert incoming(tmp_path) == []


def test_a_pinned_model_that_is_here_needs_no_registry(make_registry: RegistryFactory, tmp_path: Path) -> None:
    """Nothing is asked."""
    registry = make_registry()
    digest = registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    text = f"oci://{registry.host}/m@{digest}"
    found = pull(text, tmp_path)
    registry.stop()
    assert pull(text, tmp_path) == found
    assert current(found.reference, Options()) == digest


def test_weights_in_files_of_their_own_come_along(registry: Registry, tmp_path: Path) -> None:
    """Those that the model names, under the names it gives them; no other layer."""
    model, weights = with_external_data(tmp_path, "data/weights.bin")
    layers = [(ONNX, "big.onnx", model), ("x/data", "data/weights.bin", weights), ("x/data", "../../evil", b"x" * 9)]
    registry.put("external", "refused", layers)
    with pytest.raises(ModelError, match=r"names a file '\.\./\.\./evil', which is not in its own folder"):
        pull(f"oci://{registry.host}/external:refused", tmp_path / "cache")
    registry.put("external", "good", [*layers[:2], ("x/data", "readme", b"not fetched")])
    found = pull(f"oci://{registry.host}/external:good", tmp_path / "cache")
    here = sorted(str(path.relative_to(found.path.parent)) for path in found.path.parent.rglob("*") if path.is_file())
    assert here == ["big.onnx", "content.json", "data/weights.bin"]
    _, loaded = obtain_model(configured(f"oci://{registry.host}/external:good", tmp_path))
    assert loaded.kind == "probabilities"
    registry.put("external", "missing", layers[:1])
    with pytest.raises(ModelError, match=r"keeps data in 'data/weights\.bin', and no layer is named so"):
        pull(f"oci://{registry.host}/external:missing", tmp_path / "cache")


def with_external_data(folder: Path, location: str) -> tuple[bytes, bytes]:
    """Return a model of six channels, and the file that holds its weights, under a name of the test's choice."""
    whole = models.dense()
    onnx.save(whole, folder / "whole.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(folder / "whole.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    return model.SerializeToString(), (folder / "w.bin").read_bytes()


def test_an_index_leads_to_what_may_hold_a_model(registry: Registry, tmp_path: Path) -> None:
    """Signatures and the like beside it are passed over, wherever they stand."""
    digest = registry.put("listed", "inner", [(ONNX, "m.onnx", MODEL)])
    signature = registry.put("listed", "signature", [("application/vnd.in-toto+json", "", b"{}")])
    size = len(
        registry.ask("GET", f"/v2/listed/manifests/{digest}", Accept="application/vnd.oci.image.manifest.v1+json")[2]
    )
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries = [
        {"mediaType": MANIFEST, "digest": signature, "size": 3, "platform": unknown},
        {"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": "s390x"}},
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    index = registry.put_manifest("listed", "all", document, INDEX)
    found = pull(f"oci://{registry.host}/listed:all", tmp_path)
    assert (found.digest, found.path.read_bytes()) == (index, MODEL)
    registry.put_manifest("listed", "none", {**document, "manifests": entries[:1]}, INDEX)
    with pytest.raises(ModelError, match="holds no ONNX model"):
        pull(f"oci://{registry.host}/listed:none", tmp_path)


def test_indexes_of_indexes_end(registry: Registry, tmp_path: Path) -> None:
    """Not after each of the thousands that one may lead to."""
    nothing = registry.put("deep", "nothing", [("application/vnd.in-toto+json", "", b"{}")])
    kind = MANIFEST
    for tag in ("low", "high", "top"):
        size = len(registry.ask("GET", f"/v2/deep/manifests/{nothing}", Accept=f"{MANIFEST}, {INDEX}")[2])
        entries = [{"mediaType": kind, "digest": nothing, "size": size}] * 16
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        nothing, kind = registry.put_manifest("deep", tag, document, INDEX), INDEX
    with pytest.raises(ModelError, match=r"holds no ONNX model: .*; of what it lists, 64 were looked at"):
        pull(f"oci://{registry.host}/deep:top", tmp_path)


def test_annotations_count_where_the_configuration_is_silent(registry: Registry, tmp_path: Path) -> None:
    """Labels, layout and window of a model come with it; what the file says wins."""
    annotations = {
        "dev.mlade.model.output.labels": '["w", "x", "y", "z"]',
        "dev.mlade.model.input.mean": "[1, 2, 3, 4, 5, 6]",
        "dev.mlade.model.window.size": "100",
        "dev.mlade.model.input.layout": "NCT",
        "dev.mlade.model.temperature": "2.5",
    }
    content = models.cnn(size=100).SerializeToString()
    registry.put("annotated", "t", [(ONNX, "m.onnx", content)], annotations)
    text = f"oci://{registry.host}/annotated:t"
    settings, model = obtain_model(configured(text, tmp_path, temperature=1.5, window={"step": 7}))
    assert (settings.model.window.size, settings.model.window.step, settings.model.temperature) == (100, 7, 1.5)
    assert (model.labels, model.name) == (("w", "x", "y", "z"), "annotated")
    assert model.input.mean is not None
    assert model.input.mean.tolist() == [1, 2, 3, 4, 5, 6]
    registry.put(
        "annotated", "bad", [(ONNX, "m.onnx", content)], {**annotations, "dev.mlade.model.window.size": "many"}
    )
    with pytest.raises(ModelMisfit, match=r"model\.window\.size: .*annotations of oci://"):
        obtain_model(configured(f"oci://{registry.host}/annotated:bad", tmp_path))


def test_a_model_of_the_wrong_shape_is_refused_and_never_the_last_good(registry: Registry, tmp_path: Path) -> None:
    """The one before stays good, also for a start without the registry."""
    good = registry.put("shapes", "t", [(ONNX, "m.onnx", MODEL)])
    settings = configured(f"oci://{registry.host}/shapes:t", tmp_path)
    obtain_model(settings)
    registry.put("shapes", "t", [(ONNX, "m.onnx", models.isolation_forest().SerializeToString())])
    with pytest.raises(ModelMisfit, match=r"wants input .* the sources give 6 channels"):
        obtain_model(settings)
    away = references.parse(f"oci://{registry.host}/shapes:t")
    record = Cache(tmp_path / "state/models").record(away)
    assert record is not None
    assert (record.good_version, record.version == good) == (good, False)


def test_without_its_registry_the_last_good_model_is_used(
    make_registry: RegistryFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is logged and shown; a model that was never here is an error."""
    registry = make_registry()
    digest = registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    settings = configured(f"oci://{registry.host}/m:t", tmp_path)
    obtain_model(settings)
    registry.stop()
    again, model = obtain_model(settings)
    assert again.fetched is not None
    assert (again.fetched.digest, model.name) == (digest, "m")
    assert f"{registry.host} cannot be reached (Connection refused)" in again.fetched.stale
    assert f"The last model of oci://{registry.host}/m:t is used: {digest}." in caplog.text
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        obtain_model(configured(f"oci://{registry.host}/other:t", tmp_path))
    file = tmp_path / "processor.yaml"
    source = {"name": "s", "topics": ["t"], "fields": list("abcdef")}
    data = {"id": "p", "sources": [source], "model": {"path": f"oci://{registry.host}/m:t"}, "filter": {"rules": []}}
    file.write_text(json.dumps(data))
    done = mlade_here(capsys, "check", "-c", str(file))
    assert done.code == 0
    assert f"oci://{registry.host}/m:t, {digest}, kept in " in done.out
    assert "NOTE: it is the last good one, not what stands there now" in done.out


def test_a_registry_that_goes_away_in_the_middle_leaves_nothing_behind(
    registry: Registry, proxy: ProxyFactory, tmp_path: Path
) -> None:
    """Cut, then whole when it is back."""
    content = large()
    registry.put("large", "t", [(ONNX, "m.onnx", content)])
    host, _, port = registry.host.partition(":")
    between = proxy(host, int(port))
    text = f"oci://127.0.0.1:{between.port}/large:t"
    between.cut_after(len(content) // 2)
    with pytest.raises(ModelUnavailable, match=r"broke the connection off after|ended the connection after"):
        pull(text, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["references"]
    assert pull(text, tmp_path).path.read_bytes() == content


def large() -> bytes:
    """Return a model of two megabytes."""
    content: bytes = models.dense(metadata={"padding": "x" * 900_000, "more": "y" * 1_000_000}).SerializeToString()
    return content


def test_a_registry_that_stalls_is_away(registry: Registry, proxy: ProxyFactory, tmp_path: Path) -> None:
    """After a while without a byte, also where it takes connections."""
    registry.put("stalls", "t", [(ONNX, "m.onnx", MODEL)])
    host, _, port = registry.host.partition(":")
    between = proxy(host, int(port))
    between.swallow()
    reference = references.parse(f"oci://127.0.0.1:{between.port}/stalls:t")
    with pytest.raises(ModelUnavailable, match="does not answer in time"):
        fetch(reference, tmp_path, HASTY)
    with pytest.raises(ModelUnavailable, match="does not answer in time"):
        current(reference, HASTY)


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_a_server_that_drips_ends_at_the_deadline(tmp_path: Path, first: bytes) -> None:
    """Whether it drips its headers or its body: no byte is ever late, and it never ends."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                client.sendall(first)
                while not done.wait(0.05):
                    client.sendall(b"x")

        server = threading.Thread(target=drip)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/m.onnx"
        begun = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"was not here after 0\.5 s \(model\.registry\.timeout\)"):
            fetch(references.parse(url), tmp_path, Options(timeout=0.5, stall=30))
        assert time.monotonic() - begun < 5
        server.join(10)  # it is cut off, so that nothing of ours stays behind
        cut = not server.is_alive()
        done.set()
        server.join()
        assert cut
    assert incoming(tmp_path) == []


def test_a_damaged_layer_is_refused_and_the_good_model_stays(make_registry: RegistryFactory, tmp_path: Path) -> None:
    """Of the right length, with one bit changed on the registry's own disk."""
    registry = make_registry()
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    reference = references.parse(f"oci://{registry.host}/m:t")
    obtain_model(configured(reference.text, tmp_path))
    registry.put("m", "t", [(ONNX, "m.onnx", OTHER)])
    damaged = bytearray(OTHER)
    damaged[-1] ^= 1
    registry.blob_file(digest_of(OTHER)).write_bytes(damaged)
    cache = tmp_path / "state/models"
    with pytest.raises(ModelUnavailable, match="it is damaged there or on the way"):
        fetch(reference, cache, Options())
    assert incoming(cache) == []
    assert fetch_or_last_good(reference, cache, Options()).path.read_bytes() == MODEL


def test_a_damaged_cache_is_fetched_again(registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file in it is verified each time it is used."""
    registry.put("cached", "t", [(ONNX, "m.onnx", MODEL)])
    text = f"oci://{registry.host}/cached:t"
    found = pull(text, tmp_path)
    found.path.write_bytes(MODEL[:-3])
    assert pull(text, tmp_path).path.read_bytes() == MODEL
    assert "is not as it was fetched; it will be fetched again" in caplog.text
    assert incoming(tmp_path) == []


def test_a_manifest_that_is_not_what_was_asked_for_is_refused(
    registry: Registry, front: FrontFactory, tmp_path: Path
) -> None:
    """Its digest is that of its bytes, whatever the registry says."""
    digest = registry.put("m", "pinned", [(ONNX, "m.onnx", MODEL)])

    def answer(asked: Asked) -> Told:
        told = passed_on(asked, registry.host)
        return told._replace(body=told.body.replace(b"m.onnx", b"n.onnx")) if "/manifests/" in asked.path else told

    between = front(answer)
    for text in (f"oci://{between.host}/m@{digest}", f"oci://{between.host}/m:pinned"):
        with pytest.raises(ModelUnavailable, match=f"expected {digest}"):
            pull(text, tmp_path)


def test_what_is_too_large_is_not_fetched(registry: Registry, front: FrontFactory, tmp_path: Path) -> None:
    """By what the manifest says, and by what really comes."""
    registry.put("too", "large", [(ONNX, "m.onnx", MODEL)])
    with pytest.raises(ModelError, match=r"needs \d+ bytes, and model\.registry\.max_bytes leaves 1000"):
        pull(f"oci://{registry.host}/too:large", tmp_path, max_bytes=1000)
    endless = front(lambda _: Told(body=b"x" * 500_000, length=-1, headers={"Transfer-Encoding": "identity"}))
    pin = "0" * 64
    with pytest.raises(ModelError, match=r"sends more, and model\.registry\.max_bytes leaves 1000 bytes"):
        pull(f"http://{endless.host}/m.onnx#sha256={pin}", tmp_path, max_bytes=1000)
    said = front(lambda _: Told(body=b"x" * 5000))
    with pytest.raises(ModelError, match="sends 5000 bytes"):
        pull(f"http://{said.host}/m.onnx", tmp_path, max_bytes=1000)
    assert incoming(tmp_path) == []


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([(ONNX, "a.onnx", MODEL), (ONNX, "b.onnx", OTHER)], r"holds 2 models \(a\.onnx, b\.onnx\)"),
        ([("text/plain", "readme", b"hello")], "holds no ONNX model"),
        ([(ONNX, "../m.onnx", MODEL)], "which is not in its own folder; refused"),
        ([(ONNX, "m.onnx", b"PK\x03\x04 and so on")], "is no ONNX model, but a zip archive, as PyTorch"),
    ],
)
def test_what_is_no_single_model_is_refused(
    registry: Registry, tmp_path: Path, layers: list[tuple[str, str, bytes]], said: str
) -> None:
    """With what is wrong."""
    registry.put("refused", "t", layers)
    with pytest.raises(ModelError, match=said):
        pull(f"oci://{registry.host}/refused:t", tmp_path)
    assert incoming(tmp_path) == []


def test_one_of_several_models_is_named(registry: Registry, tmp_path: Path) -> None:
    """By `model.registry.file`; each has a place of its own in the cache."""
    registry.put("several", "t", [(ONNX, "a.onnx", MODEL), (ONNX, "b.onnx", OTHER)])
    text = f"oci://{registry.host}/several:t"
    assert pull(text, tmp_path, file="a.onnx").path.read_bytes() == MODEL
    assert pull(text, tmp_path, file="b.onnx").path.read_bytes() == OTHER
    with pytest.raises(ModelError, match=r"has no model at c\.onnx"):
        pull(text, tmp_path, file="c.onnx")


@pytest.mark.parametrize("text", ["oci://{}/nowhere:t", "oci://{}/m:no-such-tag"])
def test_what_is_not_there_is_said(registry: Registry, tmp_path: Path, text: str) -> None:
    """An error for good."""
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    with pytest.raises(ModelError, match=r"does not have the tag .* \(HTTP 404\)") as raised:
        pull(text.format(registry.host), tmp_path)
    assert not isinstance(raised.value, ModelUnavailable)


def test_a_file_on_the_web_is_fetched_when_it_has_changed(
    front: FrontFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By its ETag; a pinned one is asked for once. A key in its address is not logged, however much is."""
    caplog.set_level(logging.DEBUG)
    content, tag = [MODEL], ['"1"']

    def answer(asked: Asked) -> Told:
        if asked.headers.get("if-none-match") == tag[0]:
            return Told(304, {"ETag": tag[0]})
        return Told(200, {"ETag": tag[0]}, content[0])

    web = front(answer)
    reference = references.parse(f"http://{web.host}/some/motions.onnx?sig=secret")
    found = fetch(reference, tmp_path, Options())
    assert (found.name, found.digest, found.version) == ("motions", digest_of(MODEL), '"1"')
    assert fetch(reference, tmp_path, Options()) == found
    assert web.asked[-1].headers["if-none-match"] == '"1"'
    content[0], tag[0] = OTHER, '"2"'
    assert current(reference, Options()) == '"2"'
    assert fetch(reference, tmp_path, Options()).path.read_bytes() == OTHER
    asked = len(web.asked)
    pinned = f"http://{web.host}/some/motions.onnx#sha256={digest_of(OTHER)[7:]}"
    assert pull(pinned, tmp_path).path.read_bytes() == OTHER
    assert len(web.asked) == asked
    with pytest.raises(ModelUnavailable, match="it was changed there, or on the way"):
        pull(f"http://{web.host}/some/motions.onnx#sha256={'0' * 64}", tmp_path)
    assert "secret" not in caplog.text
    assert "secret" not in "".join(path.read_text() for path in tmp_path.glob("references/*.json"))
    assert incoming(tmp_path) == []


def test_servers_that_do_not_know_head_are_asked_all_the_same(registry: Registry, front: FrontFactory) -> None:
    """A signed address may be for GET only; a server that says nothing of the file's age cannot be watched."""
    digest = registry.put("headless", "t", [(ONNX, "m.onnx", MODEL)])

    def answer(asked: Asked) -> Told:
        if asked.method == "HEAD":
            return Told(405)
        if asked.path.startswith("/v2/"):
            return passed_on(asked, registry.host)
        return Told(200, {"Last-Modified": "today"} if asked.path == "/dated.onnx" else {}, MODEL)

    web = front(answer)
    assert current(references.parse(f"oci://{web.host}/headless:t"), Options()) == digest
    assert current(references.parse(f"http://{web.host}/dated.onnx"), Options()) == "today"
    with pytest.raises(ModelError, match="gives neither an ETag nor a time of change"):
        current(references.parse(f"http://{web.host}/m.onnx"), Options())
    with pytest.raises(ModelError, match=r"does not have the tag u of headless \(HTTP 404\)"):
        current(references.parse(f"oci://{web.host}/headless:u"), Options())


def test_a_recording_is_replayed_with_what_the_registry_says_of_the_model(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Windows of the size that comes with the model give the same as windows of that size in the file."""
    content = (ROOT / "processor/demo/motions.onnx").read_bytes()
    registry.put("replayed", "t", [(ONNX, "m.onnx", content)], {"dev.mlade.model.window.size": "20"})
    recording = recordings.write(tmp_path / "r.jsonl", 600)
    rule = {"name": "all", "sample": 1.0}
    summaries = []
    for path, size in ((f"oci://{registry.host}/replayed:t", {}), ("m.onnx", {"size": 20})):
        (tmp_path / "m.onnx").write_bytes(content)
        model = {"path": path, "window": {"step": 10, **size}}
        file = recordings.configuration(tmp_path, rule, model=model)
        done = mlade_here(capsys, "replay", str(recording), "-c", str(file), "--json")
        assert done.code == 0, done.err
        summaries.append({**json.loads(done.out.splitlines()[-1]), "seconds": 0})
    assert summaries[0] == summaries[1]
    assert summaries[0]["accepted"] > 10


def test_an_end_in_the_middle_is_noticed_on_the_web(front: FrontFactory, tmp_path: Path) -> None:
    """Where it says how long it is; where it does not, it has to be pinned."""
    short = front(lambda _: Told(body=MODEL[:100], length=len(MODEL)))
    with pytest.raises(ModelUnavailable, match=f"after 100 of {len(MODEL)} bytes|broke the connection off"):
        pull(f"http://{short.host}/m.onnx", tmp_path)
    silent = front(lambda _: Told(body=MODEL, length=-1))
    with pytest.raises(ModelError, match="does not say how long"):
        pull(f"http://{silent.host}/m.onnx", tmp_path)
    assert pull(f"http://{silent.host}/m.onnx#sha256={digest_of(MODEL)[7:]}", tmp_path).path.read_bytes() == MODEL


def test_plain_http_is_for_this_machine_only(tmp_path: Path) -> None:
    """Unless the user allows it; nothing is asked before that is known."""
    with pytest.raises(
        ModelError, match=r"would be asked over plain HTTP; use https, or set model\.registry\.insecure"
    ):
        pull("http://models.example/m.onnx", tmp_path)


def test_a_proxy_of_the_environment_is_asked(
    front: FrontFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own credentials, and not for this machine."""
    between = front(lambda _: Told(body=MODEL))
    monkeypatch.setenv("http_proxy", f"http://me:hidden@{between.host}")
    found = pull("http://models.invalid/m.onnx", tmp_path, insecure=True)
    assert found.path.read_bytes() == MODEL
    (asked,) = between.asked
    assert (asked.path, asked.headers["proxy-authorization"]) == ("http://models.invalid/m.onnx", "Basic bWU6aGlkZGVu")
    here = front(lambda _: Told(body=OTHER))
    assert pull(f"http://{here.host}/m.onnx", tmp_path).path.read_bytes() == OTHER
    assert between.asked == [asked]


def test_models_that_nobody_needs_are_removed(registry: Registry, tmp_path: Path) -> None:
    """Those of the references used last stay, and what is in force."""
    first = registry.put("many", "first", [(ONNX, "m.onnx", MODEL)], {"n": "first"})
    slot, _ = obtain_model(configured(f"oci://{registry.host}/many:first", tmp_path))
    assert slot.fetched is not None
    cache = tmp_path / "state/models"
    digests = []
    for number in range(KEPT_REFERENCES + 2):
        digests.append(registry.put("many", f"t{number}", [(ONNX, "m.onnx", MODEL)], {"n": str(number)}))
        found = pull(f"oci://{registry.host}/many:t{number}", cache)
        os.utime(cache / "references" / f"{found.reference.key}.json", ns=(number, number))
    prune(slot.settings, [slot.fetched])
    kept = {folder.name for folder in cache.iterdir() if folder.name != "references"}
    # The settings' own reference is the latest: its record was written at the real time.
    assert kept == {digest[7:] for digest in [first, *digests[-(KEPT_REFERENCES - 1) :]]}


def test_a_fetch_that_died_is_cleared_away(registry: Registry, tmp_path: Path) -> None:
    """By the next one; not that of a process that is still at it."""
    registry.put("cleared", "t", [(ONNX, "m.onnx", MODEL)])
    dead = tmp_path / "incoming-dead"
    dead.mkdir(parents=True)
    (dead / "half").write_bytes(b"x")
    with Cache(tmp_path).incoming() as alive:
        assert not dead.exists()
        pull(f"oci://{registry.host}/cleared:t", tmp_path)
        assert alive.exists()
    assert incoming(tmp_path) == []


def test_two_that_fetch_one_model_at_once_both_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the other is done between our look whether the model is there and our putting it there."""

    def install(name: str) -> Content:
        with Cache(tmp_path).incoming() as folder:
            path = folder / "model" / "m.onnx"
            path.parent.mkdir()
            path.write_bytes(MODEL)
            return Cache(tmp_path).install("0" * 64, path.parent, path, name, {})

    exists = Path.exists
    looks: list[Path] = []

    def slow(path: Path, **how: bool) -> bool:
        there = exists(path, **how)
        if path.name == "0" * 64 and not looks:
            looks.append(path)
            install("sha256:first")
        return there

    monkeypatch.setattr(Path, "exists", slow)
    assert install("sha256:second").digest == "sha256:first"
    assert looks
    assert incoming(tmp_path) == []


def test_weights_under_a_name_of_ours_are_refused(registry: Registry, tmp_path: Path) -> None:
    """What the cache says of a model would take their place."""
    path = tmp_path / "m.onnx"
    described = onnx.load_from_string(MODEL)
    tensor = described.graph.initializer.add(name="t", data_location=onnx.TensorProto.EXTERNAL, data_type=1)
    tensor.external_data.add(key="location", value="content.json")
    path.write_bytes(described.SerializeToString())
    registry.put("ours", "t", [(ONNX, "m.onnx", path.read_bytes()), ("x/y", "content.json", b"{}")])
    with pytest.raises(ModelError, match=r"keeps data in content\.json, a name that mlade needs"):
        pull(f"oci://{registry.host}/ours:t", tmp_path / "cache")
    assert incoming(tmp_path / "cache") == []


def test_a_registry_with_tls_is_trusted_by_its_certificate(make_registry: RegistryFactory, tmp_path: Path) -> None:
    """With `ca`; the system's certificates know nothing of it."""
    registry = make_registry()
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    registry.stop()
    authority, other = trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "leaf.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    file = registry.directory / "config.yml"
    tls = f"tls: {{certificate: '{tmp_path}/leaf.pem', key: '{tmp_path}/leaf.pem'}}"
    file.write_text(file.read_text().replace("secret: s", f"secret: s, {tls}"))
    registry.start()
    text = f"oci://{registry.host}/m:t"
    assert pull(text, tmp_path / "cache", ca=tmp_path / "ca.pem").path.read_bytes() == MODEL
    with pytest.raises(ModelUnavailable, match=r"certificate that is not trusted .*; model\.registry\.ca"):
        pull(text, tmp_path / "elsewhere", ca=tmp_path / "other.pem")
    with pytest.raises(ModelError, match=r"model\.registry\.ca: .*config\.yml holds no certificates"):
        pull(text, tmp_path / "elsewhere", ca=file)


def test_a_processor_runs_on_a_model_from_a_registry_and_starts_without_it(
    make_registry: RegistryFactory, make_processor: ProcessorFactory
) -> None:
    """And names it in what it says."""
    registry = make_registry()
    digest = registry.put("models/motions", "stable", [(ONNX, "m.onnx", MODEL)])
    source = {"name": "s", "topics": ["t"], "fields": list("abcdef")}
    path = f"oci://{registry.host}/models/motions:stable"
    processor = make_processor(sources=[source], model={"path": path}, filter={"rules": []})
    processor.start()
    assert f"Fetching {path}, {digest}." in processor.log()
    assert "model motions:stable," in processor.log()
    assert processor.stop() == 0
    registry.stop()
    processor.start()
    processor.wait_for_log(
        f"The model's path could not be looked at, the model in force stays: {registry.host} cannot be"
    )
    assert processor.stop() == 0


def test_a_start_that_waits_for_a_registry_can_be_ended(
    registry: Registry, proxy: ProxyFactory, make_processor: ProcessorFactory
) -> None:
    """At once, with exit code 0, though it would wait for another half a minute."""
    host, _, port = registry.host.partition(":")
    between = proxy(host, int(port))
    between.swallow()
    source = {"name": "s", "topics": ["t"], "fields": list("abcdef")}
    model = {"path": f"oci://127.0.0.1:{between.port}/m:t"}
    processor = make_processor(sources=[source], model=model, filter={"rules": []})
    processor.launch()
    processor.wait_until(lambda: between.connections > 0, "waiting for the registry")
    assert processor.stop() == 0
