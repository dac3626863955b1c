"""`softmax_loss` and `softmax_top_k`: how they may be called, and how not."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests import exact_truth as truth

CLASSES, DIM, BATCH = 20, 4, 3
DATA, CALL = tf.errors.InvalidArgumentError, ValueError


def right():
    rng = np.random.default_rng(0)
    return {
        "weights": rng.normal(size=(CLASSES, DIM)).astype(np.float32),
        "biases": rng.normal(size=CLASSES).astype(np.float32),
        "labels": np.array([[1], [2], [3]]),
        "inputs": rng.normal(size=(BATCH, DIM)).astype(np.float32),
    }


def call(name, changes):
    arguments = right() | changes
    if name == "softmax_top_k":
        del arguments["labels"]
        arguments = {"k": 3} | arguments
    return getattr(tfsampled.nn, name)(**arguments)


def test_signatures():
    loss, top_k = tfsampled.nn.softmax_loss, tfsampled.nn.softmax_top_k
    assert str(inspect.signature(loss)) == (
        "(weights, biases, labels, inputs, num_true=1, partition_strategy='div', "
        "name='softmax_loss')"
    )
    assert str(inspect.signature(top_k)) == (
        "(weights, biases, inputs, k, partition_strategy='div', name='softmax_top_k')"
    )


RANGE = r"labels must be class ids in \[0, 20\), but lie between"
BAD = {
    "label_too_large": ({"labels": [[1], [2], [CLASSES]]}, DATA, RANGE),
    "label_negative": ({"labels": [[1], [2], [-1]]}, DATA, RANGE),
    "labels_rank_1": (
        {"labels": [1, 2, 3]},
        CALL,
        r"labels must be \[batch, num_true\] = \[batch, 1\]; got shape \(3,\)",
    ),
    "num_true_zero": ({"num_true": 0}, CALL, "num_true is 0; it must be at least 1"),
    "batch_differs": (
        {"inputs": np.zeros([4, DIM], np.float32)},
        CALL,
        "labels have a batch of 3, inputs a batch of 4: pass one row of labels",
    ),
}
BAD_FOR_BOTH = {
    "dim_differs": (
        {"inputs": np.zeros([BATCH, DIM - 1], np.float32)},
        CALL,
        "inputs have dim 3, weights dim 4: they must agree",
    ),
    "inputs_are_ints": (
        {"inputs": np.zeros([BATCH, DIM], np.int32)},
        CALL,
        "inputs must be of a floating dtype, not int32: cast them",
    ),
    "biases_too_short": (
        {"biases": np.zeros([CLASSES - 1], np.float32)},
        CALL,
        "num_classes is 20, but biases have 19 rows: every class needs one",
    ),
    "biases_too_long": (
        {"biases": np.zeros([CLASSES + 1], np.float32)},
        CALL,
        "weights have 20 rows, but biases have 21: every row is a class",
    ),
    "weights_missing": ({"weights": None}, CALL, "weights are missing: pass a table"),
    "shards_not_cut_as_div": (
        {"weights": [np.zeros([n, DIM], np.float32) for n in (12, 8)]},
        CALL,
        r'shards of \[12, 8\] rows, .*partition_strategy="div" 20 .* need \[10, 10\]',
    ),
    "unknown_strategy": (
        {"partition_strategy": "block"},
        CALL,
        'partition_strategy is \'block\'; it must be "mod" or "div"',
    ),
}
BAD_FOR_TOP_K = {
    "k_zero": ({"k": 0}, CALL, "k is 0; it must be at least 1"),
    "k_too_large": (
        {"k": 21},
        CALL,
        "k is 21, but there are only 20 classes: pass at most num_classes",
    ),
    "k_fraction": ({"k": 2.0}, CALL, "k must be an int, not 2.0"),
}


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    ("name", "bad"),
    [("softmax_loss", bad) for bad in (BAD | BAD_FOR_BOTH).values()]
    + [("softmax_top_k", bad) for bad in (BAD_FOR_TOP_K | BAD_FOR_BOTH).values()],
    ids=[*(BAD | BAD_FOR_BOTH), *(BAD_FOR_TOP_K | BAD_FOR_BOTH)],
)
def test_bad_input_is_refused_in_one_sentence(name, bad, graph):
    changes, error, says = bad

    def call_it():
        return call(name, changes)

    run = tf.function(call_it) if graph else call_it
    with pytest.raises(error) as raised:
        run()
    assert re.search(says, str(raised.value).replace("\n", " ")), raised.value


def test_under_xla_a_label_that_is_no_class_is_nan_for_its_example():
    @tf.function(jit_compile=True)
    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tfsampled.nn.softmax_loss(
                right()["weights"], right()["biases"], labels, inputs
            )
        return loss, tape.gradient(loss, inputs)

    inputs = tf.constant(right()["inputs"])
    loss, gradient = step(tf.constant([[1], [CLASSES], [-1]]), inputs)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True])
    np.testing.assert_array_equal(np.isnan(gradient).all(axis=1), [False, True, True])


@pytest.mark.parametrize("holder", ["list", "tuple", "variable", "keras", "sharded"])
def test_every_form_of_a_table(holder):
    arguments = right()
    whole = arguments["weights"], arguments["biases"]
    if holder == "variable":
        arguments["weights"], arguments["biases"] = map(tf.Variable, whole)
    elif holder == "keras":
        arguments["weights"], arguments["biases"] = map(keras.Variable, whole)
    elif holder == "sharded":
        arguments["weights"] = sharded(truth.cut(whole[0], 3, "div"))
    else:
        kind = {"list": list, "tuple": tuple}[holder]
        arguments["weights"] = kind(truth.cut(whole[0], 3, "div"))
        arguments["biases"] = kind(truth.cut(whole[1], 3, "div"))
    loss = tfsampled.nn.softmax_loss(**arguments)
    inputs, labels = arguments["inputs"], arguments.pop("labels")
    wide = [np.float64(table) for table in (inputs, *whole)]
    expected = truth.loss(wide[0], wide[1], wide[2], labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    values, ids = tfsampled.nn.softmax_top_k(**arguments, k=4)
    expected, expected_ids = tf.math.top_k(inputs @ whole[0].T + whole[1], 4)
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
    given = right()
    with tf.Graph().as_default():
        table = tf.compat.v1.get_variable(
            "table",
            shape=[CLASSES, DIM],
            partitioner=tf.compat.v1.fixed_size_partitioner(3),
            use_resource=True,
        )
        loss = tfsampled.nn.softmax_loss(
            table, given["biases"], given["labels"], given["inputs"]
        )
        gradients = tf.gradients(loss, list(table))
        best = tfsampled.nn.softmax_top_k(table, given["biases"], given["inputs"], 4)
        with tf.compat.v1.Session() as session:
            pieces = truth.cut(given["weights"], 3, "div")
            session.run([v.assign(p) for v, p in zip(table, pieces, strict=True)])
            loss, gradients, best = session.run([loss, gradients, best])
    wide = [np.float64(given[name]) for name in ("inputs", "weights", "biases")]
    np.testing.assert_allclose(
        loss, truth.loss(wide[0], wide[1], wide[2], given["labels"]), rtol=1e-6
    )
    expected = truth.gradients(
        wide[0], wide[1], wide[2], given["labels"], np.ones(BATCH)
    )[1]
    np.testing.assert_allclose(np.concatenate(gradients), expected, rtol=1e-5)
    expected = truth.top_k(wide[0] @ wide[1].T + wide[2], 4)
    np.testing.assert_array_equal(best[1], expected)


@pytest.mark.parametrize("count", [1, 3])
def test_one_row_of_labels_or_of_inputs_serves_all(count):
    arguments = right()
    rows, labels = arguments["inputs"][:count], arguments["labels"][: 4 - count]
    loss = tfsampled.nn.softmax_loss(**(arguments | {"inputs": rows, "labels": labels}))
    expected = truth.loss(
        np.broadcast_to(rows, [3, DIM]).astype(np.float64),
        arguments["weights"],
        arguments["biases"],
        np.broadcast_to(labels, [3, 1]),
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", EPS)
def test_every_floating_dtype(dtype, jit):
    """What the same (rounded) numbers give in float64, rounded once to the dtype."""
    given = right()
    tables = [tf.cast(given[name], dtype) for name in ("inputs", "weights", "biases")]

    @tf.function(jit_compile=jit)
    def call(inputs, weights, biases):
        with tf.GradientTape() as tape:
            tape.watch([inputs, weights, biases])
            loss = tfsampled.nn.softmax_loss(weights, biases, given["labels"], inputs)
        best = tfsampled.nn.softmax_top_k(weights, biases, inputs, 3)
        return loss, tape.gradient(loss, [inputs, weights, biases]), best

    loss, gradients, (values, ids) = call(*tables)
    wide = [tf.cast(table, tf.float64).numpy() for table in tables]
    of_sources = truth.gradients(
        wide[0], wide[1], wide[2], given["labels"], np.ones(BATCH)
    )
    pairs = [
        (loss, truth.loss(wide[0], wide[1], wide[2], given["labels"])),
        *zip(gradients, of_sources, strict=True),
    ]
    logits = wide[0] @ wide[1].T + wide[2]
    np.testing.assert_array_equal(ids, truth.top_k(logits, 3))
    pairs.append((values, np.take_along_axis(logits, ids.numpy(), axis=1)))
    for ours, expected in pairs:
        assert ours.dtype == dtype
        np.testing.assert_allclose(
            tf.cast(ours, tf.float64), expected, rtol=EPS[dtype], atol=2.0**-21
        )


@pytest.mark.parametrize("graph", [False, True])
def test_top_k_has_the_gradients_of_the_logits(graph):
    given = right()
    sources = [tf.constant(given[name]) for name in ("inputs", "weights", "biases")]
    upstream = tf.random.stateless_normal([BATCH, 4], [1, 2])

    def gradients(best):
        with tf.GradientTape() as outer:
            outer.watch(sources)
            with tf.GradientTape() as inner:
                inner.watch(sources)
                values, _ = best(*sources)
            found = inner.gradient(values, sources, upstream)
            found = [tf.convert_to_tensor(gradient) for gradient in found]
            total = tf.add_n([tf.reduce_sum(x**2) for x in found])
        zero = tf.UnconnectedGradients.ZERO  # linear in the biases
        seconds = outer.gradient(total, sources, unconnected_gradients=zero)
        return found, [tf.convert_to_tensor(gradient) for gradient in seconds]

    def ours(inputs, weights, biases):
        halves = [weights[0::2], weights[1::2]]
        return tfsampled.nn.softmax_top_k(halves, biases, inputs, 4, "mod")

    def dense(inputs, weights, biases):
        return tf.math.top_k(tf.matmul(inputs, weights, transpose_b=True) + biases, 4)

    def run(best):
        return tf.function(lambda: gradients(best))() if graph else gradients(best)

    for one, other in zip(
        tf.nest.flatten(run(ours)), tf.nest.flatten(run(dense)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_third_derivative_is_refused():
    given = right()
    inputs = tf.constant(given["inputs"])
    with tf.GradientTape() as third:
        third.watch(inputs)
        with tf.GradientTape() as second:
            second.watch(inputs)
            with tf.GradientTape() as first:
                first.watch(inputs)
                loss = tfsampled.nn.softmax_loss(
                    given["weights"], None, given["labels"], inputs
                )
            gradient = first.gradient(loss, inputs)
        curvature = second.gradient(gradient, inputs)
    with pytest.raises(NotImplementedError, match="a third was asked for"):
        third.gradient(curvature, inputs)
