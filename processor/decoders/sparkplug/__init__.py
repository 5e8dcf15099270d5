"""Sparkplug B: births, data and deaths of edge nodes and their devices."""

from processor.decoders.sparkplug.decoder import SparkplugDecoder

__all__ = ["SparkplugDecoder"]
