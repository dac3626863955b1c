"""Models that leave out classes already seen, and take negatives of the user's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import jit_or_not, two_replicas
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import NDCG, MeanReciprocalRank, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.samplers import InBatch, Mixed, Uniform

pytestmark = pytest.mark.eager

CLASSES, DIM, BATCH, HISTORY = 50, 8, 32, 6
RNG = np.random.default_rng(5)
X = RNG.integers(0, CLASSES, (BATCH, HISTORY))
Y = RNG.integers(0, CLASSES, BATCH)


def encoder():
    history = keras.Input((HISTORY,), dtype="int32", name="history")
    x = keras.layers.Embedding(CLASSES, DIM)(history)
    return keras.Model(history, keras.layers.GlobalAveragePooling1D()(x))


def make(head=None, **kwargs):
    head = head or SampledSoftmax(CLASSES, 10, "uniform")
    return SampledSoftmaxModel(encoder(), head, **kwargs)


def ranks_of(model, labels=Y):
    logits = model.head(model.encoder(X)).numpy()
    label = logits[np.arange(BATCH), labels][:, np.newaxis]
    for row, seen in zip(logits, X, strict=True):
        row[seen] = -np.inf
    is_seen = (labels[:, np.newaxis] == X).any(axis=1)
    ranks = np.where(is_seen, 2**31 - 2, (logits > label).sum(axis=1))
    return ranks, np.argsort(-logits, axis=1)


@jit_or_not
def test_what_was_seen_is_neither_predicted_nor_counted(jit):
    model = make(top_k=5, exclude="history")
    metrics = [TopKAccuracy(10), MeanReciprocalRank(), NDCG(10)]
    model.compile("adam", metrics=metrics, jit_compile=jit)
    model.fit(X, Y, epochs=2, verbose=0, batch_size=16)
    ranks, order = ranks_of(model)
    np.testing.assert_array_equal(model.predict(X, verbose=0)["classes"], order[:, :5])
    logs = model.evaluate(X, Y, verbose=0, return_dict=True, batch_size=16)
    expected = {
        "top_10_accuracy": np.mean(ranks < 10),
        "mean_reciprocal_rank": np.mean(1 / (ranks + 1)),
        "ndcg_10": np.mean(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5)


def test_negatives_are_an_input_that_the_encoder_does_not_read():
    model = make(SampledSoftmax(CLASSES, 10, "uniform", seed=1), negatives="negatives")
    other = make(SampledSoftmax(CLASSES, 10, "uniform", seed=1))
    other.set_weights(model.get_weights())
    negatives = np.random.default_rng(6).integers(0, CLASSES, (BATCH, 4))
    data = {"history": X, "negatives": negatives}
    model.compile("sgd")
    log = model.train_on_batch(data, Y, return_dict=True)
    features = other.encoder(X)
    losses = other.head.sampled_loss(features, Y, negatives=negatives)
    np.testing.assert_allclose(log["loss"], np.mean(losses), rtol=1e-5)
    # Evaluation and prediction do without.
    assert model.predict(X, verbose=0).shape == (BATCH, CLASSES)
    assert np.isfinite(model.evaluate(X, Y, verbose=0))
    with pytest.raises(ValueError, match="'negatives', which `negatives` names"):
        model.fit(X, Y, verbose=0)


def test_a_retrieval_model_is_trained_saved_and_served(tmp_path):
    sampler = Mixed([InBatch(), (Uniform(seed=1), 8)])
    head = SampledSoftmax(
        CLASSES, None, sampler, normalize=True, temperature=0.2, log_q="corrected"
    )
    model = make(head, top_k=3, exclude="history")
    model.compile(keras.optimizers.Adam(0.1), metrics=[NDCG(3)])
    history = model.fit(X, Y, epochs=10, batch_size=16, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    expected = model.predict(X, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for key, value in loaded.predict(X, verbose=0).items():
        np.testing.assert_array_equal(value, expected[key])
    assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    best = served.serve(tf.constant(X, tf.int32))
    np.testing.assert_array_equal(best["classes"], expected["classes"])
    logs = [
        m.fit(X, Y, batch_size=16, verbose=0, shuffle=False) for m in (model, loaded)
    ]
    assert logs[0].history == logs[1].history


def test_several_outputs_exclude_each_their_own():
    inputs = {
        "a": keras.Input((HISTORY,), dtype="int32", name="a"),
        "b": keras.Input((2,), dtype="int32", name="b"),
    }
    x = keras.layers.Embedding(CLASSES, DIM)(inputs["a"])
    x = keras.layers.GlobalAveragePooling1D()(x)
    y = keras.layers.Flatten()(keras.layers.Embedding(9, 4)(inputs["b"]))
    model = SampledSoftmaxModel(
        keras.Model(inputs, {"item": x, "shop": y}),
        {
            "item": SampledSoftmax(CLASSES, 10, "uniform"),
            "shop": SampledSoftmax(9, 3, "uniform"),
        },
        top_k=3,
        exclude={"item": "a", "shop": "b"},
    )
    model.compile("adam", metrics={"item": [NDCG(3)], "shop": [NDCG(2)]})
    b = np.random.default_rng(7).integers(0, 9, (BATCH, 2))
    data, targets = {"a": X, "b": b}, {"item": Y, "shop": Y % 9}
    model.fit(data, targets, verbose=0)
    predicted = model.predict(data, verbose=0)
    for name, seen in (("item", X), ("shop", b)):
        classes = predicted[f"{name}_classes"]
        assert not any(
            set(row) & set(out) for row, out in zip(seen, classes, strict=True)
        )
    assert np.isfinite(model.evaluate(data, targets, verbose=0)).all()


def test_an_unknown_input_is_refused():
    with pytest.raises(ValueError, match="'other', which `exclude` names"):
        make(top_k=2, exclude="other").predict(X, verbose=0)
    model = make(exclude="other")
    model.compile("sgd", metrics=[NDCG(3)])
    with pytest.raises(ValueError, match=r"Received: inputs=\['history'\]"):
        model.evaluate(X, Y, verbose=0)


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize("jit_compile", [False, True])
def test_negatives_out_of_range_change_nothing(jit_compile):
    model = make(negatives="negatives")
    model.compile("sgd", jit_compile=jit_compile)
    negatives = np.random.default_rng(6).integers(0, CLASSES, (BATCH, 4))
    data = {"history": X, "negatives": negatives}
    model.fit(data, Y, verbose=0)
    before = [*model.get_weights(), model.head.sampler.position.numpy()]
    negatives[3, 1] = CLASSES
    with pytest.raises(tf.errors.InvalidArgumentError, match="`negatives` must be"):
        model.fit(data, Y, verbose=0)
    after = [*model.get_weights(), model.head.sampler.position.numpy()]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_shared_negatives_and_an_encoder_of_unknown_inputs():
    class Encoder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.table = keras.layers.Embedding(CLASSES, DIM)

        def call(self, inputs):
            assert set(inputs) == {"history"}
            return keras.ops.mean(self.table(inputs["history"]), axis=1)

    head = SampledSoftmax(CLASSES, 10, "uniform")
    model = SampledSoftmaxModel(Encoder(), head, negatives="a_negatives", top_k=2)
    model.compile("sgd")
    data = {"history": tf.constant(X), "a_negatives": tf.constant([1, 2, 3])}
    assert np.isfinite(model.train_on_batch(data, Y))
    assert model.predict({"history": X}, verbose=0)["classes"].shape == (BATCH, 2)


def test_the_class_encoders_table_is_in_no_checkpoint(tmp_path):
    tower = keras.Sequential([keras.layers.Embedding(CLASSES, DIM)])
    head = SampledSoftmax(
        CLASSES, 10, "uniform", class_encoder=tower, class_features=np.arange(CLASSES)
    )
    model = make(head)
    model.compile("sgd")
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    names = [name for name, _ in tf.train.list_variables(path)]
    assert not any("cache" in name or "exported" in name for name in names)


@pytest.mark.slow
@jit_or_not
@pytest.mark.traced
def test_seen_classes_out_of_range_raise_in_evaluation(jit):
    model = make(top_k=5, exclude="history")
    model.compile("sgd", metrics=[TopKAccuracy(10)], jit_compile=jit)
    assert np.isfinite(model.evaluate(X, Y, verbose=0)).all()
    model = make(top_k=5, exclude="seen")
    for metrics in ([TopKAccuracy(10)], None):  # None reads no `exclude`
        model.compile("sgd", metrics=metrics, jit_compile=jit)
        with pytest.raises(tf.errors.InvalidArgumentError, match="`exclude` must"):
            model.evaluate({"history": X, "seen": X + CLASSES - 1}, Y, verbose=0)


def test_a_dict_for_an_encoder_of_a_list_of_inputs():
    """The first input by name is the negatives of all examples."""
    inputs = [keras.Input((DIM,), name=name) for name in ("b", "c")]
    encoder = keras.Model(inputs, keras.layers.Add()(inputs))
    head = SampledSoftmax(CLASSES, 10, "uniform")
    model = SampledSoftmaxModel(encoder, head, negatives="a")
    model.compile("sgd")
    rng = np.random.default_rng(8)
    x = {name: rng.normal(size=(BATCH, DIM)).astype("float32") for name in ("b", "c")}
    data = tf.data.Dataset.from_tensors(({**x, "a": [1, 2]}, Y)).repeat(2)
    model.fit(data, verbose=0, shuffle=False)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), model.head(x["b"] + x["c"]), rtol=1e-6
    )


def encoder_of_dict():
    """Its input has another name than its key."""
    items = keras.Input((HISTORY,), dtype="int32")
    x = keras.layers.Embedding(CLASSES, DIM)(items)
    return keras.Model({"user": items}, keras.layers.GlobalAveragePooling1D()(x))


def encoder_of_list():
    """Reads a list of two inputs."""
    pair = [keras.Input((HISTORY,), dtype="int32", name=name) for name in ("a", "b")]
    embedding = keras.layers.Embedding(CLASSES, DIM)
    x = keras.layers.Add()([embedding(one) for one in pair])
    return keras.Model(pair, keras.layers.GlobalAveragePooling1D()(x))


@pytest.mark.slow
@pytest.mark.traced
def test_training_of_a_list_of_inputs_or_of_replicas_needs_no_exclude():
    head = SampledSoftmax(CLASSES, 10, "uniform")
    model = SampledSoftmaxModel(encoder_of_list(), head, top_k=5, exclude="seen")
    model.compile("sgd")
    model.fit([X, X], Y, verbose=0)
    with two_replicas().scope():
        model = make(top_k=5, exclude="seen")
        model.compile("sgd", run_eagerly=False)
    model.fit({"history": X}, Y, verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize("kind", ["dict", "tensor"])
def test_training_does_not_need_what_predictions_exclude(kind, tmp_path):
    name = "history" if kind == "tensor" else "user"
    make_encoder = encoder if kind == "tensor" else encoder_of_dict
    head = SampledSoftmax(CLASSES, 10, "uniform")
    model = SampledSoftmaxModel(make_encoder(), head, top_k=5, exclude="seen")
    model.compile("sgd")
    model.fit({name: X}, Y, verbose=0)
    if kind == "tensor":
        model.fit(X, Y, verbose=0)
    seen = (X + 1) % CLASSES
    both = {"seen": seen, name: X}
    classes = model.predict(both, verbose=0)["classes"]
    features = model.encoder(X if kind == "tensor" else {name: X})
    logits = model.head(features).numpy()
    for row, ids in zip(logits, seen, strict=True):
        row[ids] = -np.inf
    np.testing.assert_array_equal(classes, np.argsort(-logits, axis=1)[:, :5])
    model.export(tmp_path, verbose=False)
    exported = tf.saved_model.load(tmp_path)
    inputs = {name: tf.constant(X, tf.int32), "seen": tf.constant(seen, tf.int64)}
    served = exported.serve(inputs)
    np.testing.assert_array_equal(served["classes"], classes)


@pytest.mark.slow
def test_the_named_input_of_a_sequential_encoder(tmp_path):
    """Keras gives another name to the tensor of its first call."""
    layers = [
        keras.Input((HISTORY,), dtype="int32", name="history"),
        keras.layers.Embedding(CLASSES, DIM),
        keras.layers.GlobalAveragePooling1D(),
    ]
    head = SampledSoftmax(CLASSES, 10, "uniform")
    model = SampledSoftmaxModel(
        keras.Sequential(layers), head, top_k=5, exclude="history"
    )
    model.compile("sgd")
    model.fit(X, Y, verbose=0)
    best = model.predict(X, verbose=0)["classes"]
    np.testing.assert_array_equal(
        best, model.predict({"history": X}, verbose=0)["classes"]
    )
    assert not any(set(row) & set(seen) for row, seen in zip(best, X, strict=True))
    model.export(tmp_path, verbose=False)
    exported = tf.saved_model.load(tmp_path)
    serve = exported.signatures["serving_default"]
    served = serve(history=tf.constant(X, tf.int32))
    np.testing.assert_array_equal(served["classes"], best)
