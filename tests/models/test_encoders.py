"""Encoders of a user's own: built for what they are given, and when loaded."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, slow
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


@keras.saving.register_keras_serializable(package="tests")
class Sessions(Rows):
    """The mean row of each session: more ids than examples."""

    def call(self, inputs):
        ids, sessions = inputs
        return tf.math.segment_mean(super().call(ids), sessions)


@keras.saving.register_keras_serializable(package="tests")
class Optional(One):
    """An input that may be missing."""

    def call(self, inputs):
        price, discount = inputs
        return super().call(price if discount is None else price - discount)


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
    cases(INPUTS, FIRST, quick=lambda encoder, first: encoder is Two),
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


@pytest.mark.parametrize(
    "encoder",
    [one if one is Two else slow(one) for one in INPUTS],
    ids=lambda one: one.__name__,
)
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


@pytest.mark.slow
def test_features_may_be_fewer_than_the_inputs():
    head = SampledSoftmax(CLASSES, SAMPLED, "uniform")
    model = SampledSoftmaxModel(Sessions(), head)
    model.compile("sgd")
    batches = [
        ((np.arange(6), np.array([0, 0, 1, 1, 1, 2])), np.array([3, 1, 4])),
        ((np.arange(5), np.array([0, 1, 1, 1, 1])), np.array([1, 5])),
        ((np.arange(5), np.array([0, 1, 1, 1, 1])), np.array([1, 5, 9])),
    ]
    shapes = (
        (tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int64)),
        tf.TensorSpec([None], tf.int64),
    )

    def dataset(first, last):
        return tf.data.Dataset.from_generator(
            lambda: iter(batches[first:last]), output_signature=shapes
        ).apply(tf.data.experimental.assert_cardinality(last - first))

    model.fit(dataset(0, 2), shuffle=False, verbose=0)
    model.evaluate(dataset(0, 2), verbose=0)
    weights = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match="3 values for 2 examples"):
        model.fit(dataset(2, 3), shuffle=False, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="3 values for 2 examples"):
        model.evaluate(dataset(2, 3), verbose=0)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_an_input_may_be_missing():
    model = SampledSoftmaxModel(
        Optional(), SampledSoftmax(CLASSES, SAMPLED, sampler="uniform")
    )
    model.compile("sgd")
    x = (tf.constant(PRICE), None)
    try:
        Optional()(x)
    except AttributeError:  # in Keras 3.10
        pytest.skip("Keras takes no None among inputs")
    model.train_on_batch(x, IDS)
    loss = model.test_on_batch(x, IDS)
    zeros = (tf.constant(PRICE), tf.zeros_like(PRICE))
    assert model.test_on_batch(zeros, IDS) == pytest.approx(loss)
    assert model.predict_on_batch(x).shape == (EXAMPLES, CLASSES)


@pytest.mark.eager
@pytest.mark.parametrize(
    "arguments", [slow({"negatives": "seen"}), {"exclude": "seen"}]
)
def test_a_sequential_encoder_without_an_input(arguments):
    encoder = keras.Sequential([keras.layers.Dense(4)])
    head = SampledSoftmax(CLASSES, SAMPLED, "uniform")
    model = SampledSoftmaxModel(encoder, head, top_k=3, **arguments)
    model.compile("sgd")
    x = {"x": np.ones((8, 5), "float32"), "seen": np.full((8, 2), 3)}
    for _ in range(2):
        model.fit(x, np.arange(8), verbose=0)
    if "negatives" in arguments:
        model.predict({"x": x["x"]}, verbose=0)
    else:
        model.fit({"x": x["x"]}, np.arange(8), verbose=0)
    classes = model.predict(x, verbose=0)["classes"]
    assert "negatives" in arguments or 3 not in classes


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        slow(["x"], {}),
        (["seen", "x"], {"negatives": "seen"}),
        slow(["seen", "x"], {"exclude": "seen"}),
    ],
)
@pytest.mark.eager
def test_a_sequential_encoder_that_begins_with_a_dict(names, arguments):
    calls = []

    class Concatenated(keras.layers.Layer):
        def call(self, inputs, training=None):  # without it, Keras's Sequential fails
            calls.append(sorted(inputs))
            return keras.ops.concatenate(list(inputs.values()), axis=-1)

    encoder = keras.Sequential([Concatenated(), keras.layers.Dense(4)])
    head = SampledSoftmax(CLASSES, SAMPLED, "uniform")
    model = SampledSoftmaxModel(encoder, head, top_k=3, **arguments)
    model.compile("sgd")
    x = {"x": np.ones((8, 2), "float32"), "seen": np.full((8, 2), 3)}
    model.fit({name: x[name] for name in names}, np.arange(8), verbose=0)
    read = [name for name in names if name != arguments.get("negatives")]
    assert calls
    assert all(call == read for call in calls)
