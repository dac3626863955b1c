"""Accidental hits: TensorFlow's off XLA, of static shapes under it."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import MODES
from tfsampled._core.candidate_sampling.accidental_hits import (
    compute_accidental_hits,
    find_accidental_hits,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("batch", "num_true", "num_sampled", "num_classes"),
    [(1, 1, 1, 1), (5, 3, 7, 6), (40, 2, 64, 50), (7, 1, 33, 10**12)],
)
def test_last_copies_are_masked(mode, batch, num_true, num_sampled, num_classes):
    rng = np.random.default_rng(batch)
    sampled = rng.integers(0, num_classes, num_sampled)
    labels = rng.integers(0, num_classes, (batch, num_true))
    labels[0, 0] = sampled[-1]
    last_copy = {class_id: i for i, class_id in enumerate(sampled.tolist())}
    expected = np.zeros((batch, num_sampled), "float32")
    for row, classes in enumerate(labels.tolist()):
        for class_id in classes:
            if class_id in last_copy:
                expected[row, last_copy[class_id]] = -np.inf

    def mask(labels, sampled):
        hits = find_accidental_hits(labels, sampled)
        return hits.mask(tf.zeros([batch, num_sampled]))

    actual = MODES[mode](mask)(tf.constant(labels), tf.constant(sampled))
    np.testing.assert_array_equal(actual, expected)


def test_labels_outside_the_sampled_range_are_no_hits():
    labels = tf.constant([[-1], [0], [9], [2**62]], tf.int64)
    sampled = tf.constant([3, 5, 8], tf.int64)

    @tf.function(jit_compile=True)
    def mask():
        return find_accidental_hits(labels, sampled).mask(tf.zeros([4, 3]))

    np.testing.assert_array_equal(mask(), np.zeros([4, 3]))


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_hits_are_tensorflows(mode):
    labels, sampled = [[1, 2], [3, 1], [2, 2]], [2, 9, 1, 2]
    ours = MODES[mode](lambda: compute_accidental_hits(labels, sampled, 2))()
    for mine, theirs in zip(
        ours, tf.nn.compute_accidental_hits(labels, sampled, 2), strict=True
    ):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("write", ["sparse_to_dense", "scatter"])
def test_entries_without_effect_change_no_logit(write):
    # Class 2 stands in the first and in the last place: padding must hit neither.
    labels = tf.constant([[1, 7], [3, 4], [2, 5]], tf.int64)
    sampled = tf.constant([2, 9, 1, 2], tf.int64)

    def dense(hits):
        places = tf.stack([tf.cast(hits[0], tf.int64), hits[1]], axis=1)
        if write == "scatter":
            return tf.tensor_scatter_nd_add(tf.zeros([3, 4]), places, hits[2])
        return tf.raw_ops.SparseToDense(
            sparse_indices=places,
            output_shape=tf.constant([3, 4], tf.int64),
            sparse_values=hits[2],
            default_value=0.0,
            validate_indices=False,
        )

    @tf.function(jit_compile=True)
    def compiled():
        hits = compute_accidental_hits(labels, sampled, 2)
        assert [x.shape.as_list() for x in hits] == [[6], [6], [6]]
        return dense(hits)

    expected = dense(tf.nn.compute_accidental_hits(labels, sampled, 2)).numpy()
    assert np.count_nonzero(expected) == 2
    np.testing.assert_array_equal(compiled().numpy(), expected)


@pytest.mark.parametrize(
    ("labels", "sampled", "num_true", "message"),
    [
        (
            [[1, 2]],
            [1],
            1,
            r"`true_classes` must have the shape \[batch, num_true\]. Received: ",
        ),
        ([1, 2], [1], 1, r"true_classes.shape=\(2,\), num_true=1"),
        ([[1]], [[1]], 1, r"sampled_candidates.shape=\(1, 1\)"),
        (
            [[1]],
            [1],
            0,
            "`num_true` must be an int of at least 1. Received: num_true=0",
        ),
    ],
)
def test_invalid_arguments_raise(labels, sampled, num_true, message):
    with pytest.raises(ValueError, match=message):
        compute_accidental_hits(labels, sampled, num_true)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_no_sampled_class(jit_compile):
    hits = tf.function(compute_accidental_hits, jit_compile=jit_compile)
    rows, columns, weights = hits(
        tf.zeros([2, 1], tf.int64), tf.zeros([0], tf.int64), 1
    )
    # Under XLA every label has an entry, here without effect and past the end.
    assert rows.shape == columns.shape == ([2] if jit_compile else [0])
    assert not np.any(weights)
    assert not np.any(columns)
