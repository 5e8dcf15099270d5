"""Side (b): the script one would write first. `python -m bench.sides.straightforward PORT QOS MODEL CONFIDENCE`.

paho, json.loads, one ONNX call a message, publish where the model is unsure. Nothing survives the process.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from paho.mqtt import client as paho

from bench.load import FIELDS, TOPIC_FILTER
from bench.sides.counting import answer_questions, counts, new_client


def _main() -> None:
    port, qos, model, highest = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # as mlade's
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    client = new_client(port, TOPIC_FILTER, qos)

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        reading = json.loads(message.payload)
        values = np.array([[reading[field] for field in FIELDS]], np.float32)
        (probabilities,) = session.run(None, {"x": values})
        confidence = float(probabilities.max())
        if confidence <= highest:
            sample = {"topic": message.topic, "reading": reading, "probabilities": probabilities[0].tolist()}
            client.publish("samples/unsure", json.dumps(sample), qos=1)
            counts[1] += 1
        counts[0] += 1

    client.on_message = on_message
    answer_questions()
    client.loop_forever()


if __name__ == "__main__":
    _main()
