"""What the losses promise beside TensorFlow's numbers (those: compat_checks)."""

import inspect
import operator
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import slow
from tfsampled._core.embedding import matmul

CLASSES, DIM, BATCH, SAMPLED = 50, 6, 4, 12
LOSSES = ["sampled_softmax_loss", "nce_loss"]
EPS = {
    tf.bfloat16: 2.0**-7,
    tf.float16: 2.0**-10,
    tf.float32: 2.0**-23,
    tf.float64: 2.0**-52,
}


def example(num_true=1, dtype=tf.float32):
    weights = tf.random.stateless_normal([CLASSES, DIM], [1, 2])
    biases = tf.random.stateless_normal([CLASSES], [3, 4])
    inputs = tf.random.stateless_normal([BATCH, DIM], [5, 6])
    labels = tf.random.stateless_uniform(
        [BATCH, num_true], [7, 8], maxval=CLASSES, dtype=tf.int64
    )
    return (
        *(tf.cast(x, dtype) for x in (weights, biases)),
        labels,
        tf.cast(inputs, dtype),
    )


MIRRORED = [
    "all_candidate_sampler",
    "compute_accidental_hits",
    "fixed_unigram_candidate_sampler",
    "learned_unigram_candidate_sampler",
    "log_uniform_candidate_sampler",
    "uniform_candidate_sampler",
    *LOSSES,
]
ROOMS = [
    f"{view}{room}"
    for view in ("", "compat.v1.", "compat.v2.", "compat.v1.compat.v2.")
    for room in ("nn", "random")
]


