"""The loss in chunks against the loss of all logits in float64."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, slow
from tfsampled._core.candidate_sampling.accidental_hits import find_accidental_hits
from tfsampled._core.sampled_loss import (
    autodiff,
    chunked_gradient,
    loss_functions,
)
from tfsampled._core.sampled_loss.autodiff import sampled_loss_with_gradient

BATCH, DIM, SAMPLED, CLASSES = 37, 5, 41, 60
LOSSES = {"softmax": loss_functions.SOFTMAX, "logistic": loss_functions.LOGISTIC}
NAMES = ["true_logits", "inputs", "rows", "biases"]


@pytest.fixture(params=["combined", "saved", "recomputed"])
def chunks(request, monkeypatch):
    """Computes the loss from all logits at once, or in two steps.

    All residuals are saved, or those of 7 of 37 examples, and the others are scanned.
    """
    if request.param != "combined":
        monkeypatch.setattr(chunked_gradient, "MAX_COMBINED", 0)
    if request.param == "recomputed":
        monkeypatch.setattr(chunked_gradient, "MAX_LOGITS", 7 * SAMPLED)
    return request.param


def make_operands(num_true=2, scale=1.0, by_example=False):
    """Returns float64 operands, the log q correction, labels and sampled classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, [BATCH, num_true])
    sampled = rng.permutation(CLASSES)[:SAMPLED]
    correction = rng.normal(size=[BATCH, SAMPLED] if by_example else [SAMPLED])
    operands = [
        scale * rng.normal(size=[BATCH, num_true]),
        scale * rng.normal(size=[BATCH, DIM]),
        rng.normal(size=[SAMPLED, DIM]),
        scale * rng.normal(size=[SAMPLED]),
    ]
    return operands, correction, labels, sampled


def chunked_loss(loss, operands, correction, hits):
    true_logits, inputs, rows, biases = operands
    return sampled_loss_with_gradient(
        loss, true_logits, inputs, rows, biases, correction, hits
    )


def run(loss, operands, correction, labels, sampled, upstream):
    """Returns the loss, its gradients, and the gradients of their squared norm."""
    hits = find_accidental_hits(labels, sampled)
    with tf.GradientTape() as outer:
        outer.watch(operands)
        with tf.GradientTape() as tape:
            tape.watch(operands)
            value = chunked_loss(loss, operands, correction, hits)
        first = tape.gradient(value, operands, upstream)
        wide = [tf.cast(gradient, value.dtype) for gradient in first]
        total = tf.add_n([tf.reduce_sum(gradient**2) for gradient in wide])
    return value, first, outer.gradient(total, operands)


def from_logits(loss, operands, correction, labels, sampled, upstream):
    """Returns the same from the formula, with all logits."""
    hit = np.any(labels[:, :, None] == sampled, axis=1)
    with tf.GradientTape() as outer:
        outer.watch(operands)
        with tf.GradientTape() as tape:
            tape.watch(operands)
            true_logits, inputs, rows, biases = operands
            logits = tf.matmul(inputs, rows, transpose_b=True) + biases + correction
            logits = tf.where(hit, tf.constant(-np.inf, logits.dtype), logits)
            value = loss.from_logits(true_logits, logits)
        first = tape.gradient(value, operands, upstream)
        total = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
    return value, first, outer.gradient(total, operands)


def tensors(arrays, dtype):
    return [tf.constant(array, dtype) for array in arrays]


def assert_near(ours, reference, truth, name):
    """Checks that the error is at most twice that of the formula, plus 16 ulp."""
    truth = truth.numpy()
    ulp = np.finfo(ours.dtype.as_numpy_dtype).eps * np.abs(truth).max()
    error, allowed = (np.abs(x - truth).max() for x in (ours, reference))
    assert error <= 2 * allowed + 16 * ulp, name


MODES = {
    "eager": lambda function: function,
    "function": tf.function,
    "unknown batch": lambda function: tf.function(
        function,
        input_signature=[
            [tf.TensorSpec([None, 2]), tf.TensorSpec([None, DIM])]
            + [tf.TensorSpec([None, DIM]), tf.TensorSpec([None])],
            tf.TensorSpec([None, 2], tf.int64),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None]),
        ],
    ),
    "jit": lambda function: tf.function(function, jit_compile=True),
}


