"""Samples to Azure IoT Hub. The only place that imports azure, which takes a second: only where it is configured.

`making.make` puts a bridge together, `bridge.IotHubBridge` is it; identity, messages and rate know nothing of azure.
"""
