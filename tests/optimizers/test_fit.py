"""In models: fit, tied and sharded tables, gradients without rows, bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, jit_or_not, slow
from tests.optimizers import steps
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import Adagrad, LazyAdam, LossScaleOptimizer, RowWiseAdagrad

OURS = pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])


def classifier():
    encoder = keras.Sequential([keras.layers.Embedding(20, 8), keras.layers.Flatten()])
    return SampledSoftmaxModel(encoder, SampledSoftmax(50, 10, "uniform"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "rate"),
    [
        (Adagrad, 1.0),
        (LazyAdam, 0.1),
        (RowWiseAdagrad, 1.0),
    ],
)
@pytest.mark.eager
def test_fit_of_a_sampled_softmax_learns(ours, rate):
    x = np.arange(20).repeat(10)[:, None]
    y = x[:, 0] * 2
    model = classifier()
    model.compile(optimizer=ours(rate), jit_compile=False)
    # The last batch of an epoch is smaller.
    model.fit(x, y, epochs=12, batch_size=64, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.5 * np.log(50)


def look_up(ours, jit):
    """A model whose two inputs look up one table, after two epochs."""
    keras.utils.set_random_seed(0)
    table = keras.layers.Embedding(50, 4)
    inputs = [keras.Input([3], dtype="int64"), keras.Input([2], dtype="int64")]
    rows = keras.layers.Concatenate(axis=1)([table(ids) for ids in inputs])
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(rows))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=ours, loss="mse", jit_compile=jit)
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 50, [40, 3]), rng.integers(0, 50, [40, 2])]
    y = rng.normal(size=[40, 1])
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return model


class OfDenseGradients(keras.optimizers.Adagrad):
    def apply(self, grads, trainable_variables=None):
        super().apply([tf.convert_to_tensor(g) for g in grads], trainable_variables)


@jit_or_not
@pytest.mark.eager
def test_one_optimizer_for_a_tied_table_and_dense_layers(jit):
    ours = look_up(Adagrad(0.1), jit).get_weights()
    theirs = look_up(OfDenseGradients(0.1), False).get_weights()
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@jit_or_not
@pytest.mark.eager
def test_mixed_float16_with_loss_scaling(jit):
    keras.config.set_dtype_policy("mixed_float16")
    scaled = LossScaleOptimizer(LazyAdam(0.1), initial_scale=16.0)
    model = look_up(scaled, jit)
    assert model.optimizer is scaled
    assert scaled.iterations.numpy() == 6
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.parametrize(
    ("ours", "jit"),
    [
        (Adagrad, False),
        (LazyAdam, False),
        (RowWiseAdagrad, False),
        slow(LazyAdam, True),
    ],
)
def test_shards_are_tables_of_their_own(ours, jit):
    shards = [tf.Variable(steps.start()[:30]), tf.Variable(steps.start()[30:])]
    step = steps.compiled(optimizer := ours(0.1), shards, jit)
    whole = []
    for ids, values in steps.gradients(2):
        first = ids < 30
        parts = [(ids[first], values[first]), (ids[~first] - 30, values[~first])]
        step([steps.sparse(part) for part in parts])
        whole.append(steps.sparse((ids, values)))
    assert optimizer.iterations.numpy() == 2
    expected = steps.train(ours(0.1), whole)
    np.testing.assert_allclose(np.concatenate(shards), expected, rtol=1e-5, atol=1e-6)


@OURS
@jit_or_not
@pytest.mark.parametrize("form", [keras.Variable, tf.Variable], ids=["keras", "tf"])
def test_no_rows_move_nothing(ours, jit, form):
    table = form(steps.start())
    step = steps.compiled(optimizer := ours(0.1), [table], jit)
    step([steps.sparse((np.zeros([0], "int64"), np.zeros([0, 4])))])
    np.testing.assert_array_equal(table.numpy(), steps.start())
    assert optimizer.iterations.numpy() == 1


@OURS
def test_a_variable_without_a_gradient_does_not_move(ours):
    table = keras.Variable(steps.start())
    other = keras.Variable(steps.start(), name="other")
    optimizer = ours(0.1)
    with pytest.warns(UserWarning, match="got no gradient for other, which will not"):
        optimizer.apply([steps.sparse(steps.gradients(1)[0]), None], [table, other])
    np.testing.assert_array_equal(other, steps.start())
    assert optimizer.iterations.numpy() == 1


@pytest.mark.parametrize("ids", [[1, 50], [-1, 1]], ids=["above", "below"])
@pytest.mark.parametrize("eager", [True, slow(False)], ids=["eager", "graph"])
@OURS
def test_rows_outside_the_table(ours, eager, ids):
    table = keras.Variable(steps.start(), name="table")
    optimizer = ours(0.1)
    optimizer.build([table])

    def apply():
        optimizer.apply([steps.sparse((ids, np.ones([2, 4])))], [table])

    step = apply if eager else tf.function(apply)
    message = r"gradient of .*table must have row ids in \[0, 50\). Received: ids from"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        step()
    np.testing.assert_array_equal(table, steps.start())


@pytest.mark.parametrize(
    ("ours", "options"),
    cases(
        [Adagrad, LazyAdam, RowWiseAdagrad],
        [{}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}],
        quick=lambda ours, options: (
            (ours is LazyAdam and "global_clipnorm" in options)
            or (ours is Adagrad and not options)
        ),
    ),
)
def test_under_xla_rows_outside_the_table_are_left_out(ours, options):
    values = np.array([np.nan, 1.0, 1e6, 1.0])[:, None] * np.ones([4, 4])
    outside = steps.sparse((np.array([-1, 7, 50, 7]), values))
    inside = steps.sparse((np.array([7, 7]), np.ones([2, 4])))
    np.testing.assert_allclose(
        steps.train(ours(0.1, **options), [outside], jit=True),
        steps.train(ours(0.1, **options), [inside]),
        rtol=1e-6,
    )


@OURS
def test_not_built(ours):
    grad = steps.sparse(steps.gradients(1)[0])
    table = keras.Variable(steps.start(), name="table")
    with pytest.raises(ValueError, match="`trainable_variables` must be given"):
        ours().apply([grad])
    with pytest.raises(ValueError, match="the variable table:0, for which this"):
        ours().update_step(grad, table, 0.1)
    optimizer = ours()
    optimizer.build([table])
    with pytest.raises(ValueError, match="the variable other, for which this"):
        optimizer.apply([grad], [keras.Variable(steps.start(), name="other")])
    with pytest.raises(ValueError, match="Received: 2 gradients, 1 variables"):
        optimizer.apply([grad, grad])


@OURS
def test_update_step_sums_duplicates_itself(ours):
    grad = steps.sparse(steps.gradients(1)[0])
    table = tf.Variable(steps.start())
    optimizer = ours()
    optimizer.build([table])
    optimizer.update_step(grad, table, 0.1)
    expected = steps.train(ours(0.1), [grad])
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-6)