@pytest.mark.parametrize(
    ("loss", "mode"),
    cases(LOSSES, MODES, quick=lambda loss, mode: mode == "eager"),
)
def test_value_gradient_and_its_gradient(loss, mode, chunks):
    operands, correction, labels, sampled = make_operands()
    upstream = np.random.default_rng(1).normal(size=BATCH)
    truth = from_logits(
        LOSSES[loss],
        tensors(operands, tf.float64),
        correction,
        labels,
        sampled,
        tf.constant(upstream),
    )
    single = tensors(operands, tf.float32)
    reference = from_logits(
        LOSSES[loss],
        single,
        correction.astype("float32"),
        labels,
        sampled,
        tf.constant(upstream, tf.float32),
    )
    constant = tf.constant(correction, tf.float32)

    def step(operands, labels, sampled, upstream):
        return run(LOSSES[loss], operands, constant, labels, sampled, upstream)

    value, first, second = MODES[mode](step)(
        single,
        tf.constant(labels),
        tf.constant(sampled),
        tf.constant(upstream, tf.float32),
    )
    assert_near(value, reference[0], truth[0], "value")
    for index, name in enumerate(NAMES):
        assert_near(first[index], reference[1][index], truth[1][index], name)
        assert_near(second[index], reference[2][index], truth[2][index], name)


