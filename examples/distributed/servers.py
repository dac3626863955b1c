"""Trains a table that lies on parameter servers: `ShardedSoftmax`.

    python -m examples.distributed.servers

starts two workers and two servers as processes of this machine, and coordinates them.

On real machines set TF_CONFIG on each, with its own task, and start the same command.
The chief coordinates. Checkpoints need a folder that all machines see: `--folder`.

    {"cluster": {"chief": ["host0:12345"],
                 "worker": ["host1:12345", "host2:12345"],
                 "ps": ["host3:12345", "host4:12345"]},
     "task": {"type": "worker", "index": 0}}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfsampled.distribute import ClassParallelSoftmax, ShardedSoftmax
from tfsampled.optimizers import Adagrad

DIM, EXAMPLES, BATCH, SAMPLED = 64, 40_000, 512, 1024
NETWORK = Path("/proc/net/dev")  # of Linux


def serve() -> None:
    """Runs as the worker or server of TF_CONFIG, until it is killed."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    tf.distribute.Server(
        resolver.cluster_spec(), resolver.task_type, resolver.task_id, protocol="grpc"
    ).join()


class LocalCluster:
    """Workers and servers as processes of this machine, on free ports.

    Attributes:
        addresses: Those of each job's tasks.
        processes: By job and number.
    """

    def __init__(self, workers: int, servers: int) -> None:
        with contextlib.ExitStack() as sockets:

            def address() -> str:
                free = sockets.enter_context(socket.socket())
                free.bind(("127.0.0.1", 0))
                return f"127.0.0.1:{free.getsockname()[1]}"

            counts = {"chief": 1, "worker": workers, "ps": servers}
            self.addresses = {
                job: [address() for _ in range(count)] for job, count in counts.items()
            }
        self.processes: dict[tuple[str, int], subprocess.Popen] = {}

    def start(self, job: str, index: int) -> None:
        """Starts a task, or starts it again once it was killed."""
        if (job, index) in self.processes:
            self.processes[job, index].wait()
        task = {"type": job, "index": index}
        config = json.dumps({"cluster": self.addresses, "task": task})
        self.processes[job, index] = subprocess.Popen(
            [sys.executable, "-m", "examples.distributed.servers"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "TF_CONFIG": config, "CUDA_VISIBLE_DEVICES": ""},
        )

    def __enter__(self) -> LocalCluster:
        for job in ("worker", "ps"):
            for index in range(len(self.addresses[job])):
                self.start(job, index)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def resident_megabytes(process: subprocess.Popen) -> float:
    """Returns how much memory a process has; 0 where /proc does not tell."""
    path = Path(f"/proc/{process.pid}/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(int(line.split()[1]) for line in lines if "VmRSS" in line) * 1024 / 1e6


def bytes_received() -> int:
    """Returns how many bytes this machine has received over all its interfaces."""
    rows = NETWORK.read_text().splitlines()[2:] if NETWORK.exists() else []
    return sum(int(row.split(":")[1].split()[0]) for row in rows)


def coordinate(
    resolver: tf.distribute.cluster_resolver.ClusterResolver,
    num_classes: int,
    epochs: int,
    folder: str,
) -> dict[str, float]:
    """Trains; returns what a step of the last epoch and an exact loss took.

    Returns:
        Milliseconds ("ms") and kilobytes ("kilobytes") of a step; the kilobytes of an
        exact loss ("exact_kilobytes").
    """
    num_sampled = min(SAMPLED, num_classes)
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    num_servers = resolver.cluster_spec().num_tasks("ps")
    # Everything but the table is placed by the strategy.
    keras.utils.set_random_seed(1)
    with strategy.scope():
        encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(encoder.trainable_variables)
    head = ShardedSoftmax(
        [f"/job:ps/task:{index}/device:CPU:0" for index in range(num_servers)],
        *(num_classes, DIM, num_sampled),
        optimizer=lambda: Adagrad(0.3),
        sampler="uniform",
        seed=1,
    )

    @tf.function
    def train(batches: tf.data.Iterator) -> tf.Tensor:
        def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(head.sampled_loss(encoder(x), y))
            variables = encoder.trainable_variables, head.trainable_variables
            gradients = tape.gradient(loss, variables)
            optimizer.apply(gradients[0], variables[0])
            head.apply(gradients[1])
            return loss

        return strategy.run(step, args=next(batches))

    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, EXAMPLES)
    _, same = np.unique(y, return_inverse=True)  # examples of a class are alike
    x = rng.normal(size=(same.max() + 1, DIM)).astype("float32")[same]

    def examples() -> tf.data.Dataset:  # each worker calls this
        data = tf.data.Dataset.from_tensor_slices((x, y))
        return data.shuffle(EXAMPLES).repeat().batch(BATCH, drop_remainder=True)

    batches = iter(coordinator.create_per_worker_dataset(examples))
    for _ in range(10):  # until both workers have traced it
        coordinator.schedule(train, args=(batches,))
    coordinator.join()
    steps = EXAMPLES // BATCH
    for epoch in range(epochs):
        start, received = time.perf_counter(), bytes_received()
        losses = [coordinator.schedule(train, args=(batches,)) for _ in range(steps)]
        coordinator.join()  # until all workers have done their steps
        milliseconds = (time.perf_counter() - start) / steps * 1000
        kilobytes = (bytes_received() - received) / steps / 1000
        mean = np.mean([loss.fetch() for loss in losses])
        print(
            f"epoch {epoch + 1}: loss {mean:.3f}, {milliseconds:.1f} ms and "
            f"{kilobytes:.0f} kB a step, received by this machine"
        )
    rows = (BATCH + num_sampled) * (2 * 4 * DIM + 2 * 8) / 1000
    print(f"rows, their gradients and ids of a step: {rows:.0f} kB")

    @tf.function
    def evaluate(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return strategy.run(lambda: head.exact_loss(encoder(x), y))

    held = tf.constant(x[:BATCH]), tf.constant(y[:BATCH])
    coordinator.schedule(evaluate, args=held).fetch()  # traces
    received = bytes_received()
    on_servers = coordinator.schedule(evaluate, args=held).fetch()
    exact_kilobytes = (bytes_received() - received) / 1000
    head.save(f"{folder}/classes")
    whole = ClassParallelSoftmax(
        *(tf.distribute.get_strategy(), num_classes, DIM, num_sampled), optimizer=None
    )
    whole.restore(f"{folder}/classes")
    (layer,) = whole.heads
    together = layer.exact_loss(encoder(x[:BATCH]), y[:BATCH]).numpy()
    difference = np.abs(on_servers - together).max()
    print(
        f"exact loss on the servers: {on_servers.mean():.6f}, {exact_kilobytes:.0f} kB"
    )
    print(f"restored on one device:    {together.mean():.6f}")
    print(f"largest difference of an example: {difference:.1e}")
    return {
        "ms": milliseconds,
        "kilobytes": kilobytes,
        "exact_kilobytes": exact_kilobytes,
    }


def main(
    num_classes: int, epochs: int, folder: str, workers: int = 2, servers: int = 2
) -> dict[str, float]:
    """Coordinates workers and servers of this machine, all without a GPU.

    Returns:
        As `coordinate`, and the memory of the largest server ("server_megabytes").
    """
    tf.config.set_visible_devices([], "GPU")
    with LocalCluster(workers, servers) as cluster:
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            *(tf.train.ClusterSpec(cluster.addresses), "", "chief", 0),
            rpc_layer="grpc",
        )
        results = coordinate(resolver, num_classes, epochs, folder)
        memory = [
            resident_megabytes(cluster.processes["ps", index])
            for index in range(servers)
        ]
        print(f"memory of each server: {max(memory):.0f} MB")
        return {**results, "server_megabytes": max(memory)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, choices=range(1, 100), default=3)
    parser.add_argument("--folder", help="where to save; a temporary one by default")
    parser.add_argument("--workers", type=int, default=2, help="of this machine")
    parser.add_argument("--servers", type=int, default=2, help="of this machine")
    options = parser.parse_args()
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    if task and task["type"] != "chief":
        serve()
    with tempfile.TemporaryDirectory() as temporary:
        arguments = options.classes, options.epochs, options.folder or temporary
        if task:
            config = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            coordinate(config, *arguments)
        else:
            main(*arguments, options.workers, options.servers)
