"""The full softmax in chunks against float64 NumPy, at the edges of the chunks."""

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfsampled
from tests import helpers
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.full_softmax import class_chunks
from tfsampled._core.full_softmax.ranks import full_softmax_ranks

CHUNK = 8  # classes


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        helpers.use_small_chunks(patch, CHUNK)
        yield


def of_unknown_batch(jit_compile=None):
    """Traces a function as Keras traces a training step: without the batch size."""

    def wrap(function):
        def call(inputs, *others):
            spec = tf.TensorSpec([None, inputs.shape[1]], inputs.dtype)
            return tf.function(
                lambda x: function(x, *others),
                input_signature=[spec],
                jit_compile=jit_compile,
            )(inputs)

        return call

    return wrap


MODES = helpers.MODES | {
    "unknown batch": of_unknown_batch(),
    "jit, unknown batch": of_unknown_batch(jit_compile=True),
}
# fewer classes than a chunk, whole chunks, an odd chunk below and above half of one
CASES = [
    *[("eager", num_classes) for num_classes in (1, 7, 8, 9, 16, 23, 40)],
    ("unknown batch", 31),
    ("jit, unknown batch", 31),
    *[helpers.slow("function", num_classes) for num_classes in (1, 9, 16, 23)],
    *[helpers.slow("unknown batch", num_classes) for num_classes in (7, 16)],
    *[helpers.slow("jit, unknown batch", num_classes) for num_classes in (7, 16)],
    *[helpers.slow("jit", num_classes) for num_classes in (7, 23)],
]
all_cases = pytest.mark.parametrize(("mode", "num_classes"), CASES)


def problem(num_classes, batch=5, dim=4, num_true=3, seed=3):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(batch, dim)),
        rng.normal(size=(num_classes, dim)),
        rng.normal(size=num_classes),
        rng.integers(0, num_classes, (batch, num_true)),
    )


