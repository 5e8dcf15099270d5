"""pytest and xdist fit each other: what the marks of other tests rely on."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.xdist_group("workers")


def test_a_group_is_one_workers(request: pytest.FixtureRequest) -> None:
    """The end of its tests' names tells xdist which it is; where pytest does not let it, groups mean nothing."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@workers")