def test_every_path_and_signature_of_tensorflow():
    equal = 0
    for room in ROOMS:
        ours, theirs = (
            operator.attrgetter(room)(tfsampled),
            operator.attrgetter(room)(tf),
        )
        for name in MIRRORED:
            assert hasattr(ours, name) == hasattr(theirs, name), (room, name)
            if hasattr(theirs, name):
                mine = inspect.signature(getattr(ours, name))
                assert mine == inspect.signature(getattr(theirs, name)), (room, name)
                equal += "compat.v1.compat" not in room
    assert equal == 35


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("num_true", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "multiplies_bfloat16"),
    [
        (tf.float16, False),
        (tf.bfloat16, False),
        (tf.bfloat16, True),
        (tf.float64, False),
    ],
)
def test_every_floating_dtype(loss, num_true, dtype, multiplies_bfloat16, monkeypatch):
    """The loss of the same (rounded) numbers in float64, to one rounding of dtype."""
    monkeypatch.setattr(matmul, "multiplies_bfloat16", lambda: multiplies_bfloat16)
    loss = getattr(tfsampled.nn, loss)
    weights, biases, labels, inputs = example(num_true, dtype)
    sampled_values = tf.random.log_uniform_candidate_sampler(
        labels, num_true, SAMPLED, True, CLASSES, seed=1
    )

    def losses(cast):
        tables = [
            tf.Variable(tf.cast(weights, cast)),
            tf.Variable(tf.cast(biases, cast)),
        ]
        x = tf.cast(inputs, cast)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(
                *tables,
                labels,
                x,
                SAMPLED,
                CLASSES,
                num_true,
                sampled_values,
                remove_accidental_hits=True,
            )
        assert value.dtype == cast
        return [value, *map(tf.convert_to_tensor, tape.gradient(value, [*tables, x]))]

    eps = EPS[dtype]
    for ours, truth in zip(losses(dtype), losses(tf.float64), strict=True):
        truth = truth.numpy()
        error = np.abs(tf.cast(ours, tf.float64) - truth)
        # Gradients of a table are sums of rows that are rounded one by one.
        assert error.max() <= (2 + BATCH) * eps * np.abs(truth).max()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512_bf16", True), ("asimd bf16", True), ("fpu avx2", False)],
)
def test_the_processor_tells_whether_it_multiplies_bfloat16(
    flags, expected, monkeypatch
):
    def unreadable(path):
        raise FileNotFoundError

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: f"flags : {flags}\n")
    assert matmul.multiplies_bfloat16.__wrapped__() == expected
    monkeypatch.setattr(pathlib.Path, "read_text", unreadable)
    assert not matmul.multiplies_bfloat16.__wrapped__()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert matmul.multiplies_bfloat16.__wrapped__()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_hits_never_give_nan(dtype):
    """Every candidate is a label of every example: nothing is left to tell apart."""
    weights, biases, _, inputs = example(dtype=dtype)
    labels = tf.tile([[3, 4]], [BATCH, 1])
    values = (tf.constant([3, 4], tf.int64), tf.constant(0.5), tf.constant(0.5))
    with tf.GradientTape() as tape:
        tape.watch([weights, inputs])
        loss = tfsampled.nn.sampled_softmax_loss(
            weights, biases, labels, inputs, 2, CLASSES, 2, values
        )
    gradients = tape.gradient(loss, [weights, inputs])
    true = inputs.numpy().astype(float) @ weights.numpy()[3:5].astype(float).T
    true += biases.numpy()[3:5].astype(float)
    truth = np.logaddexp(*(true + np.log(2)).T) - (true + np.log(2)).mean(axis=1)
    eps = EPS[dtype]
    scale = max(np.abs(true).max(), 1.0)
    assert np.all(np.abs(tf.cast(loss, tf.float64) - truth) <= 4 * eps * scale)
    assert all(np.all(np.isfinite(tf.convert_to_tensor(g))) for g in gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_biases_is_with_biases_of_zero(loss):
    loss = getattr(tfsampled.nn, loss)
    weights, _, labels, inputs = example()
    values = tf.random.uniform_candidate_sampler(labels, 1, SAMPLED, True, CLASSES)
    common = (labels, inputs, SAMPLED, CLASSES, 1, values)
    np.testing.assert_array_equal(
        loss(weights, None, *common), loss(weights, tf.zeros([CLASSES]), *common)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_lists_and_tuples(loss):
    loss = getattr(tfsampled.nn, loss)
    weights, biases, labels, inputs = example()
    values = tf.random.uniform_candidate_sampler(labels, 1, SAMPLED, True, CLASSES)
    expected = loss(weights, biases, labels, inputs, SAMPLED, CLASSES, 1, values)
    shards = (weights[:25], weights[25:])
    cases = [
        (shards, biases, labels, inputs),
        (list(shards), (biases[:25], biases[25:]), labels, inputs),
        (weights, biases, labels.numpy().tolist(), inputs.numpy().tolist()),
    ]
    for case in cases:
        np.testing.assert_array_equal(
            loss(*case, SAMPLED, CLASSES, 1, values), expected
        )


def test_one_trace_serves_every_batch():
    weights, biases, labels, inputs = example()
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.int64),
            tf.TensorSpec([None, DIM], tf.float32),
        ]
    )
    def step(labels, inputs):
        traces.append(1)
        loss = tfsampled.nn.sampled_softmax_loss(
            weights, biases, labels, inputs, SAMPLED, CLASSES
        )
        assert loss.shape.as_list() == [None]
        return loss

    for batch in (0, 1, BATCH):
        assert step(labels[:batch], inputs[:batch]).shape == [batch]
    assert len(traces) == 1


@pytest.mark.parametrize("mirror", [tf, tfsampled], ids=["tensorflow", "tfsampled"])
def test_name_scopes_in_a_graph(mirror):
    with tf.Graph().as_default() as graph:
        scopes = []
        for name in ("head", "head", None, "outer/head/"):
            before = len(graph.get_operations())
            mirror.nn.nce_loss(*example(), SAMPLED, CLASSES, name=name)
            made = [op.name for op in graph.get_operations()[before:]]
            scopes += [
                scope
                for scope in ("head/", "head_1/", "compute_sampled_logits/", "outer/")
                if any(op.startswith(scope) and "Sampler" in op for op in made)
            ]
    assert scopes == ["head/", "head_1/", "compute_sampled_logits/", "outer/"]


@pytest.mark.parametrize("loss", LOSSES)
def test_differentiable_twice(loss):
    """The gradient's gradient against a central difference of the gradient."""
    loss = getattr(tfsampled.nn, loss)
    weights, biases, labels, inputs = example(dtype=tf.float64)
    values = tf.random.uniform_candidate_sampler(labels, 1, SAMPLED, True, CLASSES)
    direction = tf.cast(tf.random.stateless_normal([BATCH, DIM], [9, 9]), tf.float64)

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(weights, biases, labels, x, SAMPLED, CLASSES, 1, values)
        return tf.reduce_sum(tape.gradient(value, x) ** 2)

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = slope(inputs)
    exact = tf.reduce_sum(tape.gradient(value, inputs) * direction)
    step = 1e-5
    difference = slope(inputs + step * direction) - slope(inputs - step * direction)
    np.testing.assert_allclose(exact, difference / (2 * step), rtol=1e-8)


