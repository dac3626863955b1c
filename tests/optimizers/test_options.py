"""The options of a Keras optimizer: row-sparse, or refused in a sentence."""

import itertools
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, jit_or_not, slow
from tests.optimizers import steps
from tfsampled.optimizers import Adagrad, LazyAdam, LossScaleOptimizer, RowWiseAdagrad

OURS = pytest.mark.parametrize("ours", [Adagrad, LazyAdam, RowWiseAdagrad])
ONE = steps.sparse((np.array([3, 3, 8]), np.ones([3, 4])))
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
OPTIONS = [
    {"learning_rate": SCHEDULE},
    {"learning_rate": lambda: 0.05},
    {"clipnorm": 0.5},
    {"clipnorm": 1e6},
    {"clipvalue": 0.7},
    {"global_clipnorm": 0.5},
    {"global_clipnorm": 1e6},
    {"loss_scale_factor": 8.0},
    {"loss_scale_factor": 8.0, "clipnorm": 0.5},
    {"loss_scale_factor": 8.0, "global_clipnorm": 0.5},
    {"weight_decay": 0.01},
    {"weight_decay": 0.01, "clipvalue": 0.7},
]
QUICK = [OPTIONS[index] for index in (0, 2, 5, 9, 11)]


def named(options):
    """A name that is the same in every process: no address of an object."""
    if not isinstance(options, dict):
        return getattr(options, "__name__", str(options))
    return "-".join(
        f"{name}={value if isinstance(value, (int, float)) else type(value).__name__}"
        for name, value in options.items()
    )


def table_and_encoder(optimizer, form, jit=False):
    """A table with row-sparse gradients and a matrix with dense ones, 8 steps on."""
    table = keras.Variable(steps.start().astype("float64"), dtype="float64")
    encoder = keras.Variable(np.eye(3), dtype="float64")
    step = steps.compiled(optimizer, [table, encoder], jit)
    for index, grad in enumerate(steps.gradients(8, every_row=True)):
        step([form(grad, "float64"), tf.fill([3, 3], np.float64(index % 4 - 1))])
    return table.numpy(), encoder.numpy()


@pytest.mark.parametrize(
    ("options", "name", "jit"),
    cases(
        OPTIONS,
        ["Adagrad", "LazyAdam"],
        [False, True],
        quick=lambda options, name, jit: (
            name == "LazyAdam" and not jit and options in QUICK
        ),
    ),
    ids=named,
)
def test_options_do_what_keras_does_to_the_densified_gradient(options, name, jit):
    ours, theirs = {
        "Adagrad": (Adagrad, keras.optimizers.Adagrad),
        "LazyAdam": (LazyAdam, keras.optimizers.Adam),
    }[name]
    options = {"learning_rate": 0.05, **options}
    ours = table_and_encoder(ours(**options), steps.sparse, jit)
    theirs = table_and_encoder(theirs(**options), steps.dense)
    for one, other in zip(ours, theirs, strict=True):
        # float32 numbers take part: the learning rate, and Keras's powers of beta.
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-7)


@OURS
def test_weight_decay_is_of_the_rows_touched(ours):
    ids, values = np.array([3, 3, 8]), np.zeros([3, 4])
    after = steps.train(ours(0.5, weight_decay=0.1), [steps.sparse((ids, values))] * 2)
    expected = steps.start()
    expected[[3, 8]] *= (1 - 0.5 * 0.1) ** 2
    np.testing.assert_allclose(after, expected, rtol=1e-6)


@OURS
def test_a_variable_may_be_excluded_from_weight_decay(ours):
    optimizer = ours(0.5, weight_decay=0.1)
    table = keras.Variable(steps.start(), name="table")
    optimizer.exclude_from_weight_decay(var_names=["table"])
    grad = steps.sparse((np.array([3]), np.zeros([1, 4])))
    optimizer.apply([grad], [table])
    np.testing.assert_array_equal(table, steps.start())


def test_a_layer_may_be_excluded_from_weight_decay():
    """By its name, which is part of what Keras matches for a dense gradient."""
    before, after = {}, {}
    for gradient in ("sparse", "dense"):
        layer = keras.layers.Embedding(10, 4, name="words")
        layer.build(None)
        optimizer = Adagrad(0.5, weight_decay=0.1)
        optimizer.exclude_from_weight_decay(var_names=["words"])
        before[gradient] = layer.embeddings.numpy()
        grad = steps.sparse((np.array([3]), np.zeros([1, 4])))
        if gradient == "dense":
            grad = tf.zeros([10, 4])
        optimizer.apply([grad], [layer.embeddings])
        after[gradient] = layer.embeddings.numpy()
    np.testing.assert_equal(after, before)


