"""Padding and masks: what is masked has no effect, whatever it holds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import MODES, cases, jit_or_not, logsumexp64, slow
from tfsampled._core.sampled_loss import chunked_gradient
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import Perplexity
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import FixedUnigram, Recent

CLASSES, DIM = 20, 4
LABELS = np.array([[3, -1, -1], [4, 5, -1], [6, 7, 8], [-1, -1, -1]])


def make(dtype="float32", **options):
    keras.utils.set_random_seed(1)
    head = SampledSoftmax(
        CLASSES,
        CLASSES,
        "uniform",
        ignore_class=-1,
        seed=1,
        dtype=dtype,
        bias_initializer="normal",
        **options,
    )
    head.build((None, DIM))
    return head


def ragged_truth(head, features, labels):
    """The full softmax loss of each example over its own labels, in float64."""
    logits = features.astype(np.float64) @ tf.cast(head.table(), tf.float64).numpy().T
    logits += tf.cast(head.bias, tf.float64).numpy()
    losses = []
    for row, classes in zip(logits, labels, strict=True):
        classes = classes[classes >= 0]
        losses.append(logsumexp64(row) - row[classes].mean() if len(classes) else 0.0)
    return np.array(losses)


@pytest.mark.parametrize(
    ("dtype", "jit_compile"),
    [
        ("float32", False),
        *(
            slow(*case)
            for case in (
                ("bfloat16", True),
                ("float16", False),
                ("float16", True),
                ("bfloat16", False),
                ("float32", True),
                ("float64", False),
                ("float64", True),
            )
        ),
    ],
)
def test_a_ragged_number_of_labels(dtype, jit_compile):
    """All classes are drawn: the loss is the full one, up to its hits.

    A drawn class that is a label is left out of the sum, where the label is.
    """
    head = make(dtype, num_true=3)
    features = np.random.default_rng(0).normal(size=(4, DIM)).astype("float32")
    features = tf.cast(tf.cast(features, dtype), tf.float64).numpy()
    inputs = tf.constant(features, dtype)
    step = tf.function(head.sampled_loss, jit_compile=jit_compile)
    losses = tf.cast(step(inputs, LABELS), tf.float64)
    expected = ragged_truth(head, features, LABELS)
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-20}
    np.testing.assert_allclose(losses, expected, rtol=eps.get(dtype, 2.0**-40))
    assert losses[3] == 0
    ragged = tf.ragged.constant([[3], [4, 5], [6, 7, 8], []], tf.int64)
    if not jit_compile:
        np.testing.assert_allclose(
            tf.cast(head.sampled_loss(inputs, ragged), tf.float64),
            expected,
            rtol=eps.get(dtype, 2.0**-40),
        )


def test_ragged_labels_of_an_unsigned_dtype():
    head = SampledSoftmax(300, 299, num_true=2, ignore_class=-1, seed=1)
    losses = [
        head.exact_loss(tf.ones([2, DIM]), tf.ragged.constant([[1, 2], [3]], dtype))
        for dtype in (tf.int64, tf.uint8)
    ]
    np.testing.assert_array_equal(*losses)


def test_ragged_labels_that_do_not_fit_raise():
    head, inputs = make(num_true=2), tf.ones([2, DIM])
    ragged = tf.ragged.constant([[1], [2, 3, 4]], tf.int64)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"at most num_true=2 labels. Received: 3"
    ):
        head.sampled_loss(inputs, ragged)
    with pytest.raises(ValueError, match="Ragged `labels` must have the shape"):
        SampledSoftmax(CLASSES, 5, num_true=2).sampled_loss(inputs, ragged)
    with pytest.raises(ValueError, match=r"`inputs` must be dense.*to_tensor"):
        head.sampled_loss(tf.ragged.constant([[1.0]]), [[1, 2]])
    with pytest.raises(ValueError, match=r"`mask` must be dense.*to_tensor"):
        head.sampled_loss(inputs, [[1, 2]] * 2, mask=tf.ragged.constant([[True], []]))
    sparse = tf.sparse.from_dense([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"`labels` must be dense.*tf.sparse.to_dense"):
        head.sampled_loss(inputs, sparse)


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        ("sampled_loss", False),
        ("exact_loss", False),
        slow("sampled_loss", True),
        slow("exact_loss", True),
    ],
)
def test_nan_at_a_masked_position_has_no_effect(name, jit_compile):
    head = make()
    features = np.random.default_rng(0).normal(size=(4, DIM)).astype("float32")
    labels = np.array([3, -1, 5, 6])
    mask = np.array([True, True, False, True])

    @tf.function(jit_compile=jit_compile)
    def step(inputs):
        head.sampler.position.assign(0)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            losses = getattr(head, name)(inputs, labels, mask=mask)
        sources = [inputs, head.kernel.value, head.bias.value]
        gradients = tape.gradient(losses, sources)
        return losses, [tf.convert_to_tensor(gradient) for gradient in gradients]

    clean_losses, clean = step(tf.constant(features))
    features[[1, 2]] = np.nan
    losses, gradients = step(tf.constant(features))
    np.testing.assert_array_equal(losses, clean_losses)
    np.testing.assert_array_equal(losses.numpy()[[1, 2]], [0, 0])
    for gradient, expected in zip(gradients, clean, strict=True):
        np.testing.assert_array_equal(gradient, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_shards", "jit_compile"),
    [(2, False), *(slow(*case) for case in ((1, False), (1, True), (2, True)))],
)
def test_padding_moves_no_row(num_shards, jit_compile):
    """Neither the row of class 0, nor any that no example reads."""
    head = SampledSoftmax(
        CLASSES, 3, "uniform", ignore_class=-1, num_shards=num_shards, seed=1
    )
    head.build((None, DIM))
    head.bias.assign(np.ones(CLASSES))
    optimizer = LazyAdam(0.01, weight_decay=0.1)
    optimizer.build(head.trainable_variables)
    before = tf.concat([head.table(), head.bias[:, tf.newaxis]], axis=1).numpy()
    labels = tf.constant([-1, 7, -1])

    @tf.function(jit_compile=jit_compile)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head.sampled_loss(tf.ones([3, DIM]), labels))
        variables = [variable.value for variable in head.trainable_variables]
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients, head.trainable_variables)

    start = int(head.sampler.position)
    step()
    head.sampler.position.assign(start)
    candidates = head.sampler.sample([[7]], CLASSES, 3)
    touched = {7, *candidates.sampled_candidates.numpy().tolist()}
    after = tf.concat([head.table(), head.bias[:, tf.newaxis]], axis=1).numpy()
    moved = np.flatnonzero(np.any(before != after, axis=1))
    assert set(moved.tolist()) == touched
    assert 0 not in touched


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["div", "mod"])
def test_rows_of_shards_that_no_example_reads_stay(strategy):
    """Under XLA a lookup in shards reads some row for an id of another shard."""
    counts = np.ones(12)
    counts[:3] = 0  # never drawn, and no labels
    head = SampledSoftmax(
        *(12, 4, FixedUnigram(counts, seed=3)),
        num_shards=3,
        partition_strategy=strategy,
    )
    head.build((None, DIM))
    optimizer = LazyAdam(0.01, weight_decay=0.1)
    optimizer.build(head.trainable_variables)
    before = head.table().numpy()

    @tf.function(jit_compile=True)
    def step(labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head.sampled_loss(tf.ones([2, DIM]), labels))
        variables = [variable.value for variable in head.trainable_variables]
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients, head.trainable_variables)

    for labels in ([11, 11], [4, 7]):
        step(tf.constant(labels))
    moved = np.any(head.table().numpy() != before, axis=1)
    assert not moved[:3].any()
    assert moved[3:].any()


def test_padding_where_class_0_is_never_drawn():
    """Its expected count of 0 makes a logit of infinity."""
    head = SampledSoftmax(
        CLASSES, 3, FixedUnigram([0.0] + [1.0] * (CLASSES - 1)), ignore_class=-1
    )
    head.build((None, DIM))
    with tf.GradientTape() as tape:
        losses = head.sampled_loss(tf.ones([2, DIM]), [-1, 7])
    gradient = tape.gradient(losses, head.kernel.value)
    assert losses[0] == 0
    assert np.isfinite(gradient.values).all()


@pytest.mark.slow
@jit_or_not
def test_a_weight_of_a_masked_example_harms_nobody(jit):
    head = SampledSoftmax(10, 5, ignore_class=-1, seed=1)
    features = tf.ones([3, 4])
    head.build(features.shape)
    for name in ("sampled_loss", "exact_loss"):

        @tf.function(jit_compile=jit)
        def step(name=name):
            with tf.GradientTape() as tape:
                losses = getattr(head, name)(
                    features, [1, 2, -1], sample_weight=[1.0, 1.0, np.nan]
                )
            gradient = tape.gradient(losses, head.kernel.value)
            return losses, tf.convert_to_tensor(gradient)

        losses, gradient = step()
        assert np.isfinite(losses).all()
        assert losses[2] == 0
        assert np.isfinite(gradient).all()
    metric = Perplexity()
    metric.update_state_from_features(head, features, [1, 2, -1], [1.0, 1.0, np.nan])
    assert np.isfinite(metric.result())


@pytest.mark.parametrize("kind", [slow("list"), slow("ragged"), "negatives"])
def test_lists_for_a_batch_of_unknown_size(kind):
    """What is refused moves no sampler."""
    head = SampledSoftmax(10, None, Recent(4), num_true=2, ignore_class=-1)
    head.build((None, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def compute(inputs):
        if kind == "negatives":
            labels = tf.ones([tf.shape(inputs)[0], 2], tf.int64)
            return head.sampled_loss(inputs, labels, negatives=[[5]])
        labels = [[3, 4]] if kind == "list" else tf.ragged.constant([[3]], tf.int64)
        return head.sampled_loss(inputs, labels)

    assert compute(tf.ones([1, 3])).shape == (1,)
    before = head.sampler.recent.numpy()
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="Received: 1 values for 2 examples"
    ):
        compute(tf.ones([2, 3]))
    np.testing.assert_array_equal(head.sampler.recent, before)


@pytest.mark.parametrize("argument", ["labels", slow("sample_weight"), slow("mask")])
@pytest.mark.parametrize("loss", ["exact_loss", slow("sampled_loss")])
def test_one_value_is_none_for_a_batch_of_unknown_size(loss, argument):
    head = SampledSoftmax(10, 5, seed=1)
    values = {
        "inputs": tf.ones([4, 3]),
        "labels": tf.constant([1, 2, 3, 4]),
        "sample_weight": tf.ones([4]),
        "mask": tf.constant([True] * 4),
    }
    signature = {
        name: tf.TensorSpec([None, *value.shape[1:]], value.dtype)
        for name, value in values.items()
    }

    @tf.function(input_signature=[signature])
    def compute(arguments):
        return getattr(head, loss)(**arguments)

    assert compute(values).shape == (4,)
    values[argument] = values[argument][:1]
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=f"`{argument}` must have a value for each"
    ):
        compute(values)


def test_complex_and_boolean_numbers_raise():
    head = SampledSoftmax(10, 5, seed=1)
    head(tf.ones([2, 4]))
    for inputs in (tf.ones([2, 4], tf.complex64), tf.ones([2, 4], tf.bool)):
        with pytest.raises(ValueError, match="`inputs` must be real numbers"):
            head(inputs)
    with pytest.raises(ValueError, match="`sample_weight` must be real numbers"):
        head.exact_loss(tf.ones([2, 4]), [1, 2], sample_weight=[1j, 1j])


def losses_and_gradients(head, loss, features, labels, mode):
    def compute(features, labels):
        with tf.GradientTape() as tape:
            tape.watch(features)
            losses = getattr(head, loss)(features, labels)
        variables = [variable.value for variable in head.trainable_variables]
        gradients = tape.gradient(losses, [features, *variables])
        return losses, *(tf.convert_to_tensor(gradient) for gradient in gradients)

    return MODES[mode](compute)(tf.constant(features), tf.constant(labels))


@pytest.mark.parametrize(
    ("loss", "num_labeled", "mode"),
    cases(
        ["sampled_loss", "exact_loss"],
        [0, 90],
        MODES,
        quick=lambda loss, num_labeled, mode: (
            mode == "eager" or (num_labeled > 0 and mode == "jit")
        ),
    ),
)
def test_examples_without_a_label_are_left_out(loss, num_labeled, mode):
    """Values and gradients are those of the other examples alone."""
    rng = np.random.default_rng(num_labeled)
    features = rng.normal(size=(10, 20, DIM)).astype("float32")
    labels = rng.integers(0, CLASSES, (200, 2))
    is_labeled = np.zeros(200, bool)
    is_labeled[rng.permutation(200)[:num_labeled]] = True
    labels[~is_labeled] = -1
    rows = np.flatnonzero(is_labeled)
    if not num_labeled:  # the reference is one example that is multiplied by 0
        rows = np.array([0])
    results = []
    for ignore_class, x, y in (
        (-1, features, labels.reshape(10, 20, 2)),
        (None, features.reshape(-1, DIM)[rows], np.maximum(labels[rows], 0)),
    ):
        head = SampledSoftmax(
            *(CLASSES, 5, "uniform"), num_true=2, ignore_class=ignore_class, seed=1
        )
        head.build((None, DIM))
        head.set_table(
            np.linspace(-1, 1, CLASSES * DIM).reshape(CLASSES, DIM),
            np.linspace(0, 1, CLASSES),
        )
        # The reference is always eager.
        how = mode if ignore_class == -1 else "eager"
        results.append(losses_and_gradients(head, loss, x, y, how))
    (losses, d_features, *d_tables), expected = results
    if not num_labeled:
        expected = [np.zeros_like(values) for values in expected]
    for actual, values in ((losses, expected[0]), (d_features, expected[1])):
        full = np.zeros((200, *values.shape[1:]))
        full[rows] = values
        np.testing.assert_allclose(
            tf.reshape(actual, full.shape), full, rtol=1e-5, atol=1e-6
        )
    for actual, values in zip(d_tables, expected[2:], strict=True):
        np.testing.assert_allclose(actual, values, rtol=1e-5, atol=2e-5)


def test_a_number_of_labels_that_the_graph_does_not_know():
    head = SampledSoftmax(CLASSES, 8, "uniform", num_true=2, ignore_class=-1)
    head.build((None, DIM))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64)])
    def loss(labels):
        return head.sampled_loss(tf.ones([4, DIM]), labels)

    assert loss(LABELS[:, :2]).shape == [4]
    position = int(head.sampler.position)
    for labels in (LABELS, np.repeat(LABELS[:, :1], 4, axis=1), LABELS[:, :1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"shape \[\?,2\]"):
            loss(labels)
    assert int(head.sampler.position) == position


@pytest.mark.parametrize(
    ("num_labeled", "max_logits", "static", "options"),
    [
        (25, 60, False, {"num_true": 2, "logit_soft_cap": 2.0}),
        slow(7, 2**24, True, {}),
        slow(40, 2**24, True, {"num_true": 2}),
        slow(0, 60, True, {}),
        slow(0, 2**24, False, {}),
        slow(40, 60, True, {"num_hard_negatives": 4}),
        slow(25, 2**24, False, {"normalize": True, "num_shards": 2}),
        slow(25, 60, True, {"dtype": "bfloat16"}),
        slow(1, 2**24, True, {"use_bias": False, "log_q": None}),
        slow(39, 2**24, False, {"min_valid": 1000}),  # in one chunk
        slow(39, 20, False, {"min_valid": 1000}),  # in 40
    ],
)
def test_xla_computes_the_chunks_that_have_a_label(
    monkeypatch, num_labeled, max_logits, static, options
):
    """Losses and gradients are those without XLA; 40 examples are 16 chunks of 3."""
    options = dict(options)
    min_valid = options.pop("min_valid", 32)
    monkeypatch.setattr(chunked_gradient, "MIN_VALID", min_valid)
    rng = np.random.default_rng(num_labeled)
    features = rng.normal(size=(4, 10, DIM)).astype("float32")
    num_true = options.get("num_true", 1)
    labels = rng.integers(0, CLASSES, (40, num_true))
    labels[rng.permutation(40)[num_labeled:]] = -1
    labels[::3, 1:] = -1
    features.reshape(-1, DIM)[labels.max(axis=1) < 0] = np.nan
    negatives = rng.integers(-1, CLASSES, (4, 10, 3))
    head = make(**options)
    variables = head.trainable_variables

    def compute(x, y, negatives):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                losses = head.sampled_loss(x, y, negatives=negatives)
            gradients = tape.gradient(losses, [x, *(v.value for v in variables)])
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            total = tf.reduce_sum(tf.where(tf.math.is_nan(x), 0.0, gradients[0] ** 2))
        return losses, *gradients, outer.gradient(total, x)

    shape = (4, 10) if num_true == 1 else (4, 10, num_true)
    arguments = [features, labels.reshape(shape), negatives]
    arguments = list(map(tf.constant, arguments))
    signature = None
    if not static:
        signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in arguments]
    compiled = tf.function(compute, signature, jit_compile=True)
    results = []
    for function in (compute, compiled):
        head.sampler.position.assign(0)
        results.append(function(*arguments))
        monkeypatch.setattr(chunked_gradient, "MAX_LOGITS", max_logits)
    tolerance = 2e-2 if options.get("dtype") else 1e-5
    for expected, actual in zip(*results, strict=True):
        scale = np.max(np.abs(tf.cast(expected, tf.float32)), initial=1.0)
        np.testing.assert_allclose(
            tf.cast(actual, tf.float32),
            tf.cast(expected, tf.float32),
            rtol=0,
            atol=tolerance * scale,
        )


@pytest.mark.parametrize(
    ("features", "labels"),
    [((2, 5), (2, 6)), ((1, 5), (1, 1)), slow((2, 5), (2, 1)), slow((1, 1), (1, 5))],
)
def test_labels_are_for_each_step_of_a_sequence(features, labels):
    """One label is not that of all steps; what is refused moves no sampler."""
    head = SampledSoftmax(10, None, Recent(4))
    head.build((None, None, 3))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 3]),
            tf.TensorSpec([None, None], tf.int64),
        ]
    )
    def compute(inputs, labels):
        return head.sampled_loss(inputs, labels)

    compute(tf.ones([2, 2, 3]), tf.ones([2, 2], tf.int64))
    before = head.sampler.recent.numpy()
    number, count = np.prod(labels), np.prod(features)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=f"`labels` must have .* Received: {number} values for {count} examples",
    ):
        compute(tf.ones([*features, 3]), tf.ones(labels, tf.int64))
    np.testing.assert_array_equal(head.sampler.recent, before)


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["labels", "sample_weight"])
def test_one_value_is_none_for_a_batch_under_xla(argument):
    """It cannot raise for data, but it compiles for each batch size."""
    head = SampledSoftmax(10, 5, seed=1)
    head.build((None, 3))

    @tf.function(
        jit_compile=True,
        input_signature=[
            tf.TensorSpec([None, 3]),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None]),
        ],
    )
    def compute(inputs, labels, sample_weight):
        return head.sampled_loss(inputs, labels, sample_weight)

    values = {"labels": tf.ones([4], tf.int64), "sample_weight": tf.ones([4])}
    assert compute(tf.ones([4, 3]), **values).shape == (4,)
    values[argument] = values[argument][:1]
    with pytest.raises(tf.errors.InvalidArgumentError):
        compute(tf.ones([4, 3]), **values)


@pytest.mark.slow
def test_one_label_is_none_for_a_sequence_under_xla():
    head = SampledSoftmax(10, 5, seed=1)
    head.build((None, None, 3))
    features = tf.TensorSpec([None, None, 3])
    signature = [features, tf.TensorSpec([None, None], tf.int64)]
    compute = tf.function(head.sampled_loss, signature, jit_compile=True)
    assert compute(tf.ones([1, 5, 3]), tf.ones([1, 5], tf.int64)).shape == (1, 5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        compute(tf.ones([1, 5, 3]), tf.ones([1, 1], tf.int64))


@pytest.mark.parametrize("argument", ["sample_weight", "mask"])
def test_no_value_is_none_for_a_batch_of_unknown_size(argument):
    head = SampledSoftmax(10, 5, seed=1)
    head.build((None, None, 3))

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([None])]
    )
    def compute(inputs, values):
        labels = tf.ones(tf.shape(inputs)[:2], tf.int64)
        labels.set_shape([None, None])
        values = values > 0 if argument == "mask" else values
        return head.exact_loss(inputs, labels, **{argument: values})

    assert compute(tf.ones([1, 2, 3]), tf.ones([1])).shape == (1, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have a value for"):
        compute(tf.ones([1, 2, 3]), tf.ones([0]))
