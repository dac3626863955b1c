"""What fails changes nothing: no table, no slot, no counter, no scale."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.optimizers import steps
from tfsampled.optimizers import Adagrad, LazyAdam, LossScaleOptimizer, RowWiseAdagrad

MAKERS = {
    "adagrad": lambda: Adagrad(0.1),
    "lazy-adam": lambda: LazyAdam(0.1, correct_skipped=True, clipnorm=1.0),
    "row-wise": lambda: RowWiseAdagrad(0.1, global_clipnorm=1.0),
    "scaled": lambda: LossScaleOptimizer(Adagrad(0.1), initial_scale=2.0),
}
EACH = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
GOOD = steps.sparse((np.array([3, 3, 8]), np.ones([3, 4])))


def tables(count=2):
    return [keras.Variable(steps.start(), name=f"table_{n}") for n in range(count)]


def assert_left_alone(optimizer, variables, call, error, message):
    everything = [*variables, *optimizer.variables]
    before = [variable.numpy() for variable in everything]
    with pytest.raises(error, match=message):
        call()
    for variable, value in zip(everything, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, variable.path)


@EACH
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
def test_a_row_outside_the_last_table(make, eager):
    optimizer, (dense, *sparse) = make(), tables(3)
    variables = [dense, *sparse]
    optimizer.build(variables)
    bad = steps.sparse((np.array([1, 50]), np.ones([2, 4])))

    def call():
        optimizer.apply([tf.ones([50, 4]), GOOD, bad], variables)

    assert_left_alone(
        optimizer,
        variables,
        call if eager else tf.function(call),
        tf.errors.InvalidArgumentError,
        r"table_2 must have row ids in \[0, 50\). Received: ids from 1 to 50",
    )


@EACH
def test_a_variable_it_was_not_built_for(make):
    optimizer, variables = make(), tables()
    optimizer.build(variables[:1])
    for other in (GOOD, tf.ones([50, 4])):
        assert_left_alone(
            optimizer,
            variables,
            lambda other=other: optimizer.apply([GOOD, other], variables),
            ValueError,
            "the variable table_1, for which this",
        )


@EACH
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            tf.ones([3, 4]),
            r"table_1 must be floating and have the shape \(50, 4\). Received: "
            r"dtype=float32, shape=\(3, 4\)",
        ),
        (tf.ones([50, 4], tf.complex64), "must be floating .* dtype=complex64"),
        (
            tf.IndexedSlices(tf.ones([1, 1]), [2]),
            r"ids.shape=\(1,\), values.shape=\(1, 1\)",
        ),
        (tf.IndexedSlices(tf.ones([4]), [0, 1, 2, 3]), r"values.shape=\(4,\)"),
        (
            tf.IndexedSlices(tf.ones([2, 4]), [1]),
            r"ids.shape=\(1,\), values.shape=\(2, 4\)",
        ),
        (
            tf.IndexedSlices(tf.ones([1, 4]), [[1]]),
            r"ids.shape=\(1, 1\), values.shape=\(1, 4\)",
        ),
        (
            tf.IndexedSlices(tf.ones([1, 4]), [1.0]),
            "Received: ids of float32, values of",
        ),
        (
            tf.IndexedSlices(tf.ones([1, 4], tf.complex64), [1]),
            "Received: ids of int32, values of complex64",
        ),
    ],
)
def test_a_gradient_of_something_else(make, bad, message):
    optimizer, variables = make(), tables()
    optimizer.build(variables)
    assert_left_alone(
        optimizer,
        variables,
        lambda: optimizer.apply([GOOD, bad], variables),
        ValueError,
        message,
    )


@EACH
def test_a_wrong_number_of_gradients(make):
    optimizer, variables = make(), tables()
    optimizer.build(variables)
    assert_left_alone(
        optimizer,
        variables,
        lambda: optimizer.apply([GOOD], variables),
        ValueError,
        "Received: 1 gradients, 2 variables",
    )


@EACH
def test_shapes_that_are_known_only_when_it_runs(make):
    optimizer, (table,) = make(), tables(1)

    @tf.function(input_signature=[tf.TensorSpec(None), tf.TensorSpec([None], tf.int64)])
    def step(values, ids):
        optimizer.apply([tf.IndexedSlices(values, ids)], [table])

    step(GOOD.values, GOOD.indices)
    assert optimizer.iterations.numpy() == 1
    assert_left_alone(
        optimizer,
        [table],
        lambda: step(tf.ones([3, 1]), GOOD.indices),
        tf.errors.InvalidArgumentError,
        r"not compatible with expected shape \[\?,4\]",
    )
