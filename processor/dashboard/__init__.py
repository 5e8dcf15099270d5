"""`mlade dashboard`: a web page for every processor on a broker, in a process of its own.

    watching (a thread, an MQTT client)  →  fleet: immutable records  →  pages (NiceGUI, asyncio), once a second

`serving.py` puts it together. What draws imports NiceGUI, an extra, `mlade[dashboard]`; what thinks does not:
`fleet.py`, `problems.py`, `estimate.py`, `draft.py`, `week.py` and their like are plain functions and records.
"""
