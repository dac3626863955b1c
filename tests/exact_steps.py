"""A step of training on the exact loss, for a process of its own."""

import numpy as np
import tensorflow as tf

from tfsampled.layers import SampledSoftmax


def head_step(num_classes, dim, batch):
    """Loss and gradients of `SampledSoftmax.exact_loss`; only a small one has run."""
    _head_step(1000, dim, batch)()
    return _head_step(num_classes, dim, batch)


def _head_step(num_classes, dim, batch):
    rng = np.random.default_rng(0)
    head = SampledSoftmax(num_classes, num_sampled=16)
    head.build((batch, dim))
    inputs = tf.constant(rng.standard_normal((batch, dim), np.float32))
    labels = tf.constant(rng.integers(0, num_classes, batch))

    @tf.function(autograph=False)
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head.exact_loss(inputs, labels))
        return loss, tape.gradient(loss, head.trainable_variables)

    traced = step.get_concrete_function(inputs, labels)
    return lambda: traced(inputs, labels)
