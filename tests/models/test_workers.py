"""Two workers of a `MultiWorkerMirroredStrategy` train what one process trains."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import load_arrays
from tfsampled.distribute import ClassParallelSoftmax
from tfsampled.optimizers import LazyAdam

ROOT = pathlib.Path(__file__).parents[2]

COMMON = """
import json, os, signal, sys
import tensorflow as tf

config = json.loads(os.environ.get("TF_CONFIG", "{}"))
if config:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rank, workers = config["task"]["index"], len(config["cluster"]["worker"])
else:
    strategy, rank, workers = tf.distribute.get_strategy(), 0, 1
import keras, numpy as np
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import MeanReciprocalRank
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import InBatch, Mixed, Uniform

rng = np.random.default_rng(0)
keras.utils.set_random_seed(1)

def make_head():
    sampler = Mixed([InBatch(), (Uniform(seed=1), 10)])
    return SampledSoftmax(50, None, sampler, ignore_class=0)

def make_optimizer():
    return LazyAdam(0.1, global_clipnorm=0.3, epsilon=1e-3)
"""

LOOP = """
x = rng.normal(size=(4, 16, 8)).astype("float32")
y = rng.integers(1, 50, (4, 16))
y[:, ::5] = 0  # padding
table = rng.normal(size=(50, 8)).astype("float32")
with strategy.scope():
    head = make_head()
    head.build((None, 8))
    head.set_table(table, np.zeros(50))
    optimizer = make_optimizer()
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

# The last batch has three examples. Each worker keeps its own backup.
FIT = """
folder, dies_in_epoch = sys.argv[2:]
x = rng.normal(size=(35, 8)).astype("float32")
y = rng.integers(1, 50, 35)
y[::5] = 0  # padding
with strategy.scope():
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    model = SampledSoftmaxModel(encoder, make_head(), top_k=3)
    model.compile(make_optimizer(), metrics=[MeanReciprocalRank()])

def die(epoch, logs):
    if rank == 1 and epoch == int(dies_in_epoch):
        os.kill(os.getpid(), signal.SIGKILL)

history = model.fit(
    x,
    y,
    batch_size=16,
    epochs=4,
    shuffle=False,
    verbose=0,
    validation_data=(x, y),
    callbacks=[
        keras.callbacks.LambdaCallback(on_epoch_begin=die),
        keras.callbacks.BackupAndRestore(os.path.join(folder, str(rank))),
    ],
).history
path = sys.argv[1] + ".keras"
model.save(path)
loaded = keras.saving.load_model(path)
np.savez(
    sys.argv[1],
    loaded=loaded.predict(x, batch_size=16, verbose=0)["classes"],
    loss=history["loss"][-1],
    validation=history["val_mean_reciprocal_rank"][-1],
    evaluated=model.evaluate(x, y, batch_size=16, verbose=0),
    classes=model.predict(x, batch_size=16, verbose=0)["classes"],
    position=model.head.sampler.samplers[1].position,
    weights=np.concatenate([np.ravel(w) for w in model.get_weights()]),
)
"""


# Metrics whose result is one number, a vector and a dict.
METRICS = """
class Range(keras.metrics.Metric):
    def __init__(self):
        super().__init__(name="range")
        self.sum = self.add_variable((), "zeros", name="sum")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sum.assign_add(tf.reduce_sum(y_pred))

    def result(self):
        return {"low": self.sum - 1, "high": self.sum + 1}

x = rng.normal(size=(35, 8)).astype("float32")
y = {"item": rng.integers(1, 50, 35), "kind": np.eye(3)[rng.integers(0, 3, 35)]}
with strategy.scope():
    inputs = keras.Input((8,))
    features = keras.layers.Dense(8)(inputs)
    outputs = {
        "item": SampledSoftmax(50, 10, "uniform", seed=1, name="item")(features),
        "kind": keras.layers.Dense(3, "softmax", name="kind")(features),
    }
    model = SampledSoftmaxModel.from_model(keras.Model(inputs, outputs))
    kind = ["mae", keras.metrics.F1Score(average=None), Range()]
    model.compile(
        make_optimizer(),
        loss={"kind": "categorical_crossentropy"},
        metrics={"item": MeanReciprocalRank(), "kind": kind},
    )
history = model.fit(
    x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, validation_data=(x, y)
).history
logs = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
np.savez(sys.argv[1], **{name: value[-1] for name, value in history.items()} | logs)
"""

