"""`class_weight` of `fit`: Keras's for one label, and each label's for several."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import slow
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel

pytestmark = pytest.mark.eager

CLASSES, DIM, EXAMPLES = 40, 6, 48
RNG = np.random.default_rng(3)
WEIGHTS = {3: 0.0, 17: 5.0, 0: 0.25}
MEANT = np.ones(CLASSES, "float32")
MEANT[list(WEIGHTS)] = list(WEIGHTS.values())
LABELS = np.concatenate([[3, 17, 0], RNG.integers(0, CLASSES, EXAMPLES - 3)])


def make(time=None, jit_compile=False, **head):
    """A model that draws every class, so that losses depend on labels alone."""
    keras.utils.set_random_seed(1)
    shape = (DIM,) if time is None else (time, DIM)
    encoder = keras.Sequential([keras.Input(shape), keras.layers.Dense(8)])
    head = SampledSoftmax(CLASSES, CLASSES, sampler="uniform", seed=1, **head)
    model = SampledSoftmaxModel(encoder, head)
    model.compile(keras.optimizers.SGD(0.5), jit_compile=jit_compile)
    return model


def features(*shape):
    return np.random.default_rng(4).normal(size=(*shape, DIM)).astype("float32")


def fitted(model, *data, **weights):
    history = model.fit(*data, epochs=2, shuffle=False, verbose=0, **weights).history
    return history["loss"], model.get_weights()


def assert_same(ours, theirs):
    assert ours[0] == theirs[0]
    for one, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("source", ["column", slow("arrays"), slow("dataset")])
def test_of_one_label_they_are_keras_sample_weights(source):
    x = features(EXAMPLES)
    y = LABELS[:, np.newaxis] if source == "column" else LABELS
    data: tuple[Any, ...] = (x, y)
    if source == "dataset":
        data = (tf.data.Dataset.from_tensor_slices(data).batch(32),)
    ours = fitted(make(), *data, class_weight=WEIGHTS)
    assert_same(ours, fitted(make(), x, y, sample_weight=MEANT[LABELS]))


@pytest.mark.slow
def test_they_are_part_of_a_compiled_step():
    x = features(EXAMPLES)
    (loss, _), (meant, _) = (
        fitted(make(jit_compile=True), x, LABELS, **weights)
        for weights in ({"class_weight": WEIGHTS}, {"sample_weight": MEANT[LABELS]})
    )
    # XLA fuses the two programs differently: one rounding of each of two epochs.
    np.testing.assert_allclose(loss, meant, rtol=2 * np.finfo("float32").eps)


@pytest.mark.slow
def test_of_sequences_each_label_has_its_own():
    x, y = features(EXAMPLES // 4, 4), LABELS.reshape(-1, 4)
    ours = fitted(make(4), x, y, class_weight=WEIGHTS)
    assert_same(ours, fitted(make(4), x, y, sample_weight=MEANT[y]))


def test_of_several_labels_an_example_has_their_mean():
    x, y = features(EXAMPLES // 3), LABELS.reshape(-1, 3).copy()
    y[1, 1:] = -1  # padding weighs nothing
    options = {"num_true": 3, "ignore_class": -1}
    ours = fitted(make(**options), x, y, class_weight=WEIGHTS)
    meant = MEANT[y].mean(axis=1)
    meant[1] = MEANT[y[1, 0]]
    theirs = fitted(make(**options), x, y, sample_weight=meant)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)


@pytest.mark.slow
def test_they_hold_for_one_fit_only():
    x, model = features(EXAMPLES), make()
    fitted(model, x, LABELS, class_weight={3: 100.0})
    model.set_weights(make().get_weights())
    model.head.sampler.position.assign(0)
    assert_same(fitted(model, x, LABELS), fitted(make(), x, LABELS))


@pytest.mark.traced
def test_train_on_batch_takes_them_and_is_traced_once():
    x, model = features(EXAMPLES), make()
    ours = model.train_on_batch(x, LABELS, class_weight=WEIGHTS)
    traced = model.train_function
    model.train_on_batch(x, LABELS, class_weight={3: 2.0})
    assert model.train_function is traced
    assert ours == make().train_on_batch(x, LABELS, sample_weight=MEANT[LABELS])


@pytest.mark.parametrize("is_evaluated_first", [slow(False), True])
def test_validation_and_evaluation_are_without_them(is_evaluated_first):
    """With sample weights of their own too, which `fit` takes beside class weights."""
    x, model = features(EXAMPLES), make()
    if is_evaluated_first:
        model.evaluate(x, LABELS, verbose=0)
    for data in [(x, LABELS), (x, LABELS, MEANT[LABELS])]:
        history = model.fit(
            x, LABELS, class_weight=WEIGHTS, validation_data=data, verbose=0
        ).history
        exact = model.evaluate(*data[:2], sample_weight=(*data, None)[2], verbose=0)
        assert history["val_loss"] == [exact]
    losses = model.head.exact_loss(model.encoder(x), LABELS)
    expected = np.mean(losses * MEANT[LABELS])
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"class_weight": {CLASSES: 1.0}}, "Received: 40: 1.0, num_classes=40"),
        ({"class_weight": {"a": 1.0}}, "Received: 'a': 1.0"),
        ({"class_weight": {1: float("nan")}}, "Received: 1: nan"),
        ({"class_weight": {1: None}}, "Received: 1: None"),
        ({"class_weight": {}}, "`class_weight` must be a dict from class ids"),
        ({"class_weight": [1.0]}, "`class_weight` must be a dict from class ids"),
        (
            {"class_weight": {1: 1.0}, "sample_weight": np.ones(EXAMPLES)},
            "`class_weight` and `sample_weight` must not both be given",
        ),
    ],
)
def test_invalid_class_weights_raise(weights, message):
    with pytest.raises(ValueError, match=message):
        make().fit(features(EXAMPLES), LABELS, verbose=0, **weights)