def test_seeds_after_the_loss_stay_in_step_with_tensorflow():
    """TensorFlow's loss takes two seeds of the global sequence: draw and hits."""

    def after(module):
        tf.random.set_seed(11)
        loss = module.nn.sampled_softmax_loss(*example(), SAMPLED, CLASSES)
        return loss.numpy(), tf.random.uniform([3]).numpy()

    (theirs, next_theirs), (ours, next_ours) = after(tf), after(tfsampled)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_array_equal(next_ours, next_theirs)


@pytest.mark.slow
def test_a_v1_graph_with_every_v2_behaviour_off():
    """`tf.compat.v1.disable_v2_behavior()` changes shapes and `==` of tensors."""
    program = (
        "import tensorflow as tf, tfsampled\n"
        "tf.compat.v1.disable_v2_behavior()\n"
        "tf.compat.v1.set_random_seed(1)\n"
        "x = tf.compat.v1.placeholder(tf.float32, [None, 2])\n"
        "y = tf.compat.v1.placeholder(tf.int32, [None, 1])\n"
        "w = tf.compat.v1.get_variable('w', [9, 2],"
        " partitioner=tf.compat.v1.fixed_size_partitioner(2))\n"
        "b = tf.compat.v1.get_variable('b', [9])\n"
        "arguments = dict(num_sampled=3, num_classes=9, partition_strategy='div')\n"
        "losses = [m.compat.v1.nn.sampled_softmax_loss("
        "w, b, y, x, seed=1, **arguments) for m in (tf, tfsampled)]\n"
        "z = tf.compat.v1.placeholder(tf.float32, [20, 2])\n"
        "losses += [m.compat.v1.nn.sampled_softmax_loss("
        "w, b, y, z, seed=2, **arguments) for m in (tf, tfsampled)]\n"
        "with tf.compat.v1.Session() as session:\n"
        "    session.run(tf.compat.v1.global_variables_initializer())\n"
        "    ours = session.run(losses[:2], {x: [[1., 2.]] * 3, y: [[1], [2], [8]]})\n"
        "    one = session.run(losses[2:], {z: [[1., 2.]] * 20, y: [[0]]})\n"
        "for ours in (ours, one):\n"
        "    assert (abs(ours[0] - ours[1]) < 1e-5 * ours[0]).all(), ours\n"
        "print('equal')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr


@pytest.mark.parametrize("loss", ["sampled_softmax_loss", slow("nce_loss")])
def test_shapes_that_only_the_data_know(loss):
    """Counts of one row for all examples; inputs and tables of unknown rank."""
    weights, biases, labels, inputs = example()
    ids = tf.constant([5, 1, 7, 30], tf.int64)
    counts = (tf.fill([BATCH, 1], 0.3), tf.constant([[0.2, 0.4, 0.1, 0.7]]))

    def call(module, weights, biases, inputs, ids, *counts):
        return getattr(module.nn, loss)(
            weights, biases, labels, inputs, 4, CLASSES, 1, (ids, *counts)
        )

    some = tf.function(
        lambda count: call(tfsampled, weights, biases, inputs, ids, counts[0], count),
        input_signature=[tf.TensorSpec([None, 4])],
    )
    theirs = call(tf, weights, biases, inputs, ids, *counts)
    np.testing.assert_allclose(some(counts[1]), theirs, rtol=8 * EPS[tf.float32])
    unknown = tf.function(
        lambda *values: call(tfsampled, *values),
        input_signature=[
            tf.TensorSpec(None, value.dtype)
            for value in (weights, biases, inputs, ids, *counts)
        ],
    )
    ours = unknown(weights, biases, inputs, ids, *counts)
    np.testing.assert_allclose(ours, theirs, rtol=8 * EPS[tf.float32])


@pytest.mark.parametrize(
    "name", ["sampled_softmax_loss", slow("nce_loss"), "softmax_loss"]
)
def test_gathered_losses_have_gradients(name):
    """The gradient of `tf.gather` is a `tf.IndexedSlices`."""
    weights, biases, labels, inputs = example()
    sizes = [] if name == "softmax_loss" else [SAMPLED, CLASSES]
    rows, factors = [2, 0, 2], tf.constant([1.0, 0.0, 2.0, 0.0])

    @tf.function
    def gradients(reduce):
        tf.random.set_seed(1)
        with tf.GradientTape() as tape:
            tape.watch([weights, biases, inputs])
            loss = getattr(tfsampled.nn, name)(weights, biases, labels, inputs, *sizes)
            total = reduce(loss)
        found = tape.gradient(total, [weights, biases, inputs])
        return [tf.convert_to_tensor(gradient) for gradient in found]

    expected = gradients(lambda loss: tf.reduce_sum(loss * factors))
    actual = gradients(lambda loss: tf.reduce_sum(tf.gather(loss, rows)))
    for mine, true in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_number_of_labels_that_the_graph_does_not_know(name):
    weights, biases, labels, inputs = example(num_true=2)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64)])
    def loss(labels):
        return getattr(tfsampled.nn, name)(
            weights, biases, labels, inputs[:1], SAMPLED, CLASSES, num_true=2
        )

    assert loss(labels[:1]).shape == [1]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"shape \[\?,2\]"):
        loss(tf.reshape(labels, [1, -1]))


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_candidates(loss, jit_compile):
    """The loss is that of the labels alone, and it is differentiable twice."""
    loss = getattr(tfsampled.nn, loss)
    weights, biases, labels, inputs = example(2)
    values = tf.zeros([0], tf.int64), tf.ones([BATCH, 2]), tf.zeros([0])

    @tf.function(jit_compile=jit_compile)
    def derivatives(inputs):
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as tape:
                tape.watch([inputs, biases])
                losses = loss(weights, biases, labels, inputs, 0, CLASSES, 2, values)
            gradients = tape.gradient(losses, [inputs, biases])
            gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
            squares = sum(tf.reduce_sum(gradient**2) for gradient in gradients)
        return losses, gradients[0], outer.gradient(squares, inputs)

    losses, gradient, second = derivatives(inputs)
    logits = tf.einsum("bd,btd->bt", inputs, tf.gather(weights, labels))
    logits = (logits + tf.gather(biases, labels)).numpy()
    softplus = np.log1p(np.exp(-logits))
    expected = np.log(np.exp(logits).sum(1)) - logits.mean(1)
    if loss is tfsampled.nn.nce_loss:
        expected = (softplus + logits / 2).sum(1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert np.any(gradient)
    assert np.all(np.isfinite(second))
    assert np.any(second)


@pytest.mark.slow
def test_more_classes_than_rows_that_the_graph_does_not_know():
    """A GPU would read zeros for a class without a row; XLA the last row."""
    _, _, labels, inputs = example()
    table = tf.TensorSpec([None, DIM], tf.float32)

    def loss(weights):
        biases = tf.zeros(tf.shape(weights)[:1])
        return tfsampled.nn.sampled_softmax_loss(
            weights, biases, labels, inputs, SAMPLED, CLASSES, seed=1
        )

    plain = tf.function(loss, input_signature=[table])
    assert np.all(np.isfinite(plain(tf.ones([CLASSES, DIM]))))
    with pytest.raises(tf.errors.InvalidArgumentError, match="20 rows, num_classes=50"):
        plain(tf.ones([20, DIM]))
    compiled = tf.function(loss, input_signature=[table], jit_compile=True)
    assert np.all(np.isnan(compiled(tf.ones([20, DIM]))))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_mixed_policy_casts_no_table(loss):
    """Inside of a layer, the value of a Keras variable is all of it, cast."""
    loss = getattr(tfsampled.nn, loss)

    class Loss(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight((1000, DIM))
            self.bias = self.add_weight((1000,))

        def call(self, x, y):
            return loss(self.kernel, self.bias, y, x, 8, 1000)

    layer = Loss(dtype="mixed_bfloat16")
    inputs, labels = tf.ones([4, DIM]), tf.ones([4, 1], tf.int64)
    layer.build(inputs.shape)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = layer(inputs, labels)
        return losses, tape.gradient(losses, [layer.kernel.value, layer.bias.value])

    losses, gradients = step()
    assert losses.dtype == tf.bfloat16
    assert all(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
    casts = [
        op.outputs[0].shape
        for op in step.get_concrete_function().graph.get_operations()
        if op.type == "Cast"
    ]
    assert not any(shape.rank and shape[0] == 1000 for shape in casts)
