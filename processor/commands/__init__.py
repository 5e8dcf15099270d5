"""The commands that `cli.py` has no room for: parse, call, print."""
