"""Two workers of a `MultiWorkerMirroredStrategy` make the steps of one process."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]

WORKER = """
import json, os, sys
import tensorflow as tf

config = json.loads(os.environ.get("TF_CONFIG", "{}"))
if config:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rank, workers = config["task"]["index"], len(config["cluster"]["worker"])
else:
    strategy, rank, workers = tf.distribute.get_strategy(), 0, 1
import keras, numpy as np
from tfsampled.layers import SampledSoftmax
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import InBatch, Mixed, Uniform

rng = np.random.default_rng(0)
x = rng.normal(size=(4, 16, 8)).astype("float32")
y = rng.integers(1, 50, (4, 16))
y[:, ::5] = 0  # padding
table = rng.normal(size=(50, 8)).astype("float32")
keras.utils.set_random_seed(1)
with strategy.scope():
    sampler = Mixed([InBatch(), (Uniform(seed=1), 10)])
    head = SampledSoftmax(50, None, sampler, ignore_class=0)
    head.build((None, 8))
    head.set_table(table, np.zeros(50))
    optimizer = LazyAdam(0.1, global_clipnorm=0.3, epsilon=1e-3)
    optimizer.build(head.trainable_variables)

def replica_step(x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head.sampled_loss(x, y)) / 16
    gradients = tape.gradient(loss, head.trainable_variables)
    optimizer.apply(gradients, head.trainable_variables)

@tf.function
def step(x, y):
    strategy.run(replica_step, args=(x, y))

size = 16 // workers
part = slice(rank * size, rank * size + size)
for inputs, labels in zip(x, y):
    step(tf.constant(inputs[part]), tf.constant(labels[part]))
np.savez(sys.argv[1], table=head.table(), bias=head.bias)
"""


def start(path, environment):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.fixture
def finished():
    """Returns the error output of processes; ends them, whatever happens."""
    processes: list[subprocess.Popen] = []

    def wait(*started):
        processes.extend(started)
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-2000:]

    yield wait
    for process in processes:
        process.kill()


@pytest.mark.slow
def test_two_workers_make_the_steps_of_one_process(tmp_path, finished):
    ports = []
    for _ in range(2):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    finished(start(tmp_path / "one.npz", {}))
    workers = []
    for index in range(2):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = {"TF_CONFIG": json.dumps(config)}
        workers.append(start(tmp_path / f"{index}.npz", environment))
    finished(*workers)
    one, first, second = (
        np.load(tmp_path / f"{name}.npz") for name in ("one", "0", "1")
    )
    for name in ("table", "bias"):
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], one[name], rtol=1e-4, atol=1e-5)
