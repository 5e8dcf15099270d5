"""mlade: collect the right training data at the edge."""

__version__ = "0.1.0"
