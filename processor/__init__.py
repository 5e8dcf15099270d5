"""mlade: collect the right training data at the edge."""

import os

__version__ = "0.1.0"

# The path is one thread. NumPy's matrix products would wait for helpers on cores that others keep busy; this has to be
# said before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
