"""`layers.SampledSoftmax`: its logits, its losses, its state, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, cross_entropy64
from tfsampled.layers import SampledSoftmax

CLASSES, SAMPLED, DIM, BATCH, TIME = 300, 40, 8, 6, 5


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def make(**kwargs):
    """A built head whose bias is not zero."""
    kwargs = {"bias_initializer": "random_normal", **kwargs}
    head = SampledSoftmax(CLASSES, SAMPLED, **kwargs)
    head.build((None, DIM))
    return head


def table(head):
    """Kernel and bias in float64."""
    return tuple(np.asarray(value, np.float64) for value in head.get_weights())


def inputs_of(rng, *shape):
    return rng.normal(size=(*shape, DIM)).astype("float32")


@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, TIME)])
def test_logits_are_those_of_dense(rng, shape):
    head = make()
    dense = keras.layers.Dense(CLASSES)
    dense.build((None, DIM))
    dense.set_weights([tf.transpose(head.kernel), head.bias])
    inputs = inputs_of(rng, *shape)
    np.testing.assert_allclose(head(inputs), dense(inputs), rtol=1e-5, atol=1e-6)
    assert head(inputs).shape == (*shape, CLASSES)
    assert head.compute_output_shape((None, *shape[1:], DIM)) == (
        None,
        *shape[1:],
        CLASSES,
    )


def test_a_symbolic_call_knows_its_shape():
    outputs = make()(keras.Input((TIME, DIM)))
    assert outputs.shape == (None, TIME, CLASSES)


@pytest.mark.parametrize(
    ("graph", "shape", "num_true", "temperature"),
    cases(
        [False, True],
        [(BATCH,), (BATCH, TIME)],
        [1, 3],
        [1.0, 0.3],
        quick=lambda graph, shape, num_true, temperature: (
            not graph or ((len(shape) == 2) == (num_true == 3) == (temperature < 1))
        ),
    ),
)
def test_exact_loss_is_numpys(rng, shape, num_true, temperature, graph):
    head = make(num_true=num_true, temperature=temperature)
    kernel, bias = table(head)
    inputs, labels = (
        inputs_of(rng, *shape),
        rng.integers(0, CLASSES, (*shape, num_true)),
    )
    loss = tf.function(head.exact_loss) if graph else head.exact_loss
    np.testing.assert_allclose(
        loss(inputs, labels),
        cross_entropy64((inputs @ kernel.T + bias) / temperature, labels),
        rtol=1e-5,
    )


def test_one_label_needs_no_axis_of_its_own(rng):
    head, inputs = make(seed=5), inputs_of(rng, BATCH, TIME)
    labels = rng.integers(0, CLASSES, (BATCH, TIME))
    np.testing.assert_array_equal(
        head.exact_loss(inputs, labels), head.exact_loss(inputs, labels[..., None])
    )


@pytest.mark.parametrize(
    ("sampler", "num_true", "remove_accidental_hits", "temperature"),
    cases(
        ["log_uniform", "uniform"],
        [1, 3],
        [False, True],
        [1.0, 0.3],
        quick=lambda sampler, num_true, remove_accidental_hits, temperature: (
            (num_true == 3) == remove_accidental_hits
            and (temperature < 1) == (sampler == "uniform")
        ),
    ),
)
def test_sampled_loss_is_tensorflows(
    rng, sampler, num_true, remove_accidental_hits, temperature
):
    head = make(
        sampler=sampler,
        num_true=num_true,
        remove_accidental_hits=remove_accidental_hits,
        temperature=temperature,
        seed=7,
    )
    inputs = inputs_of(rng, BATCH)
    labels = rng.integers(0, 30, (BATCH, num_true))  # among the likely: hits happen
    kernel = {"log_uniform": "LogUniform", "uniform": "Uniform"}[sampler]
    drawn = getattr(tf.raw_ops, f"{kernel}CandidateSampler")(
        true_classes=labels,
        num_true=num_true,
        num_sampled=SAMPLED,
        unique=True,
        range_max=CLASSES,
        seed=87654321,  # TensorFlow's, for an operation seed without a global one
        seed2=7,
    )

    with tf.GradientTape(persistent=True) as tape:
        ours = head.sampled_loss(inputs, labels)
        theirs = tf.nn.sampled_softmax_loss(
            weights=head.kernel.value,
            biases=head.bias.value / temperature,
            labels=labels,
            inputs=inputs / temperature,
            num_sampled=SAMPLED,
            num_classes=CLASSES,
            num_true=num_true,
            sampled_values=drawn,
            remove_accidental_hits=remove_accidental_hits,
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    gradient = tape.gradient(ours, head.bias)
    assert isinstance(gradient, tf.IndexedSlices)
    np.testing.assert_allclose(
        tf.convert_to_tensor(gradient),
        tf.convert_to_tensor(tape.gradient(theirs, head.bias.value)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_all_classes_drawn_is_the_exact_loss(rng):
    head = SampledSoftmax(CLASSES, CLASSES, sampler="uniform", use_bias=False)
    inputs, labels = inputs_of(rng, BATCH), rng.integers(0, CLASSES, BATCH)
    np.testing.assert_allclose(
        head.sampled_loss(inputs, labels), head.exact_loss(inputs, labels), rtol=1e-5
    )


@pytest.mark.parametrize("seed", [None, 5])
def test_the_same_seed_repeats_the_draws(rng, seed):
    inputs, labels = inputs_of(rng, BATCH), rng.integers(0, CLASSES, BATCH)

    def three():
        if seed is None:
            keras.utils.set_random_seed(3)
        head = make(seed=seed, kernel_initializer="ones", bias_initializer="zeros")
        return np.stack([head.sampled_loss(inputs, labels) for _ in range(3)])

    first = three()
    np.testing.assert_array_equal(first, three())
    assert not np.allclose(first[0], first[1])


@pytest.mark.parametrize("graph", [False, True])
def test_the_table_gets_a_row_sparse_gradient(rng, graph):
    head = make()
    inputs, labels = inputs_of(rng, BATCH), rng.integers(0, CLASSES, BATCH)
    kinds: list[type] = []

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head.sampled_loss(inputs, labels))
        gradients = tape.gradient(loss, [head.kernel.value, head.bias.value])
        kinds.extend(type(gradient) for gradient in gradients)

    (tf.function(step) if graph else step)()
    assert kinds == [tf.IndexedSlices, tf.IndexedSlices]


def test_top_k_is_tensorflows_of_the_logits(rng):
    head, inputs = make(temperature=0.5), inputs_of(rng, BATCH, TIME)
    values, classes = head.top_k(inputs, 7)
    expected, expected_classes = tf.math.top_k(head(inputs), 7)
    np.testing.assert_array_equal(classes, expected_classes)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sampled_loss", "exact_loss"])
def test_weights_and_masks(rng, name):
    head = make(seed=3)
    inputs = inputs_of(rng, BATCH, TIME)
    labels = rng.integers(0, CLASSES, (BATCH, TIME))
    mask = rng.random((BATCH, TIME)) < 0.5
    weight = rng.random((BATCH, TIME)).astype("float32")

    def loss(labels, **kwargs):
        head.sampler.position.assign(0)
        return getattr(head, name)(inputs, labels, **kwargs).numpy()

    plain = loss(np.where(mask, labels, 0))
    padded = np.where(mask, labels, -1)  # no class: a mask has to be heeded
    # The product of fewer rows may round otherwise.
    np.testing.assert_allclose(loss(padded, mask=mask), plain * mask, rtol=1e-6)
    np.testing.assert_allclose(
        loss(padded, mask=mask, sample_weight=weight), plain * mask * weight, rtol=1e-6
    )
    plain = loss(labels)
    for shape in [(BATCH,), (BATCH, 1)]:  # one weight for a sequence
        sequence = weight[:, 0].reshape(shape)
        np.testing.assert_array_equal(
            loss(labels, sample_weight=sequence), plain * weight[:, :1]
        )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_keeps_table_logits_and_losses_in_float32(rng, policy):
    head = make(dtype=policy)
    inputs = tf.cast(inputs_of(rng, BATCH), head.compute_dtype)
    labels = rng.integers(0, CLASSES, BATCH)
    results = [
        head(inputs),
        head.sampled_loss(inputs, labels),
        head.exact_loss(inputs, labels),
        head.top_k(inputs, 3)[0],
    ]
    for result in results:
        assert result.dtype == tf.float32
        assert np.isfinite(result).all()
    assert head.kernel.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_table_may_have_any_float_dtype(rng, dtype):
    head = make(dtype=dtype)
    inputs, labels = inputs_of(rng, BATCH), rng.integers(0, CLASSES, BATCH)
    for loss in (head.sampled_loss, head.exact_loss):
        losses = loss(inputs, labels)
        assert losses.dtype == tf.as_dtype(dtype)
        assert np.isfinite(tf.cast(losses, tf.float64)).all()


def test_regularizers_and_constraints_reach_the_table():
    head = make(
        kernel_regularizer=keras.regularizers.L2(0.5),
        bias_regularizer=keras.regularizers.L1(0.25),
        kernel_constraint=keras.constraints.UnitNorm(axis=1),
        bias_constraint=keras.constraints.NonNeg(),
    )
    kernel, bias = table(head)
    expected = 0.5 * np.sum(kernel**2), 0.25 * np.sum(np.abs(bias))
    np.testing.assert_allclose(
        [float(loss) for loss in head.losses], expected, rtol=1e-5
    )
    for variable in head.trainable_variables:
        variable.assign(variable.constraint(variable))
    kernel, bias = table(head)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=1), 1, rtol=1e-5)
    assert bias.min() == 0


@pytest.mark.parametrize("use_bias", [False, True])
def test_state_is_counted_and_named_like_a_keras_layers(use_bias):
    head = make(use_bias=use_bias)
    assert head.count_params() == CLASSES * (DIM + use_bias)
    assert [variable.name for variable in head.weights] == ["kernel", "bias"][
        : 1 + use_bias
    ]
    head.trainable = False
    assert head.trainable_variables == []


def test_an_equal_layer_comes_from_the_config(rng):
    head = make(
        sampler="uniform",
        num_true=2,
        remove_accidental_hits=False,
        temperature=0.25,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=4),
        kernel_regularizer="l2",
        kernel_constraint="unit_norm",
        seed=9,
        name="head",
        dtype="mixed_bfloat16",
    )
    config = keras.saving.serialize_keras_object(head)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, SampledSoftmax)
    assert again.get_config() == head.get_config()
    np.testing.assert_array_equal(again.kernel, head.kernel)  # built, and seeded alike


ARGUMENTS = [
    ({"num_classes": 0}, "`num_classes` must be an int of at least 1"),
    ({"num_sampled": 0}, "Received: num_sampled=0"),
    ({"num_sampled": 2.5}, "Received: num_sampled=2.5"),
    ({"num_sampled": 11}, "Received: num_sampled=11, num_classes=10"),
    ({"num_true": 0}, "Received: num_true=0"),
    ({"sampler": "zipf"}, "Received: sampler='zipf'"),
    (
        {"temperature": 0.0},
        "`temperature` must be a positive number",
    ),
    ({"temperature": float("nan")}, "Received: temperature=nan"),
    ({"temperature": float("inf")}, "Received: temperature=inf"),
    ({"temperature": "a"}, "Received: temperature='a'"),
    ({"num_classes": True}, "Received: num_classes=True"),
    ({"ignore_class": 2.5}, "`ignore_class` must be an int or None"),
    ({"dtype": "int32"}, "`dtype` must be floating. Received: dtype=int32"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        SampledSoftmax(**{"num_classes": 10, "num_sampled": 5, **arguments})


CALLS = [
    (
        (BATCH, DIM),
        np.zeros(BATCH, "float32"),
        "`labels` must be integer class ids. For one-hot",
    ),
    (
        (BATCH, DIM),
        np.zeros((BATCH, CLASSES), "int32"),
        r"must have the shape \(6,\) or",
    ),
    ((BATCH, DIM), np.zeros((BATCH, 1, 1), "int32"), r"must have the shape \(6,\) or"),
    ((BATCH, DIM), np.zeros(BATCH + 1, "int32"), r"labels.shape=\(7,\)"),
    ((BATCH, TIME, DIM), np.zeros(BATCH, "int32"), r"must have the shape \(6, 5\) or"),
    ((BATCH, DIM + 1), np.zeros(BATCH, "int32"), r"inputs.shape=\(6, 9\), dim=8"),
    (
        (DIM,),
        np.zeros((), "int32"),
        r"must have the shape \[batch, dim\] or",
    ),
]


@pytest.mark.parametrize(("shape", "labels", "message"), CALLS)
def test_invalid_inputs_and_labels_raise(shape, labels, message):
    loss = make().sampled_loss
    with pytest.raises(ValueError, match=message):
        loss(np.ones(shape, "float32"), labels)


@pytest.mark.parametrize("name", ["sampled_loss", "exact_loss"])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_out_of_range_raise(rng, name, graph, label):
    loss = getattr(make(), name)
    loss = tf.function(loss, autograph=False) if graph else loss
    labels = np.array([0, 1, 2, label, 4, 5])
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"`labels` must be class ids in \[0, 300",
    ):
        loss(inputs_of(rng, BATCH), labels)


def test_invalid_weights_and_masks_raise(rng):
    head, inputs = make(), inputs_of(rng, BATCH)
    with pytest.raises(ValueError, match=r"sample_weight.shape=\(5,\)"):
        head.exact_loss(inputs, np.zeros(BATCH, int), sample_weight=np.ones(5))
    # One value is not one for each example.
    with pytest.raises(ValueError, match=r"mask.shape=\(1,\)"):
        head.exact_loss(inputs, np.zeros(BATCH, int), mask=[False])
    with pytest.raises(ValueError, match=r"sample_weight.shape=\(1,\)"):
        head.exact_loss(inputs, np.zeros(BATCH, int), sample_weight=[0.5])
    with pytest.raises(ValueError, match=r"mask.shape=\(\)"):
        head.exact_loss(inputs, np.zeros(BATCH, int), mask=False)
    with pytest.raises(ValueError, match=r"mask.shape=\(6, 2\)"):
        head.exact_loss(inputs, np.zeros(BATCH, int), mask=np.ones((BATCH, 2), bool))


@pytest.mark.parametrize("k", [0, CLASSES + 1])
def test_invalid_k_raises(rng, k):
    with pytest.raises(ValueError, match=f"Received: k={k}"):
        make().top_k(inputs_of(rng, BATCH), k)
