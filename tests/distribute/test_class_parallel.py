"""Classes divided among two replicas: the numbers of one table of all of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distribute.reference import (
    BIAS,
    CLASSES,
    DIM,
    OPTIONS,
    SAMPLED,
    TABLE,
    X,
    Y,
    expected_losses,
    labels_of,
)
from tests.helpers import cases, logsumexp64, slow, two_replicas
from tfsampled.distribute import ClassParallelSoftmax
from tfsampled.layers import SampledSoftmax
from tfsampled.optimizers import Adagrad, LazyAdam, RowWiseAdagrad
from tfsampled.samplers import FixedUnigram, InBatch, LearnedUnigram

SIZES = 5, 3  # examples of each replica


def make(optimizer=None, sampler="uniform", dtype="float64", replicas=None, **options):
    strategy = replicas or two_replicas()
    optimizer = optimizer or (lambda: Adagrad(0.1))
    head = ClassParallelSoftmax(
        strategy, CLASSES, DIM, SAMPLED, optimizer, sampler, dtype=dtype, **options
    )
    set_tables(head)
    return head


def set_tables(head):
    for index, part in enumerate(head.heads):
        bias = BIAS[index :: head.num_replicas] if part.use_bias else None
        part.set_table(TABLE[index :: head.num_replicas], bias)


def joined(head, values):
    """Returns values of the replicas' classes in the order of all classes."""
    result = np.zeros((head.num_classes, *values[0].shape[1:]))
    for index, value in enumerate(values):
        result[index :: head.num_replicas] = value
    return result


def on_replicas(function, sizes=SIZES):
    """Makes a function of arrays that runs on two replicas: their results, in a list.

    The arrays are cut by `sizes`.
    """
    strategy = two_replicas()
    step = tf.function(lambda *args: strategy.run(function, args=args), autograph=False)

    def value_of(array):
        parts = np.split(array, np.cumsum(sizes)[:-1])
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    def run(*arrays):
        results = step(*map(value_of, arrays))
        flat = map(strategy.experimental_local_results, tf.nest.flatten(results))
        return [
            tf.nest.pack_sequence_as(results, list(values))
            for values in zip(*flat, strict=True)
        ]

    return run


def run(function, *arrays):
    return on_replicas(function)(*arrays)


def drawn(head):
    """Returns what the next step draws: ids, and the expected counts of all classes."""
    ids, counts = [], []
    for index, part in enumerate(head.heads):
        position = int(part.sampler.position)
        every = np.arange(part.num_classes)[np.newaxis]
        sample = part.sampler.sample(every, part.num_classes, part.num_sampled)
        part.sampler.position.assign(position)
        ids.append(sample[0].numpy() * head.num_replicas + index)
        counts.append(sample[1].numpy()[0])
    return np.concatenate(ids), joined(head, counts)


@pytest.mark.parametrize(
    ("name", "loss"),
    cases(
        OPTIONS,
        ["sampled_loss", "exact_loss"],
        quick=lambda *case: case == ("padding", "sampled_loss"),
    ),
)
def test_losses_and_gradients_are_those_of_one_table(name, loss):
    head = make(seed=3, **OPTIONS[name])
    layer = head.heads[0]
    candidates = drawn(head) if loss == "sampled_loss" else None
    factor = np.linspace(0.5, 2, len(X))

    def step(x, labels, factor):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = getattr(head, loss)(x, labels)
            total = tf.reduce_sum(losses * factor)
        variables = [v.value for v in head.trainable_variables]
        gradients = tape.gradient(total, [x, *variables])
        return losses, *map(tf.convert_to_tensor, gradients)

    results = run(step, X, labels_of(layer), factor)
    losses, d_x = (np.concatenate([r[i] for r in results]) for i in range(2))
    variables = [tf.constant(TABLE)]
    if layer.use_bias:
        variables.append(tf.constant(BIAS))
    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch([x, *variables])
        expected = expected_losses(layer, candidates, x, variables)
        total = tf.reduce_sum(expected * factor)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-9)
    expected_d_x, *expected_gradients = tape.gradient(total, [x, *variables])
    np.testing.assert_allclose(d_x, expected_d_x, rtol=1e-5, atol=1e-6)
    for index, gradient in enumerate(expected_gradients, start=2):
        actual = joined(head, [result[index].numpy() for result in results])
        np.testing.assert_allclose(actual, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["capped", slow("cosines"), slow("padding")])
