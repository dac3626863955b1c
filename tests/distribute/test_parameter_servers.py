"""A table on parameter servers, which are processes: numbers, bytes, faults."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from examples.distributed.servers import NETWORK, LocalCluster
from tests.helpers import load_arrays
from tfsampled.distribute import ShardedSoftmax
from tfsampled.optimizers import LazyAdam

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("network")]
ROOT = pathlib.Path(__file__).parents[2]

COMMON = """
import json, os, sys
import tensorflow as tf

if "TF_CONFIG" in os.environ:
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    servers = resolver.cluster_spec().num_tasks("ps")
    devices = [f"/job:ps/task:{index}/device:CPU:0" for index in range(servers)]
else:
    strategy, coordinator = tf.distribute.get_strategy(), None
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    devices = ["CPU:0", "CPU:1"]
import keras, numpy as np
from examples.distributed.servers import bytes_received
from tfsampled.distribute import ShardedSoftmax
from tfsampled.optimizers import Adagrad, LazyAdam, RowWiseAdagrad

def schedule(function, *args):
    if coordinator is None:
        return tf.nest.map_structure(lambda x: x.numpy(), function(*args))
    return coordinator.schedule(function, args=args)
"""

# One step after another, so that it does not matter which worker makes it.
TRAIN = """
path, folder, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
keras.utils.set_random_seed(1)
with strategy.scope():
    encoder = keras.layers.Dense(8)
    encoder.build((None, 8))
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(encoder.trainable_variables)
options = {"num_true": 2, "ignore_class": -1, "temperature": 0.5, "seed": 1}
make = lambda: LazyAdam(0.1, epsilon=1e-3)
head = ShardedSoftmax(devices, 51, 8, 20, make, **options)

@tf.function
def train(x, y):
    def step():
        with tf.GradientTape() as tape:
            losses = head.sampled_loss(encoder(x), y)
            loss = tf.reduce_mean(losses)
        variables = encoder.trainable_variables, head.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients[0], variables[0])
        head.apply(gradients[1])
        return losses
    return strategy.run(step)

@tf.function
def evaluate(x, y):
    def step():
        h = encoder(x)
        return head.exact_loss(h, y), head.ranks(h, y), head.top_k(h, 3)[1]
    return strategy.run(step)

rng = np.random.default_rng(0)
x = rng.normal(size=(40, 16, 8)).astype("float32")
y = rng.integers(0, 51, (40, 16, 2))
y[:, ::3, 1] = -1  # padding

saves = sorted(int(name[5:-4]) for name in os.listdir(folder) if name[-4:] == ".npz")
first, losses = saves[-1] if saves else 0, []
if saves:
    head.restore(f"{folder}/step-{first}")
    encoder.set_weights(list(np.load(f"{folder}/step-{first}.npz").values()))
for step in range(first, steps):
    losses = schedule(train, tf.constant(x[step]), tf.constant(y[step]))
    if coordinator is not None:
        losses = losses.fetch()
    if (step + 1) % 10 == 0:
        head.save(f"{folder}/step-{step + 1}")
        np.savez(f"{folder}/step-{step + 1}.npz", *encoder.get_weights())
    if len(sys.argv) > 4 and step == 24:
        print("waits", flush=True)
        input()  # until something was killed
result = schedule(evaluate, tf.constant(x[0]), tf.constant(y[0]))
exact, ranks, best = result if coordinator is None else result.fetch()
assert [int(one.iterations) for one in head.optimizers] == [steps] * len(devices)
np.savez(path, losses=losses, exact=exact, ranks=ranks, best=best, table=head.table())
"""

# Many steps at once, of two workers.
PUSH = """
result = {}
for make in (Adagrad, RowWiseAdagrad, LazyAdam):
    head = ShardedSoftmax(devices, 40, 4, 10, lambda: make(0.1, epsilon=0.0))

    @tf.function
    def push():
        def step():
            gradients = [
                tf.IndexedSlices(tf.ones([10, *v.shape[1:]]), tf.range(10), v.shape)
                for v in head.trainable_variables
            ]
            head.apply(gradients)
            return 0
        return strategy.run(step)

    for _ in range(304):
        coordinator.schedule(push)
    coordinator.join()
    for index, optimizer in enumerate(head.optimizers):
        slots = [v.numpy().reshape(20, -1)[:10] for v in optimizer.variables[2:]]
        result[f"{make.__name__}_{index}"] = np.concatenate(slots, axis=1)
        result[f"steps_{make.__name__}_{index}"] = int(optimizer.iterations)
np.savez(sys.argv[1], **result)
"""

# A table of 51 MB, and counts of classes.
BYTES = """
from tfsampled.samplers import FixedUnigram
sampler = FixedUnigram(1 / np.arange(1, 200_001))
head = ShardedSoftmax(devices, 200_000, 64, 256, lambda: LazyAdam(0.1), sampler)

@tf.function
def train(x, y):
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head.sampled_loss(x, y))
        head.apply(tape.gradient(loss, head.trainable_variables))
        return 0
    return strategy.run(step)

@tf.function
def evaluate(x, y):
    def step():
        return head.exact_loss(x, y), head.ranks(x, y), head.top_k(x, 5)
    return strategy.run(step)