@OURS
@pytest.mark.parametrize(
    "options",
    [
        {"use_ema": True},
        {"ema_overwrite_frequency": 5},
        {"gradient_accumulation_steps": 2},
    ],
    ids=named,
)
def test_options_that_need_the_whole_table_raise(ours, options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"`{name}` must not be set: .*: {name}="):
        ours(**options)


@OURS
@pytest.mark.parametrize("name", ["use_ema", "gradient_accumulation_steps"])
def test_an_option_set_later_is_refused_too(ours, name):
    optimizer = ours()
    setattr(optimizer, name, 4)
    with pytest.raises(ValueError, match=f"Received: {name}=4"):
        optimizer.build([keras.Variable(steps.start())])
    assert not optimizer.built
    optimizer, table = ours(), keras.Variable(steps.start())
    optimizer.build([table])
    setattr(optimizer, name, 4)
    with pytest.raises(ValueError, match=f"Received: {name}=4"):
        optimizer.apply([steps.sparse(steps.gradients(1)[0])], [table])
    np.testing.assert_array_equal(table, steps.start())


@OURS
def test_a_constraint_of_the_table_is_refused(ours):
    layer = keras.layers.Embedding(50, 4, embeddings_constraint="non_neg")
    layer.build()
    grad = steps.sparse(steps.gradients(1)[0])
    with pytest.raises(ValueError, match="must not have a constraint"):
        ours().apply([grad], layer.trainable_variables)


def test_a_constraint_of_the_encoder_is_kept():
    layer = keras.layers.Dense(2, kernel_constraint="non_neg", use_bias=False)
    layer.build([None, 3])
    table = keras.Variable(steps.start())
    grads = [steps.sparse(steps.gradients(1)[0]), tf.ones([3, 2])]
    Adagrad(10.0).apply(grads, [table, layer.kernel])
    np.testing.assert_array_equal(layer.kernel, np.zeros([3, 2]))


def test_a_strategy_without_copies_is_refused():
    class CentralStorage:
        num_replicas_in_sync = 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.distribute, "get_strategy", CentralStorage)
        with pytest.raises(ValueError, match="must be a MirroredStrategy or a Multi"):
            LazyAdam()


@OURS
def test_keras_loss_scaling_around_it_gives_the_same_numbers(ours):
    table = keras.Variable(steps.start())
    wrapped = keras.optimizers.LossScaleOptimizer(ours(0.1), initial_scale=8.0)
    grad = steps.sparse(steps.gradients(1)[0])
    scaled = tf.IndexedSlices(8 * grad.values, grad.indices, grad.dense_shape)
    wrapped.apply([scaled], [table])
    plain = steps.train(ours(0.1), [grad])
    np.testing.assert_allclose(table, plain, rtol=1e-6)


CLIP_OPTIONS = {"clipnorm": 0.5, "global_clipnorm": 0.25, "clipvalue": 0.125}


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.permutations(CLIP_OPTIONS, 2))
)
def test_clip_options_that_are_set_later(first, second):
    """Keras clips by the first of clipnorm, global_clipnorm and clipvalue."""
    gradient = steps.gradients(1)[0]
    results = []
    for make, form in (
        (Adagrad, steps.sparse),
        (keras.optimizers.Adagrad, steps.dense),
    ):
        optimizer = make(0.1, **{first: CLIP_OPTIONS[first]})
        setattr(optimizer, second, CLIP_OPTIONS[second])
        other, table = keras.Variable(steps.start()), keras.Variable(steps.start())
        optimizer.apply([form(gradient), tf.ones_like(other)], [table, other])
        results.append((table.numpy(), other.numpy()))
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("ours", "jit"),
    cases(
        [Adagrad, LazyAdam, RowWiseAdagrad],
        [False, True],
        quick=lambda ours, jit: ours is LazyAdam,
    ),
)
def test_loss_scaling_skips_steps_that_are_not_finite(ours, jit):
    scaled = LossScaleOptimizer(ours(0.1), initial_scale=8.0, dynamic_growth_steps=2)
    grads = [steps.sparse(grad) for grad in steps.gradients(2)]
    infinite = tf.IndexedSlices(grads[0].values / 0, grads[0].indices)
    table = keras.Variable(steps.start())
    step = steps.compiled(scaled, [table], jit)
    step([infinite])
    np.testing.assert_array_equal(table, steps.start())
    assert scaled.dynamic_scale.numpy() == 4.0
    for grad in grads:
        step([tf.IndexedSlices(4 * grad.values, grad.indices)])
    assert scaled.dynamic_scale.numpy() == 8.0
    plain = steps.train(ours(0.1), grads)
    np.testing.assert_allclose(table, plain, rtol=1e-6, atol=1e-7)


