"""How many operations a traced step has: what runs on the host in every step."""

import tensorflow as tf

from tests.helpers import count_operations
from tfsampled.layers import SampledSoftmax
from tfsampled.optimizers import LazyAdam

CLASSES, DIM, BATCH = 10_000, 32, 64


def test_a_step_of_lazy_adam():
    """A table and a bias with row-sparse gradients, and a dense kernel."""
    variables = [tf.Variable(tf.ones(shape)) for shape in ([CLASSES, DIM], [CLASSES])]
    kernel = tf.Variable(tf.ones([DIM, DIM]))
    optimizer = LazyAdam(0.01)
    optimizer.build([*variables, kernel])

    @tf.function
    def step(ids, values, d_kernel):
        grads = [tf.IndexedSlices(values, ids), tf.IndexedSlices(values[:, 0], ids)]
        optimizer.apply([*grads, d_kernel], [*variables, kernel])

    function = step.get_concrete_function(
        tf.TensorSpec([BATCH], tf.int64),
        tf.TensorSpec([BATCH, DIM]),
        tf.TensorSpec([DIM, DIM]),
    )
    assert count_operations(function) <= 200


def test_a_step_of_the_head_with_lazy_adam():
    head = SampledSoftmax(CLASSES, 128)
    head.build((None, DIM))
    optimizer = LazyAdam(0.01)
    optimizer.build(head.trainable_variables)

    @tf.function
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head.sampled_loss(inputs, labels))
        gradients = tape.gradient(loss, head.trainable_variables)
        optimizer.apply_gradients(zip(gradients, head.trainable_variables, strict=True))

    function = step.get_concrete_function(
        tf.TensorSpec([BATCH, DIM]), tf.TensorSpec([BATCH], tf.int64)
    )
    assert count_operations(function) <= 700
