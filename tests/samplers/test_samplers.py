"""`tfsampled.samplers`: what they draw, what they expect, what they keep."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsampled import samplers
from tfsampled.layers import SampledSoftmax

CLASSES, SAMPLED, DIM = 40, 20, 4
COUNTS = np.arange(CLASSES, 0, -1) ** 2
RNG = np.random.default_rng(4)
FEATURES = RNG.normal(size=(6, DIM)).astype("float32")
LABELS = RNG.integers(0, CLASSES, 6)

MAKERS = {
    "log_uniform": samplers.LogUniform,
    "uniform": samplers.Uniform,
    "fixed_unigram": lambda **kwargs: samplers.FixedUnigram(COUNTS, 0.75, **kwargs),
    "learned_unigram": samplers.LearnedUnigram,
}
each_sampler = pytest.mark.parametrize("name", MAKERS)


def three(head):
    """Losses of three steps, which move the sampler on."""
    return [head.sampled_loss(FEATURES, LABELS).numpy().tolist() for _ in range(3)]


def headed(sampler):
    return keras.Sequential(
        [keras.Input((DIM,)), SampledSoftmax(CLASSES, SAMPLED, sampler=sampler)]
    )


@each_sampler
def test_expected_counts_are_those_of_many_draws(name):
    sampler, draws = MAKERS[name](seed=3), 3000
    # So many that one is drawn twice: TensorFlow's count of a draw without repeats,
    # P * num_sampled, is above 1 for the likeliest classes.
    sampler.build(CLASSES)
    labels = tf.range(CLASSES, dtype=tf.int64)[:, tf.newaxis]

    many = tf.function(lambda: simulate(sampler, labels, draws))
    seen, expected = many()
    # A class is drawn or not, so that the standard deviation is at most a half. And
    # the count takes the number of tries as given, which moves it by a little more.
    error = 5 * 0.5 / np.sqrt(draws) + 0.02
    np.testing.assert_allclose(seen, expected, atol=error)
    assert int(sampler.position) == draws
    np.testing.assert_allclose(tf.reduce_sum(seen), SAMPLED, rtol=1e-6)


def simulate(sampler, labels, draws):
    def body(index, seen, expected):
        ids, of_labels, of_ids = sampler.sample(labels, CLASSES, SAMPLED)
        agree = tf.gather(of_labels[:, 0], ids) == of_ids
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_all(agree), [of_ids])]
        ):
            seen += tf.scatter_nd(ids[:, tf.newaxis], tf.ones(SAMPLED), [CLASSES])
        return index + 1, seen, expected + of_labels[:, 0]

    zeros = tf.zeros(CLASSES)
    state = tf.while_loop(
        lambda index, *_: index < draws,
        body,
        (0, zeros, zeros),
        parallel_iterations=1,
    )
    return state[1] / draws, state[2] / draws


@pytest.mark.parametrize(
    "name",
    [
        "learned_unigram",
        *(pytest.param(one, marks=pytest.mark.slow) for one in list(MAKERS)[:3]),
    ],
)
def test_compiled_code_draws_what_eager_code_draws(name):
    def drawn(**kwargs):
        sampler = MAKERS[name](seed=7)
        sampler.build(CLASSES)

        def draw(labels):
            return sampler.sample(labels, CLASSES, SAMPLED).sampled_candidates

        draw = tf.function(draw, **kwargs) if kwargs else draw
        labels = tf.constant(LABELS[:, np.newaxis])
        return [draw(labels).numpy().tolist() for _ in range(3)]

    assert drawn() == drawn(jit_compile=True) == drawn(jit_compile=False)


@each_sampler
@pytest.mark.parametrize("how", ["keras", "weights", "checkpoint"])
def test_a_loaded_sampler_goes_on_where_the_saved_one_was(name, how, tmp_path):
    model = headed(MAKERS[name]())
    three(model.layers[-1])
    if how == "keras":
        model.save(tmp_path / "model.keras")
        other = keras.models.load_model(tmp_path / "model.keras")
    elif how == "weights":
        model.save_weights(tmp_path / "model.weights.h5")
        other = headed(MAKERS[name]())
        other.load_weights(tmp_path / "model.weights.h5")
    else:
        path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
        other = headed(MAKERS[name]())
        tf.train.Checkpoint(model=other).restore(path).expect_partial()
    assert three(other.layers[-1]) == three(model.layers[-1])


def test_state_is_no_weight_of_the_head():
    head = headed(samplers.LearnedUnigram()).layers[-1]
    assert [weight.name for weight in head.weights] == ["kernel", "bias"]
    assert head.count_params() == CLASSES * (DIM + 1)


def test_a_seed_fixes_the_draws_and_none_leaves_them_free():
    def drawn(sampler):
        return [
            sampler.sample([[1]], CLASSES, SAMPLED)[0].numpy().tolist() for _ in "ab"
        ]

    assert drawn(samplers.Uniform(seed=1)) == drawn(samplers.Uniform(seed=1))
    assert drawn(samplers.Uniform(seed=1)) != drawn(samplers.Uniform(seed=2))
    assert drawn(samplers.Uniform()) != drawn(samplers.Uniform())
    keras.utils.set_random_seed(5)
    first = drawn(samplers.Uniform())
    keras.utils.set_random_seed(5)
    assert drawn(samplers.Uniform()) == first


def test_counts_are_no_part_of_the_graph():
    classes = 100_000
    head = SampledSoftmax(
        classes, SAMPLED, sampler=samplers.FixedUnigram(np.arange(1, classes + 1))
    )
    head.build((None, DIM))
    function = tf.function(head.sampled_loss)
    graph = function.get_concrete_function(FEATURES, LABELS).graph.as_graph_def()
    assert graph.ByteSize() < 2 * classes  # four bytes a class would not fit


def test_learned_unigram_learns_labels_and_no_padding():
    sampler = samplers.LearnedUnigram()
    head = SampledSoftmax(CLASSES, SAMPLED, sampler=sampler, ignore_class=0)
    head.sampled_loss(FEATURES, [0, 0, 3, 3, 3, 4])
    expected = np.ones(CLASSES)
    expected[[3, 4]] += 3, 1
    np.testing.assert_array_equal(sampler.class_weights, expected)


@pytest.mark.parametrize("graph", [False, True])
def test_a_warning_where_labels_are_not_ordered_by_frequency(graph):
    def judged(labels):
        head = SampledSoftmax(5000, SAMPLED)
        head.build((None, DIM))
        loss = tf.function(head.sampled_loss) if graph else head.sampled_loss
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                loss(np.zeros((1000, DIM), "float32"), labels)
                head.sampler.warn_if_unordered()
        return [str(one.message) for one in caught]

    assert judged(np.minimum(RNG.zipf(1.3, 1000) - 1, 4999)) == []
    for labels in (RNG.integers(0, 5000, 1000), np.full(1000, 4999)):
        (message,) = judged(labels)
        assert message.startswith("the labels are not ordered by frequency")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samplers.FixedUnigram([[1.0]]), r"counts have the shape \(1, 1\)"),
        (lambda: samplers.FixedUnigram([1.0, -1.0]), "counts lie between -1.0 and 1"),
        (lambda: samplers.FixedUnigram([1.0, np.inf]), "they must be finite"),
        (
            lambda: SampledSoftmax(10, 2, sampler=samplers.FixedUnigram([1, 2])),
            "has 2 counts, but there are 10 classes",
        ),
        (
            lambda: SampledSoftmax(3, 2, sampler=samplers.FixedUnigram([1, 0, 0])),
            "only 1 classes have a count above 0",
        ),
        (
            lambda: SampledSoftmax(3, 4, sampler=samplers.LearnedUnigram()),
            "num_sampled is 4, but there are 3 classes to draw from",
        ),
        (
            lambda: SampledSoftmax(3, 2, sampler=samplers.Uniform(), seed=1),
            r"pass Uniform\(seed=1\) instead",
        ),
        (lambda: SampledSoftmax(3, 2, sampler="mean"), "an object of tfsampled.samp"),
    ],
)
def test_what_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_learned_unigram_for_two_numbers_of_classes():
    sampler = samplers.LearnedUnigram()
    SampledSoftmax(10, 2, sampler=sampler).build((None, DIM))
    with pytest.raises(ValueError, match="counts 10 classes, but the head has 20"):
        SampledSoftmax(20, 2, sampler=sampler).build((None, DIM))


@pytest.mark.parametrize("graph", [False, True])
def test_a_label_that_has_no_count(graph):
    counts = np.ones(CLASSES)
    counts[5] = 0
    head = SampledSoftmax(CLASSES, 4, sampler=samplers.FixedUnigram(counts))
    head.build((None, DIM))
    loss = tf.function(head.sampled_loss) if graph else head.sampled_loss
    with pytest.raises(tf.errors.InvalidArgumentError, match="count in FixedUnigram"):
        loss(FEATURES, [1, 2, 3, 4, 5, 6])
