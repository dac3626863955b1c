"""One seed trains one model, bit for bit, in every process."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

TRAINING = """
import hashlib, json, sys
import numpy as np, tensorflow as tf, keras
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import InBatch, Mixed, Uniform

jit_compile, op_determinism = (flag == "True" for flag in sys.argv[1:])
keras.utils.set_random_seed(7)
if op_determinism:
    tf.config.experimental.enable_op_determinism()
rng = np.random.default_rng(0)
x, y = rng.integers(0, 2000, (4096, 6)), rng.integers(0, 2000, 4096)
encoder = keras.Sequential([
    keras.Input((6,), dtype="int32"),
    keras.layers.Embedding(2000, 64),
    keras.layers.GlobalAveragePooling1D(),
    keras.layers.Dropout(0.2),
    keras.layers.Dense(64),
])
head = SampledSoftmax(2000, None, Mixed([InBatch(), (Uniform(), 256)]))
model = SampledSoftmaxModel(encoder, head)
model.compile(LazyAdam(0.01), jit_compile=jit_compile)
history = model.fit(x, y, batch_size=512, epochs=2, verbose=0).history
weights = b"".join(array.tobytes() for array in model.get_weights())
losses = [float(loss).hex() for loss in history["loss"]]
losses.append(float(model.evaluate(x, y, batch_size=512, verbose=0)).hex())
print(json.dumps([losses, hashlib.sha256(weights).hexdigest()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jit_compile", "op_determinism"), [(False, False), (False, True), (True, False)]
)
def test_two_processes_train_the_same_model(jit_compile, op_determinism):
    arguments = [sys.executable, "-c", TRAINING, str(jit_compile), str(op_determinism)]
    results = [
        subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
        for _ in range(2)
    ]
    first, second = (json.loads(run.stdout.splitlines()[-1]) for run in results)
    assert first == second
