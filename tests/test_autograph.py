"""A caller's `tf.function` must not have AutoGraph rewrite the package.

Nothing in the package depends on it, and rewriting the hundred functions of a training
step takes many times as long as tracing them.
"""

import traceback

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam, LossScaleOptimizer
from tfsampled.samplers import Uniform

CLASSES, DIM = 30, 4
X = np.ones((8, DIM), "float32")
Y = np.arange(8)[:, None]
REWRITTEN: list[list[str]] = []  # of each call of `record`


def record() -> None:
    frames = traceback.extract_stack()
    REWRITTEN.append([f.name for f in frames if "__autograph_generated" in f.filename])


class Encoder(keras.layers.Dense):
    def call(self, inputs):
        record()
        return super().call(inputs)


class OwnSampler(Uniform):
    def draw(self, *args, **kwargs):
        record()
        return super().draw(*args, **kwargs)


class OwnMetric(TopKAccuracy):
    def values_from_ranks(self, ranks):
        record()
        return super().values_from_ranks(ranks)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        record()
        return 0.1


def make():
    encoder = keras.Sequential([keras.Input((DIM,)), Encoder(DIM)])
    model = SampledSoftmaxModel(encoder, SampledSoftmax(CLASSES, 5, OwnSampler()))
    model.compile(LazyAdam(Schedule()), weighted_metrics=[OwnMetric(3)])
    model.build((None, DIM))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize(
    "call",
    [
        lambda model: (model.train_step, (X, Y)),
        lambda model: (model.test_step, (X, Y)),
        lambda model: (model.compute_loss, X, Y, model.encoder(X)),
        lambda model: (model.head.sampled_loss, X, Y),
        lambda model: (OwnMetric(3).update_state, Y, np.ones((8, CLASSES))),
        lambda model: (OwnMetric(3).update_state_from_features, model.head, X, Y),
        lambda model: (OwnSampler().sample, Y, CLASSES, 5),
    ],
)
def test_nothing_is_rewritten(call):
    function, *arguments = call(make())
    REWRITTEN.clear()
    tf.function(function).get_concrete_function(*arguments)
    assert REWRITTEN, "the call did not reach `record`"
    assert not any(REWRITTEN)


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, LossScaleOptimizer])
def test_an_optimizer_is_not_rewritten(wrap):
    table = tf.Variable(tf.ones([CLASSES, DIM]))
    optimizer = wrap(LazyAdam(Schedule()))
    optimizer.build([table])
    gradient = tf.IndexedSlices(tf.ones([2, DIM]), tf.range(2), tf.constant([30, DIM]))
    REWRITTEN.clear()
    tf.function(optimizer.apply).get_concrete_function([gradient])
    assert REWRITTEN
    assert not any(REWRITTEN)
