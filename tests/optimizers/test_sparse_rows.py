"""Repeated rows summed: the same in eager execution, in a graph, and under XLA."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import slow
from tfsampled.optimizers import _sparse_rows as rows

NUM_ROWS, COUNT = 2**40, 24  # no such table is made


class Table:
    """All that is asked of a table whose rows are summed."""

    shape, dtype, name = (NUM_ROWS, 2), tf.float64, "table"


def summed(ids, values):
    sums = rows.sum_duplicates(tf.IndexedSlices(values, ids), Table)
    return sums.indices, sums.values


MODES = {
    "eager": summed,
    "graph": tf.function(summed),
    "jit": tf.function(summed, jit_compile=True),
}
# Few ids, many, and such as differ in their high words only.
IDS = st.one_of(
    st.integers(0, 3),
    st.integers(0, NUM_ROWS - 1),
    st.integers(0, 255).map(lambda word: word << 32),
)


@pytest.mark.parametrize("mode", ["eager", slow("graph"), slow("jit")])
@hypothesis.given(
    ids=arrays.arrays(np.int64, COUNT, elements=IDS), seed=st.integers(0, 2**32 - 1)
)
def test_duplicates_are_summed(mode, ids, seed):
    values = np.random.default_rng(seed).normal(size=(COUNT, 2))
    found, sums = (x.numpy() for x in MODES[mode](tf.constant(ids), values))
    kept = found < NUM_ROWS
    expected, where = np.unique(ids, return_inverse=True)
    assert sorted(found[kept]) == expected.tolist()
    totals = np.zeros([len(expected), 2])
    np.add.at(totals, where, values)
    order = np.argsort(found[kept])
    np.testing.assert_allclose(sums[kept][order], totals, rtol=1e-12, atol=1e-14)
    assert not sums[~kept].any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_no_rows_at_all(mode, dtype):
    found, sums = MODES[mode](tf.zeros([0], dtype), tf.zeros([0, 2]))
    assert found.dtype == dtype
    assert (found.shape, sums.shape) == ((0,), (0, 2))
