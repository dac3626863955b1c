"""Every way to call the losses wrongly, with the exception and the words of each."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfsampled

CLASSES, DIM, BATCH, SAMPLED = 20, 4, 3, 5


@dataclasses.dataclass(frozen=True)
class Bad:
    """One wrong call: what differs from the right one, and what must be said."""

    name: str
    changes: dict[str, Any]
    error: type[Exception]
    says: str


def right() -> dict[str, Any]:
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


def given(ids=(1, 7, 8, 9, 11), true_count=0.3, sampled_count=0.2):
    """`sampled_values` of the caller's own."""
    return (
        np.array(ids),
        np.full([BATCH, 1], true_count, np.float32),
        np.full([len(ids)], sampled_count, np.float32),
    )


def cut(*sizes: int, shape: tuple[int, ...] = (DIM,)) -> list[np.ndarray]:
    return [np.zeros((size, *shape), np.float32) for size in sizes]


LABEL_20 = np.array([[1], [2], [CLASSES]])
LABEL_MINUS_1 = np.array([[1], [2], [-1]])
RANGE = r"labels must be class ids in \[0, 20\), but lie between"
DATA, CALL = tf.errors.InvalidArgumentError, ValueError

TABLE = [
    Bad("label_too_large", {"labels": LABEL_20}, DATA, RANGE),
    Bad("label_negative", {"labels": LABEL_MINUS_1}, DATA, RANGE),
    Bad(
        "label_too_large_own_candidates",
        {"labels": LABEL_20, "sampled_values": given()},
        DATA,
        RANGE,
    ),
    Bad(
        "label_negative_own_candidates",
        {"labels": LABEL_MINUS_1, "sampled_values": given()},
        DATA,
        RANGE,
    ),
    Bad(
        "candidate_too_large",
        {"sampled_values": given(ids=(1, 7, 8, 9, CLASSES))},
        DATA,
        r"sampled_candidates must be class ids in \[0, 20\)",
    ),
    Bad(
        "candidate_negative",
        {"sampled_values": given(ids=(1, 7, 8, 9, -3))},
        DATA,
        r"sampled_candidates must be class ids in \[0, 20\)",
    ),
    Bad(
        "labels_rank_1",
        {"labels": np.array([1, 2, 3])},
        CALL,
        r"labels must be \[batch, num_true\] = \[batch, 1\]; got shape \(3,\)",
    ),
    Bad(
        "labels_rank_3",
        {"labels": np.ones([3, 1, 1], int)},
        CALL,
        r"labels must be \[batch, num_true\] = \[batch, 1\]; got shape \(3, 1, 1\)",
    ),
    Bad(
        "labels_are_strings",
        {"labels": np.array([["a"], ["b"], ["c"]])},
        CALL,
        "labels must be class ids, not string",
    ),
    Bad(
        "num_true_too_large",
        {"num_true": 2},
        CALL,
        r"labels must be \[batch, num_true\] = \[batch, 2\]; got shape \(3, 1\)",
    ),
    Bad(
        "num_true_too_small",
        {"labels": np.ones([3, 2], int)},
        CALL,
        r"labels must be \[batch, num_true\] = \[batch, 1\]; got shape \(3, 2\)",
    ),
    Bad("num_true_zero", {"num_true": 0}, CALL, "num_true is 0; it must be at least 1"),
    Bad(
        "num_sampled_zero",
        {"num_sampled": 0},
        CALL,
        "num_sampled is 0; it must be at least 1",
    ),
    Bad(
        "num_sampled_above_num_classes",
        {"num_sampled": 21},
        CALL,
        "num_sampled is 21, but there are 20 classes to draw from without replacement",
    ),
    Bad(
        "num_sampled_fraction",
        {"num_sampled": 5.0},
        CALL,
        "num_sampled must be an int, not 5.0",
    ),
    Bad(
        "num_classes_above_rows",
        {"num_classes": 50},
        CALL,
        "num_classes is 50, but weights have 20 rows: every class needs one",
    ),
    Bad(
        "num_classes_above_rows_own_candidates",
        {"num_classes": 50, "sampled_values": given()},
        CALL,
        "num_classes is 50, but weights have 20 rows: every class needs one",
    ),
    Bad(
        "num_classes_missing",
        {"num_classes": None},
        CALL,
        "num_classes must be an int that is known when the call is made, not None",
    ),
    Bad(
        "dim_differs",
        {"inputs": np.zeros([BATCH, DIM - 1], np.float32)},
        CALL,
        "inputs have dim 3, weights dim 4: they must agree",
    ),
    Bad(
        "inputs_rank_3",
        {"inputs": np.zeros([BATCH, 2, DIM], np.float32)},
        CALL,
        r"inputs must be \[batch, dim\]; got shape \(3, 2, 4\): reshape them",
    ),
    Bad(
        "inputs_are_ints",
        {"inputs": np.zeros([BATCH, DIM], np.int32)},
        CALL,
        "inputs must be of a floating dtype, not int32: cast them",
    ),
    Bad(
        "batch_differs",
        {"inputs": np.zeros([BATCH + 1, DIM], np.float32)},
        CALL,
        "labels have a batch of 3, inputs a batch of 4: pass one row of labels",
    ),
    Bad(
        "biases_too_short",
        {"biases": np.zeros([CLASSES - 1], np.float32)},
        CALL,
        "num_classes is 20, but biases have 19 rows: every class needs one",
    ),
    Bad(
        "biases_rank_2",
        {"biases": np.zeros([CLASSES, 1], np.float32)},
        CALL,
        r"biases must be \[num_classes\], .* got shape \(20, 1\)",
    ),
    Bad(
        "weights_rank_1",
        {"weights": np.zeros([CLASSES], np.float32)},
        CALL,
        r"weights must be \[num_classes, dim\], .* got shape \(20,\)",
    ),
    Bad(
        "weights_are_strings",
        {"weights": np.full((CLASSES, DIM), "a")},
        CALL,
        "weights must be real numbers of one dtype; got string",
    ),
    Bad(
        "weights_missing", {"weights": None}, CALL, "weights are missing: pass a table"
    ),
    Bad("no_shards", {"weights": []}, CALL, "weights are missing: pass a table"),
    Bad(
        "shards_of_two_dims",
        {"weights": [*cut(10), *cut(10, shape=(3,))]},
        CALL,
        r"shards of weights must agree in dim; got shapes \[\(10, 4\), \(10, 3\)\]",
    ),
    Bad(
        "shards_of_two_dtypes",
        {"weights": [*cut(10), cut(10)[0].astype(np.float64)]},
        CALL,
        "weights must be real numbers of one dtype; got float32, float64",
    ),
    Bad(
        "shards_too_few_rows",
        {"weights": cut(9, 9)},
        CALL,
        "num_classes is 20, but weights have 18 rows: every class needs one",
    ),
    Bad(
        "shards_not_cut_as_div",
        {"weights": cut(12, 8), "partition_strategy": "div"},
        CALL,
        r'shards of \[12, 8\] rows, .*partition_strategy="div" 20 .* need \[10, 10\]',
    ),
    Bad(
        "shards_not_dealt_as_mod",
        {"weights": cut(12, 8), "partition_strategy": "mod"},
        CALL,
        r'shards of \[12, 8\] rows, .*partition_strategy="mod" 20 .* need \[10, 10\]',
    ),
    Bad(
        "bias_shards_not_cut_as_div",
        {"biases": cut(4, 16, shape=()), "partition_strategy": "div"},
        CALL,
        r"biases come in shards of \[4, 16\] rows, .* need \[10, 10\]",
    ),
    Bad(
        "unknown_strategy",
        {"partition_strategy": "block"},
        CALL,
        'partition_strategy is \'block\'; it must be "mod" or "div"',
    ),
    Bad(
        "two_sampled_values",
        {"sampled_values": given()[:2]},
        CALL,
        "sampled_values must be the three tensors .* that a candidate sampler returns",
    ),
    Bad(
        "candidates_rank_2",
        {"sampled_values": (given()[0][np.newaxis], *given()[1:])},
        CALL,
        r"sampled_candidates must be \[num_sampled\], .* got shape \(1, 5\)",
    ),
    Bad(
        "candidates_of_another_number",
        {"sampled_values": given(ids=(1, 2, 3)), "remove_accidental_hits": True},
        CALL,
        "sampled_values hold 3 candidates, but num_sampled is 5: they must agree",
    ),
    Bad(
        "true_counts_do_not_fit",
        {"sampled_values": (given()[0], np.ones([BATCH, 2], np.float32), given()[2])},
        CALL,
        r"true_expected_count of shape \(\d, 2\) does not broadcast to \(3, 1\)",
    ),
    Bad(
        "true_counts_one_rank_short",
        {"sampled_values": (given()[0], np.ones([BATCH], np.float32), given()[2])},
        CALL,
        r"true_expected_count of shape \(\d,\) does not broadcast to \(3, 1\)",
    ),
    Bad(
        "sampled_counts_do_not_fit",
        {"sampled_values": (*given()[:2], np.ones([4], np.float32))},
        CALL,
        r"sampled_expected_count of shape \(4,\) does not broadcast to \(3, 5\)",
    ),
]

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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_bad_input_is_refused_in_one_sentence(bad, loss, mode):
    error, says = bad.error, bad.says
    if mode is call_in_function_of_unknown_batch:
        says = says.replace(r"\(3,", r"\(None,")
        if bad.name == "batch_differs":
            error, says = DATA, "labels have a batch of 3, inputs a batch of 4:"
    with pytest.raises(error) as raised:
        mode(loss, right() | bad.changes)
    assert re.search(says, str(raised.value).replace("\n", " ")), raised.value


def test_the_right_call_succeeds():
    for loss in LOSSES.values():
        for mode in MODES:
            assert mode(loss, right()).shape == [BATCH]
            assert mode(loss, right() | {"sampled_values": given()}).shape == [BATCH]


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_call_draws_nothing(mode):
    loss = LOSSES["softmax"]
    tf.random.set_seed(7)
    undisturbed = [mode(loss, right() | {"seed": 3}).numpy() for _ in range(2)]
    tf.random.set_seed(7)
    disturbed = [mode(loss, right() | {"seed": 3}).numpy()]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        mode(loss, right() | {"seed": 3, "labels": LABEL_20})
    disturbed.append(mode(loss, right() | {"seed": 3}).numpy())
    np.testing.assert_array_equal(disturbed, undisturbed)


def test_a_refused_run_of_a_graph_draws_nothing():
    """The draw of a graph waits for the checks of its labels."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.int64),
            tf.TensorSpec([None, DIM]),
        ]
    )
    def step(labels, inputs):
        return LOSSES["softmax"](
            **(right() | {"labels": labels, "inputs": inputs, "seed": 3})
        )

    good, inputs = right()["labels"], right()["inputs"]
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
