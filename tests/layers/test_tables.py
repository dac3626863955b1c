"""`layers.SampledSoftmax` with shards, a tied table, padded labels, Dense's weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, logsumexp64, slow
from tfsampled.layers import SampledSoftmax
from tfsampled.samplers import LearnedUnigram

CLASSES, SAMPLED, DIM, BATCH = 23, 9, 4, 5
RNG = np.random.default_rng(8)
FEATURES = RNG.normal(size=(BATCH, DIM)).astype("float32")
LABELS = RNG.integers(0, CLASSES, BATCH)
PADDED = np.array([[1, 2, 3], [4, -1, -1], [-1, 5, 6], [-1, -1, -1], [7, 8, -1]])


def make(**kwargs):
    head = SampledSoftmax(
        CLASSES,
        kwargs.pop("num_sampled", SAMPLED),
        **{"seed": 2, "bias_initializer": "random_normal", **kwargs},
    )
    head.build((None, DIM))
    return head


@pytest.mark.parametrize("strategy", ["mod", "div"])
@pytest.mark.parametrize("num_shards", [slow(2), 3, slow(23)])
def test_shards_are_the_whole_table_cut(strategy, num_shards):
    whole = make(kernel_initializer=keras.initializers.RandomNormal(seed=1))
    cut = make(
        kernel_initializer=keras.initializers.RandomNormal(seed=1),
        num_shards=num_shards,
        partition_strategy=strategy,
    )
    cut.bias.assign(whole.bias)
    assert [kernel.name for kernel in cut.kernel] == [
        f"kernel_{index}" for index in range(num_shards)
    ]
    assert cut.count_params() == whole.count_params()
    np.testing.assert_array_equal(cut.table(), whole.kernel)
    np.testing.assert_array_equal(cut(FEATURES), whole(FEATURES))
    for name in ("sampled_loss", "exact_loss"):
        np.testing.assert_allclose(
            getattr(cut, name)(FEATURES, LABELS),
            getattr(whole, name)(FEATURES, LABELS),
            rtol=1e-6,
        )
    for ours, theirs in zip(
        cut.top_k(FEATURES, 7), whole.top_k(FEATURES, 7), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    if strategy == "mod":
        np.testing.assert_array_equal(cut.kernel[1], whole.kernel[1::num_shards])


def test_ties_across_shards_go_to_the_lower_class():
    head = make(
        num_shards=3,
        partition_strategy="mod",
        kernel_initializer="ones",
        bias_initializer="zeros",
    )
    _, classes = head.top_k(FEATURES, 6)
    np.testing.assert_array_equal(classes, np.tile(np.arange(6), (BATCH, 1)))


def test_a_shard_gets_a_row_sparse_gradient():
    head = make(num_shards=3, partition_strategy="mod")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head.sampled_loss(FEATURES, LABELS))
    for gradient in tape.gradient(loss, [kernel.value for kernel in head.kernel]):
        assert isinstance(gradient, tf.IndexedSlices)


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("use_bias", [False, True])
def test_weights_move_to_dense_and_back(num_shards, use_bias):
    head = make(num_shards=num_shards, partition_strategy="mod", use_bias=use_bias)
    dense = keras.layers.Dense(CLASSES, use_bias=use_bias)
    dense.build((None, DIM))
    bias = [head.bias] if use_bias else []
    dense.set_weights([tf.transpose(head.table()), *bias])
    np.testing.assert_allclose(dense(FEATURES), head(FEATURES), rtol=1e-5, atol=1e-6)
    other = make(num_shards=num_shards, partition_strategy="mod", use_bias=use_bias)
    other.set_table(tf.transpose(dense.kernel), dense.bias)
    np.testing.assert_array_equal(other(FEATURES), head(FEATURES))


def test_a_tied_head_has_no_table_of_its_own():
    embedding = keras.layers.Embedding(CLASSES, DIM)
    head = make(tied_to=embedding)
    assert head.kernel is embedding.embeddings
    assert head.count_params() == CLASSES * (DIM + 1)
    np.testing.assert_allclose(
        head(FEATURES),
        FEATURES @ embedding.embeddings.numpy().T + head.bias.numpy(),
        rtol=1e-5,
        atol=1e-6,
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head.sampled_loss(FEATURES, LABELS))
    gradient = tape.gradient(loss, embedding.embeddings.value)
    assert isinstance(gradient, tf.IndexedSlices)


@pytest.mark.parametrize(
    ("dtype", "temperature", "use_bias"),
    cases(
        ["float32", "float64"],
        [1.0, 0.5],
        [False, True],
        quick=lambda dtype, temperature, use_bias: (
            use_bias == (temperature < 1) == (dtype == "float32")
        ),
    ),
)
def test_a_ragged_number_of_labels(dtype, temperature, use_bias):
    head = make(
        num_sampled=CLASSES,  # all of them: the sampled loss is the exact one
        sampler="uniform",
        num_true=3,
        ignore_class=-1,
        use_bias=use_bias,
        temperature=temperature,
        dtype=dtype,
    )
    logits = np.asarray(head(FEATURES), np.float64)
    expected = [
        logsumexp64(logits[row]) - logits[row, labels[labels >= 0]].mean()
        if labels.max() >= 0
        else 0
        for row, labels in enumerate(PADDED)
    ]
    # The offset of a padded column, 42 nats, is rounded in float32.
    atol = {"float32": 42 * np.finfo("float32").eps, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(head.exact_loss(FEATURES, PADDED), expected, atol=atol)
    # Expected counts are float32.
    atol = max(atol, 1e-6)
    np.testing.assert_allclose(head.sampled_loss(FEATURES, PADDED), expected, atol=atol)
    np.testing.assert_array_equal(
        head.example_mask(FEATURES, PADDED), [True, True, True, False, True]
    )


@pytest.mark.parametrize("name", ["sampled_loss", "exact_loss"])
def test_padding_gets_no_gradient(name):
    rng = np.random.default_rng(4)
    kernel, bias = rng.normal(size=(CLASSES, DIM)), rng.normal(size=CLASSES)

    def gradients(labels, rows, dtype):
        head = make(
            num_true=3,
            ignore_class=-1,
            num_sampled=CLASSES,
            sampler="uniform",
            dtype=dtype,
        )
        head.set_table(kernel.astype("float32"), bias.astype("float32"))
        features = tf.Variable(FEATURES[rows], dtype=dtype)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(getattr(head, name)(features, labels))
        parts = tape.gradient(loss, [features, head.kernel.value])
        return [tf.convert_to_tensor(part).numpy() for part in parts]

    rows = [0, 1, 2, 4]  # without the example that is all padding
    whole, table = gradients(PADDED, slice(None), "float32")
    part, expected = gradients(PADDED[rows], rows, "float32")
    truth = gradients(PADDED[rows], rows, "float64")
    # A softmax of float32 logits is off by the rounding of the largest logit.
    logits = FEATURES @ kernel.T + bias
    few_ulp = 4 * np.spacing(np.abs(logits).max().astype("float32"))
    for ours, theirs, exact in zip(
        [whole[rows], table], [part, expected], truth, strict=True
    ):
        allowed = np.abs(theirs - exact).max() + few_ulp * np.abs(exact).max()
        assert np.abs(ours - exact).max() <= allowed
    np.testing.assert_array_equal(whole[3], 0)


def test_ignore_class_may_be_a_class():
    head = make(ignore_class=0)
    losses = head.exact_loss(FEATURES, [0, 1, 0, 2, 3]).numpy()
    np.testing.assert_array_equal(losses == 0, [True, False, True, False, False])


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_saved_head_is_an_equal_one(num_shards, tmp_path):
    head = make(
        num_shards=num_shards, partition_strategy="mod", num_true=2, ignore_class=-1
    )
    keras.Sequential([keras.Input((DIM,)), head]).save(tmp_path / "head.keras")
    (other,) = keras.models.load_model(tmp_path / "head.keras").layers
    assert other.get_config() == head.get_config()
    np.testing.assert_array_equal(other(FEATURES), head(FEATURES))


EMBEDDING = keras.layers.Embedding(CLASSES, DIM)
ARGUMENTS = [
    (
        {"num_shards": 24},
        "`num_shards` must be at most `num_classes`",
    ),
    (
        {"num_shards": 2, "partition_strategy": "row"},
        "Received: partition_strategy='row'",
    ),
    ({"tied_to": keras.layers.Dense(3)}, "`tied_to` must be a keras.layers.Embedding"),
    ({"tied_to": keras.layers.Embedding(5, 4)}, "tied_to.input_dim=5, num_classes=23"),
    ({"tied_to": EMBEDDING, "num_shards": 2}, "`num_shards` must be 1 with `tied_to`"),
    ({"tied_to": EMBEDDING, "kernel_regularizer": "l2"}, "to that layer"),
    (
        {"tied_to": keras.layers.Embedding(CLASSES, 3)},
        "tied_to.output_dim=3",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_invalid_tables_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_set_table_of_another_shape_raises():
    with pytest.raises(ValueError, match=r"the shape \(23,\). .* bias.shape=None"):
        make().set_table(np.zeros((CLASSES, DIM)))
    with pytest.raises(ValueError, match=r"kernel.shape=\(4, 23\), bias.shape=\(23,\)"):
        make().set_table(np.zeros((DIM, CLASSES)), np.zeros(CLASSES))


def test_a_sampler_of_another_number_of_classes_leaves_no_weights():
    sampler = LearnedUnigram()
    sampler.build_once(CLASSES + 1)
    head = SampledSoftmax(CLASSES, 5, sampler)
    for _ in range(2):
        with pytest.raises(ValueError, match="the same number of classes"):
            head.build((None, DIM))
        assert head.weights == []
