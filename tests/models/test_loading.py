"""Files that do not fit, copies of tied models, and encoders of several inputs."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import load_arrays
from tfsampled import samplers
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel

pytestmark = pytest.mark.eager

ROOT = pathlib.Path(__file__).parents[2]
DIM = 4


def plain(classes=10, **head):
    head = SampledSoftmax(classes, 5, **{"sampler": "uniform", **head})
    return keras.Sequential([keras.Input((DIM,)), head])


def wrapped(classes=10, **head):
    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
    head = SampledSoftmax(classes, 5, **{"sampler": "uniform", **head})
    return SampledSoftmaxModel(encoder, head)


MODELS = pytest.mark.parametrize("make", [plain, wrapped])


@MODELS
@pytest.mark.parametrize(
    "other", [{"classes": 11}, {"num_shards": 2}, {"use_bias": False}]
)
def test_weights_of_another_table_raise(make, other, tmp_path):
    """Keras's own message names the layer."""
    make().save_weights(tmp_path / "ten.weights.h5")
    model = make(**other)
    name = f"<SampledSoftmax name={model.layers[-1].name}"
    with pytest.raises(ValueError, match=f"could not be loaded.*{name}"):
        model.load_weights(tmp_path / "ten.weights.h5")


@MODELS
@pytest.mark.parametrize(
    ("saved", "loading"),
    [
        (samplers.Uniform, samplers.LearnedUnigram),
        (samplers.LearnedUnigram, samplers.Uniform),
    ],
)
def test_the_state_of_another_sampler(make, saved, loading, tmp_path):
    path = tmp_path / "saved.weights.h5"
    first, model = make(sampler=saved(seed=1)), make(sampler=loading(seed=1))
    first.save_weights(path)
    message = (
        f"The file must hold the state .* of this {loading.__name__}. Received: the"
    )
    with pytest.raises(ValueError, match=message):
        model.load_weights(path)


def test_the_table_alone_is_loaded_with_skip_mismatch(tmp_path):
    path = tmp_path / "saved.weights.h5"
    first = plain(sampler=samplers.Uniform(seed=1))
    model = plain(sampler=samplers.LearnedUnigram(seed=1))
    first.save_weights(path)
    with pytest.warns(UserWarning, match="could not be loaded"):
        model.load_weights(path, skip_mismatch=True)
    np.testing.assert_array_equal(model.get_weights()[0], first.get_weights()[0])
    assert int(model.layers[-1].sampler.position) == 0


def tied():
    words = keras.layers.Embedding(10, DIM, name="words")
    inputs = keras.Input((3,), dtype="int32")
    features = keras.layers.GlobalAveragePooling1D()(words(inputs))
    head = SampledSoftmax(10, 5, sampler="uniform", tied_to=words, name="head")
    return keras.Model(inputs, head(features))


def is_tied(model):
    tables = [one for one in model.trainable_variables if one.shape == (10, DIM)]
    return len(tables) == 1 and model.get_layer("head").tied_to is model.get_layer(
        "words"
    )


def test_a_tied_model_that_is_saved_or_cloned(tmp_path):
    model = tied()
    model.save(tmp_path / "tied.keras")
    assert is_tied(keras.models.load_model(tmp_path / "tied.keras"))

    clones: dict[keras.layers.Layer, keras.layers.Layer] = {}

    def clone(layer):
        config = layer.get_config()
        if getattr(layer, "tied_to", None) is not None:
            config["tied_to"] = clones[layer.tied_to]
        clones[layer] = type(layer).from_config(config)
        return clones[layer]

    assert is_tied(keras.models.clone_model(model, clone_function=clone))
    wrapping = SampledSoftmaxModel.from_model(model)
    copy = keras.models.clone_model(wrapping)
    assert copy.head.tied_to is copy.encoder.get_layer("words")


@keras.saving.register_keras_serializable(package="tests")
class Knot(keras.layers.Layer):
    """Holds its Embedding in a dict of mixed keys, beside a layer that holds it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = {"words": keras.layers.Embedding(10, DIM, name="words"), 2: None}
        self.other = keras.layers.Flatten()
        self.other.knot = self

    def call(self, ids):
        return self.inner["words"](ids)


def test_a_tied_table_is_found_in_layers_that_hold_each_other():
    encoder = Knot()
    head = SampledSoftmax(10, 5, tied_to=encoder.inner["words"])
    model = SampledSoftmaxModel(encoder, head)
    config = model.get_config()
    copy = SampledSoftmaxModel.from_config(config)
    assert copy.head.tied_to is copy.encoder.inner["words"]


def inputs_of(kind):
    """Two inputs of two dtypes."""
    words = keras.Input((3,), dtype="int32", name="words")
    price = keras.Input((1,), dtype="float32", name="price")
    means = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 6)(words))
    features = keras.layers.Concatenate()([means, price])
    inputs = {"words": words, "price": price} if kind == "dict" else [words, price]
    return keras.Model(inputs, keras.layers.Dense(DIM)(features))


SERVE = """
import sys
import numpy as np, tensorflow as tf

