"""Inside Keras: its private names, variables and devices, other optimizers around."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import jit_or_not, slow
from tests.optimizers import steps
from tfsampled.optimizers import Adagrad, LazyAdam, LossScaleOptimizer, RowWiseAdagrad

OURS = pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])
WORDS = np.random.default_rng(0).integers(0, 25, [32, 3])  # of 50
GOOD = steps.sparse((np.array([3, 3, 8]), np.ones([3, 4])))


def test_private_names_of_keras():
    kept, decayed, other = (keras.Variable(np.ones([2]), name=name) for name in "kdo")
    for optimizer, slots in (
        (keras.optimizers.Adagrad(), ["accumulators"]),
        (
            keras.optimizers.Adam(amsgrad=True),
            ["momentums", "velocities", "velocity_hats"],
        ),
    ):
        optimizer.exclude_from_weight_decay([kept])
        optimizer.build([kept, decayed])
        assert optimizer._trainable_variables == [kept, decayed]
        assert optimizer._get_variable_index(decayed) == 1
        assert optimizer._get_variable_index(decayed.value) == 1
        with pytest.raises(KeyError):
            optimizer._get_variable_index(other)
        assert optimizer._use_weight_decay(decayed)
        assert not optimizer._use_weight_decay(kept)
        for name in slots:
            slot = getattr(optimizer, f"_{name}")[1].value
            assert isinstance(slot, tf.Variable)
            assert slot.shape == [2]


@pytest.mark.parametrize(
    "make",
    [Adagrad, LazyAdam, RowWiseAdagrad, lambda: LazyAdam(correct_skipped=True)],
    ids=["adagrad", "lazy-adam", "row-wise", "corrected"],
)
@pytest.mark.parametrize("mode", ["eager", "graph", slow("jit")])
def test_variables_of_tensorflow_with_slots_made_on_the_way(make, mode):
    with tf.name_scope("encoder"):
        tables = [tf.Variable(tf.ones([50, 4]), name="table") for _ in "ab"]
    optimizer = make()

    def step():
        optimizer.apply([GOOD, GOOD], tables)

    if mode != "eager":
        step = tf.function(step, jit_compile=mode == "jit")
    step()
    for table in tables:
        moved = np.flatnonzero(np.any(table.numpy() != 1, axis=1))
        np.testing.assert_array_equal(moved, [3, 8])


def test_slots_of_two_layers_are_told_apart():
    layers = [keras.layers.Embedding(5, 2, name=name) for name in ("one", "two")]
    for layer in layers:
        layer.build()
    for optimizer in (RowWiseAdagrad(), LazyAdam(correct_skipped=True)):
        optimizer.build([layer.embeddings for layer in layers])
        paths = [variable.path for variable in optimizer.variables]
        assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    "make", [Adagrad, RowWiseAdagrad, lambda: LazyAdam(correct_skipped=True)]
)
def test_slots_are_on_the_device_of_their_table(make):
    with tf.device("CPU:1"):
        table = tf.Variable(tf.ones([5, 2]))
    optimizer, grad = make(), tf.IndexedSlices(tf.ones([1, 2]), [3])
    tf.function(lambda: optimizer.apply([grad], [table]))()
    slots = [v.value for v in optimizer.variables if v.shape.rank]
    assert slots
    assert all(slot.device == table.device for slot in slots)


def text_model():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input([3], dtype="int64"),
        keras.layers.Embedding(50, 4, name="words"),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers)


def fit(model):
    return model.fit(WORDS, np.ones([32, 1]), batch_size=16, verbose=0)


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has none yet"
)
@jit_or_not
@pytest.mark.parametrize("policy", [slow("float32"), "mixed_float16"])
def test_one_optimizer_for_the_table_and_another_for_the_rest(jit, policy):
    keras.config.set_dtype_policy(policy)
    model = text_model()
    rows, rest = RowWiseAdagrad(0.1), keras.optimizers.Adam(0.1)
    both = keras.optimizers.MultiOptimizer(
        lambda variable: rows if "words" in variable.path else rest
    )
    if policy == "mixed_float16":
        both = LossScaleOptimizer(both, initial_scale=16.0)
    model.compile(both, loss="mse", jit_compile=jit)
    before = model.get_weights()
    fit(model)
    assert rows.iterations.numpy() == rest.iterations.numpy() == 2
    (words, *others), (trained, *after) = before, model.get_weights()
    moved = np.flatnonzero(np.any(words != trained, axis=1))
    np.testing.assert_array_equal(moved, np.unique(WORDS))
    assert [slot.shape for slot in rows.variables[2:]] == [(50,)]
    for one, other in zip(others, after, strict=True):
        assert np.all(one != other)


@pytest.mark.parametrize("ours", [slow(Adagrad), LazyAdam, slow(RowWiseAdagrad)])
def test_keras_loss_scaling_in_compile_trains(ours):
    """It makes gradients as large as the tables, but the numbers are right."""
    keras.config.set_dtype_policy("mixed_float16")
    model = text_model()
    for optimizer in (ours(), LossScaleOptimizer(ours())):
        model.compile(optimizer, loss="mse", jit_compile=False)
        assert np.isfinite(fit(model).history["loss"]).all()


@OURS
def test_loss_scaling_that_a_user_turns_off(ours):
    optimizer = ours(0.1, loss_scale_factor=8.0)
    optimizer.loss_scale_factor = None
    table = keras.Variable(steps.start())
    optimizer.apply([GOOD], [table])
    np.testing.assert_allclose(table, steps.train(ours(0.1), [GOOD]), rtol=1e-6)


@OURS
def test_update_step_takes_a_variable_of_keras(ours):
    table = keras.Variable(steps.start())
    optimizer = ours(0.1)
    optimizer.build([table])
    optimizer.update_step(GOOD, table, 0.1)
    np.testing.assert_allclose(table, steps.train(ours(0.1), [GOOD]), rtol=1e-6)


def test_the_learning_rate_is_asked_for_once_for_all_tables():
    rates = iter([0.1, 0.2, 0.3])
    tables = [keras.Variable(steps.start()) for _ in "abc"]
    Adagrad(lambda: next(rates)).apply([GOOD] * 3, tables)
    for table in tables:
        np.testing.assert_array_equal(table, tables[0])
