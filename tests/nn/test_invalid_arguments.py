"""Invalid arguments of the losses: the exception and the message of each."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import slow

CLASSES, DIM, BATCH, SAMPLED = 20, 4, 3, 5


@dataclasses.dataclass(frozen=True)
class Invalid:
    """An invalid call: what differs from a valid one, and the error."""

    name: str
    changes: dict[str, Any]
    error: type[Exception]
    message: str


def valid_arguments() -> dict[str, Any]:
    """Arguments of a call that succeeds."""
    rng = np.random.default_rng(0)
    return {
        "weights": rng.normal(size=(CLASSES, DIM)).astype(np.float32),
        "biases": rng.normal(size=CLASSES).astype(np.float32),
        "labels": np.array([[1], [2], [3]]),
        "inputs": rng.normal(size=(BATCH, DIM)).astype(np.float32),
        "num_sampled": SAMPLED,
        "num_classes": CLASSES,
    }


def sampled_values(ids=(1, 7, 8, 9, 11), true_count=0.3, sampled_count=0.2):
    """Returns candidates and their expected counts."""
    return (
        np.array(ids),
        np.full([BATCH, 1], true_count, np.float32),
        np.full([len(ids)], sampled_count, np.float32),
    )


def make_shards(*sizes: int, shape: tuple[int, ...] = (DIM,)) -> list[np.ndarray]:
    return [np.zeros((size, *shape), np.float32) for size in sizes]


LABEL_20 = np.array([[1], [2], [CLASSES]])
LABEL_MINUS_1 = np.array([[1], [2], [-1]])
RANGE = r"`labels` must be class ids in \[0, 20\). Received: ids from"
ONE_ROW_EACH = "must have a row for each class"
DATA, STATIC = tf.errors.InvalidArgumentError, ValueError
COUNTS = sampled_values()

TABLE = [
    Invalid("label_too_large", {"labels": LABEL_20}, DATA, RANGE + " 1 to 20"),
    Invalid("label_negative", {"labels": LABEL_MINUS_1}, DATA, RANGE + " -1 to 2"),
    Invalid(
        "label_too_large_with_sampled_values",
        {"labels": LABEL_20, "sampled_values": COUNTS},
        DATA,
        RANGE + " 1 to 20",
    ),
    Invalid(
        "candidate_too_large",
        {"sampled_values": sampled_values(ids=(1, 7, 8, 9, CLASSES))},
        DATA,
        r"`sampled_candidates` must be class ids in \[0, 20\). Received: ids from 1 to",
    ),
    Invalid(
        "candidate_negative",
        {"sampled_values": sampled_values(ids=(1, 7, 8, 9, -3))},
        DATA,
        r"`sampled_candidates` must be class ids in \[0, 20\). Received: ids from -3",
    ),
    Invalid(
        "labels_rank_1",
        {"labels": np.array([1, 2, 3])},
        STATIC,
        r"`labels` must have the shape \[batch, num_true\]. Received: labels.shape="
        r"\(3,\), num_true=1. Pass labels\[:, tf.newaxis\]",
    ),
    Invalid(
        "labels_rank_3",
        {"labels": np.ones([3, 1, 1], int)},
        STATIC,
        r"labels.shape=\(3, 1, 1\), num_true=1",
    ),
    Invalid(
        "labels_are_strings",
        {"labels": np.array([["a"], ["b"], ["c"]])},
        STATIC,
        "`labels` must be class ids. Received: dtype=string",
    ),
    Invalid(
        "labels_are_ragged",
        {"labels": tf.ragged.constant([[1], [2, 3], [4]])},
        STATIC,
        "`labels` must be dense; convert it with to_tensor.*a RaggedTensor",
    ),
    Invalid(
        "inputs_are_sparse",
        {"inputs": tf.sparse.from_dense(np.ones([BATCH, DIM], np.float32))},
        STATIC,
        "`inputs` must be dense.*a SparseTensor",
    ),
    Invalid(
        "num_true_too_large",
        {"num_true": 2},
        STATIC,
        r"labels.shape=\(3, 1\), num_true=2",
    ),
    Invalid(
        "num_true_too_small",
        {"labels": np.ones([3, 2], int)},
        STATIC,
        r"labels.shape=\(3, 2\), num_true=1",
    ),
    Invalid(
        "num_true_zero",
        {"num_true": 0},
        STATIC,
        "`num_true` must be an int of at least 1. Received: num_true=0",
    ),
    Invalid(
        "num_sampled_above_num_classes",
        {"num_sampled": 21},
        STATIC,
        "`num_sampled` must be at most `num_classes`. "
        "Received: num_sampled=21, num_classes=20",
    ),
    Invalid(
        "num_sampled_fraction",
        {"num_sampled": 5.0},
        STATIC,
        "`num_sampled` must be an int of at least 1. Received: num_sampled=5.0",
    ),
    Invalid(
        "num_classes_bool",
        {"num_classes": True},
        STATIC,
        "`num_classes` must be an int of at least 1. Received: num_classes=True",
    ),
    Invalid(
        "num_classes_above_rows",
        {"num_classes": 50},
        STATIC,
        f"`weights` {ONE_ROW_EACH}. Received: 20 rows of weights, num_classes=50",
    ),
    Invalid(
        "num_classes_above_rows_with_sampled_values",
        {"num_classes": 50, "sampled_values": COUNTS},
        STATIC,
        f"`weights` {ONE_ROW_EACH}. Received: 20 rows of weights, num_classes=50",
    ),
    Invalid(
        "num_classes_missing",
        {"num_classes": None},
        STATIC,
        "`num_classes` must be an int that is known before running",
    ),
    Invalid(
        "dim_differs",
        {"inputs": np.zeros([BATCH, DIM - 1], np.float32)},
        STATIC,
        r"`inputs` must have the shape \[batch, dim\] with the dim of `weights`.* "
        r"Received: inputs.shape=\(3, 3\), dim of weights=\(4,\)",
    ),
    Invalid(
        "inputs_rank_3",
        {"inputs": np.zeros([BATCH, 2, DIM], np.float32)},
        STATIC,
        r"Received: inputs.shape=\(3, 2, 4\)",
    ),
    Invalid(
        "inputs_are_ints",
        {"inputs": np.zeros([BATCH, DIM], np.int32)},
        STATIC,
        "`inputs` must be floating. Received: dtype=int32",
    ),
    Invalid(
        "batch_differs",
        {"inputs": np.zeros([BATCH + 1, DIM], np.float32)},
        STATIC,
        "must have the same batch size.*labels with batch size 3, inputs with .* 4",
    ),
    Invalid(
        "biases_too_short",
        {"biases": np.zeros([CLASSES - 1], np.float32)},
        STATIC,
        f"`biases` {ONE_ROW_EACH}. Received: 19 rows of biases, num_classes=20",
    ),
    Invalid(
        "biases_rank_2",
        {"biases": np.zeros([CLASSES, 1], np.float32)},
        STATIC,
        r"`biases` must be a table \[num_classes\], .* shapes: \(20, 1\)",
    ),
    Invalid(
        "weights_rank_1",
        {"weights": np.zeros([CLASSES], np.float32)},
        STATIC,
        r"`weights` must be a table \[num_classes, dim\], .* shapes: \(20,\)",
    ),
    Invalid(
        "weights_are_strings",
        {"weights": np.full((CLASSES, DIM), "a")},
        STATIC,
        "`weights` must be real numbers of one dtype. Received: string",
    ),
    Invalid(
        "weights_missing",
        {"weights": None},
        STATIC,
        r"`weights` must be a table \[num_classes, dim\].*Received: weights=None",
    ),
    Invalid("no_shards", {"weights": []}, STATIC, r"Received: weights=\[\]"),
    Invalid(
        "shards_of_two_dims",
        {"weights": [*make_shards(10), *make_shards(10, shape=(3,))]},
        STATIC,
        r"shards of it with one dim. Received shapes: \(10, 4\), \(10, 3\)",
    ),
    Invalid(
        "shards_of_two_dtypes",
        {"weights": [*make_shards(10), make_shards(10)[0].astype(np.float64)]},
        STATIC,
        "`weights` must be real numbers of one dtype. Received: float32, float64",
    ),
    Invalid(
        "shards_too_few_rows",
        {"weights": make_shards(9, 9)},
        STATIC,
        "Received: 18 rows of weights, num_classes=20",
    ),
    Invalid(
        "shards_not_cut_as_div",
        {"weights": make_shards(12, 8), "partition_strategy": "div"},
        STATIC,
        r'The shards of `weights` must be cut .*"div" needs \[10, 10\] rows for 20 '
        r"classes. Received: shards of \[12, 8\] rows",
    ),
    Invalid(
        "shards_not_cut_as_mod",
        {"weights": make_shards(12, 8), "partition_strategy": "mod"},
        STATIC,
        r'"mod" needs \[10, 10\] rows for 20 classes. Received: .* \[12, 8\] rows',
    ),
    Invalid(
        "bias_shards_not_cut_as_div",
        {"biases": make_shards(4, 16, shape=()), "partition_strategy": "div"},
        STATIC,
        r"The shards of `biases` must be .* \[10, 10\] .* \[4, 16\]",
    ),
    Invalid(
        "unknown_strategy",
        {"partition_strategy": "block"},
        STATIC,
        '`partition_strategy` must be "mod" or "div". '
        "Received: partition_strategy='block'",
    ),
    Invalid(
        "two_sampled_values",
        {"sampled_values": COUNTS[:2]},
        STATIC,
        r"`sampled_values` must be \(sampled_candidates, true_expected_count, samp",
    ),
    Invalid(
        "candidates_rank_2",
        {"sampled_values": (COUNTS[0][np.newaxis], *COUNTS[1:])},
        STATIC,
        r"`sampled_candidates` must have the shape \[num_sampled\]. "
        r"Received: sampled_candidates.shape=\(1, 5\)",
    ),
    Invalid(
        "candidates_of_another_number",
        {
            "sampled_values": sampled_values(ids=(1, 2, 3)),
            "remove_accidental_hits": True,
        },
        STATIC,
        r"Received: sampled_candidates.shape=\(3,\), num_sampled=5",
    ),
    Invalid(
        "true_counts_do_not_fit",
        {"sampled_values": (COUNTS[0], np.ones([BATCH, 2], np.float32), COUNTS[2])},
        STATIC,
        r"`true_expected_count` must broadcast to \(3, 1\).*shape=\(3, 2\)",
    ),
    Invalid(
        "true_counts_one_rank_short",
        {"sampled_values": (COUNTS[0], np.ones([BATCH], np.float32), COUNTS[2])},
        STATIC,
        r"`true_expected_count` must broadcast to \(3, 1\).*shape=\(3,\)",
    ),
    Invalid(
        "sampled_counts_do_not_fit",
        {"sampled_values": (*COUNTS[:2], np.ones([4], np.float32))},
        STATIC,
        r"`sampled_expected_count` must broadcast to \(3, 5\).*shape=\(4,\)",
    ),
]
# What is raised at run time, in tracing, and by either as the shapes are known.
IN_EVERY_MODE = ["label_too_large", "candidate_negative", "labels_rank_1"]
IN_EVERY_MODE += ["batch_differs", "sampled_counts_do_not_fit", "dim_differs"]

LOSSES = {
    "softmax": tfsampled.compat.v1.nn.sampled_softmax_loss,
    "nce": tfsampled.compat.v1.nn.nce_loss,
}


def call_eagerly(loss, arguments):
    return loss(**arguments)


def call_in_function(loss, arguments):
    return tf.function(lambda: loss(**arguments))()


def call_in_function_of_unknown_batch(loss, arguments):
    """Labels and inputs come in without static shapes where the call allows."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *np.shape(arguments[name])[1:]], value.dtype)
            for name, value in arguments.items()
            if name in ("labels", "inputs")
        ]
    )
    def function(labels, inputs):
        return loss(**(arguments | {"labels": labels, "inputs": inputs}))

    return function(arguments["labels"], arguments["inputs"])


