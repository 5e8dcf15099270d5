"""What the environment says over a configuration file: `MLADE_BROKER__URL=…` and the like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from processor import document
from processor.errors import ConfigurationError, Problem

_PREFIX: Final = "MLADE_"


@dataclass(frozen=True, slots=True)
class Overlay:
    """A configuration with what the environment sets over it; not checked yet.

    Attributes:
        data: the whole.
        variables: which variable set a key, by the key's path.
        problems: what could not be laid over it.
    """

    data: dict[str, Any]
    variables: Mapping[str, str]
    problems: Sequence[Problem]

    def name_variables(self, problems: Iterable[Problem]) -> list[Problem]:
        """Return problems of `data`, each saying so where a variable and not the file is at fault."""
        return [Problem(problem.path, problem.message + self._origin(problem.path)) for problem in problems]

    def _origin(self, path: str) -> str:
        setting = [known for known in self.variables if path == known or path.startswith((f"{known}.", f"{known}["))]
        return f" (set by {self.variables[max(setting, key=len)]})" if setting else ""


def lay_over(data: Mapping[str, Any], environment: Mapping[str, str], known: Sequence[str]) -> Overlay:
    """Lay the environment's variables over a file's data.

    A variable without `__` whose name is none of the `known` keys is someone else's; one with `__` is a mistake.
    """
    merged = dict(data)
    variables: dict[str, str] = {}
    problems: list[Problem] = []
    for variable, text in sorted(environment.items()):  # MLADE_BROKER before MLADE_BROKER__URL
        if not variable.startswith(_PREFIX):
            continue
        keys = variable.removeprefix(_PREFIX).lower().split("__")
        if keys[0] not in known:
            if len(keys) > 1:
                hint = document.did_you_mean(keys[0], known, "known keys")
                problems.append(Problem(variable, f"unknown key {keys[0]}{hint}"))
            continue
        level = merged
        for depth, key in enumerate(keys[:-1], 1):
            inner = level.get(key)
            if inner is not None and not isinstance(inner, dict):
                path = ".".join(keys[:depth])
                problems.append(Problem(variable, f"{path} is no mapping here; set {path} as a whole instead"))
                break
            level[key] = dict(inner or {})  # a copy: the file's data stay as they are
            level = level[key]
        else:
            level[keys[-1]] = _value(keys, text)
            variables[".".join(keys)] = variable
    return Overlay(merged, variables, problems)


def _is_of_a_filter(keys: Sequence[str]) -> bool:
    """Whether this is a key within `filter`, or within a model's."""
    at = 2 if keys[0] == "models" else 0
    return len(keys) > at + 1 and keys[at] == "filter"


def _value(keys: Sequence[str], text: str) -> object:
    """Return what a variable says. What is not JSON stays text, for the key's own check to judge."""
    if keys[-1] == "password":
        return text  # whatever it looks like
    try:
        if _is_of_a_filter(keys):
            return document.parse(text)  # numbers, too: a filter takes no text for them
        if text == "null" or text[:1] in ("[", "{"):
            return json.loads(text)
    except (ConfigurationError, ValueError, RecursionError):
        return text
    return text
