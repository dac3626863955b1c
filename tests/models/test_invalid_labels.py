"""Labels that no step can train on: one sentence, and nothing has changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import jit_or_not, slow
from tfsampled import samplers
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import Perplexity
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam

CLASSES, SAMPLED, TIME, WORDS, NEVER = 50, 10, 4, 30, 49
RANGE = r"`labels` must be class ids in \[0, 50\). Received: ids from"
COUNT = "`labels` must be classes whose count in FixedUnigram is above 0"


def make(jit, sampler=None, optimizer="adam", masked=False, **kwargs):
    """A model whose encoder has a state of its own, too."""
    layers = [
        keras.Input((TIME,), dtype="int32"),
        keras.layers.Embedding(WORDS, 8, mask_zero=masked),
        *([] if masked else [keras.layers.Flatten()]),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.1, seed=1),
    ]
    sampler = sampler or samplers.LearnedUnigram(seed=1)
    head = SampledSoftmax(CLASSES, SAMPLED, sampler=sampler)
    model = SampledSoftmaxModel(keras.Sequential(layers), head)
    model.compile(optimizer, jit_compile=jit, **kwargs)
    return model


def batch(size=16, masked=False):
    rng = np.random.default_rng(0)
    x = rng.integers(1, WORDS, (size, TIME))
    y = rng.integers(0, NEVER, (size, TIME) if masked else size)
    if masked:
        x[:, 3:], y[:, 3:] = 0, -7  # no class, and none is needed there
    return x, y


def spoilt(y, bad):
    y = y.copy()
    y.flat[0] = bad
    return y


def state(model):
    optimizer, sampler = model.optimizer, model.head.sampler
    variables = [*model.variables, *optimizer.variables, *sampler.state().values()]
    return [variable.numpy() for variable in variables]


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def without_one():
    return samplers.FixedUnigram(np.arange(CLASSES) != NEVER, seed=1)


@pytest.mark.parametrize(
    ("jit", "sampler", "bad", "message"),
    [
        slow(False, None, CLASSES, RANGE),
        slow(False, without_one, NEVER, COUNT),
        (True, None, CLASSES, RANGE),
        slow(False, None, -1, RANGE),
        slow(True, None, -1, RANGE),
        slow(True, without_one, NEVER, COUNT),
    ],
)
def test_a_refused_batch_changes_nothing(jit, sampler, bad, message):
    x, y = batch()
    model = make(jit, sampler and sampler())
    model.train_on_batch(x, y)
    before = state(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        model.train_on_batch(x, spoilt(y, bad))
    assert_equal(state(model), before)
    assert np.isfinite(model.train_on_batch(x, y))


@pytest.mark.parametrize("make_optimizer", [lambda: LazyAdam(0.1), lambda: "sgd"])
@pytest.mark.slow
def test_a_mask_says_which_labels_count_in_compiled_steps_too(make_optimizer):
    x, y = batch(masked=True)
    model = make(True, optimizer=make_optimizer(), masked=True)
    assert np.isfinite(model.train_on_batch(x, y))
    before = state(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match=RANGE):
        model.train_on_batch(x, spoilt(y, CLASSES))
    assert_equal(state(model), before)


@pytest.mark.slow
def test_a_mask_that_is_known_late_saves_all_but_the_encoders_state():
    x, y = batch(masked=True)
    model = make(False, masked=True)
    model.train_on_batch(x, y)
    before = state(model), model.encoder.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=RANGE):
        model.train_on_batch(x, spoilt(y, CLASSES))
    own = {id(variable) for variable in model.encoder.non_trainable_variables}
    others = [id(variable) not in own for variable in model.variables]
    others += [True] * (len(before[0]) - len(others))
    after = state(model)
    assert_equal(
        [one for one, other in zip(after, others, strict=True) if other],
        [one for one, other in zip(before[0], others, strict=True) if other],
    )


@pytest.mark.slow
@jit_or_not
def test_fit_goes_on_from_where_it_was(jit):
    """Of two batches the second is refused: what remains is the training of one."""
    x, y = batch(32)
    bad = np.concatenate([y[:16], y[16:] + CLASSES])

    def fitted(*data):
        keras.utils.set_random_seed(3)
        model = make(jit)
        try:
            model.fit(*data, batch_size=16, shuffle=False, verbose=0)
        except tf.errors.InvalidArgumentError as error:
            return state(model), error.message
        return state(model), None

    ours, message = fitted(x, bad)
    assert "`labels` must be class ids in [0, 50). Received: ids from" in message
    assert_equal(ours, fitted(x[:16], y[:16])[0])


@pytest.mark.parametrize("kind", ["dataset", "generator", "steps_per_execution"])
@pytest.mark.slow
def test_fit_says_it_of_every_kind_of_data(kind):
    x, y = batch(64)
    data = tf.data.Dataset.from_tensor_slices((x, y + CLASSES)).batch(16)
    options = {"steps_per_execution": 3} if kind == "steps_per_execution" else {}
    model = make(True, **options)
    if kind == "generator":
        data = (part for part in list(data))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"batches: 4\."):
        model.fit(data, shuffle=False, steps_per_epoch=4, verbose=0)


@pytest.mark.slow
def test_a_long_epoch_is_not_waited_for():
    x, y = batch(16)
    seen = []

    class Counting(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(batch)

    model = make(True)
    data = tf.data.Dataset.from_tensors((x, y + CLASSES)).repeat(100)
    with pytest.raises(tf.errors.InvalidArgumentError, match=RANGE):
        model.fit(data, shuffle=False, verbose=0, callbacks=[Counting()])
    assert len(seen) == 10


@jit_or_not
@pytest.mark.slow
def test_evaluation_says_it_too(jit):
    x, y = batch()
    model = make(jit, metrics=[Perplexity()])
    with pytest.raises(tf.errors.InvalidArgumentError, match=RANGE):
        model.evaluate(x, spoilt(y, CLASSES), verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=RANGE):
        model.test_on_batch(x, spoilt(y, -1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=RANGE):
        model.fit(x, y, validation_data=(x, y + CLASSES), verbose=0)
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()


def test_evaluation_may_meet_a_class_that_is_never_drawn():
    x, y = batch()
    model = make(True, without_one())
    assert np.isfinite(model.evaluate(x, spoilt(y, NEVER), verbose=0))


@pytest.mark.slow
@jit_or_not
def test_ignored_labels_are_none_to_refuse(jit):
    x, y = batch()
    head = SampledSoftmax(CLASSES, SAMPLED, sampler=without_one(), ignore_class=-1)
    encoder = keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            keras.layers.Embedding(WORDS, 8),
            keras.layers.Flatten(),
        ]
    )
    model = SampledSoftmaxModel(encoder, head)
    model.compile("sgd", jit_compile=jit)
    assert np.isfinite(model.train_on_batch(x, spoilt(y, -1)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=RANGE):
        model.train_on_batch(x, spoilt(y, -2))


@pytest.mark.slow
def test_after_labels_of_the_wrong_shape_right_ones_are_taken():
    x, y = batch()
    model = make(jit=False)
    one_hot = np.eye(CLASSES, dtype="int64")[y]
    for name in ("fit", "test_on_batch"):
        call = getattr(model, name)
        quietly = {"verbose": 0} if name == "fit" else {}
        with pytest.raises(ValueError, match="For one-hot labels pass the argmax"):
            call(x, one_hot, **quietly)
        call(x, y, **quietly)
