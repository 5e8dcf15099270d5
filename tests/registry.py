"""A real registry for tests: Debian's `docker-registry` as a process, and what is pushed into it by hand."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

HOST: Final = "127.0.0.1"
ROOT: Final = Path(__file__).parents[1]
_PATIENCE: Final = 20.0
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
IMAGE_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"


def digest_of(content: bytes) -> str:
    """Return `sha256:…`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Registry:
    """A running registry.

    Attributes:
        host: its address and port.
        directory: where it keeps everything.
    """

    def __init__(
        self,
        directory: Path,
        settings: str = "",
        *,
        user: str = "",
        password: str = "",
        token: Callable[[str], str] | None = None,
    ) -> None:
        """Start it and wait until it answers.

        Args:
            directory: an empty one.
            settings: more lines of its configuration.
            user: whom tests put things into it as; empty: nobody.
            password: the user's.
            token: makes a token for a scope, as an alternative.
        """
        self.directory = directory
        self._token = token
        self._basic = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self._command = [program(), "serve", str(directory / "config.yml")]
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.host = f"{HOST}:{probe.getsockname()[1]}"
        (directory / "config.yml").write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}', secret: s}}\n{settings}"
        )
        self.start()

    def start(self) -> None:
        """Start it, or start it again with what it has."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                with socket.create_connection((HOST, int(self.host.rpartition(":")[2])), timeout=1):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"docker-registry did not start: {(self.directory / 'log').read_text()}", pytrace=False)
                time.sleep(0.01)  # until it listens

    def stop(self) -> None:
        """End it; its data stay."""
        self._process.kill()
        self._process.wait(_PATIENCE)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """Ask it something by hand."""
        if self._token is not None:
            repository = path.split("/")[2]
            headers["Authorization"] = "Bearer " + self._token(f"repository:{repository}:pull,push")
        if self._basic:
            headers["Authorization"] = f"Basic {self._basic}"
        connection = http.client.HTTPConnection(self.host, timeout=_PATIENCE)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()
        finally:
            connection.close()

    def put_blob(self, repository: str, content: bytes) -> str:
        """Store a blob; return its digest."""
        digest = digest_of(content)
        _, headers, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        location = headers["Location"].partition(self.host)[2]
        status, _, text = self.ask(
            "PUT", f"{location}&digest={digest}", content, Content_Type="application/octet-stream"
        )
        assert status == 201, text
        return digest

    def put_manifest(self, repository: str, tag: str, document: Mapping[str, Any], kind: str = MANIFEST) -> str:
        """Store a manifest or an index under a tag; return its digest."""
        text = json.dumps(document).encode()
        status, headers, answer = self.ask("PUT", f"/v2/{repository}/manifests/{tag}", text, Content_Type=kind)
        assert status == 201, answer
        return headers["Docker-Content-Digest"]

    def put(
        self,
        repository: str,
        tag: str,
        layers: Sequence[tuple[str, str, bytes]],
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Store an artifact or an image; return the manifest's digest.

        Args:
            repository: where.
            tag: under which name.
            layers: media type, title (may be empty) and content of each, the lowest first.
            annotations: the manifest's.
        """
        described = []
        for kind, title, content in layers:
            layer: dict[str, Any] = {
                "mediaType": kind,
                "digest": self.put_blob(repository, content),
                "size": len(content),
            }
            if title:
                layer["annotations"] = {"org.opencontainers.image.title": title}
            described.append(layer)
        config = {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": self.put_blob(repository, b"{}"),
            "size": 2,
        }
        document = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described,
            "annotations": dict(annotations or {}),
        }  # fmt: skip
        return self.put_manifest(repository, tag, document)

    def blob_file(self, digest: str) -> Path:
        """Return where a blob lies on the registry's disk."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.directory / "data/docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"


def program() -> str:
    """Return the registry's program, or fail the test."""
    found = shutil.which(
        "docker-registry", path=os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / "build" / "bin")])
    )
    if found is None:
        pytest.fail("There is no docker-registry; get it and try again: scripts/setup.sh registry", pytrace=False)
    return found


class RegistryFactory(Protocol):
    """Makes registries that end with the test."""

    def __call__(
        self, settings: str = "", *, user: str = "", password: str = "", token: Callable[[str], str] | None = None
    ) -> Registry:
        """Return a running registry."""
        ...


@pytest.fixture
def make_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryFactory]:
    """Make registries that end with the test."""
    with ExitStack() as cleanup:

        def make(
            settings: str = "", *, user: str = "", password: str = "", token: Callable[[str], str] | None = None
        ) -> Registry:
            folder = tmp_path_factory.mktemp("registry")
            made = Registry(folder, settings, user=user, password=password, token=token)
            cleanup.callback(made.stop)
            return made

        yield make


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry without accounts for a file's tests: use repositories of your own, and let it run."""
    made = Registry(tmp_path_factory.mktemp("registry"))
    yield made
    made.stop()
