"""How many operations a traced loss has: what runs on the host in every step."""

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import count_operations, operation_counts

CLASSES, DIM = 10_000, 32


@pytest.mark.parametrize(
    ("batch", "num_sampled", "limit"), [(64, 128, 280), (1024, 8192, 380)]
)
def test_loss_and_gradient(batch, num_sampled, limit):
    weights = tf.Variable(tf.ones([CLASSES, DIM]))
    biases = tf.Variable(tf.zeros([CLASSES]))

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch, 1], tf.int64),
            tf.TensorSpec([batch, DIM]),
        ]
    )
    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(
                tfsampled.nn.sampled_softmax_loss(
                    weights, biases, labels, inputs, num_sampled, CLASSES
                )
            )
        return loss, tape.gradient(loss, [weights, biases, inputs])

    function = step.get_concrete_function()
    assert count_operations(function) <= limit
    # No message is made, and no minimum or maximum taken, unless an id is out of range.
    top_level = {operation.type for operation in function.graph.get_operations()}
    assert not top_level & {"Assert", "AsString", "StringFormat", "StringJoin"}
    assert operation_counts(function)["Assert"] == 1


def test_the_message_names_the_smallest_and_largest_id():
    step = tf.function(
        lambda labels: tfsampled.nn.sampled_softmax_loss(
            np.ones([10, 2], "float32"), None, labels, tf.ones([3, 2]), 4, 10
        ),
        input_signature=[tf.TensorSpec([None, 1], tf.int64)],
    )
    assert step([[1], [2], [3]]).shape == [3]
    message = r"`labels` must be class ids in \[0, 10\). Received: ids from -7 to 12."
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        step([[-7], [2], [12]])
