"""`mlade demo`: the main job on recorded smart watch data, over a real broker, with everything on screen.

`command` tells the story from start to end and is the place to begin reading. Everything else is a part of the plant
around the processor: `broker`, `player` (the watches), `control_room` (who looks at the processor's metrics and changes
its filter), `workspace` (the directory with the configuration and the samples); and `display` and `summary`, which show
it. The processor itself is the real one: `mlade run` in a process of its own, reached through MQTT alone.

`plant` is the watches alone, for a broker and a processor that run already, as in docker-compose.yml.
"""
