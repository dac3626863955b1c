"""The numbers: Keras's on densified gradients, and float64 NumPy's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import jit_or_not, slow
from tests.optimizers import steps
from tfsampled.optimizers import Adagrad, LazyAdam, RowWiseAdagrad

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
MODES = pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])


def in_float64(make, grads):
    """Keras's own optimizer on densified gradients, all in float64."""
    dense = [steps.dense(grad, "float64") for grad in grads]
    return steps.train(make(), dense, steps.start("float64").astype("float64"))


@MODES
def test_adagrad_gives_keras_numbers_on_duplicates(jit):
    def make():
        return keras.optimizers.Adagrad(0.1)

    grads = steps.gradients(300)
    ours = steps.train(Adagrad(0.1), [steps.sparse(g) for g in grads], jit=jit)
    theirs = steps.train(make(), [steps.dense(g) for g in grads])
    steps.assert_as_good(ours, theirs, in_float64(make, grads))


@pytest.mark.parametrize(
    ("amsgrad", "jit"),
    [(True, False), slow(True, True), slow(False, True), slow(False, False)],
)
def test_lazy_adam_is_adam_where_every_row_is_touched(jit, amsgrad):
    def make():
        return keras.optimizers.Adam(0.01, amsgrad=amsgrad)

    grads = steps.gradients(300, every_row=True)
    lazy = LazyAdam(0.01, amsgrad=amsgrad)
    ours = steps.train(lazy, [steps.sparse(g) for g in grads], jit=jit)
    theirs = steps.train(make(), [steps.dense(g) for g in grads])
    steps.assert_as_good(ours, theirs, in_float64(make, grads))


def lazy_adam_in_numpy(grads, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    w = steps.start().astype("float64")
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (ids, values) in enumerate(grads, start=1):
        total = np.zeros_like(w)
        np.add.at(total, ids, values)
        r = np.unique(ids)
        m[r] = beta_1 * m[r] + (1 - beta_1) * total[r]
        v[r] = beta_2 * v[r] + (1 - beta_2) * total[r] ** 2
        corrected = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w[r] -= corrected * m[r] / (np.sqrt(v[r]) + epsilon)
    return w


@jit_or_not
def test_lazy_adam_moves_the_rows_touched_and_their_moments_only(jit):
    grads = steps.gradients(100, copies=8)
    ours = steps.train(LazyAdam(0.01), [steps.sparse(g) for g in grads], jit=jit)
    np.testing.assert_allclose(ours, lazy_adam_in_numpy(grads), rtol=2e-5, atol=2e-6)


def row_wise_in_numpy(grads, rate=0.1, initial=0.1, epsilon=1e-7):
    w = steps.start().astype("float64")
    a = np.full(len(w), initial)
    for ids, values in grads:
        total = np.zeros_like(w)
        np.add.at(total, ids, values)
        a += (total**2).mean(1)
        w -= rate * total / np.sqrt(a + epsilon)[:, None]
    return w


@jit_or_not
@pytest.mark.parametrize("form", [steps.sparse, steps.dense], ids=["rows", "dense"])
def test_row_wise_adagrad_in_numpy(jit, form):
    grads = steps.gradients(100)
    ours = steps.train(RowWiseAdagrad(0.1), [form(g) for g in grads], jit=jit)
    np.testing.assert_allclose(ours, row_wise_in_numpy(grads), rtol=2e-5, atol=2e-6)


def test_row_wise_adagrad_of_a_vector_is_adagrad():
    bias = np.linspace(-1, 1, 50, dtype="float32")
    grads = [
        tf.IndexedSlices(tf.constant(values[:, 0], "float32"), tf.constant(ids))
        for ids, values in steps.gradients(20)
    ]
    np.testing.assert_array_equal(
        steps.train(RowWiseAdagrad(0.1), grads, bias),
        steps.train(Adagrad(0.1), grads, bias),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Adagrad, keras.optimizers.Adagrad), (LazyAdam, keras.optimizers.Adam)],
)
def test_dense_gradients_get_keras_own_update(ours, theirs):
    grads = [steps.dense(g) for g in steps.gradients(20)]
    options = {"learning_rate": 0.1, "weight_decay": 0.01, "clipnorm": 1.0}
    np.testing.assert_array_equal(
        steps.train(ours(**options), grads), steps.train(theirs(**options), grads)
    )


@pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_table_of_another_dtype(ours, dtype):
    table = tf.constant(steps.start(), dtype)
    variable = keras.Variable(table, dtype=dtype)
    ids, values = steps.gradients(1)[0]
    # What the dtype can hold, so that only the step itself rounds.
    values = np.asarray(tf.cast(tf.constant(values, dtype), tf.float64))
    steps.compiled(ours(0.1), [variable])([steps.sparse((ids, values), dtype)])
    exact = keras.Variable(tf.cast(table, tf.float64), dtype="float64")
    steps.compiled(ours(0.1), [exact])([steps.sparse((ids, values), "float64")])
    assert keras.backend.standardize_dtype(variable.dtype) == dtype
    after = np.asarray(tf.cast(variable.value, tf.float64))
    # The weight is rounded once, the step, of at most 0.1, in a few operations.
    step = 0.1 * 8 * EPS[dtype]
    np.testing.assert_allclose(after, exact.numpy(), rtol=EPS[dtype], atol=step)
    moved = np.any(after != np.asarray(tf.cast(table, tf.float64)), axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), np.unique(ids))


@pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])
@jit_or_not
def test_a_gradient_wider_than_its_table(ours, jit):
    grad = steps.gradients(1)[0]
    np.testing.assert_allclose(
        steps.train(ours(0.1), [steps.sparse(grad, "float64")], jit=jit),
        steps.train(ours(0.1), [steps.sparse(grad)]),
        rtol=1e-6,
        atol=1e-7,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@jit_or_not
def test_many_copies_are_summed_in_more_than_16_bits(dtype, jit):
    values = tf.fill([4000, 1], tf.cast(1e-2, dtype))
    grad = tf.IndexedSlices(values, tf.zeros([4000], tf.int64))
    table = keras.Variable([[0.0]], dtype=dtype)
    optimizer = Adagrad(1.0, initial_accumulator_value=1e4)
    steps.compiled(optimizer, [table], jit)([grad])
    total = 4000 * float(values[0, 0])
    expected = -total / np.sqrt(1e4 + total**2)
    np.testing.assert_allclose(float(table.value[0, 0]), expected, rtol=4 * EPS[dtype])


@pytest.mark.parametrize(
    "options", [{"loss_scale_factor": 1024.0}, {"clipnorm": 1.0}, {"clipvalue": 0.5}]
)
@jit_or_not
def test_sums_that_float16_cannot_hold_are_scaled_or_clipped_first(options, jit):
    grad = tf.IndexedSlices(
        tf.fill([2, 1], tf.constant(4e4, tf.float16)), tf.constant([0, 0])
    )
    table = keras.Variable([[0.0]], dtype="float16")
    steps.compiled(Adagrad(1.0, **options), [table], jit)([grad])
    whole = steps.train(
        keras.optimizers.Adagrad(1.0, **options),
        [tf.constant([[8e4]])],
        np.zeros([1, 1], "float32"),
    )
    np.testing.assert_allclose(table, whole, rtol=4 * EPS["float16"])


@pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])
def test_a_table_of_matrices(ours):
    table = np.ones([6, 2, 3], "float32")
    values = tf.reshape(tf.range(18.0), [3, 2, 3])
    ids = tf.constant([4, 1, 4])
    sparse = tf.IndexedSlices(values, ids)
    dense = tf.math.unsorted_segment_sum(values, ids, 6)
    np.testing.assert_allclose(
        steps.train(ours(0.1), [sparse], table),
        steps.train(ours(0.1), [dense], table),
        rtol=1e-6,
    )


@pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])
def test_nan_stays_in_its_row(ours):
    values = np.array([[np.nan] * 4, [1.0] * 4])
    after = steps.train(ours(0.1), [steps.sparse((np.array([3, 7]), values))])
    assert np.isnan(after[3]).all()
    assert np.isfinite(np.delete(after, 3, axis=0)).all()


def rotating(steps_made, period):
    """Each row is touched once in `period` steps; `[ROWS, WIDTH]` gradients."""
    rng = np.random.default_rng(2)
    rows = np.arange(steps.ROWS)
    for step in range(steps_made):
        ids = rows[rows % period == step % period]
        yield ids, rng.normal(size=(len(ids), steps.WIDTH))


@pytest.mark.slow
@MODES
def test_the_correction_goes_where_adam_goes(jit):
    grads = list(rotating(400, period=50))
    adam = in_float64(lambda: keras.optimizers.Adam(0.01), grads)
    sparse = [steps.sparse(grad) for grad in grads]
    lazy = steps.train(LazyAdam(0.01), sparse, jit=jit)
    corrected = steps.train(LazyAdam(0.01, correct_skipped=True), sparse, jit=jit)
    assert np.abs(corrected - adam).mean() < np.abs(lazy - adam).mean() / 4


def test_the_correction_leaves_alone_what_is_touched_in_every_step():
    grads = steps.gradients(50, every_row=True)
    for form in (steps.sparse, steps.dense):
        same = [form(grad) for grad in grads]
        np.testing.assert_allclose(
            steps.train(LazyAdam(0.01, correct_skipped=True), same),
            steps.train(LazyAdam(0.01), same),
            rtol=1e-6,
            atol=2e-7,
        )


def test_a_dense_gradient_after_row_sparse_ones_is_corrected_too():
    grads = list(rotating(11, period=10))
    mixed = [steps.sparse(grad) for grad in grads[:-1]] + [steps.dense(grads[-1])]
    table = keras.Variable(steps.start())
    optimizer = LazyAdam(0.01, correct_skipped=True)
    for grad in mixed:
        optimizer.apply([grad], [table])
    adam, other = keras.optimizers.Adam(0.01), keras.Variable(steps.start())
    for grad in grads:
        adam.apply([steps.dense(grad)], [other])
    # Once every row is touched, the moments are those of Adam.
    ours, theirs = (
        [v.numpy() for v in each.variables if v.path.endswith(("momentum", "velocity"))]
        for each in (optimizer, adam)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)


@jit_or_not
def test_a_counter_that_is_set_back_is_no_harm(jit):
    grad = steps.sparse((np.array([3]), np.ones([1, 4])))

    def trained(**options):
        optimizer, table = LazyAdam(0.01, **options), keras.Variable(steps.start())
        step = steps.compiled(optimizer, [table], jit)
        for _ in range(20):
            step([grad])
        optimizer.iterations.assign(0)
        for _ in range(3):
            step([grad])
        return table.numpy()

    # No step was skipped, before or after.
    np.testing.assert_allclose(trained(correct_skipped=True), trained(), rtol=1e-6)
