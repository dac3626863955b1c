"""Models that leave out classes already seen, and take negatives of the user's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import NDCG, MeanReciprocalRank, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.samplers import InBatch, Mixed, Uniform

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
    return (logits > label).sum(axis=1), np.argsort(-logits, axis=1)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_was_seen_is_neither_predicted_nor_counted(jit_compile):
    model = make(top_k=5, exclude="history")
    metrics = [TopKAccuracy(10), MeanReciprocalRank(), NDCG(10)]
    model.compile("adam", metrics=metrics, jit_compile=jit_compile)
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
    negatives = RNG.integers(0, CLASSES, (BATCH, 4))
    data = {"history": X, "negatives": negatives}
    model.compile("sgd")
    log = model.train_on_batch(data, Y, return_dict=True)
    features = other.encoder(X)
    losses = other.head.sampled_loss(features, Y, negatives=negatives)
    np.testing.assert_allclose(log["loss"], np.mean(losses), rtol=1e-5)
    # Evaluation and prediction do without.
    assert model.predict(X, verbose=0).shape == (BATCH, CLASSES)
    assert np.isfinite(model.evaluate(X, Y, verbose=0))
    with pytest.raises(ValueError, match="`negatives` must be the name of an input"):
        model.fit(X, Y, verbose=0)


def test_a_retrieval_model_is_trained_saved_and_served(tmp_path):
    sampler = Mixed([InBatch(), (Uniform(seed=1), 8)])
    head = SampledSoftmax(
        CLASSES, None, sampler, normalize=True, temperature=0.2, log_q="corrected"
    )
    model = make(head, top_k=3, exclude="history")
    model.compile(keras.optimizers.Adam(0.05), metrics=[NDCG(3)])
    history = model.fit(X, Y, epochs=30, batch_size=16, verbose=0).history
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
    b = RNG.integers(0, 9, (BATCH, 2))
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
    with pytest.raises(ValueError, match="`exclude` must be the name of an input"):
        make(top_k=2, exclude="other").predict(X, verbose=0)
    model = make(exclude="other")
    model.compile("sgd", metrics=[NDCG(3)])
    with pytest.raises(ValueError, match="exclude='other', inputs=\\['history'\\]"):
        model.evaluate(X, Y, verbose=0)
