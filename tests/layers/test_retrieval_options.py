"""Options of retrieval models: each against its formula in float64."""

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import MODES, cases, each_mode, logsumexp64, slow, use_small_chunks
from tfsampled._core.sampled_loss import chunked_gradient
from tfsampled.layers import SampledSoftmax

CLASSES, DIM, BATCH, SAMPLED = 40, 6, 5, 12
RNG = np.random.default_rng(11)
INPUTS = RNG.normal(size=(BATCH, DIM)).astype("float32")
LABELS = RNG.integers(0, CLASSES, BATCH)
NEGATIVES = RNG.integers(0, CLASSES, (BATCH, 7))
NEGATIVES[0, :3] = [-1, LABELS[0], NEGATIVES[0, 3]]


def make(**kwargs):
    kwargs = {"sampler": "uniform", "seed": 3, **kwargs}
    head = SampledSoftmax(CLASSES, SAMPLED, **kwargs)
    head.build((None, DIM))
    rng = np.random.default_rng(1)
    bias = rng.normal(size=CLASSES) if head.use_bias else None
    head.set_table(rng.normal(size=(CLASSES, DIM)), bias)
    return head


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def logits64(head, inputs=INPUTS):
    inputs, table = inputs.astype("float64"), head.table().numpy().astype("float64")
    if head.normalize:
        inputs, table = unit(inputs), unit(table)
    bias = head.bias.numpy().astype("float64") if head.use_bias else 0.0
    logits = (inputs @ table.T + bias) / head.temperature
    cap = head.logit_soft_cap
    return logits if cap is None else cap * np.tanh(logits / cap)


def sampled_loss64(head, shared=(), own=None, labels=LABELS):
    """The loss of one step from position 0, written out."""
    head.sampler.position.assign(0)
    column = labels.reshape(-1, 1)
    ids = head.sampler.sample(column, CLASSES, SAMPLED)[0]
    head.sampler.position.assign(0)
    everything = np.arange(CLASSES).reshape(1, -1)
    counts = head.sampler.sample(everything, CLASSES, SAMPLED)[1].numpy()[0]
    head.sampler.position.assign(0)
    losses = []
    shared = [c for c in shared if c >= 0]
    counts[shared] = 1
    for n, scores in enumerate(logits64(head)):
        label = int(labels[n])
        hits = {label} if head.remove_accidental_hits else set()
        drawn = sorted({*ids.numpy().tolist(), *shared} - hits)
        mine = [] if own is None else {int(c) for c in own[n] if c >= 0} - {label}
        drawn = [c for c in drawn if c not in mine]
        log_q = 0 if head.log_q is None else np.log(counts)
        corrected = (scores - log_q)[drawn]
        if head.num_hard_negatives is not None:
            corrected = np.sort(corrected)[::-1][: head.num_hard_negatives]
        true = scores[label]
        if head.log_q == "standard":
            true -= np.log(counts[label])
        terms = np.concatenate([[true], corrected, scores[list(mine)]])
        losses.append(logsumexp64(terms) - true)
    return np.array(losses)


OPTIONS: dict[str, dict[str, Any]] = {
    "normalize": {"normalize": True, "temperature": 0.2},
    "hard": {"num_hard_negatives": 3},
    "capped": {"logit_soft_cap": 1.5},
    "corrected": {"log_q": "corrected"},
    "uncorrected": {"log_q": None},
    "hits kept": {"remove_accidental_hits": False},
    "all": {
        "normalize": True,
        "temperature": 0.3,
        "logit_soft_cap": 2.0,
        "num_hard_negatives": 4,
        "log_q": "corrected",
        "use_bias": False,
    },
}


