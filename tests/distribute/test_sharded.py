"""Classes divided among devices of one program: the numbers of one table."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distribute.reference import (
    BIAS,
    CLASSES,
    DIM,
    LABELS,
    OPTIONS,
    SAMPLED,
    TABLE,
    X,
    Y,
    expected_losses,
    labels_of,
)
from tests.helpers import cases, logsumexp64, slow, two_replicas
from tfsampled.distribute import ClassParallelSoftmax, ShardedSoftmax, _parts
from tfsampled.layers import SampledSoftmax
from tfsampled.optimizers import Adagrad, LazyAdam
from tfsampled.samplers import FixedUnigram, LearnedUnigram

DEVICES = ["CPU:0", "CPU:1"]


def make(optimizer=None, sampler="uniform", dtype="float64", **options):
    optimizer = optimizer or (lambda: Adagrad(0.1))
    head = ShardedSoftmax(
        DEVICES, CLASSES, DIM, SAMPLED, optimizer, sampler, dtype=dtype, **options
    )
    head.set_table(TABLE, BIAS if head.use_bias else None)
    return head


def drawn(head):
    """Returns what the next step draws: ids, and the expected counts of all classes."""
    samplers = [part.head.sampler for part in head._parts.values()]
    positions = [int(sampler.position) for sampler in samplers]
    every = np.arange(CLASSES)[np.newaxis]
    ids, counts, _ = head.sampler.sample(every, CLASSES, SAMPLED)
    for sampler, position in zip(samplers, positions, strict=True):
        sampler.position.assign(position)
    return ids.numpy(), counts.numpy()[0]


def test_each_device_holds_its_classes():
    head = make(lambda: LazyAdam(0.1))
    for index, part in enumerate(head._parts.values()):
        np.testing.assert_array_equal(part.head.table(), TABLE[index::2])
        for variable in part.variables().values():
            assert variable.device.endswith(DEVICES[index])
    assert [v.shape[0] for v in head.trainable_variables] == [16, 15, 16, 15]
    np.testing.assert_allclose(head(X), X @ TABLE.T + BIAS)


@pytest.mark.parametrize(
    ("name", "graph"),
    cases(
        OPTIONS,
        [True, False],
        quick=lambda name, graph: (name, graph) in (("plain", True), ("padding", 0)),
    ),
)
def test_losses_and_gradients_are_those_of_one_table(name, graph):
    head = make(seed=3, **OPTIONS[name])
    labels, candidates = labels_of(head), drawn(head)
    factor = np.linspace(0.5, 2, len(X))

    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = head.sampled_loss(x, labels)
            total = tf.reduce_sum(losses * factor)
        gradients = tape.gradient(total, [x, *head.trainable_variables])
        assert all(isinstance(g, tf.IndexedSlices) for g in gradients[1:])
        return losses, head.exact_loss(x, labels), *map(tf.convert_to_tensor, gradients)

    function = tf.function(compute) if graph else compute
    losses, exact, d_x, *gradients = function(tf.constant(X))
    variables = [tf.constant(TABLE)] + [tf.constant(BIAS)] * head.use_bias
    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch([x, *variables])
        expected = expected_losses(head, candidates, x, variables)
        total = tf.reduce_sum(expected * factor)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-9)
    full = expected_losses(head, None, x, variables)
    np.testing.assert_allclose(exact, full, rtol=1e-10, atol=1e-12)
    expected_d_x, *expected_gradients = tape.gradient(total, [x, *variables])
    np.testing.assert_allclose(d_x, expected_d_x, rtol=1e-5, atol=1e-6)
    for index, gradient in enumerate(expected_gradients):
        for part in range(2):
            actual = gradients[2 * index + part]
            np.testing.assert_allclose(actual, gradient[part::2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["capped", slow("cosines"), slow("padding")])
@pytest.mark.parametrize("chunked", [False, slow(True)])
def test_ranks_and_the_best_classes(name, chunked, monkeypatch):
    if chunked:  # a loop on each device
        monkeypatch.setattr("tfsampled._core.full_softmax.class_chunks.MAX_CHUNK", 4)
        monkeypatch.setattr("tfsampled._core.full_softmax.class_chunks.MIN_CHUNK", 4)
    head = make(seed=3, **OPTIONS[name])
    layer = SampledSoftmax(CLASSES, SAMPLED, dtype="float64", **OPTIONS[name])
    layer.build((None, DIM))
    table = TABLE.copy()
    table[[2, 5]] = table[[7, 12]]  # equal logits, in one part and in two
    bias = np.where(np.arange(CLASSES) % 3, 0.0, 0.5)
    for one in (head, layer):
        one.set_table(table, bias if one.use_bias else None)
    labels = labels_of(head)

    @tf.function
    def compute():
        losses, ranks = head.exact_loss(X, labels), head.ranks(X, labels)
        return losses, ranks, *head.top_k(X, 20), head.top_k(X, 9, LABELS)[1]

    losses, ranks, scores, classes, others = compute()
    np.testing.assert_allclose(losses, layer.exact_loss(X, labels), rtol=1e-10)
    shown = (labels.reshape(len(X), -1) >= 0).any(axis=1)
    np.testing.assert_array_equal(ranks[shown], layer.ranks(X, labels)[shown])
    expected_scores, expected = layer.top_k(X, 20)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-12)
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(others, layer.top_k(X, 9, LABELS)[1])


def test_masks_and_hard_negatives():
    """With all classes sampled nothing depends on the draw."""
    options: Any = {"num_hard_negatives": 3, "dtype": "float64", "sampler": "uniform"}
    head = ShardedSoftmax(DEVICES, CLASSES, DIM, CLASSES, Adagrad, **options)
    layer = SampledSoftmax(CLASSES, CLASSES, **options)
    layer.build((None, DIM))
    head.set_table(TABLE, BIAS)
    layer.set_table(TABLE, BIAS)
    x, mask = X.copy(), np.arange(len(X)) != 2
    x[2] = np.nan
    losses = head.sampled_loss(x, Y, mask=mask)
    assert losses[2] == 0
    np.testing.assert_allclose(losses, layer.sampled_loss(x, Y, mask=mask), rtol=1e-6)


def test_negatives_of_ones_own():
    """With all classes for a negative, nothing depends on the draw."""
    head = make(log_q=None)
    negatives = np.broadcast_to(np.arange(CLASSES), [len(Y), CLASSES])
    logits = X @ TABLE.T + BIAS
    expected = logsumexp64(logits) - logits[np.arange(len(Y)), Y]
    for ids in (negatives, negatives[0]):
        losses = head.sampled_loss(X, Y, negatives=ids)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_options_of_the_optimizer():
    def make_one():
        return Adagrad(0.1, clipvalue=0.05, weight_decay=0.1)

    head = make(make_one, use_bias=False)
    layer = SampledSoftmax(CLASSES, SAMPLED, use_bias=False, dtype="float64")
    layer.build((None, DIM))
    layer.set_table(TABLE)
    ids = tf.constant([0, 3, 8, 3])
    values = tf.constant(np.random.default_rng(1).normal(size=(4, DIM)))
    optimizer = make_one()
    optimizer.build(layer.trainable_variables)
    optimizer.apply([tf.IndexedSlices(values, ids)], layer.trainable_variables)
    # ids 0, 8 and 3, 3: of the even classes rows 0 and 4, of the odd ones row 1
    head.apply([tf.IndexedSlices(values[i::2], ids[i::2] // 2) for i in (0, 1)])
    np.testing.assert_allclose(head.table(), layer.table(), rtol=1e-12)


@pytest.mark.slow
def test_it_learns_from_an_encoder():
    keras.utils.set_random_seed(1)
    head = make(lambda: LazyAdam(0.05), "log_uniform", "float32")
    encoder = keras.layers.Dense(DIM)
    encoder.build((None, DIM))
    optimizer = keras.optimizers.SGD(0.1)
    x = np.random.default_rng(5).normal(size=(CLASSES, DIM)).astype("float32")[Y]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head.sampled_loss(encoder(x), Y))
        variables = encoder.trainable_variables, head.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients[0], variables[0])
        head.apply(gradients[1])
        return tf.reduce_mean(head.exact_loss(encoder(x), Y))

    first = step()
    for _ in range(30):
        last = step()
    assert last < 0.6 * first
    assert [int(optimizer.iterations) for optimizer in head.optimizers] == [31, 31]


def test_samplers_of_counts():
    head = make(sampler=LearnedUnigram(seed=1))
    head.sampled_loss(X, Y, mask=np.arange(len(Y)) > 0)
    counts = 1 + np.bincount(Y[1:], minlength=CLASSES)
    for index, part in enumerate(head._parts.values()):
        np.testing.assert_array_equal(part.head.sampler.class_weights, counts[index::2])
    head = make(sampler=FixedUnigram(np.arange(CLASSES) != 8))
    position = int(head._parts[0].head.sampler.position)
    with pytest.raises(tf.errors.InvalidArgumentError, match="count in FixedUnigram"):
        head.sampled_loss(X[:2], [9, 8])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"in \[0, 31\)"):
        head.sampled_loss(X[:2], [9, CLASSES])
    assert int(head._parts[0].head.sampler.position) == position
    assert np.isfinite(head.sampled_loss(X[:2], [9, 7])).all()


def test_all_classes_sampled_are_the_full_softmax():
    head = ShardedSoftmax(DEVICES, CLASSES, DIM, CLASSES, Adagrad, "log_uniform")
    x = X.astype("float32")
    np.testing.assert_allclose(
        head.sampled_loss(x, Y), head.exact_loss(x, Y), rtol=1e-5, atol=1e-6
    )


def test_files_are_those_of_a_class_parallel_table(tmp_path):
    head = make(lambda: LazyAdam(0.1), LearnedUnigram(seed=1), "float32")

    def train(head):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head.sampled_loss(X.astype("float32"), Y))
        head.apply(tape.gradient(loss, head.trainable_variables))
        return float(loss)

    train(head)
    head.save(tmp_path / "two")
    again = make(lambda: LazyAdam(0.1), LearnedUnigram(seed=1), "float32")
    again.restore(tmp_path / "two")
    losses = [train(head), train(head)]
    assert [train(again), train(again)] == pytest.approx(losses)
    head.restore(tmp_path / "two")
    one = ClassParallelSoftmax(
        tf.distribute.get_strategy(), CLASSES, DIM, SAMPLED, LazyAdam, LearnedUnigram()
    )
    one.restore(tmp_path / "two")
    np.testing.assert_array_equal(one.heads[0].table(), head.table())
    one.save(tmp_path / "one")
    again.restore(tmp_path / "one")
    for part, other in zip(head._parts.values(), again._parts.values(), strict=True):
        for name, variable in part.variables().items():
            if part.is_per_class(variable):
                np.testing.assert_array_equal(variable, other.variables()[name])


@pytest.mark.parametrize("saved_by", [1, 2])
def test_a_table_to_serve_has_no_slots(tmp_path, saved_by):
    devices = DEVICES[:saved_by]
    trained = ShardedSoftmax(devices, CLASSES, DIM, SAMPLED, LazyAdam, LearnedUnigram())
    trained.set_table(TABLE, BIAS)
    trained.save(tmp_path / "step")
    head = ShardedSoftmax(DEVICES, CLASSES, DIM, SAMPLED, None)
    head.restore(tmp_path / "step")
    assert head.optimizers == []
    np.testing.assert_array_equal(head(X), trained(X))
    with pytest.raises(ValueError, match="`optimizer` must be given where a table is"):
        head.apply([None] * 4)
    one_device = tf.distribute.get_strategy()
    for other in (
        ClassParallelSoftmax(one_device, CLASSES, DIM, SAMPLED, None),
        ClassParallelSoftmax(one_device, CLASSES, DIM, SAMPLED, None, "uniform"),
    ):
        other.restore(tmp_path / "step")
        np.testing.assert_array_equal(other.heads[0].table(), head.table())
    without_bias = ShardedSoftmax(DEVICES, CLASSES, DIM, SAMPLED, None, use_bias=False)
    with pytest.raises(ValueError, match="of this sampler, optimizer, dim and use_bi"):
        without_bias.restore(tmp_path / "step")
    head.save(tmp_path / "rows")
    with pytest.raises(ValueError, match="must be of a table of this sampler"):
        trained.restore(tmp_path / "rows")
    head.restore(tmp_path / "rows")


def test_parts_of_a_save_of_fewer_draw_differently(tmp_path):
    one = ShardedSoftmax(["CPU:0"], CLASSES, DIM, SAMPLED, lambda: Adagrad(0.1))
    one.save(tmp_path / "one")
    two = ShardedSoftmax(DEVICES, CLASSES, DIM, SAMPLED, lambda: Adagrad(0.1))
    two.restore(tmp_path / "one")
    start = int(one._parts[0].head.sampler.position)
    two.save(tmp_path / "two")
    four = _parts.make(
        *("test", dict.fromkeys(range(4)), 4),
        num_classes=CLASSES,
        dim=DIM,
        num_sampled=SAMPLED,
        optimizer=lambda: Adagrad(0.1),
        sampler="log_uniform",
        seed=None,
        options={},
    )
    _parts.restore(tmp_path / "two", four, 4)
    samplers = [part.head.sampler for part in [*two._parts.values(), *four.values()]]
    assert [int(sampler.position) for sampler in samplers] == [start] * 6
    assert [sampler.seed for sampler in samplers] == [0, 1, 0, 1, 2, 3]


def test_a_seeded_save_restored_without_a_seed_draws_different_rows(tmp_path):
    optimizer = lambda: Adagrad(0.1)  # noqa: E731
    arguments = DEVICES, CLASSES, DIM, SAMPLED, optimizer, "uniform"
    ShardedSoftmax(*arguments, seed=1).save(tmp_path / "seeded")
    head = ShardedSoftmax(*arguments)
    head.restore(tmp_path / "seeded")
    labels = tf.zeros([1, 1], tf.int64)
    one, two = (part.draw(labels, None).ids for part in head._parts.values())
    assert np.any(one != two)


def test_a_device_without_gradients_counts_the_step():
    head = make(use_bias=False)
    before = [v.numpy() for v in head.trainable_variables]
    kernel = head.trainable_variables[0]
    rows = tf.IndexedSlices(tf.ones([1, DIM]), tf.constant([0]), kernel.shape)
    head.apply([rows, None])
    assert [int(optimizer.iterations) for optimizer in head.optimizers] == [1, 1]
    assert np.any(head.trainable_variables[0] != before[0])
    np.testing.assert_array_equal(head.trainable_variables[1], before[1])


def test_rows_out_of_range_on_one_device_change_nothing_on_any():
    head = make(use_bias=False)
    before = [v.numpy() for v in head.trainable_variables]
    gradients = [
        tf.IndexedSlices(tf.ones([1, DIM], "float64"), [row], [CLASSES, DIM])
        for row in (0, 99)
    ]
    with pytest.raises(tf.errors.InvalidArgumentError, match="ids from 99 to 99"):
        head.apply(gradients)
    for variable, value in zip(head.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert [int(optimizer.iterations) for optimizer in head.optimizers] == [0, 0]


def test_a_step_that_some_devices_have_taken_counts_on_all(tmp_path):
    head = make()
    head.optimizers[1].iterations.assign(3)  # a worker was lost before device 0
    head.save(tmp_path / "step")
    again = make()
    again.restore(tmp_path / "step")
    assert [int(optimizer.iterations) for optimizer in again.optimizers] == [3, 3]


def test_a_table_is_listed_once():
    head = ShardedSoftmax(["CPU:0", "CPU:1"], 10, 4, 6, lambda: Adagrad(0.1))
    assert len(head.trainable_variables) == 4  # rows and biases of two devices
    assert not head.sampler.trainable_variables


def test_invalid_arguments_raise():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope(), pytest.raises(ValueError, match="outside the strategy's"):
        ShardedSoftmax(DEVICES, 9, 2, 3, LazyAdam)
    with pytest.raises(ValueError, match="`devices` must be at least one device"):
        ShardedSoftmax([], 9, 2, 3, LazyAdam)
    for devices in (["CPU:0", "/device:CPU:0"], ["CPU:7"]):  # there is none
        with pytest.raises(ValueError, match="`devices` must be different devices th"):
            ShardedSoftmax(devices, 9, 2, 3, LazyAdam)
    shared = LazyAdam()
    with pytest.raises(ValueError, match="function that makes a new LazyAdam"):
        make(lambda: shared)
    with pytest.raises(ValueError, match="ShardedSoftmax does not take tied_to"):
        make(tied_to=None)
    head = make()
    with pytest.raises(ValueError, match="must have one gradient for each variable"):
        head.apply([None] * 3)
    before = [v.numpy() for v in head.trainable_variables]
    kernels = [tf.ones_like(kernel) for kernel in head.trainable_variables[:2]]
    with pytest.raises(ValueError, match="must be floating and have the shape"):
        head.apply([kernels[0], kernels[1][:, :1], None, None])
    for variable, value in zip(head.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)  # of no device
    with pytest.raises(NotImplementedError, match="not saved with a model"):
        head.get_config()
    with tf.GradientTape(persistent=True) as tape:
        x = tf.constant(X)
        tape.watch(x)
        loss, of_constant = head.exact_loss(x, Y), head.exact_loss(X, Y)
        scores, _ = head.top_k(x, 3)
    with pytest.raises(NotImplementedError, match="Train with `sampled_loss`"):
        tape.gradient(loss, x)
    for target in (of_constant, scores):
        assert tape.gradient(target, head.trainable_variables) == [None] * 4
    for call in (
        lambda: head.sampled_loss(X, Y),
        lambda: head.exact_loss(X, Y),
        lambda: head.apply([None] * 4),
    ):
        with pytest.raises(ValueError, match="`jit_compile=True` is not possible"):
            tf.function(call, jit_compile=True, autograph=False)()
    replicas = two_replicas()
    for call in (lambda: head.sampled_loss(X, Y), lambda: head.apply([None] * 4)):
        with pytest.raises(ValueError, match="one replica in each worker"):
            replicas.run(tf.function(call, autograph=False))
