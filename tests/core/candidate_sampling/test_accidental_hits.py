"""Accidental hits in static shapes."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from tfsampled._core.candidate_sampling import static_hits
from tfsampled._core.candidate_sampling.accidental_hits import compute_accidental_hits

MODES = {
    "eager": lambda f: f,
    "function": tf.function,
    "jit": lambda f: tf.function(f, jit_compile=True),
}


def _last_copies(labels, sampled):
    place = {class_id: i for i, class_id in enumerate(sampled.tolist())}
    return [[place.get(label, -1) for label in row] for row in labels.tolist()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("batch", "num_true", "num_sampled", "classes"),
    [(1, 1, 1, 1), (5, 3, 7, 6), (40, 2, 64, 50), (7, 1, 33, 10**12)],
)
def test_positions_are_those_of_the_last_copies(
    mode, batch, num_true, num_sampled, classes
):
    rng = np.random.default_rng(batch)
    sampled = rng.integers(0, classes, num_sampled)
    labels = rng.integers(0, classes, (batch, num_true))
    labels[0, 0] = sampled[-1]
    place = MODES[mode](static_hits.positions)(
        tf.constant(labels), tf.constant(sampled)
    )
    assert place.dtype == tf.int32
    np.testing.assert_array_equal(place.numpy(), _last_copies(labels, sampled))


def test_labels_outside_every_sampled_id_are_nowhere():
    labels = tf.constant([[-1], [0], [9], [2**62]], tf.int64)
    place = static_hits.positions(labels, tf.constant([3, 5, 8], tf.int64))
    np.testing.assert_array_equal(place.numpy(), [[-1]] * 4)


def test_signature_is_tensorflows():
    ours = inspect.signature(compute_accidental_hits)
    assert ours == inspect.signature(tf.nn.compute_accidental_hits)


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_off_xla_the_triples_are_tensorflows(mode):
    labels, sampled = [[1, 2], [3, 1], [2, 2]], [2, 9, 1, 2]
    ours = MODES[mode](lambda: compute_accidental_hits(labels, sampled, 2))()
    for mine, theirs in zip(
        ours, tf.nn.compute_accidental_hits(labels, sampled, 2), strict=True
    ):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("write", ["sparse_to_dense", "scatter"])
def test_under_xla_the_padding_changes_no_logit(write):
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
        ([[1, 2]], [1], 1, r"true_classes has shape \(1, 2\); it must be \[batch, num"),
        ([1, 2], [1], 1, r"true_classes has shape \(2,\)"),
        ([[1]], [[1]], 1, r"sampled_candidates has shape \(1, 1\); it must be \[num_s"),
        ([[1]], [1], 0, "num_true is 0; it must be at least 1"),
    ],
)
def test_bad_input(labels, sampled, num_true, message):
    with pytest.raises(ValueError, match=message):
        compute_accidental_hits(labels, sampled, num_true)
