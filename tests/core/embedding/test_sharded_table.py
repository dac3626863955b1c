"""Rows of a table are the same however it is cut, read from whatever holds it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import cases, split_shards
from tfsampled._core.embedding import partition
from tfsampled._core.embedding.sharded_table import Table


@given(
    num_rows=st.integers(1, 40),
    count=st.integers(1, 6),
    strategy=st.sampled_from(partition.STRATEGIES),
)
def test_locate_finds_every_row_of_a_cut_table(num_rows, count, strategy):
    shards = split_shards(np.arange(num_rows), count, strategy)
    ids = tf.range(num_rows, dtype=tf.int64)
    shard, row = partition.locate(ids, count, num_rows, strategy)
    found = [shards[s][r] for s, r in zip(shard.numpy(), row.numpy(), strict=True)]
    np.testing.assert_array_equal(found, np.arange(num_rows))
    sizes = [len(shard) for shard in shards]
    assert partition.rows_needed(num_rows, sizes, strategy) == sizes


@given(
    num_classes=st.integers(1, 30),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    strategy=st.sampled_from(partition.STRATEGIES),
)
def test_rows_needed_is_the_last_row_that_locate_asks_for(num_classes, sizes, strategy):
    if sum(sizes) < num_classes:
        return
    ids = tf.range(num_classes, dtype=tf.int64)
    shard, row = partition.locate(ids, len(sizes), sum(sizes), strategy)
    asked = [
        1 + max(row.numpy()[shard.numpy() == index], default=-1)
        for index in range(len(sizes))
    ]
    assert partition.rows_needed(num_classes, sizes, strategy) == asked


@pytest.mark.parametrize(
    ("count", "strategy", "jit_compile"),
    cases(
        [1, 2, 3, 5],
        partition.STRATEGIES,
        [False, True],
        quick=lambda count, strategy, jit_compile: (
            count in (1, 3) and jit_compile == (strategy == "mod")
        ),
    ),
)
def test_rows_and_their_gradient(count, strategy, jit_compile):
    whole = np.arange(22.0, dtype=np.float32).reshape(11, 2)
    variables = [tf.Variable(piece) for piece in split_shards(whole, count, strategy)]
    ids = tf.constant([3, 10, 3, 0], tf.int64)

    @tf.function(jit_compile=jit_compile)
    def rows_and_gradients():
        with tf.GradientTape() as tape:
            rows = Table.from_params(variables, strategy).rows(ids)
            loss = tf.reduce_sum(rows * [[1.0], [2.0], [4.0], [8.0]])
        return rows, tape.gradient(loss, variables)

    rows, gradients = rows_and_gradients()
    np.testing.assert_array_equal(rows, whole[ids.numpy()])
    assert all(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
    if not jit_compile:  # and no row beside those asked for
        assert sum(gradient.indices.shape[0] for gradient in gradients) == len(ids)
    expected = np.zeros_like(whole)
    np.add.at(expected, ids.numpy(), [[1.0], [2.0], [4.0], [8.0]])
    for gradient, piece in zip(
        gradients, split_shards(expected, count, strategy), strict=True
    ):
        np.testing.assert_array_equal(tf.convert_to_tensor(gradient), piece)


def test_a_keras_variable_is_read_sparsely():
    variable = keras.Variable(np.ones([5, 2], np.float32))
    assert Table.from_params(variable, "div").shards == (variable.value,)
    with tf.GradientTape() as tape:
        rows = Table.from_params(variable, "div").rows(tf.constant([1, 1], tf.int64))
    assert isinstance(tape.gradient(rows, variable.value), tf.IndexedSlices)


def test_a_sharded_variable_is_its_shards():
    sharded = tf.__internal__.distribute.ShardedVariable(
        [tf.Variable(tf.ones([3, 2])), tf.Variable(tf.zeros([2, 2]))]
    )
    for params in (sharded, [sharded]):
        table = Table.from_params(params, "mod")  # not read in eager execution
        assert table.sizes == [3, 2]
        rows = table.rows(tf.constant([2, 3], tf.int64))
        np.testing.assert_array_equal(rows, [[1, 1], [0, 0]])


def test_a_partitioned_variable_is_its_parts():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        partitioned = tf.compat.v1.get_variable(
            "table",
            shape=[7],
            initializer=lambda shape, dtype, partition_info: tf.range(
                partition_info.var_offset[0], partition_info.var_offset[0] + shape[0]
            ),
            dtype=tf.int32,
            partitioner=tf.compat.v1.fixed_size_partitioner(3),
        )
        table = Table.from_params(partitioned, "div")
        assert table.sizes == [3, 2, 2]
        ids = tf.constant([6, 0, 3], tf.int64)
        in_list = Table.from_params([partitioned], "mod")  # not read in TensorFlow
        session.run(tf.compat.v1.global_variables_initializer())
        for rows in (table.rows(ids), in_list.rows(ids)):
            np.testing.assert_array_equal(session.run(rows), [6, 0, 3])


def test_rows_unknown_to_the_graph_are_counted_when_it_runs():
    @tf.function(input_signature=[tf.TensorSpec([None, 2])] * 2)
    def rows(first, second):
        table = Table.from_params([first, second], "div")
        assert table.static_rows is None
        return table.num_rows(), table.rows(tf.constant([2, 3, 0], tf.int64))

    count, found = rows(np.full([3, 2], 1.0), np.full([2, 2], 2.0))
    assert count == 5
    np.testing.assert_array_equal(found[:, 0], [1, 2, 1])