MODES = [call_eagerly, call_in_function, call_in_function_of_unknown_batch]


def assert_refused(invalid, loss, mode):
    error, message = invalid.error, invalid.message
    if mode is call_in_function_of_unknown_batch:
        message = message.replace(r"\(3,", r"\(None,")
        if invalid.name == "batch_differs":
            error = DATA
    with pytest.raises(error) as raised:
        mode(loss, valid_arguments() | invalid.changes)
    assert re.search(message, str(raised.value).replace("\n", " ")), raised.value


@pytest.mark.parametrize("invalid", TABLE, ids=lambda invalid: invalid.name)
def test_invalid_arguments_raise(invalid):
    assert_refused(invalid, LOSSES["softmax"], call_eagerly)


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("name", IN_EVERY_MODE)
def test_invalid_arguments_raise_in_functions(name, mode):
    (invalid,) = (invalid for invalid in TABLE if invalid.name == name)
    assert_refused(invalid, LOSSES["softmax"], mode)


@pytest.mark.parametrize("name", IN_EVERY_MODE)
def test_invalid_arguments_of_nce_loss_raise(name):
    (invalid,) = (invalid for invalid in TABLE if invalid.name == name)
    assert_refused(invalid, LOSSES["nce"], call_eagerly)


def test_valid_arguments():
    for loss in LOSSES.values():
        for mode in MODES:
            assert mode(loss, valid_arguments()).shape == [BATCH]
            assert mode(
                loss, valid_arguments() | {"sampled_values": sampled_values()}
            ).shape == [BATCH]