@pytest.mark.parametrize("graph", [False, slow(True)])
@pytest.mark.parametrize("loss", LOSSES)
def test_expected_counts_by_example(loss, graph, chunks):
    operands, correction, labels, sampled = make_operands(by_example=True)
    upstream = tf.ones([BATCH], tf.float64)
    rest = (tensors([correction], tf.float64)[0], labels, sampled, upstream)
    operands = tensors(operands, tf.float64)
    function = tf.function(run, autograph=False) if graph else run
    ours, truth = (f(LOSSES[loss], operands, *rest) for f in (function, from_logits))
    for mine, true in zip(tf.nest.flatten(ours), tf.nest.flatten(truth), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("graph", [False, slow(True)])
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_far_apart_logits(scale, graph, chunks):
    """The first columns of the softmax are 0 in float32."""
    operands, correction, labels, sampled = make_operands(scale=scale)
    upstream = np.ones(BATCH)
    truth = from_logits(
        loss_functions.SOFTMAX,
        tensors(operands, tf.float64),
        correction,
        labels,
        sampled,
        upstream,
    )
    single = tensors(operands, tf.float32)
    rest = (correction.astype("float32"), labels, sampled, upstream.astype("float32"))
    reference = from_logits(loss_functions.SOFTMAX, single, *rest)
    function = tf.function(run, autograph=False) if graph else run
    ours = function(loss_functions.SOFTMAX, single, *rest)
    assert_near(ours[0], reference[0], truth[0], "value")
    for index, name in enumerate(NAMES):
        assert_near(ours[1][index], reference[1][index], truth[1][index], name)


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_masked_and_nan_rows_do_not_affect_others(jit_compile, chunks):
    """Candidates at minus infinity add nothing; NaN stays in its example."""
    operands, correction, labels, sampled = make_operands()
    operands = tensors(operands, tf.float32)
    bad = np.zeros([BATCH, SAMPLED], "float32")
    bad[3] = -np.inf
    bad[20] = np.nan
    plain = correction.astype("float32")
    upstream = np.ones(BATCH, "float32")

    @tf.function(jit_compile=jit_compile)
    def step(correction):
        return run(
            loss_functions.SOFTMAX, operands, correction, labels, sampled, upstream
        )[:2]

    value, gradients = step(tf.constant(plain + bad))
    clean, _ = step(tf.constant(plain + np.zeros_like(bad)))
    others = np.delete(np.arange(BATCH), [3, 20])
    np.testing.assert_allclose(
        value.numpy()[others], clean.numpy()[others], rtol=4 * np.finfo("float32").eps
    )
    true = operands[0].numpy()[3].astype("float64")
    alone = np.log(np.exp(true - true.max()).sum()) + true.max() - true.mean()
    assert abs(value[3] - alone) <= 4 * np.finfo("float32").eps * np.abs(true).max()
    assert np.isnan(value[20])
    np.testing.assert_array_equal(gradients[1][3], np.zeros(DIM))
    assert np.all(np.isfinite(gradients[1].numpy()[others]))


@pytest.mark.parametrize("loss", LOSSES)
def test_forward_mode(loss, chunks):
    """`ForwardAccumulator` gives the gradient times the direction."""
    operands, correction, labels, sampled = make_operands()
    operands = tensors(operands, tf.float64)
    directions = [tf.cos(x) for x in operands]
    hits = find_accidental_hits(labels, sampled)
    with tf.autodiff.ForwardAccumulator(operands, directions) as accumulator:
        value = chunked_loss(LOSSES[loss], operands, correction, hits)
    with tf.GradientTape() as tape:
        tape.watch(operands)
        again = chunked_loss(LOSSES[loss], operands, correction, hits)
    by = tape.gradient(again, operands)
    expected = tf.add_n(
        [tf.reduce_sum(g * d) for g, d in zip(by, directions, strict=True)]
    )
    np.testing.assert_allclose(
        tf.reduce_sum(accumulator.jvp(value)), expected, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("known", "sampled"),
    [
        (True, 0),
        (False, 1),
        (False, SAMPLED),
        *(slow(*case) for case in ((False, 0), (True, 1), (True, SAMPLED))),
    ],
)
def test_any_number_of_candidates_in_a_batch_of_any_size(sampled, known, monkeypatch):
    """One trace serves batches of all sizes, without candidates and with many."""
    monkeypatch.setattr(chunked_gradient, "MAX_LOGITS", SAMPLED - 1)
    operands, correction, _, _ = make_operands()
    operands = [x.astype("float32") for x in operands]
    correction = correction.astype("float32")
    width = sampled if known else None

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2]),
            tf.TensorSpec([None, DIM]),
            tf.TensorSpec([width, DIM]),
            tf.TensorSpec([width]),
        ]
    )
    def step(true_logits, inputs, rows, correction):
        with tf.GradientTape() as tape:
            tape.watch([true_logits, inputs, rows])
            value = sampled_loss_with_gradient(
                loss_functions.SOFTMAX,
                true_logits,
                inputs,
                rows,
                None,
                correction,
                None,
            )
        return value, *tape.gradient(value, [true_logits, inputs, rows])

    for batch in (0, 1, BATCH):
        true_logits, inputs = (tf.constant(x[:batch]) for x in operands[:2])
        rows = tf.constant(operands[2][:sampled])
        with tf.GradientTape() as tape:
            tape.watch([true_logits, inputs, rows])
            logits = tf.matmul(inputs, rows, transpose_b=True) + correction[:sampled]
            value = loss_functions.SOFTMAX.from_logits(true_logits, logits)
        truth = value, *tape.gradient(value, [true_logits, inputs, rows])
        ours = step(true_logits, inputs, rows, correction[:sampled])
        for mine, true in zip(ours, truth, strict=True):
            largest = np.abs(true).max(initial=1.0)
            assert np.abs(mine - true).max(initial=0.0) <= 2.0**-20 * largest


