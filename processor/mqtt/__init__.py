"""MQTT: the pipeline's connection, and the fast reader under it. Beside bridges/mqtt.py the only importer of paho."""
