"""Knowing that a trace is for XLA, and variables made in the midst of one."""

import tensorflow as tf

from tfsampled._core import xla


def test_the_private_import_of_tensorflow():
    # If this fails, TensorFlow moved the name: the fallback is in use. Find the name.
    assert issubclass(xla._ResourceVariable, tf.Variable)


def _answers(ask, jit_compile):
    """What `ask` says in a function, its loops, branches and inner functions."""
    heard = []

    def note():
        heard.append(ask())
        return tf.constant(0)

    @tf.function(jit_compile=jit_compile)
    def outer(x):
        note()
        tf.while_loop(lambda i: i < 2, lambda i: i + 1 + note(), [x])
        tf.cond(x > 1, note, lambda: tf.constant(1))
        tf.function(note)()
        return x

    outer(tf.constant(0))
    assert len(heard) >= 4
    return set(heard)


def test_compiled_functions_and_all_inside_them():
    assert _answers(xla.tracing_for_xla, jit_compile=True) == {True}


def test_plain_functions_and_eager_execution():
    assert _answers(xla.tracing_for_xla, jit_compile=None) == {False}
    assert xla.tracing_for_xla() is False


def test_a_size_is_looked_for_once_in_each_tensor():
    @tf.function(input_signature=[tf.TensorSpec([None])])
    def step(x):
        for _ in range(60):
            x = tf.where(x > 0, x, x)  # 3 ** 60 paths
        assert not xla.size_depends_on_data(x)
        assert xla.size_depends_on_data(tf.unique(x).y)
        return x

    step.get_concrete_function()


def test_variables_can_be_made_in_every_trace_of_a_function():
    made: list[tf.Variable] = []

    @tf.function
    def grow(x):
        made.append(xla.variable_outside(len(made), tf.int64, "made"))
        return made[-1].assign_add(1) + tf.cast(tf.size(x), tf.int64)

    assert [int(grow(tf.zeros([n]))) for n in (1, 1, 2)] == [2, 3, 4]
    assert len(made) == 2
    assert not made[0].trainable


def test_beside_variables_that_a_function_makes_in_its_first_trace():
    """Such a function is traced twice; an optimizer's slots are made so in `fit`."""
    own: list[tf.Variable] = []

    @tf.function(jit_compile=True)
    def step(x):
        if not own:
            own.append(tf.Variable(10))
        position = xla.variable_outside(0, tf.int32, "position")
        kept.append(position)
        return own[0] + position.assign_add(1) + tf.size(x)

    kept: list[tf.Variable] = []
    assert [int(step(tf.zeros([size]))) for size in (1, 1, 2)] == [12, 13, 13]