@all_cases
def test_loss_and_gradients(mode, num_classes):
    num_true = 1 if num_classes % 2 else 3
    *operands, labels = problem(num_classes, num_true=num_true)
    upstream = np.random.default_rng(4).normal(size=len(labels))

    def loss_and_gradients(*operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            inputs, weights, biases = operands
            losses = tfsampled.nn.softmax_loss(
                weights, biases, labels, inputs, num_true
            )
        return losses, tape.gradient(losses, operands, tf.constant(upstream))

    losses, gradients = MODES[mode](loss_and_gradients)(*map(tf.constant, operands))
    np.testing.assert_allclose(
        losses, helpers.softmax_loss64(*operands, labels=labels), rtol=1e-12, atol=1e-13
    )
    expected = helpers.softmax_loss_gradients64(
        *operands, labels=labels, upstream=upstream
    )
    for actual, truth in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(actual, truth, rtol=1e-12, atol=1e-13)


@all_cases
def test_top_k(mode, num_classes):
    inputs, weights, _, _ = problem(num_classes)
    weights[-1] = weights[0]  # a tie across the chunks
    ks = sorted({1, min(3, num_classes), num_classes})

    def find(inputs, weights):
        return [tfsampled.nn.softmax_top_k(weights, None, inputs, k) for k in ks]

    results = MODES[mode](find)(tf.constant(inputs), tf.constant(weights))
    for k, (values, ids) in zip(ks, results, strict=True):
        expected, expected_ids = tf.math.top_k(inputs @ weights.T, k)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(values, expected, rtol=1e-14, atol=1e-14)


@helpers.each_mode()
@pytest.mark.parametrize("k", [2, helpers.slow(20)])
def test_nan_ranks_last(mode, k):
    num_classes = 20
    inputs, weights, _, _ = problem(num_classes, batch=3)
    weights[0], inputs[2] = np.nan, np.nan  # a class, and an example
    all_labels = np.tile(np.arange(num_classes), [3, 1])

    def find(inputs, weights):
        _, ids = tfsampled.nn.softmax_top_k(weights, None, inputs, k)
        table = Table.from_params(weights, "div")
        return ids, full_softmax_ranks(inputs, table, None, tf.constant(all_labels))

    ids, ranks = MODES[mode](find)(tf.constant(inputs), tf.constant(weights))
    expected = helpers.top_k(np.nan_to_num(inputs @ weights.T, nan=-np.inf), 20)
    np.testing.assert_array_equal(ids, expected[:, :k])
    np.testing.assert_array_equal(ranks[:2], np.argsort(expected[:2], axis=1))
    np.testing.assert_array_equal(ranks[2], np.full(num_classes, num_classes - 1))


@pytest.mark.slow
@helpers.each_mode("jit")
def test_nan_ranks_after_minus_infinity(mode):
    biases = tf.constant([np.nan, -np.inf, 1.0, np.nan])
    weights, inputs = tf.zeros([4, 2]), tf.ones([1, 2])

    def find():
        rows, bias = (Table.from_params(x, "div") for x in (weights, biases))
        labels = tf.constant([[0, 1, 2]])
        top = tfsampled.nn.softmax_top_k(weights, biases, inputs, 4)
        return *top, full_softmax_ranks(inputs, rows, bias, labels)

    values, ids, ranks = MODES[mode](find)()
    np.testing.assert_array_equal(ids, [[2, 1, 0, 3]])
    np.testing.assert_array_equal(values, [[1, -np.inf, np.nan, np.nan]])
    np.testing.assert_array_equal(ranks, [[3, 1, 0]])


@st.composite
def tables(draw):
    """Draws a problem in whole numbers, which has ties and no rounding."""
    num_classes = draw(st.integers(1, 45))
    batch = draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    span = draw(st.sampled_from([1, 3, 1000]))
    inputs = rng.integers(-span, span + 1, (batch, 3)).astype(np.float64)
    weights = rng.integers(-2, 3, (num_classes, 3)).astype(np.float64)
    biases = rng.integers(-2, 3, num_classes).astype(np.float64)
    labels = rng.integers(0, num_classes, (batch, draw(st.integers(1, 3))))
    if draw(st.booleans()):
        biases[rng.random(num_classes) < 0.3] = -np.inf
        biases[rng.integers(num_classes)] = 0
    strategy = draw(st.sampled_from(["mod", "div"]))
    num_shards = [draw(st.integers(1, min(5, num_classes))) for _ in range(2)]
    k = draw(st.integers(1, num_classes))
    return inputs, weights, biases, labels, k, strategy, num_shards


@given(tables())
def test_any_table_in_any_shards(table):
    inputs, weights, biases, labels, k, strategy, (cut, bias_cut) = table
    shards = helpers.split_shards(weights, cut, strategy)
    bias_shards = helpers.split_shards(biases, bias_cut, strategy)
    logits = inputs @ weights.T + biases
    values, ids = tfsampled.nn.softmax_top_k(
        shards, bias_shards, inputs, k, partition_strategy=strategy
    )
    order = helpers.top_k(logits, k)
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, order, 1))

    operands = [tf.constant(x) for x in (inputs, *shards, *bias_shards)]
    with tf.GradientTape() as tape:
        tape.watch(operands)
        losses = tfsampled.nn.softmax_loss(
            operands[1 : 1 + cut],
            operands[1 + cut :],
            labels,
            operands[0],
            labels.shape[1],
            partition_strategy=strategy,
        )
    scale = 1 + np.abs(inputs).max(initial=0)  # logits are below 7 times that
    with np.errstate(invalid="ignore"):
        expected_loss = helpers.softmax_loss64(inputs, weights, biases, labels=labels)
    np.testing.assert_allclose(losses, expected_loss, rtol=1e-13, atol=1e-14 * scale)
    d_inputs, d_weights, d_biases = helpers.softmax_loss_gradients64(
        inputs, weights, biases, labels=labels, upstream=np.ones(len(inputs))
    )
    expected = [
        d_inputs,
        *helpers.split_shards(d_weights, cut, strategy),
        *helpers.split_shards(d_biases, bias_cut, strategy),
    ]
    for actual, truth in zip(tape.gradient(losses, operands), expected, strict=True):
        actual = tf.convert_to_tensor(actual)
        np.testing.assert_allclose(actual, truth, rtol=1e-13, atol=1e-13 * scale)


