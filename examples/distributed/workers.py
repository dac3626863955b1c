"""Trains a model on several workers: `MultiWorkerMirroredStrategy`.

    python -m examples.distributed.workers

starts two workers as processes of this machine, and compares them with one process.

On real machines set TF_CONFIG on each, with its own index, and start the same command:

    {"cluster": {"worker": ["host0:12345", "host1:12345"]},
     "task": {"type": "worker", "index": 0}}

If a worker dies, the others end with an error. With `--backup`, a separate folder for
each worker, all go on from the end of the last epoch when they are started again.
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
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from examples.distributed import task


def work(backup: str | None, weights: str | None) -> None:
    """Trains as one of the workers of TF_CONFIG; saves the model's weights."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rank = strategy.cluster_resolver.task_id
    with strategy.scope():
        model = task.make_model()
    metrics = task.train(model, verbose=rank == 0, backup=backup)
    print(f"worker {rank}: {metrics}")
    if weights is not None:
        np.savez(weights, *model.get_weights())


def run_workers(commands: Sequence[list[str]]) -> None:
    """Runs `python COMMAND` on this machine, for each worker of a cluster.

    Raises:
        RuntimeError: If one fails.
    """
    addresses = []
    with contextlib.ExitStack() as sockets:  # all open at once: different ports
        for _ in commands:
            free = sockets.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            addresses.append(f"127.0.0.1:{free.getsockname()[1]}")
    processes = []
    try:
        for index, command in enumerate(commands):
            cluster = {"worker": addresses}
            config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
            processes.append(
                subprocess.Popen([sys.executable, *command], env=environment)
            )
        for process in processes:
            if process.wait() != 0:
                raise RuntimeError(f"A worker ended with {process.returncode}.")
    finally:
        for process in processes:
            process.kill()


def main() -> float:
    """Compares two workers with one process; returns the largest difference."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{index}.npz" for index in range(2)]
        command = ["-m", "examples.distributed.workers", "--weights"]
        run_workers([[*command, file] for file in files])
        first, second = (list(np.load(file).values()) for file in files)
    alone = task.make_model()
    print("one process:", task.train(alone, verbose=False))
    between = task.largest_difference(first, second)
    print(f"largest difference between the workers: {between}")
    difference = task.largest_difference(first, alone.get_weights())
    print(f"largest difference of a weight: {difference:.1e}")
    return difference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backup", help="this worker's own folder to resume from")
    parser.add_argument("--weights", help="file to save the weights to")
    options = parser.parse_args()
    if "TF_CONFIG" in os.environ:
        work(options.backup, options.weights)
    else:
        main()