@pytest.mark.parametrize("loss", ["softmax", slow("logistic")])
@pytest.mark.parametrize("by_example", [False, slow(True)])
def test_one_trace_computes_one_chunk_or_several(loss, by_example, monkeypatch):
    """Batches of 5 are one chunk, of 20 two, of 37 two and one computed again."""
    monkeypatch.setattr(chunked_gradient, "MIN_OVERLAP", 7 * SAMPLED)
    monkeypatch.setattr(chunked_gradient, "MAX_LOGITS", 20 * SAMPLED)
    operands, correction, labels, sampled = make_operands(by_example=by_example)
    rows = None if by_example else SAMPLED

    def step(true_logits, inputs, rows, biases, correction, labels):
        operands = [true_logits, inputs, rows, biases]
        hits = find_accidental_hits(labels, tf.constant(sampled))
        with tf.GradientTape() as tape:
            tape.watch(operands)
            value = chunked_loss(LOSSES[loss], operands, correction, hits)
        return value, *tape.gradient(value, operands)

    traced = tf.function(
        step,
        input_signature=[
            tf.TensorSpec([None, 2], tf.float64),
            tf.TensorSpec([None, DIM], tf.float64),
            tf.TensorSpec([SAMPLED, DIM], tf.float64),
            tf.TensorSpec([SAMPLED], tf.float64),
            tf.TensorSpec([rows, SAMPLED] if by_example else [rows], tf.float64),
            tf.TensorSpec([None, 2], tf.int64),
        ],
    )
    for batch in (5, 20, BATCH):
        arguments = [
            *(operand[:batch] for operand in operands[:2]),
            *operands[2:],
            correction[:batch] if by_example else correction,
            labels[:batch],
        ]
        arguments = [tf.constant(argument) for argument in arguments]
        for ours, eager in zip(traced(*arguments), step(*arguments), strict=True):
            np.testing.assert_allclose(ours, eager, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_losses_of_one_trace_may_differ_in_what_they_share(monkeypatch):
    """A correction for each example, then one for all: `[None, S]` and `[1, S]`."""
    monkeypatch.setattr(chunked_gradient, "MIN_OVERLAP", 7 * SAMPLED)
    operands, correction, _, _ = make_operands(by_example=True)
    operands = list(map(tf.constant, operands))
    signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in operands]
    for rows in (None, 1):
        loss = tf.function(
            lambda correction, *operands: chunked_loss(
                loss_functions.SOFTMAX, operands, correction, None
            ),
            [tf.TensorSpec([rows, SAMPLED], tf.float64), *signature[:2]]
            + [tf.TensorSpec(x.shape, x.dtype) for x in operands[2:]],
        )
        offset = correction if rows is None else correction[:1]
        actual = loss(tf.constant(offset), *operands)
        expected = chunked_loss(loss_functions.SOFTMAX, operands, offset, None)
        np.testing.assert_allclose(actual, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("batch", "for_xla"),
    [(None, False), (None, True), slow(BATCH, False), slow(BATCH, True)],
)
def test_residuals_are_bounded(batch, for_xla, monkeypatch):
    """At most `MAX_LOGITS` derivatives are saved, with a batch of unknown size too."""
    monkeypatch.setattr(chunked_gradient, "MAX_LOGITS", 7 * SAMPLED)

    @tf.function(input_signature=[tf.TensorSpec([batch, DIM])], jit_compile=for_xla)
    def forward(inputs):
        logits = chunked_gradient.SampledLogits(
            inputs, tf.ones([SAMPLED, DIM]), tf.zeros([SAMPLED]), None
        )
        loss, residuals = chunked_gradient.forward(
            loss_functions.SOFTMAX,
            inputs[:, :1],
            None,
            chunked_gradient.plan_chunks(loss_functions.SOFTMAX, logits),
        )
        return loss, [tf.shape(d_logits) for d_logits in residuals.d_logits]

    loss, shapes = forward(tf.ones([BATCH, DIM]))
    assert loss.shape == [BATCH]
    assert sum(shape.numpy()[0] for shape in shapes) == 7