x, y = tf.random.normal([64, 64]), tf.range(64)
result = {}
for function in (train, evaluate):
    for _ in range(10):  # until both workers have traced it
        coordinator.schedule(function, args=(x, y))
    coordinator.join()
    before = bytes_received()
    for _ in range(4):
        coordinator.schedule(function, args=(x, y))
    coordinator.join()
    result[function.__name__] = (bytes_received() - before) / 4
np.savez(sys.argv[1], **result)
"""


@contextlib.contextmanager
def coordinator(errors, script, *arguments, cluster=None):
    """Runs a script as the chief of a cluster; without one as the only process.

    Args:
        errors: The file that its errors go to.
        script: What it does after `COMMON`.
        *arguments: Those of the process.
        cluster: The addresses of a cluster.
    """
    environment = dict(os.environ)
    if cluster is not None:
        config = {"cluster": cluster, "task": {"type": "chief", "index": 0}}
        environment["TF_CONFIG"] = json.dumps(config)
    with (
        open(errors, "w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", COMMON + script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env=environment,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def run(path, script, *arguments, cluster=None):
    """Returns what a script has saved."""
    errors = path.with_suffix(".txt")
    with coordinator(errors, script, path, *arguments, cluster=cluster) as process:
        process.communicate(timeout=300)
        assert process.returncode == 0, errors.read_text()[-3000:]
    return load_arrays(path)


def assert_equal(one, other):
    for name in one:
        np.testing.assert_allclose(
            one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_steps_in_order_are_those_of_one_process(tmp_path):
    """And what two servers have saved, three restore."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    one = run(tmp_path / "one.npz", TRAIN, tmp_path / "one", 20)
    with LocalCluster(workers=2, servers=2) as tasks:
        cluster = tasks.addresses
        two = run(tmp_path / "two.npz", TRAIN, tmp_path / "two", 20, cluster=cluster)
    assert_equal(one, two)
    with LocalCluster(workers=1, servers=3) as tasks:
        cluster = tasks.addresses
        three = run(
            tmp_path / "three.npz", TRAIN, tmp_path / "two", 20, cluster=cluster
        )
    np.testing.assert_array_equal(three["table"], two["table"])
    del two["losses"], three["losses"]
    assert_equal(two, three)
    head = ShardedSoftmax(["CPU:0"], 51, 8, 20, LazyAdam, num_true=2, ignore_class=-1)
    head.restore(tmp_path / "two" / "step-20")
    np.testing.assert_array_equal(head.table(), two["table"])


def test_no_update_of_two_workers_at_once_is_lost(tmp_path):
    with LocalCluster(workers=2, servers=2) as tasks:
        result = run(tmp_path / "pushed.npz", PUSH, cluster=tasks.addresses)
    for name, value in result.items():
        if "steps" in name:
            assert value == 304, name
        elif "Adagrad" in name:  # each adds 1 to what starts as 0.1
            np.testing.assert_allclose(value, 304.1, rtol=1e-5, err_msg=name)
        else:  # each moves its moments towards 1
            momentum, velocity, *bias = np.split(value, [4, 8, 9], axis=1)
            for moment in (momentum, bias[0]):
                np.testing.assert_allclose(moment, 1, atol=0.2, err_msg=name)
            for moment in (velocity, bias[1]):
                expected = 1 - 0.999**304
                np.testing.assert_allclose(moment, expected, rtol=0.05, err_msg=name)


@pytest.mark.skipif(not NETWORK.exists(), reason="/proc does not count bytes here")
def test_no_table_is_sent(tmp_path):
    """Other processes may send something at the same time."""
    with LocalCluster(workers=2, servers=2) as tasks:
        received = run(tmp_path / "bytes.npz", BYTES, cluster=tasks.addresses)
    assert 1e4 < received["train"] < 2e6
    assert 1e4 < received["evaluate"] < 2e6


@pytest.mark.parametrize("victim", ["worker", "ps", "chief"])
def test_a_killed_process_loses_nothing_older_than_the_save(tmp_path, victim):
    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
    with LocalCluster(workers=2, servers=2) as tasks:
        unbroken = run(
            *(tmp_path / "unbroken.npz", TRAIN, tmp_path / "unbroken", 40),
            cluster=tasks.addresses,
        )
    path, folder = tmp_path / "broken.npz", tmp_path / "broken"
    with LocalCluster(workers=2, servers=2) as tasks:
        errors, arguments = tmp_path / "errors.txt", (path, folder, 40, "wait")
        with coordinator(errors, TRAIN, *arguments, cluster=tasks.addresses) as process:
            assert "waits" in process.stdout.readline(), errors.read_text()[-3000:]
            killed = process if victim == "chief" else tasks.processes[victim, 1]
            killed.kill()
            killed.wait()
            process.communicate("" if victim == "chief" else "\n", timeout=120)
            # Without a server the coordinator ends; a worker's steps others make.
            assert (process.returncode == 0) == (victim == "worker")
        if victim != "chief":
            tasks.start(victim, 1)
        if victim != "worker":
            run(path, TRAIN, folder, 40, cluster=tasks.addresses)
    assert_equal(unbroken, load_arrays(path))
