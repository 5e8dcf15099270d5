"""Who gets credentials, and who does not: real registries with accounts, and servers that would like to have them."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from processor.errors import ModelError, ModelUnavailable
from processor.obtaining import options_of
from processor.registry import credentials, references
from processor.registry.challenges import Registry as Asking
from processor.registry.challenges import parse
from processor.registry.credentials import Password, RefreshToken
from processor.registry.deadline import Deadline
from processor.registry.fetching import current, fetch
from processor.registry.options import Options
from processor.registry.web import Web
from processor.settings import build
from tests import models
from tests.front import Asked, Front, FrontFactory, Told, passed_on
from tests.registry import Registry, RegistryFactory

MODEL: Final = models.dense().SerializeToString()
ONNX: Final = "application/vnd.onnx.model"
USER: Final = "reader"
SECRET: Final = "correct horse"  # noqa: S105 - of these tests
_HASH: Final = "$2b$04$Ffg6XcuBH89iEXadiLJCgeTzJqX3pWTrC/oNnTtJCr803jv.Ndqqa"
"""Of the secret, bcrypt."""
BASIC: Final = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET not in caplog.text
    assert BASIC.split()[1] not in caplog.text
    assert "refresh-me" not in caplog.text


@pytest.fixture
def guarded(make_registry: RegistryFactory, tmp_path: Path) -> Registry:
    """A registry with an account, and a model in `m:t`."""
    accounts = tmp_path / "htpasswd"
    accounts.write_text(f"{USER}:{_HASH}\n")
    registry = make_registry(f"auth: {{htpasswd: {{realm: r, path: '{accounts}'}}}}\n", user=USER, password=SECRET)
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    return registry


def pull(host: str, tmp_path: Path, **options: Any) -> str:  # noqa: ANN401 - Options'
    """Fetch `m:t`, and ask for it again; return its version."""
    reference = references.parse(f"oci://{host}/m:t")
    found = fetch(reference, tmp_path / "cache", Options(**options))
    assert found.path.read_bytes() == MODEL
    assert current(reference, Options(**options)) == found.version
    return found.version


def dockers(tmp_path: Path, config: dict[str, Any]) -> Path:
    """Write Docker's configuration."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return path


def helper(folder: Path, name: str, script: str) -> None:
    """Write one of Docker's credential programs; `$server` is what it is asked for."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\nread -r server\n{script}\n")
    program.chmod(0o755)


def test_a_password_opens_a_registry(guarded: Registry, tmp_path: Path) -> None:
    """From the settings; a wrong one is said without it, and so is none."""
    pull(guarded.host, tmp_path, username=USER, password=SECRET)
    for options in ({}, {"username": USER, "password": "wrong horse"}):
        with pytest.raises(
            ModelError, match=r"does not accept our credentials for the tag t of m \(HTTP 401\)"
        ) as raised:
            pull(guarded.host, tmp_path, **options)
        assert "wrong horse" not in str(raised.value)


def test_docker_s_configuration_opens_it(guarded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of its ways: an entry, a helper for this registry, a store for all of them."""
    auth = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    answer = json.dumps({"ServerURL": guarded.host, "Username": USER, "Secret": SECRET})
    helper(tmp_path, "one", f"[ \"$server\" = {guarded.host} ] && echo '{answer}'")
    helper(tmp_path, "none", "echo 'credentials not found in native keychain'; exit 1")
    helper(tmp_path, "broken", f"echo '{SECRET}' >&2; exit 3")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for config in (
        {"auths": {guarded.host: {"auth": auth}}},
        {"auths": {f"https://{guarded.host}": {"auth": auth}}},
        {"credHelpers": {guarded.host: "one"}, "auths": {guarded.host: {}}},
        {"credsStore": "one", "auths": {guarded.host: {}}},
    ):
        pull(guarded.host, tmp_path, docker_config=dockers(tmp_path, config))
    refused: list[tuple[str, dict[str, Any]]] = [
        ("HTTP 401", {"auths": {"other.example": {"auth": auth}}}),
        ("HTTP 401", {"credsStore": "none"}),
        ("no user:password in Base64", {"auths": {guarded.host: {"auth": "%%%"}}}),
        ("gave no credentials for .* [(]exit code 3[)]", {"credsStore": "broken"}),
        ("there is no such program", {"credsStore": "missing"}),
        ("names docker-credential-../../bin/sh for", {"credsStore": "../../bin/sh"}),
    ]
    for said, config in refused:
        with pytest.raises(ModelError, match=said) as raised:
            pull(guarded.host, tmp_path, docker_config=dockers(tmp_path, config))
        assert SECRET not in str(raised.value)