def test_loss_scaling_of_other_optimizers_stays_keras_own():
    scaled = LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=4.0)
    table = keras.Variable([1.0])
    scaled.apply([tf.constant([4.0])], [table])
    assert table.numpy() == 0.5


def outputs_of(graph):
    """Type and output shapes of each operation, in branches and loops too."""
    made = graph.as_graph_def(add_shapes=True)
    bodies = [function.node_def for function in made.library.function]
    for node in [node for body in [made.node, *bodies] for node in body]:
        shapes = node.attr["_output_shapes"].list.shape
        yield node.op, [tuple(size.size for size in shape.dim) for shape in shapes]


@pytest.mark.parametrize(
    ("ours", "options"),
    [
        *(
            (LazyAdam, options) if options in QUICK else slow(LazyAdam, options)
            for options in OPTIONS
        ),
        (LazyAdam, {"correct_skipped": True, "amsgrad": True}),
        slow(Adagrad, {}),
        (RowWiseAdagrad, {}),
    ],
    ids=named,
)
def test_no_option_makes_a_tensor_as_large_as_the_table(ours, options):
    num_rows = 9973
    table = tf.Variable(tf.zeros([num_rows, 4]))
    optimizer = LossScaleOptimizer(ours(**options))
    if "loss_scale_factor" in options:
        optimizer = ours(**options)
    optimizer.build([table])

    @tf.function
    def step(values, ids):
        grad = tf.IndexedSlices(values, ids, [num_rows, 4])
        optimizer.apply([grad], [table])

    graph = step.get_concrete_function(
        tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)
    ).graph
    made = list(outputs_of(graph))
    assert "ResourceScatterUpdate" in dict(made)
    large = [(op, shapes) for op, shapes in made if (num_rows, 4) in shapes]
    assert not large


@pytest.mark.parametrize(
    ("ours", "name"),
    cases(
        [Adagrad, LazyAdam, RowWiseAdagrad],
        ["clipnorm", "global_clipnorm", "clipvalue"],
        quick=lambda ours, name: (
            (ours, name)
            in [
                (Adagrad, "clipnorm"),
                (LazyAdam, "global_clipnorm"),
                (RowWiseAdagrad, "clipvalue"),
            ]
        ),
    ),
)
def test_limits_below_0_clip_nothing_as_in_keras(ours, name):
    clipped = steps.train(ours(0.1, **{name: -1.0}), [ONE])
    np.testing.assert_array_equal(clipped, steps.train(ours(0.1), [ONE]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Adagrad(0.1, -1),
            "Received: initial_accumulator_value=-1",
        ),
        (lambda: RowWiseAdagrad(epsilon=-1.0), r"at least 0. Received: epsilon=-1\.0"),
        (lambda: LazyAdam(epsilon=float("nan")), "Received: epsilon=nan"),
        (lambda: LazyAdam(-1.0), r"`learning_rate` of LazyAdam must be a finite"),
        (lambda: Adagrad(float("nan")), "Received: learning_rate=nan"),
        (
            lambda: LazyAdam(beta_1=1.0),
            r"`beta_1` must be in \[0, 1\). Received: beta_1=1\.0",
        ),
        (lambda: LazyAdam(beta_2=-0.5), r"Received: beta_2=-0\.5"),
        (lambda: LossScaleOptimizer("adam"), "Received: inner_optimizer='adam'"),
        (lambda: LazyAdam(float("inf")), "Received: learning_rate=inf"),
        (lambda: LazyAdam(beta_1=cast(Any, "a")), "Received: beta_1='a'"),
        (lambda: LazyAdam(epsilon=cast(Any, None)), "Received: epsilon=None"),
        (lambda: LazyAdam(weight_decay=-1.0), r"Received: weight_decay=-1\.0"),
        (lambda: Adagrad(loss_scale_factor=-2.0), r"Received: loss_scale_factor=-2\.0"),
        (
            lambda: LossScaleOptimizer(LossScaleOptimizer(LazyAdam())),
            "that does not scale the loss itself",
        ),
        (
            lambda: LossScaleOptimizer(LazyAdam(), -1.0),
            r"initial_scale=-1\.0",
        ),
        (
            lambda: LossScaleOptimizer(LazyAdam(), 2.0, 0),
            "growth_steps=0",
        ),
    ],
)
def test_invalid_numbers_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_sixth_argument_is_not_taken_for_another():
    # Of Keras's Adam it is weight_decay.
    arguments: list[Any] = [0.1, 0.9, 0.999, 1e-7, False, 0.01]
    with pytest.raises(TypeError, match="positional argument"):
        LazyAdam(*arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LazyAdam(0.1, epsilon=0.0),
        lambda: Adagrad(0.1, initial_accumulator_value=0.0, epsilon=0.0),
        lambda: RowWiseAdagrad(0.1, initial_accumulator_value=0.0, epsilon=0.0),
    ],
)
def test_a_row_of_gradient_0_stays_without_epsilon(make):
    grad = steps.sparse((np.array([3, 5]), np.array([[0.0] * 4, [1.0] * 4])))
    after = steps.train(make(), [grad])
    np.testing.assert_array_equal(after[3], steps.start()[3])
    assert np.isfinite(after).all()
    assert (after[5] != steps.start()[5]).all()


