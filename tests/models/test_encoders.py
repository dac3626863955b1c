"""Encoders of a user's own: built for what they are given, and when loaded."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel

CLASSES, SAMPLED, DIM, EXAMPLES = 30, 10, 8, 16
FIRST = ["fit", "evaluate", "predict", "call"]


@keras.saving.register_keras_serializable(package="tests")
class Rows(keras.layers.Layer):
    """Rows of a table, by TensorFlow's own op: no floats are ids to it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(DIM)

    def build(self, input_shape):
        self.table = self.add_weight(name="table", shape=(CLASSES, DIM))
        self.dense.build((*input_shape, DIM))
        self.built = True

    def call(self, ids):
        return self.dense(tf.gather(self.table.value, ids))


@keras.saving.register_keras_serializable(package="tests")
class Two(keras.Model):
    """Two inputs in a dict, and no `build` or `compute_output_shape`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = keras.layers.Embedding(CLASSES, DIM)
        self.dense = keras.layers.Dense(DIM)

    def call(self, inputs):
        words = self.words(inputs["words"])
        return self.dense(keras.ops.concatenate([words, inputs["price"]], axis=-1))


@keras.saving.register_keras_serializable(package="tests")
class Pair(Two):
    """The same two inputs in a tuple."""

    def call(self, inputs):
        words, price = inputs
        return super().call({"words": words, "price": price})


@keras.saving.register_keras_serializable(package="tests")
class One(keras.Model):
    """One input, and no `build` or `compute_output_shape`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(DIM)

    def call(self, inputs):
        return self.dense(inputs)


IDS = np.arange(EXAMPLES)
PRICE = np.linspace(0, 1, EXAMPLES, dtype="float32")[:, np.newaxis]
INPUTS = {
    Rows: IDS,
    Two: {"words": IDS, "price": PRICE},
    Pair: (IDS, PRICE),
    One: PRICE,
}


def make(encoder):
    model = SampledSoftmaxModel(
        encoder(), SampledSoftmax(CLASSES, SAMPLED, sampler="uniform")
    )
    model.compile("sgd", run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("encoder", "first"),
    cases(INPUTS, FIRST, quick=lambda encoder, first: encoder is Two or first == "fit"),
)
def test_whatever_is_called_first_builds(encoder, first):
    model, x = make(encoder), INPUTS[encoder]
    if first == "call":
        model(x)
    elif first == "predict":
        model.predict(x, verbose=0)
    else:
        getattr(model, first)(x, IDS, verbose=0)
    assert model.head.kernel.shape == (CLASSES, DIM)
    assert len(model.trainable_weights) == len(model.encoder.trainable_weights) + 2


@pytest.mark.parametrize("encoder", INPUTS, ids=lambda one: one.__name__)
def test_a_loaded_model_has_the_weights_without_a_warning(encoder, tmp_path):
    model, x = make(encoder), INPUTS[encoder]
    model.fit(x, IDS, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.built
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_build_takes_the_shapes_of_floats():
    for encoder, shape in {
        One: (None, 1),
        Two: {"words": (None,), "price": (None, 1)},
        Pair: [(None,), (None, 1)],
    }.items():
        model = make(encoder)
        model.build(shape)
        assert model.head.kernel.shape == (CLASSES, DIM)