CLASS_PARALLEL = """
from tfsampled.distribute import ClassParallelSoftmax
x = rng.normal(size=(4, 16, 8)).astype("float32")
y = rng.integers(1, 51, (4, 16))
y[:, ::5] = 0  # padding
table = rng.normal(size=(51, 8)).astype("float32")
options = {"ignore_class": 0, "seed": 1}
head = ClassParallelSoftmax(
    strategy, 51, 8, 10, lambda: LazyAdam(0.1, epsilon=1e-3), **options
)
for part in head.heads:
    part.set_table(table[rank::workers], np.zeros(part.num_classes))

def replica_step(x, y):
    with tf.GradientTape() as tape:
        losses = head.exact_loss(x, y)
        loss = tf.reduce_sum(losses) / 16
    head.apply(tape.gradient(loss, head.trainable_variables))
    return losses, head.sampled_loss(x, y), head.ranks(x, y), head.top_k(x, 3)[1]

@tf.function
def step(x, y):
    return strategy.run(replica_step, args=(x, y))

size = 16 // workers
part = slice(rank * size, rank * size + size)
for inputs, labels in zip(x, y):
    losses, sampled, ranks, best = step(
        tf.constant(inputs[part]), tf.constant(labels[part])
    )
head.save(sys.argv[2])
np.savez(sys.argv[1], losses=losses, sampled=sampled, ranks=ranks, best=best)
"""


@pytest.fixture
def run(tmp_path, network):
    """Returns a function that runs processes; ends them, whatever happens."""
    processes: list[subprocess.Popen] = []

    def start(name, script, arguments, environment):
        command = [sys.executable, "-c", COMMON + script, tmp_path / name, *arguments]
        process = subprocess.Popen(
            [str(part) for part in command],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        processes.append(process)
        return process

    def run(script, *arguments, workers, fails=False):
        """Returns what each process has saved, or how each has ended if it fails."""
        environments = [{}] if workers == 1 else cluster(workers)
        started = [
            start(f"{index}.npz", script, arguments, environment)
            for index, environment in enumerate(environments)
        ]
        errors = [process.communicate(timeout=300)[1] for process in started]
        codes = [process.returncode for process in started]
        if fails:
            return codes
        assert not any(codes), [error[-2000:] for error in errors]
        return [load_arrays(tmp_path / f"{index}.npz") for index in range(workers)]

    yield run
    for process in processes:
        process.kill()


def cluster(workers):
    """Returns the environment of each worker, on free ports of this machine."""
    listeners = [socket.socket() for _ in range(workers)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:  # only now: no port is given twice
        listener.close()
    addresses = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [
        {"TF_CONFIG": json.dumps({"cluster": addresses, "task": task})}
        for task in ({"type": "worker", "index": index} for index in range(workers))
    ]


def assert_equal(one, first, second):
    for name, value in one.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_loop_of_ones_own_with_two_workers(run):
    assert_equal(*run(LOOP, workers=1), *run(LOOP, workers=2))


@pytest.mark.slow
def test_two_workers_with_a_part_of_the_classes_each(run, tmp_path):
    """They are one process with all classes; so are their files, together."""
    (one,) = run(CLASS_PARALLEL, tmp_path / "one", workers=1)
    first, second = run(CLASS_PARALLEL, tmp_path / "two", workers=2)
    tables = []
    for name in ("one", "two"):
        head = ClassParallelSoftmax(
            tf.distribute.get_strategy(), 51, 8, 10, LazyAdam, ignore_class=0
        )
        head.restore(tmp_path / name)
        tables.append(head.heads[0].table())
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-4, atol=1e-5)
    assert np.isfinite([first["sampled"], second["sampled"]]).all()
    for name in ("losses", "ranks", "best"):
        both = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(both, one[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_fit_with_two_workers(run, tmp_path):
    one = run(FIT, tmp_path / "one", -1, workers=1)
    two = run(FIT, tmp_path / "two", -1, workers=2)
    assert_equal(*one, *two)


@pytest.mark.slow
def test_metrics_with_two_workers(run):
    (one,) = run(METRICS, workers=1)
    assert one["kind_f1_score"].shape == one["val_kind_f1_score"].shape == (3,)
    assert {"item_mean_reciprocal_rank", "kind_mae", "high"} <= one.keys()
    assert_equal(one, *run(METRICS, workers=2))


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_older_than_its_backup(run, tmp_path):
    """Restarted, both workers end where they would have ended, bit for bit."""
    unbroken = run(FIT, tmp_path / "unbroken", -1, workers=2)
    codes = run(FIT, tmp_path / "broken", 2, workers=2, fails=True)
    assert codes[0] != 0
    assert codes[1] == -signal.SIGKILL
    resumed = run(FIT, tmp_path / "broken", -1, workers=2)
    for before, after in zip(unbroken, resumed, strict=True):
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)