def test_challenges_in_several_headers_are_one(guarded: Registry, front: FrontFactory, tmp_path: Path) -> None:
    """As some registries send them; what is not known is passed over."""

    def answer(asked: Asked) -> Told:
        if asked.headers.get("authorization") == BASIC:
            return passed_on(asked, guarded.host, Authorization=BASIC)
        return Told(401, {"WWW-Authenticate": 'Basic realm="r"', "www-authenticate": "Negotiate"})

    pull(front(answer).host, tmp_path, username=USER, password=SECRET)


def test_settings_say_where_the_password_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file; Docker's configuration is found by itself, and nothing shows a secret."""
    (tmp_path / "password").write_text(f"{SECRET}\n")
    model = {"path": "oci://h/m:t", "registry": {"username": USER, "password_file": "password", "timeout": "90s"}}
    source = {"name": "s", "topics": ["t"], "fields": ["a"]}
    (slot,) = build({"id": "p", "sources": [source], "model": model, "filter": {"rules": []}}, tmp_path).slots
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    dockers(tmp_path, {})
    options = options_of(slot)
    assert (options.password, options.timeout, options.docker_config) == (SECRET, 90, tmp_path / "config.json")
    for secret in (options, Password(USER, SECRET), RefreshToken(SECRET)):
        assert SECRET not in repr(secret)
    model["registry"] = {"docker_config": "nowhere.json"}
    (elsewhere,) = build({"id": "p", "sources": [source], "model": model, "filter": {"rules": []}}, tmp_path).slots
    with pytest.raises(ModelError, match=r"docker_config: .*nowhere\.json is not there, or may not be read"):
        options_of(elsewhere)
    (tmp_path / "password").unlink()
    with pytest.raises(ModelError, match=r"model\.registry\.password_file: .*password cannot be read: No such file"):
        options_of(slot)


class Tokens:
    """A token server for a real registry: signs what the registry trusts.

    Attributes:
        front: the server.
    """

    def __init__(self, front: FrontFactory, tmp_path: Path, *, accept: str | None) -> None:
        """Serve; `accept` is the Authorization it wants, None: any and none."""
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        leaf = authority.issue_cert("tokens.example", key_type=trustme.KeyType.ECDSA)
        self._key = leaf.private_key_pem.bytes()
        pem = leaf.cert_chain_pems[0].bytes()
        lines = pem.decode().split("-----")[2].split()
        self._chain = ["".join(lines)]
        self._accept = accept
        self._root = tmp_path / "root.pem"
        authority.cert_pem.write_to_path(self._root)
        self.front = front(self._answer)

    def settings(self, host: str) -> str:
        """Return lines for a registry that names `host` as its token server."""
        token = f"realm: 'http://{host}/token', service: s, issuer: i, rootcertbundle: '{self._root}'"
        return f"auth: {{token: {{{token}}}}}\n"

    def _answer(self, asked: Asked) -> Told:
        if self._accept is not None and asked.headers.get("authorization") != self._accept:
            return Told(401, {"WWW-Authenticate": 'Basic realm="tokens"'})
        asks = parse_qs(urlsplit(asked.path).query)
        return Told(body=json.dumps({"token": self.token(asks["scope"][0])}).encode())

    def token(self, scope: str) -> str:
        """Return a token for `repository:name:actions`."""
        kind, name, actions = scope.split(":")
        now = int(time.time())
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {
            "iss": "i", "sub": USER, "aud": "s", "exp": now + 300, "nbf": now - 10, "iat": now, "access": access,
        }  # fmt: skip
        private = serialization.load_pem_private_key(self._key, None)
        return jwt.encode(claims, private, "ES256", headers={"x5c": self._chain})  # type: ignore[arg-type]


