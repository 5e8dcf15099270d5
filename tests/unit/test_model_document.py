"""Which hosts a document on the model topic may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processor.errors import ConfigurationError
from processor.exchange.document import wanted
from processor.settings import Settings, build

ACCOUNT = {"username": "reader", "password_file": "secret"}


def configured(path: str, **model: Any) -> Settings:  # noqa: ANN401 - settings'
    """Return a configuration."""
    source = {"name": "s", "topics": ["t"], "fields": ["x"]}
    return build({"id": "p", "sources": [source], "model": {"path": path, **model}, "filter": {}}, Path("/nowhere"))


@pytest.mark.parametrize("path", ["oci://evil.example/m:t", "https://evil.example/m.onnx?key=hidden"])
@pytest.mark.parametrize("own", ["oci://plant.example/m:t", "m.onnx"])
def test_a_document_cannot_send_the_password_elsewhere(path: str, own: str) -> None:
    """Neither by its model nor by its shadow; without a password it may name any host."""
    for document in ({"path": path}, {"path": own, "shadow": {"path": path}}):
        with pytest.raises(ConfigurationError) as raised:
            wanted(document, configured(own, registry=ACCOUNT))
        (problem,) = raised.value.problems
        assert problem.path == ("shadow.path" if "shadow" in document else "path")
        assert "model.registry.username" in problem.message
        assert "hidden" not in problem.message
        assert wanted(document, configured(own)).model.path == document["path"]


def test_a_document_may_name_the_hosts_of_the_configuration() -> None:
    """The model's and the shadow's; and files, whatever the registry is."""
    shadow = {"path": "https://files.example/m.onnx"}
    known = configured("oci://plant.example:5000/m:t", shadow=shadow, registry=ACCOUNT)
    for path in ("oci://plant.example:5000/other:t", "https://files.example/n.onnx", "n.onnx"):
        assert wanted({"path": path}, known).model.path == path
    with pytest.raises(ConfigurationError, match=r"for: files\.example or plant\.example:5000;"):
        wanted({"path": "oci://plant.example:5001/m:t"}, known)
