"""The losses under jit_compile=True, where TensorFlow's cannot run."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import cases, jit_or_not, slow

CLASSES, DIM, BATCH, SAMPLED = 60, 5, 4, 16
LOSSES = ["sampled_softmax_loss", "nce_loss"]


def example(dtype=tf.float32, num_true=1, batch=BATCH):
    weights = tf.Variable(
        tf.cast(tf.random.stateless_normal([CLASSES, DIM], [1, 2]), dtype)
    )
    biases = tf.Variable(tf.cast(tf.random.stateless_normal([CLASSES], [3, 4]), dtype))
    inputs = tf.cast(tf.random.stateless_normal([batch, DIM], [5, 6]), dtype)
    labels = tf.random.stateless_uniform(
        [batch, num_true], [7, 8], maxval=10, dtype=tf.int64
    )
    return weights, biases, labels, inputs


def step(loss, weights, biases, jit_compile, **options):
    """Loss and every gradient, as one function of labels and inputs."""

    @tf.function(jit_compile=jit_compile)
    def run(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = loss(weights, biases, labels, inputs, SAMPLED, CLASSES, **options)
        gradients = tape.gradient(value, [weights, biases, inputs])
        assert all(isinstance(g, tf.IndexedSlices) for g in gradients[:2])
        return value, *(tf.convert_to_tensor(g) for g in gradients)

    return run


def assert_close(ours, theirs, ulps=16):
    """Equal to a few ulp of the largest element: two orders of summation apart."""
    for mine, other in zip(ours, theirs, strict=True):
        eps = {2: 2.0**-7, 4: 2.0**-23, 8: 2.0**-52}[mine.dtype.size]
        mine, other = (tf.cast(x, tf.float64).numpy() for x in (mine, other))
        scale = max(np.abs(other).max(), 1.0)
        np.testing.assert_allclose(mine, other, rtol=0, atol=ulps * eps * scale)


@pytest.mark.parametrize(
    ("loss", "dtype", "remove_hits"),
    [
        slow("sampled_softmax_loss", tf.float16, True),
        slow("sampled_softmax_loss", tf.bfloat16, True),
        ("sampled_softmax_loss", tf.float32, True),
        slow("sampled_softmax_loss", tf.float64, True),
        slow("sampled_softmax_loss", tf.float32, False),
        slow("nce_loss", tf.bfloat16, True),
        slow("nce_loss", tf.float32, False),
    ],
)
def test_three_calls_with_the_default_sampler(loss, dtype, remove_hits):
    """The candidates of TensorFlow's three calls, hence its losses and gradients."""
    weights, biases, labels, inputs = example(dtype, num_true=2)
    ours = step(
        getattr(tfsampled.nn, loss),
        weights,
        biases,
        True,
        num_true=2,
        remove_accidental_hits=remove_hits,
    )
    wide = [tf.Variable(tf.cast(v, tf.float32)) for v in (weights, biases)]
    theirs = step(
        getattr(tf.nn, loss),
        wide[0],
        wide[1],
        False,
        num_true=2,
        remove_accidental_hits=remove_hits,
    )
    results = []
    for function, x in ((ours, inputs), (theirs, tf.cast(inputs, tf.float32))):
        tf.random.set_seed(11)
        results.append([function(labels, x) for _ in range(3)])
    if dtype == tf.float64:  # TensorFlow answers in float32 only
        results[0] = [[tf.cast(a, tf.float32) for a in call] for call in results[0]]
    for mine, other in zip(*results, strict=True):
        assert_close(mine, other)
    assert not np.array_equal(results[1][0][0], results[1][1][0])


@pytest.mark.parametrize(
    ("loss", "unique", "remove_hits"),
    cases(
        LOSSES,
        [False, True],
        [False, True],
        quick=lambda loss, unique, remove_hits: (
            unique and remove_hits and loss == "sampled_softmax_loss"
        ),
    ),
)
def test_own_candidates(loss, unique, remove_hits):
    weights, biases, labels, inputs = example()
    values = tf.random.log_uniform_candidate_sampler(
        labels, 1, SAMPLED, unique, CLASSES, seed=3
    )
    options = {"sampled_values": values, "remove_accidental_hits": remove_hits}
    ours = step(getattr(tfsampled.nn, loss), weights, biases, True, **options)
    theirs = step(getattr(tf.nn, loss), weights, biases, False, **options)
    assert_close(ours(labels, inputs), theirs(labels, inputs))


