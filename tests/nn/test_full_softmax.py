"""`softmax_loss` and `softmax_top_k`: how they may be called, and how not."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests import helpers

CLASSES, DIM, BATCH = 20, 4, 3
DATA, CALL = tf.errors.InvalidArgumentError, ValueError


def example():
    rng = np.random.default_rng(0)
    return {
        "weights": rng.normal(size=(CLASSES, DIM)).astype(np.float32),
        "biases": rng.normal(size=CLASSES).astype(np.float32),
        "labels": np.array([[1], [2], [3]]),
        "inputs": rng.normal(size=(BATCH, DIM)).astype(np.float32),
    }


def call(name, changes):
    arguments = example() | changes
    if name == "softmax_top_k":
        del arguments["labels"]
        arguments = {"k": 3} | arguments
    return getattr(tfsampled.nn, name)(**arguments)


def test_signatures():
    loss, top_k = tfsampled.nn.softmax_loss, tfsampled.nn.softmax_top_k
    assert str(inspect.signature(loss)) == (
        "(weights, biases, labels, inputs, num_true=1, partition_strategy='div', "
        "label_smoothing=0.0, logit_soft_cap=None, z_loss=0.0, name='softmax_loss')"
    )
    assert str(inspect.signature(top_k)) == (
        "(weights, biases, inputs, k, partition_strategy='div', exclude=None, "
        "name='softmax_top_k')"
    )


RANGE = r"`labels` must be class ids in \[0, 20\). Received: ids from"
INVALID_LOSS = {
    "label_too_large": ({"labels": [[1], [2], [CLASSES]]}, DATA, RANGE),
    "label_negative": ({"labels": [[1], [2], [-1]]}, DATA, RANGE),
    "labels_rank_1": (
        {"labels": [1, 2, 3]},
        CALL,
        r"`labels` must have the shape \[batch, num_true\].*\(3,\), num_true=1",
    ),
    "smoothing": (
        {"label_smoothing": 1.5},
        CALL,
        r"`label_smoothing` must be a number in \[0, 1\]. Received: .*=1.5",
    ),
    "z_loss": ({"z_loss": -0.1}, CALL, r"`z_loss` must be a number in \[0, 1\]"),
    "cap": ({"logit_soft_cap": 0}, CALL, "`logit_soft_cap` must be a positive number"),
    "num_true_zero": ({"num_true": 0}, CALL, "`num_true` must be an int of at least"),
    "batch_differs": (
        {"inputs": np.zeros([4, DIM], np.float32)},
        CALL,
        "labels with batch size 3, inputs with batch size 4",
    ),
}
INVALID = {
    "dim_differs": (
        {"inputs": np.zeros([BATCH, DIM - 1], np.float32)},
        CALL,
        r"Received: inputs.shape=\(3, 3\), dim of weights=\(4,\)",
    ),
    "inputs_are_ints": (
        {"inputs": np.zeros([BATCH, DIM], np.int32)},
        CALL,
        "`inputs` must be floating. Received: dtype=int32",
    ),
    "biases_too_short": (
        {"biases": np.zeros([CLASSES - 1], np.float32)},
        CALL,
        "Received: 19 rows of biases, num_classes=20",
    ),
    "biases_too_long": (
        {"biases": np.zeros([CLASSES + 1], np.float32)},
        CALL,
        "`biases` must have as many rows as `weights`. Received: 21 biases, 20 rows",
    ),
    "weights_missing": ({"weights": None}, CALL, "Received: weights=None"),
    "shards_not_cut_as_div": (
        {"weights": [np.zeros([n, DIM], np.float32) for n in (12, 8)]},
        CALL,
        r'"div" needs \[10, 10\] rows for 20 classes. Received: shards of \[12, 8\]',
    ),
    "unknown_strategy": (
        {"partition_strategy": "block"},
        CALL,
        "Received: partition_strategy='block'",
    ),
}
INVALID_K = {
    "k_zero": ({"k": 0}, CALL, "`k` must be an int of at least 1. Received: k=0"),
    "k_too_large": (
        {"k": 21},
        CALL,
        "`k` must be at most `num_classes`. Received: k=21, num_classes=20",
    ),
    "k_fraction": (
        {"k": 2.0},
        CALL,
        "`k` must be an int of at least 1. Received: k=2.0",
    ),
}


CASES = {
    **{f"loss-{name}": ("softmax_loss", *case) for name, case in INVALID_LOSS.items()},
    **{f"top_k-{name}": ("softmax_top_k", *case) for name, case in INVALID_K.items()},
    **{
        f"{function[8:]}-{name}": (function, *case)
        for (name, case), function in zip(
            INVALID.items(), ["softmax_loss", "softmax_top_k"] * 4, strict=False
        )
    },
}


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"), CASES.values(), ids=CASES
)
def test_invalid_arguments_raise(name, changes, error, message):
    with pytest.raises(error, match=message):
        call(name, changes)


@pytest.mark.parametrize("case", ["label_too_large", "batch_differs"])
def test_invalid_labels_raise_in_a_function(case):
    changes, error, message = INVALID_LOSS[case]
    with pytest.raises(error, match=message):
        tf.function(lambda: call("softmax_loss", changes))()


def test_label_out_of_range_is_nan_for_its_example_under_xla():
    @tf.function(jit_compile=True)
    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tfsampled.nn.softmax_loss(
                example()["weights"], example()["biases"], labels, inputs
            )
        return loss, tape.gradient(loss, inputs)

    inputs = tf.constant(example()["inputs"])
    loss, gradient = step(tf.constant([[1], [CLASSES], [-1]]), inputs)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True])
    np.testing.assert_array_equal(np.isnan(gradient).all(axis=1), [False, True, True])


@pytest.mark.parametrize("kind", ["list", "tuple", "variable", "keras", "sharded"])
def test_every_type_of_table(kind):
    arguments = example()
    weights, biases = arguments["weights"], arguments["biases"]
    if kind == "variable":
        arguments["weights"], arguments["biases"] = map(tf.Variable, (weights, biases))
    elif kind == "keras":
        arguments["weights"], arguments["biases"] = map(
            keras.Variable, (weights, biases)
        )
    elif kind == "sharded":
        arguments["weights"] = sharded(helpers.split_shards(weights, 3, "div"))
    else:
        container = {"list": list, "tuple": tuple}[kind]
        for name in ("weights", "biases"):
            shards = helpers.split_shards(arguments[name], 3, "div")
            arguments[name] = container(shards)
    loss = tfsampled.nn.softmax_loss(**arguments)
    inputs, labels = arguments["inputs"], arguments.pop("labels")
    expected = helpers.softmax_loss64(inputs, weights, biases, labels=labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    values, ids = tfsampled.nn.softmax_top_k(**arguments, k=4)
    expected, expected_ids = tf.math.top_k(inputs @ weights.T + biases, 4)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def sharded(pieces):
    return tf.__internal__.distribute.ShardedVariable(
        [
            tf.Variable(piece, name=f"table/part_{index}")
            for index, piece in enumerate(pieces)
        ]
    )


def test_a_partitioned_variable_in_a_session():
    arguments = example()
    with tf.Graph().as_default():
        table = tf.compat.v1.get_variable(
            "table",
            shape=[CLASSES, DIM],
            partitioner=tf.compat.v1.fixed_size_partitioner(3),
            use_resource=True,
        )
        loss = tfsampled.nn.softmax_loss(
            table, arguments["biases"], arguments["labels"], arguments["inputs"]
        )
        gradients = tf.gradients(loss, list(table))
        top = tfsampled.nn.softmax_top_k(
            table, arguments["biases"], arguments["inputs"], 4
        )
        with tf.compat.v1.Session() as session:
            pieces = helpers.split_shards(arguments["weights"], 3, "div")
            session.run([v.assign(p) for v, p in zip(table, pieces, strict=True)])
            loss, gradients, top = session.run([loss, gradients, top])
    operands = [arguments[name] for name in ("inputs", "weights", "biases")]
    labels = arguments["labels"]
    np.testing.assert_allclose(
        loss, helpers.softmax_loss64(*operands, labels=labels), rtol=1e-6
    )
    expected = helpers.softmax_loss_gradients64(
        *operands, labels=labels, upstream=np.ones(BATCH)
    )[1]
    np.testing.assert_allclose(np.concatenate(gradients), expected, rtol=1e-5)
    inputs, weights, biases = map(np.float64, operands)
    expected = helpers.top_k(inputs @ weights.T + biases, 4)
    np.testing.assert_array_equal(top[1], expected)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_of_1_is_broadcast(count):
    arguments = example()
    rows, labels = arguments["inputs"][:count], arguments["labels"][: 4 - count]
    loss = tfsampled.nn.softmax_loss(**(arguments | {"inputs": rows, "labels": labels}))
    expected = helpers.softmax_loss64(
        np.broadcast_to(rows, [3, DIM]).astype(np.float64),
        arguments["weights"],
        arguments["biases"],
        labels=np.broadcast_to(labels, [3, 1]),
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}


@pytest.mark.parametrize(
    ("dtype", "jit"),
    helpers.cases(
        EPS, [False, True], quick=lambda dtype, jit: not jit or dtype == "bfloat16"
    ),
)
def test_every_floating_dtype(dtype, jit):
    """What the same (rounded) numbers give in float64, rounded once to the dtype."""
    arguments = example()
    tables = [
        tf.cast(arguments[name], dtype) for name in ("inputs", "weights", "biases")
    ]

    @tf.function(jit_compile=jit)
    def call(inputs, weights, biases):
        with tf.GradientTape() as tape:
            tape.watch([inputs, weights, biases])
            loss = tfsampled.nn.softmax_loss(
                weights, biases, arguments["labels"], inputs
            )
        top = tfsampled.nn.softmax_top_k(weights, biases, inputs, 3)
        return loss, tape.gradient(loss, [inputs, weights, biases]), top

    loss, gradients, (values, ids) = call(*tables)
    rounded = [tf.cast(table, tf.float64).numpy() for table in tables]
    labels, upstream = arguments["labels"], np.ones(BATCH)
    gradients64 = helpers.softmax_loss_gradients64(
        *rounded, labels=labels, upstream=upstream
    )
    pairs = [
        (loss, helpers.softmax_loss64(*rounded, labels=labels)),
        *zip(gradients, gradients64, strict=True),
    ]
    logits = rounded[0] @ rounded[1].T + rounded[2]
    np.testing.assert_array_equal(ids, helpers.top_k(logits, 3))
    pairs.append((values, np.take_along_axis(logits, ids.numpy(), axis=1)))
    for actual, expected in pairs:
        assert actual.dtype == dtype
        np.testing.assert_allclose(
            tf.cast(actual, tf.float64), expected, rtol=EPS[dtype], atol=2.0**-21
        )


@pytest.mark.parametrize("graph", [False, helpers.slow(True)])
def test_top_k_has_the_gradients_of_the_logits(graph):
    arguments = example()
    sources = [tf.constant(arguments[name]) for name in ("inputs", "weights", "biases")]
    upstream = tf.random.stateless_normal([BATCH, 4], [1, 2])

    def gradients(top):
        with tf.GradientTape() as outer:
            outer.watch(sources)
            with tf.GradientTape() as inner:
                inner.watch(sources)
                values, _ = top(*sources)
            first = inner.gradient(values, sources, upstream)
            first = [tf.convert_to_tensor(gradient) for gradient in first]
            total = tf.add_n([tf.reduce_sum(x**2) for x in first])
        zero = tf.UnconnectedGradients.ZERO  # linear in the biases
        second = outer.gradient(total, sources, unconnected_gradients=zero)
        return first, [tf.convert_to_tensor(gradient) for gradient in second]

    def in_chunks(inputs, weights, biases):
        halves = [weights[0::2], weights[1::2]]
        return tfsampled.nn.softmax_top_k(halves, biases, inputs, 4, "mod")

    def dense(inputs, weights, biases):
        return tf.math.top_k(tf.matmul(inputs, weights, transpose_b=True) + biases, 4)

    def run(top):
        return tf.function(lambda: gradients(top))() if graph else gradients(top)

    for actual, expected in zip(
        tf.nest.flatten(run(in_chunks)), tf.nest.flatten(run(dense)), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


OPTIONS = {
    "label_smoothing": {"label_smoothing": 0.1},
    "soft_cap": {"logit_soft_cap": 1.5},
    "z_loss": {"z_loss": 0.01},
    "all": {"label_smoothing": 0.2, "logit_soft_cap": 2.0, "z_loss": 0.3},
}


def dense_loss(
    inputs, *tables, labels, label_smoothing=0.0, logit_soft_cap=None, z_loss=0.0
):
    """The losses written out, from all logits."""
    *shards, biases = tables
    logits = inputs @ tf.transpose(tf.concat(shards, axis=0)) + biases
    if logit_soft_cap is not None:
        logits = logit_soft_cap * tf.tanh(logits / logit_soft_cap)
    hot = tf.reduce_mean(
        tf.one_hot(labels, logits.shape[1], dtype=logits.dtype), axis=1
    )
    target = (1 - label_smoothing) * hot + label_smoothing / logits.shape[1]
    log_z = tf.reduce_logsumexp(logits, axis=1)
    return log_z - tf.reduce_sum(target * logits, axis=1) + z_loss * log_z**2


@pytest.mark.parametrize(
    ("name", "mode"),
    helpers.cases(
        OPTIONS,
        helpers.MODES,
        quick=lambda name, mode: mode == "eager",
    ),
)
def test_options_beside_the_dense_computation(name, mode, monkeypatch):
    """Losses and gradients over two shards, in chunks of classes, with two labels."""
    helpers.use_small_chunks(monkeypatch, 4)
    rng = np.random.default_rng(5)
    sizes = [(BATCH, DIM), (10, DIM), (10, DIM), (CLASSES,)]
    operands = [tf.constant(2 * rng.normal(size=size)) for size in sizes]
    labels = np.array([[1, 12], [3, 19], [5, 5]])

    def ours(inputs, *tables):
        *shards, biases = tables
        return tfsampled.nn.softmax_loss(
            shards, biases, labels, inputs, num_true=2, **OPTIONS[name]
        )

    def losses_and_gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            losses = function(*operands)
            weighted = losses * tf.range(1.0, BATCH + 1, dtype=losses.dtype)
        return losses, tape.gradient(weighted, operands)

    expected = losses_and_gradients(
        lambda *operands: dense_loss(*operands, labels=labels, **OPTIONS[name])
    )
    actual = helpers.MODES[mode](lambda: losses_and_gradients(ours))()
    for one, other in zip(*map(tf.nest.flatten, (actual, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.traced
def test_numbers_of_rows_that_are_unknown_while_tracing():
    matrix, vector = (tf.TensorSpec([None] * rank, tf.float32) for rank in (2, 1))

    @tf.function(input_signature=[matrix, vector])
    def loss(weights, biases):
        return tfsampled.nn.softmax_loss(weights, biases, [[0]], tf.ones([1, 3]))

    @tf.function(input_signature=[matrix, vector])
    def top(weights, biases):
        return tfsampled.nn.softmax_top_k(weights, biases, tf.ones([1, 3]), k=5)

    assert loss(tf.ones([5, 3]), tf.ones([5])).shape == (1,)
    assert top(tf.ones([5, 3]), tf.ones([5]))[0].shape == (1, 5)
    one_unknown = tf.function(
        lambda weights: tfsampled.nn.softmax_top_k(
            weights, tf.ones([5]), tf.ones([1, 3]), k=5
        )
    )
    one_unknown = one_unknown.get_concrete_function(matrix)
    assert one_unknown(tf.ones([5, 3]))[0].shape == (1, 5)
    for function in (loss, top):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="Received: 7 biases, 6 rows"
        ):
            function(tf.ones([6, 3]), tf.ones([7]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="k=5, num_classes=4"):
        top(tf.ones([4, 3]), tf.ones([4]))


def test_inputs_of_unknown_rank():
    arguments = example()
    inputs = arguments.pop("inputs")

    @tf.function(input_signature=[tf.TensorSpec(None)])
    def gradient(inputs):
        loss = tfsampled.nn.softmax_loss(inputs=inputs, **arguments)
        return tf.gradients(loss, inputs)[0]

    with tf.GradientTape() as tape:
        constant = tf.constant(inputs)
        tape.watch(constant)
        loss = tfsampled.nn.softmax_loss(inputs=constant, **arguments)
    expected = tape.gradient(loss, constant)
    np.testing.assert_allclose(gradient(inputs), expected, rtol=1e-6)


def test_gradients_where_a_product_rounds_its_factors(monkeypatch):
    """As a GPU does with TF32: the probabilities of an example still sum up to 1."""

    def rounded_matmul(a, b, **kwargs):
        a, b = (tf.cast(tf.cast(x, tf.bfloat16), x.dtype) for x in (a, b))
        return matmul(a, b, **kwargs)

    matmul = tf.matmul
    monkeypatch.setattr(tf, "matmul", rounded_matmul)
    rng = np.random.default_rng(0)
    weights, inputs = (rng.normal(size=size) for size in [(40, 6), (5, 6)])
    weights, inputs = (tf.constant(x, tf.float32) for x in (weights, inputs))
    biases = tf.constant(rng.uniform(30, 40, 40), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(biases)
        losses = tfsampled.nn.softmax_loss(weights, biases, np.zeros([5, 1]), inputs)
    # The gradient is itself a product of rounded probabilities.
    total = tf.reduce_sum(tape.gradient(losses, biases))
    np.testing.assert_allclose(total, 0, atol=2e-3 * 5)
