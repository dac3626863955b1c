"""A `.keras` file of each version loads, predicts what it predicted, and trains on.

`write("0.2.0")`, called from the root of a checkout of that version, adds its files.
"""

import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest

from tests.helpers import load_arrays
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import NDCG, Perplexity
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import InBatch, LearnedUnigram, Mixed

pytestmark = pytest.mark.eager
FOLDER = pathlib.Path(__file__).parents[1] / "data"
CLASSES, DIM = 20, 4


def encoder():
    layers = [keras.Input((3,), dtype="int32"), keras.layers.Embedding(CLASSES, DIM)]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling1D()])


def tied():
    words = encoder()
    head = SampledSoftmax(
        CLASSES, 5, LearnedUnigram(seed=1), tied_to=words.layers[0], ignore_class=-1
    )
    return SampledSoftmaxModel(words, head)


def retrieval():
    head = SampledSoftmax(
        CLASSES,
        None,
        Mixed([InBatch(), (LearnedUnigram(seed=1), 5)]),
        normalize=True,
        temperature=0.2,
        log_q="corrected",
    )
    return SampledSoftmaxModel(encoder(), head, top_k=3)


def shards():
    head = SampledSoftmax(
        CLASSES, 5, "uniform", seed=1, num_shards=3, partition_strategy="mod"
    )
    return SampledSoftmaxModel(encoder(), head, top_k=3)


MODELS = {"tied": tied, "retrieval": retrieval, "shards": shards}
X = np.arange(24).reshape(8, 3) % CLASSES
Y = np.arange(8) * 2


def results(model):
    """What it predicts and evaluates, then the losses of two more steps."""
    predicted = model.predict(X, verbose=0)
    best = predicted["scores"] if isinstance(predicted, dict) else predicted
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    return {
        "best": best,
        "evaluated": [logs[name] for name in sorted(logs)],
        "losses": [float(model.train_on_batch(X, Y)) for _ in range(2)],
    }


def write(version):
    for name, make in MODELS.items():
        model = make()
        model.compile(LazyAdam(0.1), metrics=[Perplexity(), NDCG(5)], jit_compile=False)
        model.fit(X, Y, epochs=3, verbose=0)
        model.save(FOLDER / f"{name}-{version}.keras")
        np.savez(FOLDER / f"{name}-{version}.npz", **results(model))


FILES = sorted(FOLDER.glob("*.keras"))


def keras_of(path):
    """The version of Keras that wrote a file; an older one may not read it."""
    metadata = json.loads(zipfile.ZipFile(path).read("metadata.json"))
    return metadata["keras_version"]


def numbers(version):
    return [int(part) for part in version.split(".")[:2]]


def test_there_are_files():
    assert {path.stem.rpartition("-")[0] for path in FILES} == set(MODELS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_goes_on(path):
    if numbers(keras.__version__) < numbers(keras_of(path)):
        pytest.skip(f"written by Keras {keras_of(path)}")
    expected = load_arrays(path.with_suffix(".npz"))
    for name, value in results(keras.models.load_model(path)).items():
        np.testing.assert_allclose(
            value, expected[name], rtol=1e-4, atol=1e-5, err_msg=name
        )