def test_ranks_and_the_best_classes(name):
    head = make(seed=3, **OPTIONS[name])
    layer = SampledSoftmax(CLASSES, SAMPLED, dtype="float64", **OPTIONS[name])
    layer.build((None, DIM))
    table = TABLE.copy()
    table[[2, 5]] = table[[7, 12]]  # equal logits, in one part and in two
    bias = np.where(np.arange(CLASSES) % 3, 0.0, 0.5) if layer.use_bias else None
    layer.set_table(table, bias)
    for index, part in enumerate(head.heads):
        part.set_table(table[index::2], None if bias is None else bias[index::2])
    labels = labels_of(layer)

    def step(x, labels):
        return head.ranks(x, labels), *head.top_k(x, 20)

    results = run(step, X, labels)
    ranks, scores, classes = (np.concatenate([r[i] for r in results]) for i in range(3))
    shown = (labels.reshape(len(X), -1) >= 0).any(axis=1)
    np.testing.assert_array_equal(ranks[shown], layer.ranks(X, labels)[shown])
    expected_scores, expected = layer.top_k(X, 20)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-12)
    np.testing.assert_array_equal(classes, expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("make_optimizer", [LazyAdam, RowWiseAdagrad])
def test_it_learns_and_each_replica_trains_its_own_rows(make_optimizer, dtype):
    head = make(lambda: make_optimizer(lambda: 0.1), "log_uniform", dtype)
    means = np.random.default_rng(4).normal(size=(CLASSES, DIM))[Y]

    def step(x, labels):
        x = tf.cast(x, dtype)
        with tf.GradientTape() as tape:
            losses = head.sampled_loss(x, labels)
            loss = tf.reduce_sum(losses) / len(X)
        gradients = tape.gradient(loss, head.trainable_variables)
        assert isinstance(gradients[0], tf.IndexedSlices)
        head.apply(gradients)
        return tf.reduce_sum(head.exact_loss(x, labels))

    train = on_replicas(step)
    first = sum(train(means, Y))
    for _ in range(20):
        last = sum(train(means, Y))
    assert last < 0.75 * first
    assert [int(optimizer.iterations) for optimizer in head.optimizers] == [21] * 2


@pytest.mark.slow
def test_a_dense_gradient_is_applied():
    head = make(lambda: LazyAdam(0.1))

    def step(x, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head.exact_loss(x, labels))
        head.apply(tape.gradient(loss, head.trainable_variables))

    run(step, X, Y)
    for index, part in enumerate(head.heads):
        assert (part.table().numpy() != TABLE[index::2]).all()
        assert (part.bias.numpy() != BIAS[index::2]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_sampler",
    [
        lambda: LearnedUnigram(seed=1),
        lambda: FixedUnigram(1 + np.arange(CLASSES)),
    ],
)
def test_samplers_of_counts(make_sampler):
    head = make(sampler=make_sampler())
    assert np.isfinite(np.concatenate(run(head.sampled_loss, X, Y))).all()
    for index, part in enumerate(head.heads):
        own = Y[index == Y % 2] // 2
        if isinstance(part.sampler, LearnedUnigram):
            counts = 1 + np.bincount(own, minlength=part.num_classes)
            np.testing.assert_array_equal(part.sampler.class_weights, counts)
        else:
            np.testing.assert_array_equal(
                part.sampler.counts, 1 + np.arange(CLASSES)[index::2]
            )


@pytest.mark.slow
def test_the_mean_gradient_nears_that_of_the_full_softmax():
    errors = []
    x, labels = np.repeat(X[:1].astype("float32"), 8, axis=0), np.repeat(Y[:1], 8)
    for num_sampled in (6, 28):
        head = ClassParallelSoftmax(
            two_replicas(), CLASSES, DIM, num_sampled, Adagrad, "uniform", seed=1
        )
        set_tables(head)

        def gradient(x, labels, name="sampled_loss", head=head):
            with tf.GradientTape() as tape:
                tape.watch(x)
                losses = getattr(head, name)(x, labels)
            return tape.gradient(losses, x)

        def exact(x, labels, gradient=gradient):
            return gradient(x, labels, "exact_loss")

        draw = on_replicas(gradient)
        draws = [np.concatenate(draw(x, labels)) for _ in range(60)]
        full = np.concatenate(run(exact, x, labels))[0]
        errors.append(np.abs(np.mean(draws, axis=(0, 1)) - full).max())
    assert errors[1] < errors[0] / 2
    assert errors[1] < 0.05 * np.abs(full).max()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["exact_loss", "sampled_loss"])
