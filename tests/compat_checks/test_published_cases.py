"""What TensorFlow's published tests of the two losses cover, written anew.

Five classes, three examples, one to four labels each, the candidates 1, 0, 2, 3 with
expected counts of a half: small enough that every label can be an accidental hit. The
published tests look at TensorFlow's private logits; these look at the losses, against
float64. `python -m compat_checks.published` runs the published tests themselves.
"""

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import logsumexp64

CLASSES, DIM, BATCH = 5, 10, 3
SAMPLED = [1, 0, 2, 3]
COUNT = 0.5
SHARDS = 3

NUM_TRUE = pytest.mark.parametrize("num_true", [1, 2, 3, 4])
HITS = pytest.mark.parametrize("remove_hits", [False, True], ids=["kept", "removed"])
LOSSES = pytest.mark.parametrize("loss", ["nce_loss", "sampled_softmax_loss"])


class Case:
    """One table and one batch, in float32, and the same numbers in float64."""

    def __init__(self, num_true, seed=0):
        draw = np.random.default_rng(seed)
        self.num_true = num_true
        self.weights = draw.standard_normal([CLASSES, DIM]).astype(np.float32)
        self.biases = draw.standard_normal(CLASSES).astype(np.float32)
        self.inputs = draw.standard_normal([BATCH, DIM]).astype(np.float32)
        self.labels = draw.integers(0, CLASSES, [BATCH, num_true])

    def values(self, count=COUNT, true_columns=1):
        """Candidates and counts as a sampler gives them; counts may be one column."""
        true = np.full([BATCH, true_columns], count, np.float32)
        return SAMPLED, true, np.full([len(SAMPLED)], count, np.float32)

    def run(self, loss, functions=tfsampled.nn, **changes):
        arguments = {
            "weights": self.weights,
            "biases": self.biases,
            "labels": self.labels,
            "inputs": self.inputs,
            "num_sampled": len(SAMPLED),
            "num_classes": CLASSES,
            "num_true": self.num_true,
            "sampled_values": self.values(),
            "remove_accidental_hits": False,
        }
        return getattr(functions, loss)(**(arguments | changes))

    def truth(self, loss, remove_hits=False, count=COUNT):
        """`[batch]` in float64, example by example."""
        wide = [a.astype(np.float64) for a in (self.weights, self.biases, self.inputs)]
        weights, biases, inputs = wide
        losses = []
        for x, own in zip(inputs, self.labels, strict=True):
            kept = [c for c in SAMPLED if not (remove_hits and c in own)]
            true, noise = (
                weights[ids] @ x + biases[ids] - np.log(count) for ids in (own, kept)
            )
            if loss == "nce_loss":
                positive = np.logaddexp(0, true) - true / self.num_true
                losses.append(positive.sum() + np.logaddexp(0, noise).sum())
            else:
                every = np.concatenate([true, noise])
                losses.append(logsumexp64(every) - true.mean())
        return np.array(losses)


def within_tensorflows_error(ours, theirs, truth, ulps=4):
    """No further from the truth than TensorFlow and a few units in the last place."""
    allowed = np.abs(theirs - truth).max() + ulps * np.spacing(
        np.abs(truth).max().astype(np.float32)
    )
    assert np.abs(ours - truth).max() <= allowed


def contiguous_shards(rows, number=SHARDS):
    """The shards of `partition_strategy="div"`: contiguous, the first ones longer."""
    return [tf.constant(part) for part in np.array_split(rows, number)]


@LOSSES
@NUM_TRUE
def test_one_loss_per_example(loss, num_true):
    result = Case(num_true).run(loss)
    assert result.shape == [BATCH]
    assert result.dtype == tf.float32


@LOSSES
@NUM_TRUE
@HITS
def test_value(loss, num_true, remove_hits):
    case = Case(num_true)
    options = {"remove_accidental_hits": remove_hits}
    ours, theirs = case.run(loss, **options), case.run(loss, tf.nn, **options)
    within_tensorflows_error(ours, theirs, case.truth(loss, remove_hits))


@LOSSES
@NUM_TRUE
def test_counts_of_one_correct_nothing(loss, num_true):
    case = Case(num_true)
    options = {"sampled_values": case.values(count=1.0)}
    ours, theirs = case.run(loss, **options), case.run(loss, tf.nn, **options)
    within_tensorflows_error(ours, theirs, case.truth(loss, count=1.0))


@LOSSES
@NUM_TRUE
def test_one_column_of_counts_serves_all_labels(loss, num_true):
    case = Case(num_true)
    wide = case.run(loss, sampled_values=case.values(true_columns=num_true))
    assert np.array_equal(case.run(loss), wide)


@LOSSES
@NUM_TRUE
def test_a_removed_hit_leaves_the_loss_as_if_it_were_not_sampled(loss, num_true):
    """A bias of 50 on a sampled label would swamp a loss that still holds the hit."""
    case = Case(num_true)
    case.labels[:] = SAMPLED[0]
    case.biases[SAMPLED[0]] = 50.0
    masked = case.run(loss, remove_accidental_hits=True)
    ids, true, counts = case.values()
    without = case.run(
        loss, num_sampled=len(ids) - 1, sampled_values=(ids[1:], true, counts[1:])
    )
    np.testing.assert_array_max_ulp(masked.numpy(), without.numpy(), maxulp=4)
    kept = case.run(loss)
    assert np.all(kept - masked > 0.1)


@LOSSES
@NUM_TRUE
@HITS
def test_shards_are_one_table(loss, num_true, remove_hits):
    case = Case(num_true)
    options = {"remove_accidental_hits": remove_hits}
    sharded = case.run(
        loss,
        weights=contiguous_shards(case.weights),
        biases=contiguous_shards(case.biases),
        **options,
    )
    whole = case.run(loss, **options)
    np.testing.assert_array_max_ulp(sharded.numpy(), whole.numpy(), maxulp=4)


@LOSSES
@pytest.mark.parametrize("strategy", ["mod", "div"])
def test_shards_of_version_1(loss, strategy):
    case = Case(num_true=2)
    cut = {"mod": lambda rows: [tf.constant(rows[i::SHARDS]) for i in range(SHARDS)]}
    shards = cut.get(strategy, contiguous_shards)
    options = {
        "weights": shards(case.weights),
        "biases": shards(case.biases),
        "partition_strategy": strategy,
    }
    ours = case.run(loss, tfsampled.compat.v1.nn, **options)
    theirs = case.run(loss, tf.compat.v1.nn, **options)
    within_tensorflows_error(ours, theirs, case.truth(loss))


@LOSSES
def test_bfloat16_with_labels_in_bfloat16(loss):
    """Also what no one would write, but the published test does: float labels."""
    case = Case(num_true=1)
    narrow = {
        name: tf.cast(getattr(case, name), tf.bfloat16)
        for name in ("weights", "biases", "inputs", "labels")
    }
    ids, true, counts = case.values()
    narrow["sampled_values"] = (
        ids,
        tf.cast(true, tf.bfloat16),
        tf.cast(counts, tf.bfloat16),
    )
    result = case.run(loss, **narrow)
    assert result.dtype == tf.bfloat16
    for name in ("weights", "biases", "inputs"):  # the truth of what was passed in
        setattr(case, name, tf.cast(narrow[name], tf.float32).numpy())
    truth = case.truth(loss)
    theirs = tf.cast(case.run(loss, tf.nn, **narrow), tf.float64)
    one_ulp = 2.0**-8 * np.abs(truth).max()
    error = np.abs(tf.cast(result, tf.float64) - truth).max()
    assert error <= one_ulp
    assert error <= np.abs(theirs - truth).max() + one_ulp
