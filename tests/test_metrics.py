"""`tfsampled.metrics`: exact, whether from features in blocks or from logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import use_small_chunks
from tfsampled import metrics
from tfsampled.layers import SampledSoftmax

CLASSES, DIM, BATCH, TIME = 50, 4, 6, 5

METRICS = [
    (metrics.Perplexity, {}),
    (metrics.TopKAccuracy, {"k": 10}),
    (metrics.MeanReciprocalRank, {}),
]
each_metric = pytest.mark.parametrize(("kind", "options"), METRICS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    use_small_chunks(monkeypatch, 8)


def values(kind, logits, labels):
    """What the metric is the mean of, in float64; labels [N, T], -1 for padding."""
    logits = logits.astype(np.float64)
    if kind is metrics.Perplexity:
        total = np.log(np.exp(logits).sum(axis=-1))
        own = np.take_along_axis(logits, labels, axis=-1)
        return total - np.average(own, axis=-1, weights=labels >= 0)
    own = np.take_along_axis(logits, labels, axis=-1)
    own = np.where(labels >= 0, own, -np.inf).max(axis=-1, keepdims=True)
    rank = (logits > own).sum(axis=-1)
    return rank < 10 if kind is metrics.TopKAccuracy else 1 / (rank + 1)


def expected(kind, logits, labels, weights):
    mean = np.average(values(kind, logits, labels), weights=weights)
    return np.exp(mean) if kind is metrics.Perplexity else mean


@each_metric
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("num_true", [1, 3])
@pytest.mark.parametrize("graph", [False, True])
def test_from_features_it_is_numpys(kind, options, shards, num_true, graph):
    rng = np.random.default_rng(6)
    head = SampledSoftmax(
        CLASSES,
        8,
        num_true=num_true,
        num_shards=shards,
        partition_strategy="mod",
        ignore_class=-1,
        bias_initializer="random_normal",
    )
    metric = kind(**options)
    update = metric.update_state_from_features
    update = tf.function(update) if graph else update
    logits, labels, weights = [], [], []
    for _ in range(2):
        features = rng.normal(size=(BATCH, TIME, DIM)).astype("float32") * 3
        label = rng.integers(0, CLASSES, (BATCH, TIME, num_true))
        label[..., 1:][rng.random((BATCH, TIME, num_true - 1)) < 0.5] = -1
        mask, weight = rng.random((BATCH, TIME)) < 0.7, rng.random((BATCH, TIME))
        update(head, features, label, sample_weight=weight, mask=mask)
        logits.append(head(features).numpy().reshape(-1, CLASSES))
        labels.append(label.reshape(-1, num_true))
        weights.append((mask * weight).reshape(-1))
    truth = expected(kind, *map(np.concatenate, (logits, labels, weights)))
    np.testing.assert_allclose(metric.result(), truth, rtol=1e-5)


@each_metric
def test_from_logits_it_is_an_ordinary_metric(kind, options):
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(64, DIM)), rng.integers(0, CLASSES, 64)
    model = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=[kind(**options)])
    logged = model.evaluate(x, y, verbose=0)[1]
    logits = model.predict(x, verbose=0)
    truth = expected(kind, logits, y[:, np.newaxis], np.ones(64))
    np.testing.assert_allclose(logged, truth, rtol=1e-5)


@each_metric
def test_it_starts_again_and_comes_from_its_config(kind, options):
    metric = kind(**options)
    empty = float(metric.result())
    metric.update_state([0], [[1.0, 2.0]])
    metric.reset_state()
    assert float(metric.result()) == empty
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == metric.get_config()


def test_equal_logits_rank_by_id():
    head = SampledSoftmax(CLASSES, 8, kernel_initializer="zeros")
    features, labels = np.ones((3, DIM), "float32"), [0, 9, 49]
    np.testing.assert_array_equal(head.ranks(features, labels), labels)
    metric = metrics.MeanReciprocalRank()
    metric.update_state(labels, np.zeros((3, CLASSES), "float32"))
    np.testing.assert_allclose(metric.result(), (1 + 1 / 10 + 1 / 50) / 3, rtol=1e-6)


def test_k_that_cannot_be():
    with pytest.raises(
        ValueError, match="`k` must be an int of at least 1. Received: k=0"
    ):
        metrics.TopKAccuracy(0)
