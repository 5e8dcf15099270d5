"""The model: what goes in, what comes out, and how it is run so that a window's answer never depends on its company.

session.py opens models; nothing outside of this folder imports onnxruntime.
"""

import os

# From 1.32 on ONNX Runtime for Linux collects usage data, keeps it in the home directory and uploads it. Nothing beside
# a production machine calls home. It reads this when it is imported, so it stands before any import of it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