@pytest.mark.parametrize(
    ("name", "mode"),
    cases(
        OPTIONS,
        MODES,
        quick=lambda name, mode: mode == "eager" or (name, mode) == ("all", "function"),
    ),
)
def test_the_sampled_loss_is_its_formula(name, mode):
    head = make(**OPTIONS[name])
    expected = sampled_loss64(head)
    loss = MODES[mode](head.sampled_loss)(tf.constant(INPUTS), tf.constant(LABELS))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "mode"),
    cases(
        ["shared", "own"],
        MODES,
        quick=lambda kind, mode: mode == "eager" or (kind, mode) == ("own", "jit"),
    ),
)
@pytest.mark.parametrize("name", ["all", slow("hits kept"), slow("corrected")])
def test_negatives_of_ones_own(name, kind, mode):
    head = make(**OPTIONS[name])
    if kind == "shared":
        negatives = np.array([4, LABELS[1], -1, 4, 30])
        expected = sampled_loss64(head, shared=negatives)
    else:
        negatives = NEGATIVES.copy()
        expected = sampled_loss64(head, own=negatives)
    step = MODES[mode](lambda x, y, n: head.sampled_loss(x, y, negatives=n))
    arguments = tf.constant(INPUTS), tf.constant(LABELS)
    loss = step(*arguments, tf.constant(negatives))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    if mode == "jit" and kind == "own":  # which cannot raise
        negatives[1, 2] = CLASSES
        losses = step(*arguments, tf.constant(negatives))
        assert np.isnan(losses).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("kind", [slow("shared"), "own", slow("none")])
def test_gradients_are_those_of_finite_differences(kind):
    head = make(**OPTIONS["all"], dtype="float64")
    negatives = {"shared": [4, 9, -1], "own": NEGATIVES, "none": None}[kind]
    inputs = tf.constant(INPUTS, tf.float64)

    def loss():
        head.sampler.position.assign(0)
        return tf.reduce_sum(head.sampled_loss(inputs, LABELS, negatives=negatives))

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss()
    d_inputs, d_table = tape.gradient(value, [inputs, head.kernel.value])
    assert isinstance(d_table, tf.IndexedSlices)
    d_table = tf.convert_to_tensor(d_table).numpy()
    table, step = head.table().numpy(), 1e-6
    for row, column in itertools.product((int(LABELS[0]), 9, 30), range(2)):
        sides = []
        for sign in (1, -1):
            moved = table.copy()
            moved[row, column] += sign * step
            head.set_table(moved)
            sides.append(loss())
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(d_table[row, column], slope, rtol=1e-5, atol=1e-8)
    head.set_table(table)
    plain = inputs
    sides = []
    for sign in (1, -1):
        inputs = plain + sign * step * tf.one_hot([0], BATCH * DIM, dtype=tf.float64)[
            0
        ].numpy().reshape(BATCH, DIM)
        sides.append(loss())
    slope = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(d_inputs[0, 0], slope, rtol=1e-5)


@pytest.mark.parametrize("options", [{"normalize": True}, {"logit_soft_cap": 0.7}])
def test_options_hold_for_all_classes(options):
    head = make(temperature=0.5, **options)
    logits = logits64(head)
    np.testing.assert_allclose(head(INPUTS), logits, rtol=1e-5, atol=1e-5)
    losses = logsumexp64(logits) - logits[np.arange(BATCH), LABELS]
    np.testing.assert_allclose(head.exact_loss(INPUTS, LABELS), losses, rtol=1e-5)
    np.testing.assert_allclose(head.top_k(INPUTS, 3)[0], -np.sort(-logits)[:, :3], 1e-5)
    above = (logits > logits[np.arange(BATCH), LABELS][:, np.newaxis]).sum(axis=1)
    np.testing.assert_array_equal(head.ranks(INPUTS, LABELS), above)


def test_cosines_of_shards_and_of_another_dtype():
    plain = make(normalize=True, use_bias=False)
    for other in (
        make(normalize=True, use_bias=False, num_shards=3, partition_strategy="mod"),
        make(normalize=True, use_bias=False, dtype="float64"),
    ):
        for one in (plain, other):
            one.sampler.position.assign(0)
        for name in ("sampled_loss", "exact_loss"):
            loss, expected = (getattr(x, name)(INPUTS, LABELS) for x in (other, plain))
            np.testing.assert_allclose(loss, expected, rtol=1e-5)


