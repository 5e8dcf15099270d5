"""A second model, the shadow, that judges a part of the windows beside the model: how a retrained one is proven.

choice.py says which windows, comparison.py how far two answers lie apart, judge.py asks, agreement.py counts, timing.py
measures how large the part may be, opening.py puts it together from the configuration.
"""