def test_a_replica_without_examples_and_classes_of_no_probability(loss):
    """The first class of each replica, say padding, has a bias of minus infinity."""
    head = make()
    for part in head.heads:
        bias = part.bias.numpy()
        bias[0] = -np.inf
        part.bias.assign(bias)
    x, y = X, np.where(Y < 2, Y + 2, Y)

    def step(x, y):
        with tf.GradientTape() as tape:
            losses = getattr(head, loss)(x, y)
        gradients = tape.gradient(losses, head.trainable_variables)
        return losses, *map(tf.convert_to_tensor, gradients)

    results = on_replicas(step, (0, 8))(x, y)
    assert results[0][0].shape == (0,)
    for value in tf.nest.flatten(results):
        assert np.isfinite(value).all()
    if loss == "exact_loss":
        logits = X @ TABLE.T + BIAS
        logits[:, :2] = -np.inf
        expected = logsumexp64(logits) - logits[np.arange(len(y)), y]
        np.testing.assert_allclose(results[1][0], expected, rtol=1e-10)


@pytest.mark.slow
def test_all_classes_sampled_are_the_full_softmax():
    head = make()
    for part in head.heads:
        part.num_sampled = part.num_classes

    def losses(x, y):
        return head.sampled_loss(x, y), head.exact_loss(x, y)

    for sampled, exact in run(losses, X, Y):
        np.testing.assert_allclose(sampled, exact, rtol=1e-12)


@pytest.mark.slow
def test_nan_ranks_last_among_the_best_classes():
    head = make()
    table = head.heads[1].table().numpy()
    table[3] = np.nan  # class 7
    head.heads[1].set_table(table, head.heads[1].bias)
    for scores, classes in run(lambda x: head.top_k(x, CLASSES), X):
        np.testing.assert_array_equal(
            np.sort(classes, axis=1), [np.arange(CLASSES)] * len(classes)
        )
        np.testing.assert_array_equal(classes[:, -1], 7)
        assert np.isnan(scores[:, -1]).all()


@pytest.mark.slow
def test_the_best_classes_have_gradients():
    head = make()

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            scores, _ = head.top_k(x, 1)
        return tape.gradient(scores, x)

    actual = np.concatenate(run(gradient, X))
    best = np.argmax(X @ TABLE.T + BIAS, axis=1)
    np.testing.assert_allclose(actual, TABLE[best])


@pytest.mark.slow
def test_sequences_with_a_mask_and_weights():
    head = make()
    x = np.stack([X, X[::-1]], axis=1)
    labels = np.stack([Y, Y[::-1]], axis=1)
    mask, weight = labels % 3 > 0, np.linspace(0, 2, len(Y))
    x[~mask] = np.nan
    labels[~mask] = -5

    def losses(x, labels, mask, weight):
        return head.exact_loss(x, labels, weight, mask)

    actual = np.concatenate(run(losses, x, labels, mask, weight))
    logits = X @ TABLE.T + BIAS
    expected = logsumexp64(logits) - logits[np.arange(len(Y)), Y]
    expected = np.stack([expected, expected[::-1]], axis=1) * weight[:, np.newaxis]
    np.testing.assert_allclose(actual, np.where(mask, expected, 0))