@pytest.mark.parametrize("mode", [*MODES[:2], slow(MODES[2])])
def test_a_refused_call_draws_nothing(mode):
    loss = LOSSES["softmax"]
    tf.random.set_seed(7)
    undisturbed = [
        mode(loss, valid_arguments() | {"seed": 3}).numpy() for _ in range(2)
    ]
    tf.random.set_seed(7)
    disturbed = [mode(loss, valid_arguments() | {"seed": 3}).numpy()]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        mode(loss, valid_arguments() | {"seed": 3, "labels": LABEL_20})
    disturbed.append(mode(loss, valid_arguments() | {"seed": 3}).numpy())
    np.testing.assert_array_equal(disturbed, undisturbed)


def test_a_refused_run_of_a_function_draws_nothing():
    """The draw of a graph waits for the checks of its labels."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.int64),
            tf.TensorSpec([None, DIM]),
        ]
    )
    def step(labels, inputs):
        return LOSSES["softmax"](
            **(valid_arguments() | {"labels": labels, "inputs": inputs, "seed": 3})
        )

    good, inputs = valid_arguments()["labels"], valid_arguments()["inputs"]
    tf.random.set_seed(7)
    undisturbed = [step(good, inputs).numpy() for _ in range(3)]
    tf.random.set_seed(7)
    disturbed = [step(good, inputs).numpy()]
    for _ in range(2):
        with pytest.raises(tf.errors.InvalidArgumentError):
            step(LABEL_20, inputs)
        disturbed.append(step(good, inputs).numpy())
    np.testing.assert_array_equal(disturbed, undisturbed)
    assert not np.array_equal(undisturbed[0], undisturbed[1])