def test_a_token_opens_a_registry(front: FrontFactory, make_registry: RegistryFactory, tmp_path: Path) -> None:
    """From the server that the registry names, for this repository only; without an account, too."""
    tokens = Tokens(front, tmp_path, accept=None)
    registry = make_registry(tokens.settings(tokens.front.host), token=tokens.token)
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    pull(registry.host, tmp_path)
    assert {parse_qs(urlsplit(asked.path).query)["scope"][0] for asked in tokens.front.asked} == {"repository:m:pull"}


def test_a_password_becomes_a_token(front: FrontFactory, make_registry: RegistryFactory, tmp_path: Path) -> None:
    """Where the token server is on the registry's own host; not on another port of it without TLS."""
    tokens = Tokens(front, tmp_path, accept=BASIC)
    seen: list[Asked] = []

    def both(asked: Asked) -> Told:
        seen.append(asked)
        authorization = {"Authorization": asked.headers.get("authorization", "")}
        return passed_on(
            asked, tokens.front.host if asked.path.startswith("/token") else registry.host, **authorization
        )

    between = front(both)
    registry = make_registry(tokens.settings(between.host), token=tokens.token)
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    pull(between.host, tmp_path, username=USER, password=SECRET)
    basic = {
        asked.path.partition("?")[0] for asked in seen if asked.headers.get("authorization", "").startswith("Basic")
    }
    assert basic == {"/token"}
    seen.clear()
    with pytest.raises(ModelError, match=r"wants a token from 127\.0\.0\.1 without https; refused"):
        pull(registry.host, tmp_path, username=USER, password=SECRET)
    assert seen == []


def azure(front: FrontFactory, registry: Registry) -> Front:
    """Return what Azure Container Registry does, in front of a registry without accounts; and a machine's identity."""

    def answer(asked: Asked) -> Told:
        form = (
            {key: values[0] for key, values in parse_qs(asked.body.decode()).items()} if asked.method == "POST" else {}
        )
        query = {key: values[0] for key, values in parse_qs(urlsplit(asked.path).query).items()}
        if asked.path.startswith("/metadata/identity/"):
            right = (
                asked.headers.get("metadata") == "true" and query["resource"] == "https://containerregistry.azure.net/"
            )
            body = {"access_token": f"aad of {query.get('client_id')}", "expires_in": "3600", "resource": "r"}
            return Told(200 if right else 400, body=json.dumps(body).encode())
        if asked.path.startswith("/msi"):
            right = asked.headers.get("x-identity-header") == "mine"
            body = {"access_token": "aad of a service", "expires_on": str(int(time.time()) + 3600), "resource": "r"}
            return Told(body=json.dumps(body).encode()) if right else Told(401, body=b'{"statusCode": 401}')
        if asked.path == "/oauth2/exchange":
            right = form["grant_type"] == "access_token" and form["access_token"].startswith("aad of ")
            return Told(200 if right else 401, body=json.dumps({"refresh_token": "refresh-me"}).encode())
        if asked.path == "/oauth2/token":
            right = form.get("refresh_token") == "refresh-me" and form["scope"] == "repository:m:pull"
            return Told(200 if right else 401, body=b'{"access_token": "open"}')
        if asked.headers.get("authorization") != "Bearer open":
            realm = f"http://{served.host}/oauth2/token"
            challenge = f'Bearer realm="{realm}",service="127.0.0.1",scope="repository:m:pull",error="invalid_token"'
            return Told(401, {"WWW-Authenticate": challenge})
        return passed_on(asked, registry.host)

    served = front(answer)
    return served


