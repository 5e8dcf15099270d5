"""`mlade dashboard`: a web page for every processor on a broker, in a process of its own.

    watching (a thread, an MQTT client)  →  fleet: immutable records  →  pages (NiceGUI, asyncio), once a second

Only the files that draw import NiceGUI, which is an extra: `mlade[dashboard]`. `command.py` puts it all together.
"""