@OURS
def test_a_variable_is_given_once(ours):
    table = tf.Variable(tf.ones([10, 4]))
    with pytest.raises(ValueError, match="2 variables, 1 different"):
        ours(0.1).build([table, table])
    optimizer = ours(0.1)
    optimizer.build([table])
    with pytest.raises(ValueError, match="2 variables, 1 different"):
        optimizer.apply([tf.ones([10, 4])] * 2, [table] * 2)
    assert optimizer.iterations == 0


@pytest.mark.parametrize(
    "make",
    [Adagrad, LazyAdam, RowWiseAdagrad, lambda: LazyAdam(correct_skipped=True)],
)
@jit_or_not
def test_a_scalar_beside_a_table(make, jit):
    """Such as the scale of `keras.layers.Attention(use_scale=True)`."""
    scale, table = keras.Variable(1.0), keras.Variable(tf.ones([10, 4]))
    same, optimizer = keras.Variable([1.0]), make()
    optimizer.build([scale, same, table])
    rows = tf.IndexedSlices(tf.ones([1, 4]), tf.constant([3]))

    @tf.function(jit_compile=jit)
    def step():
        optimizer.apply(
            [tf.constant(0.5), tf.constant([0.5]), rows], [scale, same, table]
        )

    for _ in range(2):
        step()
    assert scale.shape == ()
    np.testing.assert_allclose(scale, same[0], rtol=1e-6)
    assert scale < 1


def test_an_optimizer_that_scales_the_loss_is_built_once():
    table = tf.Variable(tf.ones([10, 4]))
    optimizer = LossScaleOptimizer(LazyAdam(0.1))
    with pytest.raises(ValueError, match="2 variables, 1 different"):
        optimizer.build([table, table])
    assert len(optimizer.variables) == len(LossScaleOptimizer(LazyAdam(0.1)).variables)
    optimizer.build([table])
    count = len(optimizer.variables)
    optimizer.build([table])
    assert len(optimizer.variables) == count


def test_global_clipnorm_leaves_out_what_is_assigned():
    """A float8 layer has "gradients" that Keras assigns as they are."""
    table = keras.Variable(np.ones([10, 4], "float32"))
    scale = keras.Variable(np.float32(1))
    scale.overwrite_with_gradient = True
    optimizer = RowWiseAdagrad(0.1, global_clipnorm=1.0)
    alone = RowWiseAdagrad(0.1, global_clipnorm=1.0)
    expected = keras.Variable(np.ones([10, 4], "float32"))
    rows = tf.IndexedSlices(tf.ones([2, 4]), [1, 2], [10, 4])
    optimizer.apply([rows, tf.constant(1e6)], [table, scale])
    alone.apply([rows], [expected])
    np.testing.assert_array_equal(table, expected)
    assert float(scale) == 1e6


@pytest.mark.parametrize("beta_1", [0, np.float64(0.5)])
def test_betas_of_any_number_type(beta_1):
    table = tf.Variable(tf.ones([10, 4]))
    optimizer = LazyAdam(0.1, beta_1=beta_1, correct_skipped=True)
    optimizer.build([table])
    rows = tf.IndexedSlices(tf.ones([2, 4]), [1, 2], [10, 4])
    tf.function(lambda: optimizer.apply([rows], [table]))()
    np.testing.assert_allclose(table[1], 0.9 * np.ones(4), rtol=1e-5)
