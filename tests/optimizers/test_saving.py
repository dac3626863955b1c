"""Configurations, saved models, and training that goes on where it stopped."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.optimizers import steps
from tfsampled.optimizers import Adagrad, LazyAdam, LossScaleOptimizer, RowWiseAdagrad

pytestmark = pytest.mark.eager
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
MADE = {
    "adagrad": lambda: Adagrad(0.25, initial_accumulator_value=0.5, clipnorm=2.0),
    "row-wise": lambda: RowWiseAdagrad(SCHEDULE, epsilon=1e-3, weight_decay=0.1),
    "lazy-adam": lambda: LazyAdam(0.25, beta_1=0.8, global_clipnorm=3.0, amsgrad=True),
    "corrected": lambda: LazyAdam(0.25, correct_skipped=True, name="corrected"),
    "scaled": lambda: LossScaleOptimizer(Adagrad(0.25), dynamic_growth_steps=2),
}
EACH = pytest.mark.parametrize("make", MADE.values(), ids=MADE)


@EACH
def test_config_makes_an_equal_optimizer(make):
    made = make()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert type(again) is type(made)
    assert again.get_config() == made.get_config()


def model_of(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input([3], dtype="int64"),
            keras.layers.Embedding(50, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    return model


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] * (name != "corrected"))
        for name, make in MADE.items()
    ],
)
def test_a_loaded_model_goes_on_step_by_step(make, tmp_path):
    rng = np.random.default_rng(0)
    batches = [
        (rng.integers(0, 50, [16, 3]), rng.normal(size=[16, 1])) for _ in range(8)
    ]
    model = model_of(make())
    for batch in batches[:4]:
        model.train_on_batch(*batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    model.reset_metrics()  # not every Keras begins a new mean by itself
    for batch in batches[4:]:
        losses = [each.train_on_batch(*batch) for each in (model, loaded)]
        assert losses[0] == losses[1]
    ours, theirs = (each.optimizer.variables for each in (model, loaded))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_row_wise_state_is_one_number_a_row():
    optimizer = RowWiseAdagrad()
    optimizer.build([keras.Variable(steps.start()), keras.Variable(tf.zeros([7]))])
    iteration, rate, *slots = (tuple(v.shape) for v in optimizer.variables)
    assert (iteration, rate) == ((), ())
    assert slots == [(50,), (7,)]


def test_a_correction_that_would_grow_is_refused():
    with pytest.raises(ValueError, match=r"Received: beta_1=0\.9, beta_2=0\.8"):
        LazyAdam(beta_1=0.9, beta_2=0.8, correct_skipped=True)
