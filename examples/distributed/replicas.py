"""Trains a model on two devices, and the same on one: `MirroredStrategy`.

    python -m examples.distributed.replicas

The devices are two parts of this machine's CPU. On a machine with several GPUs leave
`set_logical_device_configuration` out, and call `MirroredStrategy()`: it takes all.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from examples.distributed.task import largest_difference, make_model, train


def main() -> tuple[dict[str, float], float]:
    """Prints both models' held-out metrics and the difference of their weights."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = make_model()
    metrics = train(model, verbose=True)
    alone = make_model()
    print("two replicas:", metrics)
    print("one device:  ", train(alone, verbose=False))
    difference = largest_difference(model.get_weights(), alone.get_weights())
    print(f"largest difference of a weight: {difference:.1e}")
    return metrics, difference


if __name__ == "__main__":
    main()
