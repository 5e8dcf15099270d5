"""`mlade discover`: what is on a broker, and a configuration for it.

    listen (listening.py) -> what came, bounded (heard.py) -> what a payload looks like (looks.py, a file a format)
    -> topics that belong together (families.py) -> what their fields are (fields.py) -> a source each, tried with the
    real decoder (proposals.py) -> those that feed the model (choice.py) -> the file (writing.py), the table (table.py)

Everything after the listening is pure.
"""