served = tf.saved_model.load(sys.argv[1])
data = np.load(sys.argv[2])
words, price = tf.constant(data["words"]), tf.constant(data["price"])
x = {"words": words, "price": price} if sys.argv[4] == "dict" else [words, price]
np.savez(sys.argv[3], **served.serve(x))
assert "tfsampled" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dict", "list"])
def test_an_encoder_of_several_inputs_is_trained_and_served(kind, tmp_path):
    rng = np.random.default_rng(0)
    data = {
        "words": rng.integers(0, 20, (16, 3)).astype("int32"),
        "price": rng.normal(size=(16, 1)).astype("float32"),
    }
    x = data if kind == "dict" else list(data.values())
    head = SampledSoftmax(10, 5, sampler="uniform")
    model = SampledSoftmaxModel(inputs_of(kind), head, top_k=3)
    model.compile("sgd")
    model.fit(x, np.arange(16) % 10, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    words, price = (values[:5] for values in data.values())  # another batch size
    np.savez(tmp_path / "data.npz", words=words, price=price)
    names = ["served", "data.npz", "best.npz"]
    paths = [str(tmp_path / name) for name in names]
    subprocess.run([sys.executable, "-c", SERVE, *paths, kind], check=True, cwd=ROOT)
    best, served = model.predict(x, verbose=0), load_arrays(tmp_path / "best.npz")
    np.testing.assert_array_equal(served["classes"], best["classes"][:5])
    np.testing.assert_allclose(served["scores"], best["scores"][:5], rtol=1e-6)


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_a_functional_model_of_several_inputs_is_wrapped(kind):
    encoder = inputs_of(kind)
    logits = SampledSoftmax(10, 5, sampler="uniform")(encoder.output)
    model = SampledSoftmaxModel.from_model(keras.Model(encoder.input, logits))
    model.compile("sgd")
    data = {"words": np.ones((4, 3), "int32"), "price": np.ones((4, 1), "float32")}
    x = data if kind == "dict" else list(data.values())
    model.fit(x, np.arange(4), verbose=0)
    assert model.predict(x, verbose=0).shape == (4, 10)


def test_a_table_tied_outside_the_encoder_stays_outside(tmp_path):
    """Another Embedding of the encoder may have its name."""
    ids = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(10, DIM, name="words")(ids)
    encoder = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(x))
    items = keras.layers.Embedding(10, DIM, name="words")
    model = SampledSoftmaxModel(encoder, SampledSoftmax(10, 5, tied_to=items))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.head.tied_to is not loaded.encoder.get_layer("words")
    x = np.arange(30).reshape(10, 3) % 10
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def two_heads(num_shards=1, sampler=None):
    inputs = keras.Input((DIM,))
    outputs = {
        name: SampledSoftmax(
            10, 5, sampler or samplers.Uniform(), name=name, num_shards=num_shards
        )(inputs)
        for name in ("a", "b")
    }
    return SampledSoftmaxModel.from_model(keras.Model(inputs, outputs))


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_checkpoint_holds_every_head_and_shard(num_shards, tmp_path):
    model, fresh = two_heads(num_shards), two_heads(num_shards)
    x = np.random.default_rng(0).normal(size=(4, DIM)).astype("float32")
    for name in ("a", "b"):
        model.head[name].sampled_loss(x, [1, 2, 3, 4])
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=fresh).restore(path).assert_consumed()
    expected = model.predict(x, verbose=0)
    for name, value in fresh.predict(x, verbose=0).items():
        np.testing.assert_array_equal(value, expected[name])
    for name in ("a", "b"):
        position = fresh.head[name].sampler.position
        assert int(position) == int(model.head[name].sampler.position)


def test_a_sampler_of_two_heads_is_not_saved_whole(tmp_path):
    model = two_heads(sampler=samplers.Uniform())
    with pytest.raises(ValueError, match="must have no layer in common in a model"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    two_heads(sampler=samplers.Uniform()).load_weights(tmp_path / "model.weights.h5")


def with_features(features):
    head = SampledSoftmax(
        len(features),
        5,
        class_encoder=keras.Sequential([keras.layers.Dense(DIM)]),
        class_features=features,
        use_bias=False,
    )
    encoder = [keras.Input((DIM,)), keras.layers.Rescaling(1.0)]
    return SampledSoftmaxModel(keras.Sequential(encoder), head)


def test_features_that_are_given_are_not_loaded(tmp_path):
    rng = np.random.default_rng(0)
    old, new = (rng.normal(size=(n, 2)) for n in (10, 12))
    model, other = with_features(old), with_features(new)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    tower = other.head.class_tower
    np.testing.assert_allclose(tower.columns[0], new, rtol=1e-6)
    np.testing.assert_allclose(
        tower.table(), model.head.class_tower.encoder(new), rtol=1e-5
    )


def test_features_are_loaded_as_often_as_weights_are(tmp_path):
    features = np.random.default_rng(0).normal(size=(10, 2))
    with_features(features).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with_features(2 * features).save_weights(tmp_path / "other.weights.h5")
    loaded.load_weights(tmp_path / "other.weights.h5")
    column = loaded.head.class_tower.columns[0]
    np.testing.assert_allclose(column, 2 * features, rtol=1e-6)