@pytest.mark.slow
def test_a_second_loss_draws_what_tensorflows_draws():
    """The first takes two seeds: of its draw, and of its search for hits."""
    weights, biases, labels, inputs = example()

    def losses(module):
        function = module.nn.sampled_softmax_loss
        arguments = weights, biases, labels, inputs, SAMPLED, CLASSES
        return [function(*arguments) for _ in range(2)]

    tf.random.set_seed(1)
    theirs = tf.function(losses)(tf)
    tf.random.set_seed(1)
    ours = tf.function(losses, jit_compile=True)(tfsampled)
    assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax_loss", slow("sampled_softmax_loss")])
def test_a_compiled_loss_in_the_tape_of_a_plain_function(name):
    """TensorFlow traces its gradient outside, and compiles it."""
    weights, biases, labels, inputs = example()
    options: dict[str, Any] = {}
    if name == "sampled_softmax_loss":
        values = tf.random.log_uniform_candidate_sampler(
            labels, 1, SAMPLED, True, CLASSES, seed=3
        )
        sizes = {"num_sampled": SAMPLED, "num_classes": CLASSES}
        options = {"sampled_values": values, **sizes}

    def loss(labels, inputs):
        function = getattr(tfsampled.nn, name)
        return tf.reduce_sum(function(weights, biases, labels, inputs, **options))

    compiled = tf.function(loss, jit_compile=True, reduce_retracing=True)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], labels.dtype),
            tf.TensorSpec([None, inputs.shape[1]]),
        ]
    )
    def gradient(labels, inputs):
        with tf.GradientTape() as tape:
            value = compiled(labels, inputs)
        return tf.convert_to_tensor(tape.gradient(value, weights))

    with tf.GradientTape() as tape:
        value = loss(labels, inputs)
    expected = tf.convert_to_tensor(tape.gradient(value, weights))
    np.testing.assert_allclose(gradient(labels, inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["mod", slow("div")])
def test_shards(strategy):
    weights, _, labels, inputs = example()
    pieces = (
        [weights[shard::3] for shard in range(3)]
        if strategy == "mod"
        else [weights[:20], weights[20:40], weights[40:]]
    )
    shards = [tf.Variable(piece) for piece in pieces]

    def loss(module, jit_compile):
        @tf.function(jit_compile=jit_compile)
        def run():
            return module.compat.v1.nn.sampled_softmax_loss(
                shards,
                tf.zeros([CLASSES]),
                labels,
                inputs,
                SAMPLED,
                CLASSES,
                partition_strategy=strategy,
                seed=5,
            )

        tf.random.set_seed(1)
        return run()

    assert_close([loss(tfsampled, True)], [loss(tf, False)])


@pytest.mark.parametrize(
    ("loss", "own", "bad"),
    [
        slow("sampled_softmax_loss", False, -1),
        slow("sampled_softmax_loss", True, CLASSES),
        slow("nce_loss", False, CLASSES),
        ("nce_loss", True, -1),
    ],
)
def test_a_label_that_is_no_class_is_nan_for_its_example_alone(loss, own, bad):
    weights, biases, labels, inputs = example()
    options: dict[str, Any] = {}
    if own:
        ids = tf.range(SAMPLED, dtype=tf.int64)
        options["sampled_values"] = (ids, tf.constant(0.3), tf.constant(0.2))
    run = step(getattr(tfsampled.nn, loss), weights, biases, True, **options)
    tf.random.set_seed(1)
    right = run(labels, inputs)[0].numpy()
    run = step(getattr(tfsampled.nn, loss), weights, biases, True, **options)
    tf.random.set_seed(1)
    wrong = run(tf.tensor_scatter_nd_update(labels, [[2, 0]], [bad]), inputs)[0].numpy()
    np.testing.assert_array_equal(np.isnan(wrong), [False, False, True, False])
    np.testing.assert_array_equal(np.delete(wrong, 2), np.delete(right, 2))


def test_a_candidate_that_is_no_class_is_nan_for_every_example():
    weights, biases, labels, inputs = example()
    values = (tf.constant([20, CLASSES], tf.int64), tf.constant(0.3), tf.constant(0.2))

    @tf.function(jit_compile=True)
    def run():
        return tfsampled.nn.nce_loss(
            weights, biases, labels, inputs, 2, CLASSES, sampled_values=values
        )

    assert np.all(np.isnan(run()))


@jit_or_not
def test_retraced_for_new_shapes_only(jit):
    weights, biases, labels, inputs = example(batch=8)
    traces = []

    @tf.function(jit_compile=jit)
    def run(labels, inputs):
        traces.append(labels.shape)
        return tfsampled.nn.sampled_softmax_loss(
            weights, biases, labels, inputs, SAMPLED, CLASSES
        )

    for batch in (8, 8, 4, 8):
        assert run(labels[:batch], inputs[:batch]).shape == [batch]
    assert [shape[0] for shape in traces] == [8, 4]


def test_a_function_traced_for_xla_runs_without_it_too():
    weights, biases, labels, inputs = example()
    values = tf.random.uniform_candidate_sampler(labels, 1, SAMPLED, True, CLASSES)

    @tf.function
    def inner():
        return tfsampled.nn.sampled_softmax_loss(
            weights, biases, labels, inputs, SAMPLED, CLASSES, sampled_values=values
        )

    outer = tf.function(lambda: inner(), jit_compile=True)
    assert_close([outer()], [inner()])


@pytest.mark.slow
def test_candidates_of_unknown_number():
    weights, biases, labels, inputs = example()

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None], tf.int64)])
    def run(ids):
        values = (ids, tf.constant(0.3), tf.constant(0.2))
        return tfsampled.nn.sampled_softmax_loss(
            weights, biases, labels, inputs, SAMPLED, CLASSES, sampled_values=values
        )

    ids = tf.range(SAMPLED, dtype=tf.int64)
    assert_close([run(ids)], [run.python_function(ids)])