@pytest.mark.slow
def test_second_derivatives_after_those_of_other_shapes():
    """A trace for shapes that were seen before is not generalized to these."""
    for num_true, by_example in ((1, False), (3, True), (2, False)):
        operands, correction, labels, sampled = make_operands(
            num_true, by_example=by_example
        )
        arguments = tensors(operands, tf.float64), correction, labels, sampled
        dy = tf.ones([BATCH], tf.float64)
        for loss in LOSSES.values():
            actual, expected = (
                run(loss, *arguments, dy),
                from_logits(loss, *arguments, dy),
            )
            for a, b in zip(actual[2], expected[2], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_eager_second_derivatives_are_traced_once():
    operands, correction, labels, sampled = make_operands()
    operands = tensors(operands, tf.float32)
    correction = correction.astype("float32")
    dy = tf.ones([BATCH])
    run(loss_functions.SOFTMAX, operands, correction, labels, sampled, dy)
    vjp = autodiff._gradient_vjp(loss_functions.SOFTMAX, False)
    count = vjp.experimental_get_tracing_count()
    for _ in range(2):
        run(loss_functions.SOFTMAX, operands, correction, labels, sampled, dy)
    assert vjp.experimental_get_tracing_count() == count


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_a_gradient_traced_after_an_eager_loss(loss, chunks):
    """The loss is eager, its gradient is traced, where chunks are cut otherwise."""
    operands, correction, labels, sampled = make_operands()
    operands = tensors(operands, tf.float64)
    constant = tf.constant(correction)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(operands)
        value = chunked_loss(
            LOSSES[loss], operands, constant, find_accidental_hits(labels, sampled)
        )
    expected = tape.gradient(value, operands)
    traced = tf.function(lambda: tape.gradient(value, operands))()
    for mine, true in zip(traced, expected, strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-12, atol=1e-13)
    jacobian = tape.jacobian(value, operands[2])
    np.testing.assert_allclose(
        tf.reduce_sum(jacobian, axis=0), expected[2], rtol=1e-12, atol=1e-13
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_second_derivative_with_16_bit_rows_under_xla(loss, dtype, chunks):
    operands, correction, labels, sampled = make_operands()
    single = tensors(operands, tf.float32)
    single[2] = tf.cast(single[2], dtype)
    single[1] = tf.cast(tf.cast(single[1], dtype), tf.float32)
    wide = [tf.cast(x, tf.float64) for x in single]
    upstream = np.ones(BATCH)
    truth = from_logits(LOSSES[loss], wide, correction, labels, sampled, upstream)
    constant = tf.constant(correction, tf.float32)

    @tf.function(jit_compile=True)
    def step():
        return run(
            LOSSES[loss],
            single,
            constant,
            labels,
            sampled,
            tf.ones([BATCH], tf.float32),
        )

    eps = {tf.bfloat16: 2.0**-8, tf.float16: 2.0**-11}[dtype]
    for mine, true in zip(tf.nest.flatten(step()), tf.nest.flatten(truth), strict=True):
        error = np.abs(tf.cast(mine, tf.float64) - true).max()
        assert error <= 16 * eps * np.abs(true).max()


@pytest.mark.parametrize("num_sampled", [3, 50_000, 2**25])
@pytest.mark.parametrize("batch", [0, 1, 335, 1021, 1023, 1024, 1030, 70_000, 2**18])
def test_valid_chunks_are_of_equal_size_and_bounded(batch, num_sampled):
    num_chunks = chunked_gradient.num_valid_chunks
    count = num_chunks(batch, num_sampled)
    size = -(-batch // count)
    rounded = size * count
    assert num_chunks(rounded, num_sampled) == count
    assert num_chunks(tf.constant(rounded), tf.constant(num_sampled)) == count
    assert size * num_sampled <= chunked_gradient.MAX_LOGITS or size <= 1
    assert count >= 16 or batch < 1024


def test_only_valid_chunks_are_computed():
    """Of 1,040 examples in 16 chunks of 65, 70 are valid: two chunks."""
    logits = chunked_gradient.SampledLogits(
        tf.ones([1040, DIM]), tf.ones([SAMPLED, DIM]), tf.zeros([SAMPLED]), None
    )

    @tf.function(jit_compile=True)
    def reduce(num_valid):
        plan = chunked_gradient.plan_chunks(loss_functions.SOFTMAX, logits, num_valid)
        assert isinstance(plan, chunked_gradient.ValidChunks)
        partial, (d_logits,) = plan.reduce_chunks()
        return partial, d_logits, plan.num_used

    partial, d_logits, num_used = reduce(70)
    assert num_used == 2
    assert np.all(partial[:130] != 0)
    assert not np.any(partial[130:])
    assert d_logits.shape == [4, 65, SAMPLED]
    assert np.all(d_logits[:2] != 0)
    assert not np.any(d_logits[2:])