@pytest.mark.slow
def test_invalid_labels_of_one_replica_change_nothing_on_any():
    head = make(sampler=LearnedUnigram(seed=1))
    compute = on_replicas(head.sampled_loss)
    compute(X, Y)

    def state():
        samplers = [part.sampler for part in head.heads]
        return [v.numpy() for sampler in samplers for v in sampler.state().values()]

    before = state()
    for bad in (0, 7):
        labels = Y.copy()
        labels[bad] = CLASSES
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"in \[0, 31\)"):
            compute(X, labels)
        for one, other in zip(state(), before, strict=True):
            np.testing.assert_array_equal(one, other)
    head = make(sampler=FixedUnigram(np.arange(CLASSES) != 8))
    before = state()
    labels = np.where(np.arange(len(Y)) == 1, 8, 9)  # a class of the first replica
    with pytest.raises(tf.errors.InvalidArgumentError, match="count in FixedUnigram"):
        run(head.sampled_loss, X, labels)
    for one, other in zip(state(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_one_compiled_replica_is_a_table_of_all_classes():
    head = make(replicas=tf.distribute.get_strategy(), seed=3)
    layer = head.heads[0]
    labels = np.where(np.arange(len(Y)) == 2, CLASSES, Y)

    @tf.function(jit_compile=True)
    def compute():
        losses = head.sampled_loss(X, labels), head.exact_loss(X, labels)
        return losses, head.ranks(X, labels)

    position = int(layer.sampler.position)
    losses, ranks = compute()
    layer.sampler.position.assign(position)
    valid = np.arange(len(Y)) != 2
    for loss, expected in zip(
        losses, (layer.sampled_loss(X, Y), layer.exact_loss(X, Y)), strict=True
    ):
        np.testing.assert_array_equal(np.isnan(loss), ~valid)
        np.testing.assert_allclose(loss[valid], expected[valid], rtol=1e-5)
    assert ranks[2] >= CLASSES - 1
    np.testing.assert_array_equal(ranks[valid], layer.ranks(X, Y)[valid])


@pytest.mark.slow
def test_what_was_saved_by_two_is_restored_by_one_and_by_two(tmp_path):
    path, x = tmp_path / "step-1", X.astype("float32")
    head = make(lambda: LazyAdam(0.1), LearnedUnigram(), "float32")

    def trainer(head):
        def step(x, labels):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(head.sampled_loss(x, labels))
            head.apply(tape.gradient(loss, head.trainable_variables))
            return loss

        return on_replicas(step)

    train = trainer(head)
    train(x, Y)
    head.save(path)
    again = make(lambda: LazyAdam(0.1), LearnedUnigram(), "float32")
    again.restore(path)
    train_again = trainer(again)
    for _ in range(2):
        assert train(x, Y) == train_again(x, Y)
    head.restore(path)
    alone = tf.distribute.get_strategy()
    one = make(lambda: LazyAdam(0.1), LearnedUnigram(seed=1), "float32", replicas=alone)
    one.restore(path)
    for name, variable in one._parts[0].variables().items():
        saved = [part.variables()[name].numpy() for part in head._parts.values()]
        expected = joined(head, saved) if variable.shape.rank else saved[0]
        np.testing.assert_array_equal(variable, expected, err_msg=name)
    two = tmp_path / "step-2"
    one.save(two)
    again.restore(two)
    for part, other in zip(head.heads, again.heads, strict=True):
        np.testing.assert_array_equal(part.table(), other.table())
    with pytest.raises(ValueError, match="`path` must be that of one whole save"):
        one.restore(tmp_path / "other")
    with pytest.raises(ValueError, match="`path` must not be that of a save in anoth"):
        one.save(path)
    other = make(Adagrad, "uniform", "float32")
    with pytest.raises(ValueError, match="must be of a table of this sampler"):
        other.restore(path)
    fewer = ClassParallelSoftmax(alone, CLASSES - 1, DIM, 9, LazyAdam, LearnedUnigram())
    with pytest.raises(ValueError, match=r"one save of 30 .* with 31 classes"):
        fewer.restore(path)
    again.optimizers[0].iterations.assign(7)
    again.save(path)  # as if only one worker had written
    before = head.heads[0].table()
    with pytest.raises(ValueError, match=r"after \[1, 7\] steps"):
        head.restore(path)
    np.testing.assert_array_equal(head.heads[0].table(), before)
    (tmp_path / "step-1-00001-of-00002.index").unlink()
    with pytest.raises(ValueError, match=r"by parts: \{2: 1\}"):
        head.restore(path)


def test_initial_rows_and_draws_of_the_replicas_differ():
    def first(seed):
        head = ClassParallelSoftmax(
            two_replicas(), 20, DIM, 8, LazyAdam, "uniform", seed=seed
        )
        tables = [part.table().numpy() for part in head.heads]
        ids = [part.sampler.sample([[0]], 10, 4)[0].numpy() for part in head.heads]
        return tables, ids

    tables, ids = first(1)
    assert not np.array_equal(*tables)
    assert not np.array_equal(*ids)
    again = first(1)
    np.testing.assert_array_equal(tables, again[0])
    np.testing.assert_array_equal(ids, again[1])
    keras.utils.set_random_seed(5)
    tables, ids = first(None)
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(first(None)[0], tables)


@pytest.mark.slow
def test_evaluation_may_meet_a_class_that_is_never_drawn():
    never = int(Y[0])
    head = make(sampler=FixedUnigram(np.arange(CLASSES) != never))

    def step(x, y):
        return head.exact_loss(x, y), head.ranks(x, y)

    results = zip(*run(step, X, Y), strict=True)
    losses, ranks = map(np.concatenate, results)
    logits = X @ TABLE.T + BIAS
    own = logits[np.arange(len(Y)), Y]
    np.testing.assert_allclose(losses, logsumexp64(logits) - own)
    np.testing.assert_array_equal(ranks, (logits > own[:, np.newaxis]).sum(axis=1))


def test_invalid_arguments_raise():
    strategy = two_replicas()
    with strategy.scope(), pytest.raises(ValueError, match="outside the strategy's"):
        ClassParallelSoftmax(strategy, 9, 2, 3, LazyAdam)
    with pytest.raises(ValueError, match="`num_classes` must be less than 2"):
        ClassParallelSoftmax(strategy, 2**31, 2, 1, LazyAdam)
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    head = ClassParallelSoftmax(one, CLASSES, DIM, SAMPLED, LazyAdam)
    with one.scope(), pytest.raises(ValueError, match=r"that `strategy\.run` runs"):
        _ = head.trainable_variables
    with pytest.raises(ValueError, match="does not take num_shards, tied_to"):
        make(num_shards=2, tied_to=None)
    with pytest.raises(ValueError, match="`optimizer` must be a function that makes"):
        make(LazyAdam())
    with pytest.raises(ValueError, match="`optimizer` must be a function that makes"):
        make(keras.optimizers.Adam)
    with pytest.raises(ValueError, match="`optimizer` must not have a clipnorm"):
        make(lambda: LazyAdam(clipnorm=1.0))
    with pytest.raises(ValueError, match="`sampler` must be a LogUniform, Uniform"):
        make(sampler=InBatch())
    with pytest.raises(ValueError, match="`num_classes` must be at least the number"):
        ClassParallelSoftmax(strategy, 1, 2, 1, LazyAdam)
    head = make()
    for call in (
        lambda: head.sampled_loss(X, Y),
        lambda: head.trainable_variables,
        lambda: head.top_k(X, 1),
    ):
        with pytest.raises(ValueError, match=r"function that `strategy\.run` runs"):
            call()
    with pytest.raises(ValueError, match="must have one gradient for each variable"):
        run(lambda x: head.apply([x]), X)
    with pytest.raises(ValueError, match="`inputs` must have the shape"):
        run(lambda x, y: head.sampled_loss(x[:, :2], y), X, Y)
    with pytest.raises(ValueError, match="`k` must be at most"):
        run(lambda x: head.top_k(x, CLASSES + 1), X)


def test_the_reference_is_the_full_softmax():
    layer = make().heads[0]
    tables = [tf.constant(TABLE), tf.constant(BIAS)]
    losses = expected_losses(layer, None, tf.constant(X), tables)
    logits = X @ TABLE.T + BIAS
    np.testing.assert_allclose(losses, logsumexp64(logits) - logits[np.arange(8), Y])