def test_candidates_whose_number_depends_on_data():
    weights, biases, labels, inputs = example()
    labels = tf.constant(labels)

    def run(size):
        ids = tf.unique(tf.reshape(labels, [-1]))[0]
        counts = tf.ones_like(ids, tf.float32)
        if size is not None:
            padding = size - tf.size(ids)
            ids = tf.pad(ids, [[0, padding]])[:size]
            counts = tf.pad(counts, [[0, padding]], constant_values=np.inf)[:size]
            ids, counts = tf.ensure_shape(ids, [size]), tf.ensure_shape(counts, [size])
        values = (ids, tf.constant(0.3), counts)
        return tfsampled.nn.sampled_softmax_loss(
            weights,
            biases,
            labels,
            inputs,
            tf.size(ids),
            CLASSES,
            sampled_values=values,
        )

    with pytest.raises(ValueError, match="`sampled_candidates` must be of a number"):
        tf.function(run, jit_compile=True)(None)
    expected = run(None)
    assert_close([run(20)], [expected])
    assert_close([tf.function(run, jit_compile=True)(20)], [expected])


@pytest.mark.slow
def test_a_compiled_function_in_a_v1_graph():
    """There `==` compares tensors by identity: none may be meant otherwise."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:

        @tf.function(jit_compile=True)
        def run():
            return tfsampled.random.uniform_candidate_sampler(
                [[1]], 1, 8, True, 64, seed=3
            )

        drawn = run()
        session.run(tf.compat.v1.global_variables_initializer())
        ids = session.run(drawn)[0]
    assert len(set(ids.tolist())) == 8


@pytest.mark.slow
def test_differentiable_twice():
    weights, biases, labels, inputs = example()

    @tf.function(jit_compile=True)
    def compiled(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = tfsampled.nn.sampled_softmax_loss(
                    weights, biases, labels, x, SAMPLED, CLASSES, seed=3
                )
            slope = tf.reduce_sum(tape.gradient(value, x) ** 2)
        return outer.gradient(slope, x)

    uncompiled = tf.function(compiled.python_function)
    results = []
    for function in (compiled, uncompiled):
        tf.random.set_seed(1)
        results.append(function(inputs))
    assert_close([results[0]], [results[1]])
