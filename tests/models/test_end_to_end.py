"""One model that has everything, and what it says of itself against NumPy.

Sequences, masks, weights, padding, several shards or a tied table, both mixed policies,
compiled by XLA and not, loaded in a new process, exported and served.
"""

import dataclasses
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.helpers import cross_entropy64, load_arrays
from tfsampled import metrics, samplers
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam

CLASSES, SAMPLED, DIM, TIME, EXAMPLES, BATCH = 60, 20, 16, 6, 96, 32
ROOT = pathlib.Path(__file__).parents[2]
EPSILON = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}
BUDGET = 2e-3  # the issue's, for policies that round features to 8 bits


@dataclasses.dataclass(frozen=True)
class Whole:
    """One combination of what a model can have."""

    policy: str = "float32"
    jit: bool = False
    tied: bool = False

    def __str__(self) -> str:
        parts = (self.policy, "jit" * self.jit, "tied" * self.tied)
        return "-".join(part for part in parts if part)


ALL = [
    Whole(policy, jit, tied)
    for policy in ("float32", "mixed_bfloat16", "mixed_float16")
    for jit in (False, True)
    for tied in (False, True)
]


def make(case):
    words = keras.layers.Embedding(CLASSES, DIM, mask_zero=True, name="words")
    encoder = keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            words,
            keras.layers.GRU(DIM, return_sequences=True),
            keras.layers.Dense(DIM),
        ]
    )
    table = (
        {"tied_to": words}
        if case.tied
        else {"num_shards": 3, "partition_strategy": "mod"}
    )
    head = SampledSoftmax(
        CLASSES,
        SAMPLED,
        sampler=samplers.LearnedUnigram(seed=1),
        temperature=0.7,
        ignore_class=-1,
        **table,
    )
    model = SampledSoftmaxModel(encoder, head)
    model.compile(
        LazyAdam(0.02),
        metrics=[metrics.TopKAccuracy(10), metrics.MeanReciprocalRank()],
        weighted_metrics=[metrics.Perplexity()],
        jit_compile=case.jit,
    )
    return model


def data():
    """Each label is the word before, two further on; tails are masked, or ignored."""
    rng = np.random.default_rng(1)
    x = rng.integers(1, CLASSES, (EXAMPLES, TIME)).astype("int32")
    y = (x.astype("int64") + 2) % CLASSES
    x[::2, 4:] = 0
    y[::2, 4:] = CLASSES + 5  # no class: the mask has to be heeded
    y[1::4, 3] = -1
    return x, y, rng.uniform(0.5, 2, (EXAMPLES, TIME)).astype("float32")


def expected(logits, x, y, weight):
    """What `evaluate` should say, in float64."""
    kept = (x > 0) & (y != -1)
    logits, y, weight = logits[kept].astype("float64"), y[kept], weight[kept]
    own = np.take_along_axis(logits, y[:, np.newaxis], axis=-1)
    losses = cross_entropy64(logits, y[:, np.newaxis])
    lower = np.arange(CLASSES) < y[:, np.newaxis]
    rank = ((logits > own) | ((logits == own) & lower)).sum(axis=-1)
    return {
        "loss": (losses * weight).mean(),
        "top_10_accuracy": (rank < 10).mean(),
        "mean_reciprocal_rank": (1 / (rank + 1)).mean(),
        "perplexity": np.exp(np.average(losses, weights=weight)),
    }


ELSEWHERE = """
import sys
import keras, numpy as np, tensorflow as tf
import tfsampled  # registers the classes

model, data = keras.models.load_model(sys.argv[1]), np.load(sys.argv[2])
x = data["x"]
loaded = tf.saved_model.load(sys.argv[3])  # its variables live as long as it does
served = loaded.serve(tf.constant(x[:7]))
loss = model.train_on_batch(x, data["y"], data["weight"])
np.savez(sys.argv[4], loss=loss, **served)
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_model_that_has_everything(case, tmp_path):
    keras.config.set_dtype_policy(case.policy)
    x, y, weight = data()
    model = make(case)
    history = model.fit(
        x, y, sample_weight=weight, batch_size=BATCH, epochs=15, verbose=0
    ).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0] / 2

    # One batch, so that the mean is one over labels, however they are spread.
    logged = model.evaluate(
        x, y, sample_weight=weight, batch_size=EXAMPLES, verbose=0, return_dict=True
    )
    logits = model.predict(x, batch_size=EXAMPLES, verbose=0)
    assert logits.shape == (EXAMPLES, TIME, CLASSES)
    assert logged == pytest.approx(expected(logits, x, y, weight), rel=BUDGET)

    best = SampledSoftmaxModel(model.encoder, model.head, top_k=10)
    best.export(tmp_path / "served", verbose=False)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y, weight=weight)
    check_elsewhere(model, (x, y, weight), tmp_path)


def check_elsewhere(model, batch, folder):
    """A new process serves what this one predicts, and goes on where it stopped."""
    names = ["model.keras", "data.npz", "served", "result.npz"]
    paths = [str(folder / name) for name in names]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *paths], check=True, cwd=ROOT)
    result = load_arrays(folder / "result.npz")
    x, y, weight = batch
    logits = model.head(model.encoder(x[:7])).numpy()
    own = np.take_along_axis(logits, result["classes"], axis=-1)
    # Features are rounded once more or less, as the two programs are fused.
    eps = EPSILON[model.encoder.compute_dtype]
    atol = 4 * eps * np.abs(logits).max()
    np.testing.assert_allclose(result["scores"], own, rtol=0, atol=atol)
    best = -np.sort(-logits, axis=-1)[..., :10]
    np.testing.assert_allclose(result["scores"], best, rtol=0, atol=atol)
    model.reset_metrics()  # not every Keras begins a new mean by itself
    loss = model.train_on_batch(x, y, weight)
    np.testing.assert_allclose(result["loss"], loss, rtol=1e-6)