@each_mode()
@pytest.mark.parametrize("num_shards", [1, 3])
def test_gradients_of_cosines_in_chunks(monkeypatch, num_shards, mode):
    """They equal those of a normalized copy of the table, which is never made."""
    use_small_chunks(monkeypatch, 8)
    options = {"use_bias": False, "partition_strategy": "mod"} if num_shards > 1 else {}
    head = make(normalize=True, num_shards=num_shards, dtype="float64", **options)
    table = head.table().numpy()
    table[LABELS[0]] = 0
    head.set_table(table, head.bias)
    inputs, variables = tf.constant(INPUTS, "float64"), [w.value for w in head.weights]
    variables = [one for one in variables if one.dtype == tf.float64]

    def compute(function):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_mean(function())
        gradients = tape.gradient(loss, [inputs, *variables])
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def dense():
        shards = variables[:num_shards]
        bias = variables[-1] if head.use_bias else 0.0
        stored = [np.arange(CLASSES)[shard::num_shards] for shard in range(num_shards)]
        order = np.argsort(np.concatenate(stored))
        table = tf.gather(tf.concat(shards, axis=0), order)
        units = tf.math.l2_normalize(table, axis=1), tf.math.l2_normalize(inputs, 1)
        logits = tf.matmul(units[1], units[0], transpose_b=True) + bias
        return tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)

    def exact():
        return compute(lambda: head.exact_loss(inputs, LABELS))

    loss, gradients = MODES[mode](exact)()
    expected_loss, expected = compute(dense)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("recompute", "use_bias", "mode"),
    cases(
        [False, True],
        [False, True],
        MODES,
        quick=lambda recompute, use_bias, mode: mode == "eager" and use_bias,
    ),
)
def test_gradients_of_capped_logits(monkeypatch, use_bias, recompute, mode):
    """They equal those of a dense computation, at second order too."""
    if recompute:
        monkeypatch.setattr(chunked_gradient, "MAX_LOGITS", 2 * SAMPLED)
    head = make(logit_soft_cap=0.9, use_bias=use_bias, dtype="float64")
    inputs = tf.constant(INPUTS, "float64")
    ids, true_count, count = head.sampler.sample(LABELS[:, None], CLASSES, SAMPLED)

    def dense(inputs, kernel, bias=0.0):
        logits = inputs @ tf.transpose(kernel) + bias
        logits = head.logit_soft_cap * tf.tanh(logits / head.logit_soft_cap)
        true = tf.gather(logits, LABELS[:, None], batch_dims=1)
        true -= tf.math.log(tf.cast(true_count, tf.float64))
        sampled = tf.gather(logits, ids, axis=1)
        sampled -= tf.math.log(tf.cast(count, tf.float64))
        sampled = tf.where(LABELS[:, None] == ids, np.float64(-np.inf), sampled)
        losses = tf.reduce_logsumexp(tf.concat([true, sampled], axis=1), axis=1)
        return losses - true[:, 0]

    def ours(inputs, *_):
        head.sampler.position.assign(0)
        return head.sampled_loss(inputs, LABELS)

    def derivatives(function):
        variables = [w.value for w in head.trainable_weights]
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                loss = function(inputs, *variables)
            gradients = tape.gradient(loss, [inputs, *variables])
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            squares = tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients])
        return loss, *gradients, outer.gradient(squares, inputs)

    head.sampler.position.assign(0)
    actual = MODES[mode](lambda: derivatives(ours))()
    for one, other in zip(actual, derivatives(dense), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


EXCLUDE = RNG.integers(-1, CLASSES, (BATCH, 9))
EXCLUDE[3, 4] = LABELS[3]


def without_excluded(logits, exclude=EXCLUDE):
    logits = logits.copy()
    for row, classes in zip(logits, exclude, strict=True):
        row[classes[classes >= 0]] = -np.inf
    return logits


@each_mode("jit")
@pytest.mark.parametrize("num_shards", [1, slow(3)])
def test_excluded_classes_are_neither_found_nor_counted(num_shards, mode):
    head = make(num_shards=num_shards)
    logits = without_excluded(logits64(head))
    compute = MODES[mode](
        lambda x, y, e: (*head.top_k(x, 4, exclude=e), head.ranks(x, y, exclude=e))
    )
    arguments = map(tf.constant, (INPUTS, LABELS, EXCLUDE))
    scores, classes, ranks = compute(*arguments)
    expected = np.argsort(-logits, axis=1)[:, :4]
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_allclose(
        scores, np.take_along_axis(logits, expected, 1), rtol=1e-5
    )
    label = logits64(head)[np.arange(BATCH), LABELS][:, np.newaxis]
    is_seen = (LABELS[:, np.newaxis] == EXCLUDE).any(axis=1)
    expected = np.where(is_seen, 2**31 - 2, (logits > label).sum(axis=1))
    np.testing.assert_array_equal(ranks, expected)


def test_where_classes_run_out_there_is_none():
    head = make()
    exclude = np.delete(np.arange(CLASSES), [3, 8])[np.newaxis]
    scores, classes = head.top_k(INPUTS[:1], 4, exclude=exclude)
    best = [3, 8] if logits64(head)[0, 3] > logits64(head)[0, 8] else [8, 3]
    assert classes.numpy().tolist() == [[*best, -1, -1]]
    assert np.isneginf(scores[0, 2:]).all()
    everything = head.top_k(INPUTS[:1], CLASSES, exclude=[[-1]])[1]
    assert sorted(everything[0].numpy().tolist()) == list(range(CLASSES))


def test_sequences_with_padding():
    head = make(ignore_class=-1)
    inputs = np.stack([INPUTS, INPUTS[::-1]])
    labels = np.stack([LABELS, LABELS[::-1]])
    labels[1, 2] = -1
    exclude = np.stack([EXCLUDE, EXCLUDE[::-1]])
    negatives = np.stack([NEGATIVES, NEGATIVES[::-1]])
    flat = {
        "ranks": head.ranks(INPUTS, LABELS, exclude=EXCLUDE).numpy(),
        "top": head.top_k(INPUTS, 3, exclude=EXCLUDE)[1].numpy(),
    }
    kept = [0, 1, 3, 4]
    ranks = head.ranks(inputs, labels, exclude=exclude).numpy()
    np.testing.assert_array_equal(ranks[0], flat["ranks"])
    np.testing.assert_array_equal(ranks[1][kept], flat["ranks"][::-1][kept])
    top = head.top_k(inputs, 3, exclude=exclude)[1].numpy()
    np.testing.assert_array_equal(top[0], flat["top"])
    losses = head.sampled_loss(inputs, labels, negatives=negatives).numpy()
    assert losses[1, 2] == 0
    np.testing.assert_allclose(losses[1][kept], losses[0][::-1][kept], rtol=1e-5)


@pytest.mark.parametrize("num_shards", [1, slow(3)])
def test_lists_of_unknown_length(num_shards):
    head = make(num_shards=num_shards)
    lists = tf.TensorSpec([None, None], tf.int64)

    def compute(exclude):
        ranks = head.ranks(INPUTS, LABELS, exclude=exclude)
        return ranks, *head.top_k(INPUTS, 3, exclude=exclude)

    step = tf.function(compute, input_signature=[lists])
    for exclude in (EXCLUDE, EXCLUDE[:, :0]):
        results = step(tf.constant(exclude))
        for result, expected in zip(results, compute(exclude), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-5)
    step = tf.function(
        lambda negatives: head.sampled_loss(INPUTS, LABELS, negatives=negatives),
        input_signature=[lists],
    )
    with pytest.raises(ValueError, match="`negatives` must have a last axis of known"):
        step.get_concrete_function()


def test_lists_of_tensors_in_a_function():
    head = make()
    step = tf.function(
        lambda own, weight: head.sampled_loss(
            INPUTS, LABELS, sample_weight=[weight] * BATCH, negatives=[own] * BATCH
        )
    )
    losses = step(tf.constant([4, 9]), tf.constant(2.0))
    head.sampler.position.assign(0)
    expected = head.sampled_loss(INPUTS, LABELS, negatives=[[4, 9]] * BATCH)
    np.testing.assert_allclose(losses, 2 * expected, rtol=1e-6)


def test_invalid_arguments_raise():
    head = make()
    with pytest.raises(ValueError, match="`exclude` must have the axes of the examp"):
        head.top_k(INPUTS, 3, exclude=[1, 2])
    with pytest.raises(ValueError, match="`negatives` must have the axes of the exam"):
        head.sampled_loss(INPUTS, LABELS, negatives=NEGATIVES[:2])
    position = int(head.sampler.position)
    for step in (head.sampled_loss, tf.function(head.sampled_loss)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`negatives`"):
            step(INPUTS, LABELS, negatives=tf.constant([2, CLASSES]))
        with pytest.raises(tf.errors.InvalidArgumentError, match="`negatives`"):
            step(INPUTS, LABELS, negatives=tf.constant(NEGATIVES - 2))
        assert int(head.sampler.position) == position
    with pytest.raises(tf.errors.InvalidArgumentError, match="`exclude`"):
        head.ranks(INPUTS, LABELS, exclude=EXCLUDE + 1000)
    with pytest.raises(ValueError, match="`log_q` must be"):
        make(log_q="other")
    with pytest.raises(ValueError, match="`num_hard_negatives` must be an int of at"):
        make(num_hard_negatives=0)
    with pytest.raises(ValueError, match="`remove_accidental_hits` must be True"):
        make(log_q="corrected", remove_accidental_hits=False)


def test_config():
    head = make(**OPTIONS["all"])
    other = SampledSoftmax.from_config(head.get_config())
    assert other.get_config() == head.get_config()
    assert keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(head)
    ).normalize


@each_mode()
def test_padding_has_no_gradient(mode):
    """Where an example has neither a label nor a sampled class."""
    head = SampledSoftmax(CLASSES, 1, "uniform", num_true=2, ignore_class=-1)
    head.build((None, DIM))
    labels = tf.constant([[1, 1], [2, 2], [-1, -1]])

    def step(negatives):
        with tf.GradientTape() as tape:
            loss = head.sampled_loss(INPUTS[:3], labels, negatives=negatives)
        return loss, tf.convert_to_tensor(tape.gradient(loss, head.kernel.value))

    run = MODES[mode](step)
    for negatives in ([[1, 2, 0]] * 3, [[3, 3, 3]] * 3):
        loss, gradient = run(tf.constant(negatives))
        assert np.isfinite(loss).all()
        assert loss[2] == 0
        assert np.isfinite(gradient).all()


@each_mode()
def test_lists_without_a_class(mode):
    head = make(ignore_class=-1)
    none = tf.zeros([BATCH, 0], tf.int64)

    def compute(inputs, labels):
        return (
            head.sampled_loss(inputs, labels, negatives=none),
            head.sampled_loss(inputs, labels, negatives=none[0]),
            *head.top_k(inputs, 2, exclude=none),
            head.ranks(inputs, labels, exclude=none),
        )

    results = MODES[mode](compute)(tf.constant(INPUTS), tf.constant(LABELS))
    np.testing.assert_array_equal(results[3], head.top_k(INPUTS, 2)[1])
    np.testing.assert_array_equal(results[4], head.ranks(INPUTS, LABELS))
    assert np.isfinite(results[0]).all()
    assert np.isfinite(results[1]).all()


@pytest.mark.parametrize("mode", ["eager", slow("function"), "jit"])
def test_an_empty_batch_with_ignore_class(mode):
    head = make(ignore_class=-1)
    inputs, labels = tf.zeros([0, DIM]), tf.zeros([0], tf.int64)
    names = ["sampled_loss"] + ["exact_loss", "ranks"] * (mode != "jit")
    for name in names:
        assert MODES[mode](getattr(head, name))(inputs, labels).shape == [0]


def test_under_xla_equal_logits_of_either_sign_of_zero_go_by_id():
    head = SampledSoftmax(4, 1, "uniform", use_bias=False)
    head.build((None, 1))
    head.set_table([[-1.0], [1], [-1], [1]])
    top = tf.function(lambda x: head.top_k(x, 3), jit_compile=True)
    assert top(tf.zeros([1, 1]))[1].numpy().tolist() == [[0, 1, 2]]


@pytest.mark.slow
def test_ids_out_of_range_are_nan_under_xla():
    head = SampledSoftmax(CLASSES, 5, "uniform", seed=1)
    inputs, labels = tf.ones([2, DIM]), tf.constant([1, 2])
    head.build(inputs.shape)
    top_k = tf.function(head.top_k, jit_compile=True)
    exclude = tf.constant([[3, CLASSES], [3, -1]])
    scores, classes = (x.numpy() for x in top_k(inputs, 2, exclude))
    assert np.isnan(scores[0]).all()
    assert (classes[0] == -1).all()
    expected = head.top_k(inputs[1:], 2, exclude[1:])
    np.testing.assert_allclose(scores[1:], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(classes[1:], expected[1])
    loss = tf.function(head.sampled_loss, jit_compile=True)
    assert np.isfinite(loss(inputs, labels, negatives=[-1, 4])).all()
    for bad in (-5, CLASSES):
        assert np.isnan(loss(inputs, labels, negatives=[bad, 4])).all()
