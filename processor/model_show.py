"""What `mlade model show` tells of a model: what it says of itself, how it is run here, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from processor import settings as configuration
from processor.assembly import open_model
from processor.discover.wishes import Wish, look_at_model
from processor.errors import ConfigurationError, ModelError
from processor.model.declared import Declared, read_declared
from processor.model.inputs import Tensor
from processor.model.onnx_file import OnnxFile, read_file
from processor.model.onnx_model import OnnxModel
from processor.model.speed import table
from processor.obtaining import cache_of, obtain, options_of, reference_of
from processor.printing import size
from processor.registry import references
from processor.registry.fetched import Fetched, lay_under
from processor.registry.fetching import fetch
from processor.settings import Slot

SIZES: Final = (1, 8, 64, 512)
"""Windows at once that are timed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A model that was looked at.

    Attributes:
        fetched: where it is; the file may be gone by now.
        size: of the ONNX file in bytes.
        file: what it says of itself.
        external: bytes by file that holds its weights.
        declared: its inputs, outputs and metadata, as ONNX Runtime reads them.
        model: as it is run here; None: it does not go with what is known of the sources.
        speeds: seconds a window, by how many are judged at once.
        problem: why it is not run; empty where it is.
    """

    fetched: Fetched
    size: int
    file: OnnxFile
    external: Mapping[str, int]
    declared: Declared
    model: OnnxModel | None = None
    speeds: Mapping[int, float] = field(default_factory=dict)
    problem: str = ""


def look(
    path: str,
    *,
    configured: Slot | None = None,
    window_size: int | None = None,
    channels: int | None = None,
    registry: Mapping[str, Any] | None = None,
) -> Shown:
    """Look at a model.

    Args:
        path: a file, `https://…` or `oci://…`.
        configured: how it is fetched, fed and run; None: as it says itself.
        window_size: readings in a window where neither says it.
        channels: values in a reading, as well.
        registry: keys of `model.registry`, without a configuration.

    Raises:
        ConfigurationError: the path or the configuration is wrong.
        ModelError: it cannot be had, or is no ONNX model.
    """
    located = path if references.is_remote(path) else str(Path(path).resolve())
    with ExitStack() as cleanup:
        if configured is not None:
            there = {**configured.given.get("registry", {}), **(registry or {})}
            wanted = configured.with_model({**configured.given, "path": located, "registry": there})
        else:
            state = cleanup.enter_context(TemporaryDirectory(prefix="mlade-model-"))
            keys = {"path": located, "registry": dict(registry or {})}
            (wanted,) = configuration.build(_least(keys, ["a"]) | {"state_dir": state}, Path.cwd()).slots
        fetched = fetch(reference_of(wanted), cache_of(wanted.settings), options_of(wanted))
        found, folder = read_file(fetched.path), fetched.path.parent
        libraries = [wanted.path(name) for name in wanted.model.custom_ops]
        declared = read_declared(fetched.path, custom_ops=libraries)  # refuses data outside of the folder, too
        external = {name: (folder / name).stat().st_size for name in sorted(found.external)}
        shown = Shown(fetched, fetched.path.stat().st_size, found, external, declared)
        try:
            if configured is None:
                fed = _fed(fetched, located, window_size, channels)
            else:
                fed, _ = obtain(wanted, or_last_good=False)
            model = open_model(fed)
        except (ModelError, ConfigurationError) as error:
            return replace(shown, problem=str(error))
        return replace(shown, model=model, speeds=model.speeds(SIZES))


def _least(model: Mapping[str, Any], fields: list[str]) -> dict[str, Any]:
    source: dict[str, Any] = {"name": "s", "topics": ["t"], "fields": fields}
    return {"id": "show", "sources": [source], "model": dict(model), "filter": {"rules": []}}


def _fed(fetched: Fetched, located: str, window_size: int | None, channels: int | None) -> Slot:
    """Return a slot with made-up sources that give what the model takes.

    Raises:
        ModelError: it does not say what that is.
        ConfigurationError: its annotations contradict it.
    """
    keys = lay_under({"path": located}, fetched.annotations)
    layout = keys.get("input", {}).get("layout")
    wishes = [wish for wish in look_at_model(fetched.path).wishes if layout in (None, wish.layout)]
    if not wishes:
        raise ModelError(f"{fetched.path.name} does not take the layout {layout}")
    readings = window_size or keys.get("window", {}).get("size")
    wish = next((one for one in wishes if _goes(one, readings, channels)), wishes[0])
    if wish.image:
        if wish.height is None or wish.width is None or wish.channels not in (1, 3):
            raise ModelError(f"it takes {wish}: give -c, a configuration whose source says the images' size")
        colour = "rgb" if wish.channels == 3 else "grey"  # noqa: PLR2004 - red, green, blue
        data = _least(keys, [])
        image = {"height": wish.height, "width": wish.width, "color": colour}
        data["sources"] = [{"name": "s", "topics": ["t"], "format": "image", "image": image}]
    else:
        readings, values = readings or wish.size, channels or wish.channels
        if readings is None:
            raise ModelError("its windows may have any size: give --window-size, or -c with a configuration")
        if values is None:
            raise ModelError("its readings may have any number of values: give --channels, or -c with a configuration")
        keys["window"] = {**keys.get("window", {}), "size": readings}
        if wish.layout is not None:
            keys["input"] = {**keys.get("input", {}), "layout": wish.layout}
        data = _least(keys, [f"c{number}" for number in range(values)])
    (slot,) = configuration.build(data, Path.cwd()).slots
    return replace(slot, fetched=replace(fetched, key=""))  # not ours to remember


def _goes(wish: Wish, window_size: int | None, channels: int | None) -> bool:
    return window_size in (None, wish.size or window_size) and channels in (None, wish.channels or channels)


def rows(shown: Shown) -> Iterator[tuple[str, str]]:
    """Yield it as headings and lines."""
    fetched, found, model = shown.fetched, shown.file, shown.model
    yield "model", f"{fetched.name}, {size(shown.size)}"
    if fetched.reference.kind != "file":
        yield "from", f"{fetched.reference.text}, {fetched.digest}"
    yield "sha256", sha256_of(shown)
    opsets = ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
    yield "format", f"ONNX IR {found.ir_version}, {opsets}" + (f", by {found.producer}" if found.producer else "")
    for name, length in shown.external.items():
        yield "data", f"{name}, {size(length)}"
    for key, value in {**found.metadata, **fetched.annotations}.items():
        yield "metadata" if key in found.metadata else "annotation", f"{key}: {value}"
    for heading, tensors in (("takes", shown.declared.inputs), ("gives", shown.declared.outputs)):
        for tensor in tensors:
            yield heading, str(tensor)
    if model is None:
        yield "not run", shown.problem
        return
    for heading, line in model.describe().items():
        if heading not in ("model", "sha256", "speed"):
            yield heading, line
    yield "µs a window", f"{table(shown.speeds)} (by windows at once)"


def as_json(shown: Shown) -> dict[str, Any]:
    """Return it as one JSON object."""
    fetched, found, model = shown.fetched, shown.file, shown.model
    return {
        "name": fetched.name,
        "reference": fetched.reference.text,
        "digest": fetched.digest,
        "sha256": sha256_of(shown),
        "size": shown.size,
        "ir_version": found.ir_version,
        "opsets": found.opsets,
        "producer": found.producer,
        "metadata": found.metadata,
        "annotations": dict(fetched.annotations),
        "external": dict(shown.external),
        "inputs": [_tensor(tensor) for tensor in shown.declared.inputs],
        "outputs": [_tensor(tensor) for tensor in shown.declared.outputs],
        "kind": model and model.kind,
        "labels": model and list(model.labels),
        "runs_on": model and model.provider.name,
        "execution": model and model.execution.name,
        "microseconds_per_window": {str(count): seconds * 1e6 for count, seconds in shown.speeds.items()},
        "problem": shown.problem or None,
    }


def sha256_of(shown: Shown) -> str:
    """Return the ONNX file's SHA-256, as samples name it."""
    return shown.model.sha256 if shown.model is not None else shown.declared.sha256


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}