def test_compiled_chunks_fit_a_batch_unknown_while_tracing(monkeypatch):
    batch, fitting = 2048, 64
    monkeypatch.setattr(class_chunks, "CHUNK_BYTES", 4 * batch * fitting)

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None, 4])])
    def loss_and_gradient(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            labels = tf.zeros([tf.shape(inputs)[0], 1], tf.int64)
            loss = tfsampled.nn.softmax_loss(tf.ones([1000, 4]), None, labels, inputs)
        return tape.gradient(loss, inputs)

    ir = loss_and_gradient.experimental_get_compiler_ir(tf.zeros([batch, 4]))
    columns = re.findall(rf"f32\[{batch},(\d+)\]", ir(stage="hlo"))
    assert max(map(int, columns)) == fitting


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", "float32", helpers.slow("float16"), helpers.slow("float64")],
)
def test_updates_in_place_have_gpu_kernels(dtype):
    """TensorFlow's `InplaceUpdate` has kernels for these dtypes alone on a GPU."""

    @tf.function
    def gradients(*operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            weights, biases = operands
            loss = tfsampled.nn.softmax_loss(weights, biases, [[1]], [[1.0, 2.0]])
        return tape.gradient(loss, operands)

    operands = tf.zeros([30, 2], dtype), tf.zeros([30], dtype)
    found = gradients(*operands)
    assert [gradient.dtype for gradient in found] == [dtype, dtype]
    graph = gradients.get_concrete_function(*operands).graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    dtypes = {node.attr["T"].type for node in nodes if node.op == "InplaceUpdate"}
    assert dtypes
    assert dtypes <= {x.as_datatype_enum for x in (tf.float16, tf.float32, tf.float64)}


class TestSecondDerivative:
    OPERANDS = tf.ones([2, 3]), tf.ones([4, 3])
    MESSAGE = "The full softmax loss can be differentiated once, in reverse mode"

    def loss(self, inputs, weights):
        return tfsampled.nn.softmax_loss(weights, None, [[0], [1]], inputs)

    @pytest.mark.parametrize("mode", ["eager", "function"])
    def test_tape_of_a_tape_raises(self, mode):
        def second(inputs, weights):
            with tf.GradientTape() as outer:
                outer.watch(inputs)
                with tf.GradientTape() as inner:
                    inner.watch(weights)
                    loss = self.loss(inputs, weights)
                gradient = inner.gradient(loss, weights)
            return outer.gradient(gradient, inputs)

        with pytest.raises(NotImplementedError, match=self.MESSAGE):
            MODES[mode](second)(*self.OPERANDS)

    def test_gradients_of_gradients_raise(self):
        with tf.Graph().as_default():
            inputs, weights = tf.ones([2, 3]), tf.ones([4, 3])
            gradients = tf.gradients(self.loss(inputs, weights), weights)
            with pytest.raises(NotImplementedError, match=self.MESSAGE):
                tf.gradients(gradients, inputs)

    def test_forward_mode_raises(self):
        inputs, weights = self.OPERANDS
        with (
            tf.autodiff.ForwardAccumulator(inputs, tf.ones_like(inputs)),
            pytest.raises(NotImplementedError, match=self.MESSAGE),
        ):
            self.loss(inputs, weights)

    @pytest.mark.parametrize("mode", ["eager", "function"])
    def test_persistent_and_nested_tapes_may_take_the_first(self, mode):
        inputs, weights = self.OPERANDS
        with tf.GradientTape() as outer, tf.GradientTape(persistent=True) as tape:
            outer.watch(weights)
            tape.watch(self.OPERANDS)
            loss = MODES[mode](self.loss)(inputs, weights)
        for operand in self.OPERANDS:
            assert tape.gradient(loss, operand).shape == operand.shape
        assert outer.gradient(loss, weights).shape == weights.shape


def test_rows_of_one_number_in_a_batch_of_unknown_size():
    """The graph must know the axis of size 1, or a loop's shapes do not fit."""
    weights = tf.random.stateless_normal([2 * CHUNK, 1], [1, 2])

    def gradients(inputs):
        with tf.GradientTape() as tape:
            tape.watch([inputs, weights])
            labels = tf.ones([tf.shape(inputs)[0], 1], tf.int64)
            loss = tfsampled.nn.softmax_loss(weights, None, labels, inputs)
        return tape.gradient(loss, [inputs, weights])

    inputs = tf.random.stateless_normal([3, 1], [3, 4])
    ours = of_unknown_batch()(gradients)(inputs)
    for mine, true in zip(ours, gradients(inputs), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-5, atol=1e-6)
