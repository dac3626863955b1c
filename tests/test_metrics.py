"""`tfsampled.metrics`: exact, whether from features in chunks or from logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from tfsampled import metrics
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel

pytestmark = pytest.mark.eager

NUM_CLASSES, DIM, BATCH, TIME = 50, 4, 6, 5
METRICS = {
    "perplexity": metrics.Perplexity,
    "top_k": lambda: metrics.TopKAccuracy(10),
    "reciprocal_rank": metrics.MeanReciprocalRank,
}
each_metric = pytest.mark.parametrize("name", METRICS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    helpers.use_small_chunks(monkeypatch, 8)


def expected_mean(name, logits, labels, weights):
    """Computes the metric in float64; labels `[N, T]`, -1 for padding."""
    logits = logits.astype(np.float64)
    label_logits = np.take_along_axis(logits, labels, axis=-1)
    if name == "perplexity":
        label_logit = np.average(label_logits, axis=-1, weights=labels >= 0)
        losses = helpers.logsumexp64(logits) - label_logit
        return np.exp(np.average(losses, weights=weights))
    best = np.where(labels >= 0, label_logits, -np.inf).max(axis=-1, keepdims=True)
    rank = (logits > best).sum(axis=-1)
    values = rank < 10 if name == "top_k" else 1 / (rank + 1)
    return np.average(values, weights=weights)


@each_metric
@pytest.mark.parametrize(
    ("shards", "num_true", "graph"),
    [(1, 3, False), helpers.slow(3, 1, True), helpers.slow(3, 3, True)],
)
def test_update_state_from_features(name, shards, num_true, graph):
    rng = np.random.default_rng(6)
    head = SampledSoftmax(
        NUM_CLASSES,
        8,
        num_true=num_true,
        num_shards=shards,
        partition_strategy="mod",
        ignore_class=-1,
        bias_initializer="random_normal",
    )
    metric = METRICS[name]()
    update = metric.update_state_from_features
    update = tf.function(update) if graph else update
    logits, labels, weights = [], [], []
    for _ in range(2):
        features = rng.normal(size=(BATCH, TIME, DIM)).astype("float32") * 3
        label = rng.integers(0, NUM_CLASSES, (BATCH, TIME, num_true))
        label[..., 1:][rng.random((BATCH, TIME, num_true - 1)) < 0.5] = -1
        mask, weight = rng.random((BATCH, TIME)) < 0.7, rng.random((BATCH, TIME))
        update(head, features, label, sample_weight=weight, mask=mask)
        logits.append(head(features).numpy().reshape(-1, NUM_CLASSES))
        labels.append(label.reshape(-1, num_true))
        weights.append((mask * weight).reshape(-1))
    expected = expected_mean(name, *map(np.concatenate, (logits, labels, weights)))
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-5)


def test_compiled_metrics_of_a_model_with_all_logits():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(64, DIM)), rng.integers(0, NUM_CLASSES, 64)
    model = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(NUM_CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=[make() for make in METRICS.values()])
    _, *logged = model.evaluate(x, y, verbose=0)
    logits = model.predict(x, verbose=0)
    for name, value in zip(METRICS, logged, strict=True):
        expected = expected_mean(name, logits, y[:, np.newaxis], np.ones(64))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_mask_of_the_logits_leaves_examples_out():
    """As Keras does for its own metrics, whatever the label there is."""
    ids = np.array([[3, 1, 0, 0], [2, 5, 4, 0]])
    labels = np.where(ids == 0, -1, ids)
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(6, DIM, mask_zero=True)(inputs)
    model = keras.Model(inputs, SampledSoftmax(6, 3, "uniform")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile("sgd", loss, metrics=[make() for make in METRICS.values()])
    metric = METRICS["perplexity"]()
    metric.update_state(np.where(ids == 0, np.nan, ids).astype("float32"), model(ids))
    assert np.isfinite(metric.result())
    logged = model.evaluate(ids, labels, verbose=0, return_dict=True)
    logits, valid = model.predict(ids, verbose=0)[ids > 0], labels[ids > 0]
    for name, make in METRICS.items():
        expected = expected_mean(name, logits, valid[:, np.newaxis], np.ones(5))
        np.testing.assert_allclose(logged[make().name], expected, rtol=1e-5)


@each_metric
def test_reset_and_config(name):
    metric = METRICS[name]()
    empty = float(metric.result())
    metric.update_state([0], [[1.0, 2.0]])
    metric.reset_state()
    assert float(metric.result()) == empty
    config = keras.saving.serialize_keras_object(metric)
    restored = keras.saving.deserialize_keras_object(config)
    assert restored.get_config() == metric.get_config()


def test_equal_logits_rank_by_id():
    head = SampledSoftmax(NUM_CLASSES, 8, kernel_initializer="zeros")
    features, labels = np.ones((3, DIM), "float32"), [0, 9, 49]
    np.testing.assert_array_equal(head.ranks(features, labels), labels)
    metric = metrics.MeanReciprocalRank()
    metric.update_state(labels, np.zeros((3, NUM_CLASSES), "float32"))
    np.testing.assert_allclose(metric.result(), (1 + 1 / 10 + 1 / 50) / 3, rtol=1e-6)


def test_invalid_k_raises():
    with pytest.raises(
        ValueError, match=r"`k` must be an int of at least 1\. Received: k=0"
    ):
        metrics.TopKAccuracy(0)


@pytest.mark.traced
@pytest.mark.parametrize(
    ("y_true", "error", "message"),
    [
        (
            tf.constant([256.0], "bfloat16"),
            ValueError,
            "dtype=bfloat16, num_classes=257",
        ),
        (
            tf.constant([1.7]),
            tf.errors.InvalidArgumentError,
            "floats that are not whole",
        ),
        (tf.constant([257]), tf.errors.InvalidArgumentError, "ids from 257 to 257"),
        (tf.constant([-1.0]), tf.errors.InvalidArgumentError, "ids from -1 to -1"),
    ],
)
def test_invalid_labels_raise_and_change_nothing(y_true, error, message):
    metric = metrics.TopKAccuracy(1)
    for update in (metric.update_state, tf.function(metric.update_state)):
        with pytest.raises(error, match=message):
            update(y_true, tf.zeros([1, 257]))
        assert float(metric.count) == 0


@pytest.mark.traced
@pytest.mark.parametrize(
    ("name", "label"),
    helpers.cases(
        METRICS,
        [1.7, 3.0],
        quick=lambda name, label: (name == "perplexity") == (label < 3),
    ),
)
def test_invalid_labels_make_the_result_nan_under_xla(name, label):
    metric = METRICS[name]()
    update = tf.function(metric.update_state, jit_compile=True)
    update(tf.constant([0.0, label]), tf.zeros([2, 3]))
    assert np.isnan(metric.result())


@pytest.mark.traced
@pytest.mark.parametrize("name", ["top_k", "reciprocal_rank"])
def test_invalid_labels_of_features_make_the_result_nan_under_xla(name):
    head = SampledSoftmax(3, 2, "uniform")
    metric = METRICS[name]()
    update = tf.function(metric.update_state_from_features, jit_compile=True)
    update(head, tf.ones([2, 4]), tf.constant([0, 3]))
    assert np.isnan(metric.result())


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_labels_of_any_dtype_that_holds_the_ids(dtype):
    metric = metrics.TopKAccuracy(1)
    metric.update_state(tf.constant([0, 99], dtype), tf.one_hot([0, 1], 100))
    assert float(metric.result()) == 0.5


def test_a_metric_of_ones_own():
    class LabelLogit(metrics.ExactMetric):
        _direction = "up"

        def values_from_features(self, head, features, labels, mask):
            logits = head(features)
            return tf.gather(logits, labels, batch_dims=1)

        def values_from_logits(self, logits, labels):
            return tf.gather(logits, labels[:, 0], batch_dims=1)

    model = SampledSoftmaxModel(keras.layers.Dense(DIM), SampledSoftmax(NUM_CLASSES, 8))
    model.compile("sgd", metrics=[LabelLogit("label_logit")])
    x, y = np.ones([8, DIM], "float32"), np.arange(8)
    logs = model.evaluate(x, y, batch_size=3, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0)
    expected = logits[np.arange(8), y].mean()
    assert logs["label_logit"] == pytest.approx(expected, rel=1e-5)
    metric = LabelLogit()
    metric.update_state(y, logits)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_dtype_of_the_mean(dtype):
    metric = metrics.TopKAccuracy(1, dtype=dtype)
    for label, number in enumerate((257, 100)):  # bfloat16 has no 257
        metric.update_state([label] * number, [[1.0, 0.0]] * number)
    assert float(metric.result()) == pytest.approx(257 / 357, rel=1e-6)
    metric = metrics.MeanReciprocalRank(dtype=dtype)
    metric.update_state([2], [[3.0, 2.0, 1.0]])
    expected = 1 / 3 if dtype == "float64" else float(tf.cast(1 / 3, tf.bfloat16))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["perplexity", helpers.slow("top_k")])
def test_callbacks_know_the_direction(name, tmp_path):
    metric = METRICS[name]()
    model = SampledSoftmaxModel(keras.layers.Dense(DIM), SampledSoftmax(NUM_CLASSES, 8))
    model.compile("sgd", metrics=[metric])
    monitor = f"val_{metric.name}"
    best = tmp_path / "best.weights.h5"
    callbacks = [
        keras.callbacks.EarlyStopping(monitor),
        keras.callbacks.ReduceLROnPlateau(monitor),
        keras.callbacks.ModelCheckpoint(
            best, monitor, save_best_only=True, save_weights_only=True
        ),
    ]
    x, y = np.ones([8, DIM], "float32"), np.arange(8)
    model.fit(x, y, validation_data=(x, y), callbacks=callbacks, verbose=0)
    for callback in callbacks[:2]:
        assert callback.mode == ("min" if name == "perplexity" else "max")
        better = (1.0, 2.0) if name == "perplexity" else (2.0, 1.0)
        assert callback.monitor_op(*better)
    assert best.exists()


def test_k_of_any_size():
    metric = metrics.TopKAccuracy(2**31)
    metric.update_state([0, 1], np.eye(2, dtype="float32"))
    assert metric.result() == 1


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([0], [[1, 2]], "`y_pred` must be floating"),
        ([0], [[1j, 2]], "`y_pred` must be real numbers"),
        (["a"], [[1.0, 2.0]], "`y_true` must be real numbers"),
        (tf.ragged.constant([[0]]), [[1.0, 2.0]], "`y_true` must be dense"),
        ([[0.0, 1.0]], [[1.0, 2.0]], r"`y_true` must be class ids of the shape \(1,\)"),
        (0, 1.0, "`y_pred` must have the shape"),
    ],
)
def test_invalid_arguments_raise(labels, logits, message):
    with pytest.raises(ValueError, match=message):
        metrics.TopKAccuracy(1).update_state(labels, logits)


def test_an_unknown_number_of_classes_raises():
    update = tf.function(metrics.TopKAccuracy(1).update_state)
    unknown = tf.TensorSpec([None, None], tf.float32)
    with pytest.raises(ValueError, match="`y_pred` must have the shape"):
        update.get_concrete_function(tf.TensorSpec([None]), unknown)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_perplexity_of_16_bit_logits(dtype):
    metric = metrics.Perplexity()
    metric.update_state([0, 1], tf.zeros([2, 50_000], dtype))
    np.testing.assert_allclose(metric.result(), 50_000, rtol=1e-5)


@pytest.mark.parametrize("k", [10, 2**31])
@pytest.mark.parametrize("make", [metrics.TopKAccuracy, metrics.NDCG])
def test_an_excluded_label_is_not_found_among_fewer_classes_than_k(make, k):
    head, features = SampledSoftmax(5, 2, "uniform"), np.ones([2, 3], "float32")
    head.build((None, 3))
    head.set_table(np.diag([2.0, 1, 1, 1, 1])[:, :3], np.zeros(5))
    results = []
    for exclude in (None, [[1], [0]]):  # the other example's best class; its own label
        metric = make(k)
        metric.update_state_from_features(head, features, [0, 0], exclude=exclude)
        results.append(float(metric.result()))
    assert results == [1.0, 0.5]


def test_an_integer_dtype_raises():
    with pytest.raises(ValueError, match="`dtype` must be floating"):
        metrics.TopKAccuracy(1, dtype="int32")


@pytest.mark.traced
@pytest.mark.parametrize("jit_compile", [False, True])
def test_ndcg_of_several_labels(jit_compile):
    head = SampledSoftmax(30, 5, "uniform", num_true=3, ignore_class=-1)
    rng = np.random.default_rng(2)
    features = rng.normal(size=(8, 4)).astype("float32")
    labels = np.stack([rng.permutation(30)[:3] for _ in range(8)])
    labels[1, 2] = labels[2, 1:] = labels[3] = -1
    head.build((None, 4))
    logits = head(features).numpy()
    values = []
    for row, classes in zip(logits, labels, strict=True):
        classes = classes[classes >= 0]
        if not classes.size:
            continue
        ranks = [(row > row[label]).sum() for label in classes]
        gain = sum(1 / np.log2(rank + 2) for rank in ranks if rank < 10)
        values.append(gain / sum(1 / np.log2(i + 2) for i in range(len(classes))))
    metric = metrics.NDCG(10)
    update = tf.function(metric.update_state_from_features, jit_compile=jit_compile)
    update(head, tf.constant(features), tf.constant(labels))
    np.testing.assert_allclose(metric.result(), np.mean(values), rtol=1e-5)
    assert metrics.NDCG.from_config(metric.get_config()).k == 10