@pytest.mark.parametrize("client_id", [None, "11111111-2222-3333-4444-555555555555"])
def test_a_managed_identity_opens_azure_s_registry(
    registry: Registry, front: FrontFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_id: str | None
) -> None:
    """By way of the token that the registry gives for the identity's."""
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    served = azure(front, registry)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://{served.host}")
    pull(served.host, tmp_path, identity="managed", client_id=client_id)
    asked = [one for one in served.asked if one.path == "/oauth2/exchange"]
    assert parse_qs(asked[0].body.decode())["access_token"] == [f"aad of {client_id}"]


def test_a_service_s_identity_opens_it(
    registry: Registry, front: FrontFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment names an endpoint of its own, and where that one is away."""
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    served = azure(front, registry)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://{served.host}/msi")
    monkeypatch.setenv("IDENTITY_HEADER", "mine")
    pull(served.host, tmp_path, identity="managed")
    monkeypatch.setenv("IDENTITY_HEADER", "another's")
    with pytest.raises(ModelUnavailable, match="managed identity gives no token: invalid_scope"):
        pull(served.host, tmp_path, identity="managed")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi")
    with pytest.raises(ModelUnavailable, match=r"managed identity does not answer \(ConnectionError\)"):
        pull(served.host, tmp_path, identity="managed")


def test_a_refresh_token_of_docker_s_opens_it(registry: Registry, front: FrontFactory, tmp_path: Path) -> None:
    """As `az acr login` leaves one."""
    registry.put("m", "t", [(ONNX, "m.onnx", MODEL)])
    served = azure(front, registry)
    config = dockers(tmp_path, {"auths": {served.host: {"auth": "AAAA", "identitytoken": "refresh-me"}}})
    pull(served.host, tmp_path, docker_config=config)


def test_an_identity_s_token_goes_to_azure_only() -> None:
    """A registry of somebody else's is told nothing."""
    web = Web(Options(identity="managed"), Deadline(5, "x"))
    for host in ("registry.example", "azurecr.io.example", "evilazurecr.io"):
        with pytest.raises(ModelError, match="our identity's token is not sent there"):
            credentials.find(web, f"https://{host}", host)


def test_a_redirect_takes_no_credentials_along(guarded: Registry, front: FrontFactory, tmp_path: Path) -> None:
    """To where a registry keeps its blobs: another host is another host, though the address is the same machine."""
    storage = front(lambda asked: passed_on(asked, guarded.host, Authorization=BASIC))

    def answer(asked: Asked) -> Told:
        if "/blobs/" in asked.path and asked.headers.get("authorization") == BASIC:
            return Told(307, {"Location": f"http://localhost:{storage.port}{asked.path}"})
        return passed_on(asked, guarded.host, Authorization=asked.headers.get("authorization", ""))

    between = front(answer)
    pull(between.host, tmp_path, username=USER, password=SECRET)
    assert storage.asked
    assert not any("authorization" in asked.headers for asked in storage.asked)


def test_a_host_that_is_redirected_to_gets_no_answer_to_its_challenge(
    guarded: Registry, front: FrontFactory, tmp_path: Path
) -> None:
    """It may ask who we are as long as it likes."""
    greedy = front(lambda _: Told(401, {"WWW-Authenticate": 'Basic realm="give"'}))

    def answer(asked: Asked) -> Told:
        if "/blobs/" in asked.path:
            return Told(307, {"Location": f"http://localhost:{greedy.port}/"})
        return passed_on(asked, guarded.host, Authorization=asked.headers.get("authorization", ""))

    between = front(answer)
    with pytest.raises(ModelError, match=f"localhost:{greedy.port} does not accept our credentials"):
        pull(between.host, tmp_path, username=USER, password=SECRET)
    assert not any("authorization" in asked.headers for asked in greedy.asked)


def test_a_registry_with_tls_does_not_send_us_to_services_of_this_machine() -> None:
    """A token server without TLS beside us may be anything, with an account or without."""
    web = Web(Options(), Deadline(10, "x"))
    asked = Asking(web, "https://plant.example", "repository:m:pull", host="plant.example")
    for who in (None, Password(USER, SECRET)):
        with pytest.raises(ModelError, match=r"wants a token from 127\.0\.0\.1 without https; refused"):
            asked._token({"realm": "http://127.0.0.1:9/token"}, who)


def test_redirects_end_and_stay_encrypted(front: FrontFactory, tmp_path: Path) -> None:
    """Round and round, or to what is no address of ours."""
    circle = front(lambda asked: Told(302, {"Location": asked.path + "x"}))
    with pytest.raises(ModelError, match="sends us on more than 5 times"):
        fetch(references.parse(f"http://{circle.host}/m.onnx"), tmp_path, Options())
    for location in ("file:///etc/passwd", "ftp://h/x", "http://models.example/m.onnx"):
        away = front(lambda _, to=location: Told(302, {"Location": to}))  # type: ignore[misc]
        with pytest.raises(ModelError, match=r"is not https; refused|over plain HTTP"):
            fetch(references.parse(f"http://{away.host}/m.onnx"), tmp_path, Options())


@pytest.mark.parametrize(
    "address",
    [
        "https://h:port/x",
        "https://h:99999/x",
        "https://h:0/x",
        "https://[::1/x",
        "https://e\x1b[2Jvil/x",
        "ftp://a b/x",
    ],
)
def test_addresses_that_are_none_are_refused_with_a_sentence(front: FrontFactory, tmp_path: Path, address: str) -> None:
    """Where a server sends us on to, and where it would have us get a token; nothing in them moves a cursor."""
    web = front(lambda _: Told(302, {"Location": address}))
    asking = front(lambda _: Told(401, {"WWW-Authenticate": f'Bearer realm="{address}"'}))
    for text in (f"http://{web.host}/m.onnx", f"oci://{web.host}/m:t", f"oci://{asking.host}/m:t"):
        for work in (lambda one: fetch(one, tmp_path, Options()), lambda one: current(one, Options())):
            with pytest.raises(ModelError, match="no address") as raised:
                work(references.parse(text))
            assert str(raised.value).isprintable()


@pytest.mark.parametrize("length", ["9" * 5000, "many", "-1"])
def test_a_length_that_is_none_is_not_believed(front: FrontFactory, tmp_path: Path, length: str) -> None:
    """An end in the middle would not be noticed."""
    web = front(lambda _: Told(200, {"Content-Length": length}, MODEL))
    with pytest.raises(ModelError, match="does not say how long"):
        fetch(references.parse(f"http://{web.host}/m.onnx"), tmp_path, Options())


def test_a_file_on_the_web_is_opened_by_a_password_of_the_settings_only(front: FrontFactory, tmp_path: Path) -> None:
    """Docker's configuration is for registries."""

    def answer(asked: Asked) -> Told:
        right = asked.headers.get("authorization") == BASIC
        return Told(body=MODEL) if right else Told(401, {"WWW-Authenticate": 'Basic realm="files", charset="UTF-8"'})

    web = front(answer)
    reference = references.parse(f"http://{web.host}/m.onnx")
    assert fetch(reference, tmp_path / "a", Options(username=USER, password=SECRET)).path.read_bytes() == MODEL
    auth = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    config = dockers(tmp_path, {"auths": {web.host: {"auth": auth}}})
    with pytest.raises(ModelError, match="HTTP 401"):
        fetch(reference, tmp_path / "b", Options(docker_config=config))


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Basic realm="r"', {"basic": {"realm": "r"}}),
        (
            'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push"',
            {"bearer": {"realm": "https://a/t?x=1,2", "service": "s", "scope": "repository:a/b:pull,push"}},
        ),
        ('Negotiate, Basic realm="a \\"b\\"" , Bearer realm=c', {
            "negotiate": {}, "basic": {"realm": 'a "b"'}, "bearer": {"realm": "c"},
        }),
        ("", {}),
        ('realm="r"', {}),
        ("!!!", {}),
    ],
)  # fmt: skip
def test_challenges_are_read(header: str, challenges: dict[str, dict[str, str]]) -> None:
    """RFC 9110's grammar, as far as registries use it."""
    assert parse(header) == challenges
