"""Two replicas train what one device trains on the same batches."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import slow, two_replicas
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import MeanReciprocalRank, Perplexity
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import Adagrad, LazyAdam, LossScaleOptimizer, RowWiseAdagrad
from tfsampled.samplers import InBatch, LearnedUnigram, Mixed, Recent, Uniform

pytestmark = pytest.mark.usefixtures("young_iterators")

CLASSES, DIM = 30, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(35, DIM)).astype("float32")
Y = RNG.integers(0, CLASSES, 35)
INITIAL = [RNG.normal(size=size) / 3 for size in [(8, 8), (8,), (30, 8), (30,)]]

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: keras.optimizers.SGD(0.5),
    "adagrad": lambda: Adagrad(0.3, global_clipnorm=0.1),
    "row_wise": lambda: RowWiseAdagrad(0.3, clipvalue=0.01),
    "lazy_adam": lambda: LazyAdam(0.03, clipnorm=0.1, weight_decay=0.1, epsilon=1e-3),
    "corrected": lambda: LazyAdam(0.03, correct_skipped=True, epsilon=1e-3),
    "scaled": lambda: LossScaleOptimizer(
        LazyAdam(0.03, epsilon=1e-3, global_clipnorm=0.1), dynamic_growth_steps=2
    ),
}


def make(strategy, make_optimizer, make_sampler=Uniform, dtype="float32"):
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
        sampler = make_sampler()
        num_sampled = 20 if sampler.takes_num_sampled else None
        head = SampledSoftmax(CLASSES, num_sampled, sampler)
        model = SampledSoftmaxModel(encoder, head)
        model.set_weights([array.astype("float32") for array in INITIAL])
        model.compile(make_optimizer(), metrics=[Perplexity(), MeanReciprocalRank()])
    return model


def trained(strategy, make_optimizer, epochs=3, **kwargs):
    """Returns logs, weights and slots; the last batch is of 3 examples."""
    model = make(strategy, make_optimizer, **kwargs)
    # A step takes less time than a trace.
    tf.config.run_functions_eagerly(strategy.num_replicas_in_sync == 1)
    history = model.fit(
        X,
        Y,
        batch_size=16,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        validation_data=(X, Y),
        validation_freq=epochs,
    ).history
    tf.config.run_functions_eagerly(False)
    return model, np.concatenate([*history.values()]), state_of(model)


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(v) for v in (*variables, *model.head.sampler.state().values())]


def assert_equal_copies(model):
    variables = [*model.trainable_variables, *model.optimizer.variables]
    variables = [v.value for v in variables] + [*model.head.sampler.state().values()]
    for variable in variables:
        first, second = two_replicas().experimental_local_results(variable)
        np.testing.assert_array_equal(first, second, err_msg=variable.name)


def assert_refused(model, x, y, before):
    """Trains on labels that are out of range on one replica, then on the other."""
    for bad in (0, 9):
        labels = y.copy()
        labels[bad] = CLASSES
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"in \[0, 30\)"):
            model.fit(x, labels, batch_size=16, verbose=0)
        for value, expected in zip(state_of(model), before, strict=True):
            np.testing.assert_array_equal(value, expected)
        assert_equal_copies(model)


@pytest.mark.parametrize(
    "name",
    [name if name == "lazy_adam" else slow(name) for name in OPTIMIZERS],
)
def test_two_replicas_are_as_near_float64_as_one_device(name, runs_slow_tests):
    one_device = tf.distribute.get_strategy()
    options = {"epochs": 3 if runs_slow_tests else 1}
    _, *truth = trained(one_device, OPTIMIZERS[name], dtype="float64", **options)
    _, *one = trained(one_device, OPTIMIZERS[name], **options)
    model, *two = trained(two_replicas(), OPTIMIZERS[name], **options)
    assert_equal_copies(model)
    for exact, theirs, ours in zip(
        *([logs, *state] for logs, state in (truth, one, two)), strict=True
    ):
        few_ulp = 16 * np.spacing(np.abs(exact).max().astype("float32"))
        assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + few_ulp


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_sampler",
    [
        LearnedUnigram,
        InBatch,
        lambda: Recent(20),
        lambda: Mixed([InBatch(), (Uniform(seed=2), 10)]),
    ],
)
def test_samplers_see_the_labels_of_all_replicas(make_sampler):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        _, *result = trained(strategy, Adagrad, make_sampler=make_sampler)
        results.append([result[0], *result[1]])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_replica_without_examples():
    model = make(two_replicas(), LazyAdam)
    loss = model.fit(X[:17], Y[:17], batch_size=16, verbose=0).history["loss"]
    assert np.isfinite(loss)
    assert all(np.isfinite(value).all() for value in state_of(model))
    assert_equal_copies(model)


@pytest.mark.slow
def test_replicas_may_differ_in_the_first_batch():
    """Keras's models refuse that: if no longer, `_distributed_model.py` can go."""
    with two_replicas().scope():
        head = SampledSoftmax(CLASSES, 20, "uniform")
        model = SampledSoftmaxModel(keras.Sequential([keras.layers.Dense(DIM)]), head)
        model.compile(LazyAdam())
    model.fit(X[:3], Y[:3], batch_size=16, verbose=0)
    assert model.built
    assert_equal_copies(model)
    with two_replicas().scope():
        plain = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(CLASSES)])
        plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        plain.fit(X[:3], Y[:3], batch_size=16, verbose=0)


