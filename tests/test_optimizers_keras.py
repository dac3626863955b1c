"""Inside Keras: its private names, variables and devices, other optimizers around."""

import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import optimizer_steps as steps
from tfsampled.optimizers import (
    Adagrad,
    LazyAdam,
    LossScaleOptimizer,
    RowWiseAdagrad,
    _keras,
)

OURS = pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])
MODES = pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
GOOD = steps.sparse((np.array([3, 3, 8]), np.ones([3, 4])))


def test_the_private_names_of_keras_still_mean_what_they_did():
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
        assert _keras.variables_of(optimizer) == [kept, decayed]
        assert _keras.index_of(optimizer, decayed) == 1
        assert _keras.index_of(optimizer, decayed.value) == 1
        assert _keras.index_of(optimizer, other) is None
        assert _keras.decays(optimizer, decayed)
        assert not _keras.decays(optimizer, kept)
        for name in slots:
            assert isinstance(_keras.slot(optimizer, name, 1), tf.Variable)
            assert _keras.slot(optimizer, name, 1).shape == [2]


@pytest.mark.parametrize(
    "make",
    [Adagrad, LazyAdam, RowWiseAdagrad, lambda: LazyAdam(correct_skipped=True)],
    ids=["adagrad", "lazy-adam", "row-wise", "corrected"],
)
@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
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


@pytest.mark.parametrize("code", ["device", "replicas"])
def test_slots_stand_where_their_tables_do(code):
    codes = {
        "device": """
with tf.device("CPU:1"):
    table = tf.Variable(tf.ones([5, 2]))
grad = tf.IndexedSlices(tf.ones([1, 2]), [3])
for optimizer in (Adagrad(), RowWiseAdagrad(), LazyAdam(correct_skipped=True)):
    tf.function(lambda: optimizer.apply([grad], [table]))()
    slots = [v.value for v in optimizer.variables if v.shape.rank]
    assert slots
    assert all(slot.device == table.device for slot in slots), slots
""",
        "replicas": """
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    table = tf.Variable(tf.ones([5, 2]))
for optimizer in (Adagrad(), RowWiseAdagrad(), LazyAdam(correct_skipped=True)):
    try:
        optimizer.build([table])
    except ValueError as error:
        assert "under a tf.distribute strategy of 2 replicas" in str(error), error
    else:
        raise AssertionError("built")
""",
    }
    start = """
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, two)
from tfsampled.optimizers import *
"""
    command = [sys.executable, "-c", start + codes[code]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


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
    x = np.random.default_rng(0).integers(0, 50, [32, 3])
    return model.fit(x, np.ones([32, 1]), batch_size=16, verbose=0)


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has none yet"
)
@MODES
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
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
    for one, other in zip(before, model.get_weights(), strict=True):
        assert np.any(one != other)


@OURS
def test_keras_own_loss_scaling_in_compile_is_refused(ours):
    keras.config.set_dtype_policy("mixed_float16")
    model = text_model()
    model.compile(ours(), loss="mse", jit_compile=False)
    with pytest.raises(ValueError, match=r"under the policy mixed_float16, .*: pass "):
        fit(model)
    model.compile(LossScaleOptimizer(ours()), loss="mse", jit_compile=False)
    assert np.isfinite(fit(model).history["loss"]).all()


@OURS
def test_loss_scaling_that_a_user_turns_off(ours):
    optimizer = ours(0.1, loss_scale_factor=8.0)
    optimizer.loss_scale_factor = None
    table = keras.Variable(steps.start())
    optimizer.apply([GOOD], [table])
    np.testing.assert_array_equal(table, steps.train(ours(0.1), [GOOD]))


@OURS
@pytest.mark.parametrize("name", ["use_ema", "gradient_accumulation_steps"])
def test_an_option_set_later_is_refused_too(ours, name):
    optimizer = ours()
    setattr(optimizer, name, 4)
    with pytest.raises(ValueError, match=f"got {name}=4, but its step costs only"):
        optimizer.build([keras.Variable(steps.start())])
    assert not optimizer.built


@OURS
def test_update_step_takes_a_variable_of_keras(ours):
    table = keras.Variable(steps.start())
    optimizer = ours(0.1)
    optimizer.build([table])
    optimizer.update_step(GOOD, table, 0.1)
    np.testing.assert_array_equal(table, steps.train(ours(0.1), [GOOD]))


def test_the_learning_rate_is_asked_for_once_a_step():
    rates = iter([0.1, 0.2, 0.3])
    tables = [keras.Variable(steps.start()) for _ in "abc"]
    Adagrad(lambda: next(rates)).apply([GOOD] * 3, tables)
    for table in tables:
        np.testing.assert_array_equal(table, tables[0])


@OURS
@pytest.mark.parametrize("name", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_limits_below_0_clip_nothing_as_in_keras(ours, name):
    clipped = steps.train(ours(0.1, **{name: -1.0}), [GOOD])
    np.testing.assert_array_equal(clipped, steps.train(ours(0.1), [GOOD]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Adagrad(0.1, -1),
            "initial_accumulator_value=-1:",
        ),
        (lambda: RowWiseAdagrad(epsilon=-1.0), r"epsilon=-1\.0: pass 0 or more"),
        (lambda: LazyAdam(epsilon=float("nan")), "epsilon=nan: pass 0 or more"),
        (lambda: LazyAdam(beta_1=1.0), r"beta_1=1\.0: pass .* at least 0 and below 1"),
        (lambda: LazyAdam(beta_2=-0.5), r"beta_2=-0\.5: pass a number of at least 0"),
        (lambda: LossScaleOptimizer("adam"), r"got 'adam' to wrap, .*: pass one, such"),
        (
            lambda: LossScaleOptimizer(LazyAdam(), -1.0),
            r"initial_scale=-1\.0 and .*: ",
        ),
        (
            lambda: LossScaleOptimizer(LazyAdam(), 2.0, 0),
            "growth_steps=0: pass a scale",
        ),
    ],
)
def test_numbers_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_sixth_argument_is_not_taken_for_another():
    # Of Keras's Adam it is weight_decay.
    arguments: list[Any] = [0.1, 0.9, 0.999, 1e-7, False, 0.01]
    with pytest.raises(TypeError, match="positional argument"):
        LazyAdam(*arguments)
