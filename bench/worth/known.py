"""A classifier whose answers are known, for scikit-activeml: what it asks for is looked up."""

from __future__ import annotations

from typing import Any

import numpy as np
from skactiveml.base import SkactivemlClassifier


class Known(SkactivemlClassifier):  # type: ignore[misc] # it comes without types
    """Answers with rows of `table`."""

    table: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Known:  # noqa: N803, ANN401, ARG002 - its parent's words
        """Nothing is learned here."""
        return self

    def predict_proba(self, X: Any) -> Any:  # noqa: N803, ANN401 - its parent's words
        """Return the rows whose numbers stand in X, (N, 1)."""
        return self.table[np.asarray(X)[:, 0].astype(np.int64)]