def test_invalid_labels_of_one_replica_change_nothing_on_any():
    model = make(two_replicas(), LazyAdam, LearnedUnigram)
    model.fit(X[:16], Y[:16], batch_size=16, verbose=0)
    before = state_of(model)
    assert_refused(model, X[:16], Y[:16], before)


@pytest.mark.slow
def test_a_batch_of_one_replica_that_does_not_fit_changes_nothing_on_any():
    strategy = two_replicas()
    model = make(strategy, LazyAdam, LearnedUnigram)
    model.fit(X[:16], Y[:16], batch_size=16, verbose=0)
    before = state_of(model)

    @tf.function
    def step(number):
        def of_replica(number):
            model.train_step((X[:4], tf.constant(Y)[:number]))

        strategy.run(of_replica, args=(number,))

    number = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(4 - context.replica_id_in_sync_group)
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="3 values for 4 examples"):
        step(number)
    for value, expected in zip(state_of(model), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert_equal_copies(model)


@pytest.mark.parametrize("per_replica", [False, True])
def test_replicas_draw_alike_or_classes_of_their_own(per_replica):
    strategy, labels = two_replicas(), [[1], [2]]
    with strategy.scope():
        sampler = Uniform(seed=1, per_replica=per_replica)
        sampler.build(CLASSES)
    alone = Uniform(seed=1)
    step = tf.function(lambda: sampler.sample(labels, CLASSES, 10).sampled_candidates)
    for _ in range(2):
        drawn = strategy.experimental_local_results(strategy.run(step))
        first = alone.sample(labels, CLASSES, 10).sampled_candidates
        second = first
        if per_replica:
            second = alone.sample(labels, CLASSES, 10).sampled_candidates
        np.testing.assert_array_equal(drawn, [first, second])
    copy = Uniform.from_config(sampler.get_config())
    assert copy.per_replica == per_replica


@pytest.mark.slow
def test_negatives_of_a_batch_are_those_of_all_replicas():
    """`negatives` `[n]` is cut as the batch is: every replica needs all of it."""
    strategy, shown = two_replicas(), np.arange(8) * 3
    with strategy.scope():
        head = SampledSoftmax(CLASSES, 5, "uniform", seed=1)
        head.build((None, DIM))

    @tf.function
    def loss(x, y, negatives):
        return head.sampled_loss(x, y, negatives=negatives)

    @tf.function
    def step(batch):
        return strategy.gather(strategy.run(loss, args=batch), axis=0)

    expected = loss(X[:8], Y[:8], shown)
    head.sampler.position.assign(0)
    data = tf.data.Dataset.from_tensors((X[:8], Y[:8], shown)).unbatch().batch(8)
    (batch,) = strategy.experimental_distribute_dataset(data)
    np.testing.assert_allclose(step(batch), expected, rtol=1e-5)


@pytest.mark.slow
def test_padding_under_replicas():
    """A mask, and labels that are seen as padding by a sampler of all replicas."""
    words = np.random.default_rng(1).integers(1, CLASSES, (16, 4))
    words *= np.arange(4) < 3
    labels = np.where(words > 0, words[:, ::-1].copy(), 0)
    labels[:, 0] = np.maximum(labels[:, 0], 1)
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            embedding = keras.layers.Embedding(CLASSES, DIM, mask_zero=True)
            encoder = keras.Sequential([keras.Input((4,), dtype="int64"), embedding])
            head = SampledSoftmax(CLASSES, None, InBatch(), ignore_class=0)
            model = SampledSoftmaxModel(encoder, head)
            model.compile(LazyAdam(0.1))
        tf.config.run_functions_eagerly(strategy.num_replicas_in_sync == 1)
        model.fit(words, labels, batch_size=16, shuffle=False, verbose=0)
        results.append(state_of(model))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert_refused(model, words, labels, results[1])


def test_an_infinite_gradient_of_one_replica_skips_the_step_on_all():
    strategy = two_replicas()
    with strategy.scope():
        table = tf.Variable(tf.ones([5, 2]))
        optimizer = LossScaleOptimizer(LazyAdam(0.1), initial_scale=4.0)
        optimizer.build([table])

    @tf.function
    def step(value):
        gradient = tf.IndexedSlices(tf.reshape(value, [1, 2]), [3], [5, 2])
        optimizer.apply([gradient], [table])

    def run(values):
        def value_of(context):
            return tf.constant(values[context.replica_id_in_sync_group])

        values_of = strategy.experimental_distribute_values_from_function(value_of)
        strategy.run(step, args=(values_of,))

    run([[4.0, 4.0], [np.inf, 4.0]])
    np.testing.assert_array_equal(table, np.ones([5, 2]))
    assert np.asarray(optimizer.dynamic_scale) == 2
    run([[4.0, 4.0], [4.0, 4.0]])
    np.testing.assert_allclose(table[3], 0.9, rtol=1e-5)


@pytest.mark.slow
def test_a_loop_of_ones_own_is_refused_on_all_replicas():
    strategy = two_replicas()
    model = make(strategy, LazyAdam)
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    before = state_of(model)

    @tf.function
    def step(x, y):
        def replica_step(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model.head.sampled_loss(model.encoder(x), y))
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply(gradients, model.trainable_variables)

        strategy.run(replica_step, args=(x, y))

    labels = Y[:16].copy()
    labels[9] = CLASSES
    data = tf.data.Dataset.from_tensors((X[:16], labels))
    (batch,) = strategy.experimental_distribute_dataset(data)
    for _ in range(3):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"in \[0, 30\)"):
            step(*batch)
    for value, expected in zip(state_of(model), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert_equal_copies(model)


@pytest.mark.slow
def test_a_row_is_read_from_the_own_copy():
    """A lookup in the mirrored variable itself reads the whole table."""
    strategy = two_replicas()
    model = make(strategy, LazyAdam)

    @tf.function
    def step(x, y):
        return strategy.run(model.train_step, args=((x, y),))

    graph = step.get_concrete_function(X[:4], Y[:4]).graph
    reads = [
        op
        for op in graph.get_operations()
        if op.type == "ReadVariableOp" and op.outputs[0].shape == [CLASSES, DIM]
    ]
    assert [op.name for op in reads] == []


def test_the_optimizer_is_of_the_strategy_of_its_variables():
    with two_replicas().scope():
        table = tf.Variable(tf.ones([5, 2]))
        optimizer = LazyAdam()
    with pytest.raises(ValueError, match="must be made in the scope of the strategy"):
        LazyAdam().build([table])
    with pytest.raises(ValueError, match="must be made in the scope of the strategy"):
        optimizer.build([tf.Variable(tf.ones([5, 2]))])
