"""Measures mlade beside its peers over a real Mosquitto on this machine: `python -m bench`."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as processor/model/__init__.py, for all sides alike
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as processor/__init__.py
