"""`tfsampled.samplers`: what they draw, what they expect, what they save."""

import copy
import json
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, count_operations, slow
from tfsampled import samplers
from tfsampled._core.candidate_sampling import alias_method
from tfsampled._core.candidate_sampling.samplers import as_draw, with_counts
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


def three_losses(head):
    """Returns the losses of three steps, which move the sampler on."""
    return [head.sampled_loss(FEATURES, LABELS).numpy().tolist() for _ in range(3)]


def make_model(sampler):
    return keras.Sequential(
        [keras.Input((DIM,)), SampledSoftmax(CLASSES, SAMPLED, sampler=sampler)]
    )


def draw_twice(sampler):
    return [
        sampler.sample([[1]], CLASSES, SAMPLED)[0].numpy().tolist() for _ in range(2)
    ]


@pytest.mark.parametrize(
    "name", [name if name == "learned_unigram" else slow(name) for name in MAKERS]
)
def test_expected_counts_are_those_of_many_draws(name):
    sampler, draws = MAKERS[name](seed=3), 3000
    sampler.build(CLASSES)
    labels = tf.range(CLASSES, dtype=tf.int64)[:, tf.newaxis]
    seen, expected = tf.function(lambda: simulate(sampler, labels, draws))()
    # A class is drawn or not, so that the standard deviation is at most a half. And
    # the count takes the number of tries for fixed, which moves it by a little more.
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


@each_sampler
@pytest.mark.slow
def test_draws_are_equal_in_all_modes(name):
    def draw(**kwargs):
        sampler = MAKERS[name](seed=7)
        sampler.build(CLASSES)

        def sample(labels):
            return sampler.sample(labels, CLASSES, SAMPLED).sampled_candidates

        sample = tf.function(sample, **kwargs) if kwargs else sample
        labels = tf.constant(LABELS[:, np.newaxis])
        return [sample(labels).numpy().tolist() for _ in range(3)]

    assert draw() == draw(jit_compile=True) == draw(jit_compile=False)


@pytest.mark.parametrize(
    ("name", "how"),
    cases(
        MAKERS,
        ["keras", "weights", "checkpoint"],
        quick=lambda name, how: (name == "learned_unigram") == (how != "keras"),
    ),
)
def test_a_loaded_sampler_goes_on_where_the_saved_one_was(name, how, tmp_path):
    model = make_model(MAKERS[name]())
    three_losses(model.layers[-1])
    if how == "keras":
        model.save(tmp_path / "model.keras")
        other = keras.models.load_model(tmp_path / "model.keras")
    elif how == "weights":
        model.save_weights(tmp_path / "model.weights.h5")
        other = make_model(MAKERS[name]())
        other.load_weights(tmp_path / "model.weights.h5")
    else:
        path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
        other = make_model(MAKERS[name]())
        tf.train.Checkpoint(model=other).restore(path).expect_partial()
    assert three_losses(other.layers[-1]) == three_losses(model.layers[-1])


def test_state_is_no_weight_of_the_head():
    head = make_model(samplers.LearnedUnigram()).layers[-1]
    assert [weight.name for weight in head.weights] == ["kernel", "bias"]
    assert head.count_params() == CLASSES * (DIM + 1)


def test_seeds_fix_the_draws():
    assert draw_twice(samplers.Uniform(seed=1)) == draw_twice(samplers.Uniform(seed=1))
    assert draw_twice(samplers.Uniform(seed=1)) != draw_twice(samplers.Uniform(seed=2))
    assert draw_twice(samplers.Uniform()) != draw_twice(samplers.Uniform())
    keras.utils.set_random_seed(5)
    first = draw_twice(samplers.Uniform())
    keras.utils.set_random_seed(5)
    assert draw_twice(samplers.Uniform()) == first


def test_a_seed_generator_gives_each_sampler_a_seed():
    generator = keras.random.SeedGenerator(1)
    first, second = (samplers.Uniform(seed=generator) for _ in range(2))
    assert first.seed != second.seed
    restored = samplers.Uniform.from_config(first.get_config())
    assert draw_twice(restored) == draw_twice(first)


@pytest.mark.parametrize("num_sampled", [2**20, 2**21, 2**22])
def test_calls_of_a_million_classes_draw_other_words(num_sampled):
    """TensorFlow's position overflows: its calls draw the same classes again."""
    sampler = samplers.Uniform(seed=1)
    sampler.build(num_sampled)
    labels = tf.constant([[0]], tf.int64)
    starts = [int(sampler._next_stream(labels, num_sampled).low) for _ in range(3)]
    assert starts == [0, 512 * num_sampled, 1024 * num_sampled]


@pytest.mark.parametrize("num_classes", [slow(10_000), 1_000_000])
def test_a_draw_has_few_operations(num_classes):
    sampler = samplers.LogUniform(seed=1)
    sampler.build(num_classes)

    @tf.function
    def draw(labels):
        drawn = sampler.draw(labels, None, num_classes, 1024)
        return with_counts(as_draw(drawn), labels)

    labels = tf.TensorSpec([None, 1], tf.int64)
    assert count_operations(draw.get_concrete_function(labels)) < 200


def test_fixed_unigram_prepares_its_table_once(monkeypatch):
    sampler = samplers.FixedUnigram(COUNTS, 0.75)
    sampler.sample(LABELS[:, np.newaxis], CLASSES, SAMPLED)
    for name in ("class_weights", "alias_table", "validate_weights"):
        monkeypatch.delattr(alias_method, name)
    draw_twice(sampler)
    sampler.build_once(CLASSES)  # of a second head


def test_expected_counts_of_many_classes_are_of_a_float64_sum():
    """A running sum in float32 stops at 2 ** 24."""
    counts = np.ones(2_000_000, "float32")
    counts[0] = 2.0**24
    sampler = samplers.FixedUnigram(counts)
    sampler.build(len(counts))
    probability = sampler._distribution.probability(tf.constant([0, 1], tf.int64))
    expected = counts[:2] / np.sum(counts, dtype=np.float64)
    np.testing.assert_allclose(probability, expected, rtol=1e-6)


def test_counts_are_not_in_the_graph():
    classes = 100_000
    head = SampledSoftmax(
        classes, SAMPLED, sampler=samplers.FixedUnigram(np.arange(1, classes + 1))
    )
    head.build((None, DIM))
    function = tf.function(head.sampled_loss)
    graph = function.get_concrete_function(FEATURES, LABELS).graph.as_graph_def()
    assert graph.ByteSize() < 2 * classes  # four bytes a class would not fit


def test_counts_are_compact_in_the_config():
    counts = np.random.default_rng(1).random(100_000)  # compress badly
    counts = counts.astype("float32")
    sampler = samplers.FixedUnigram(counts, 0.5, seed=3)
    config = sampler.get_config()
    assert len(json.dumps(config)) < 6 * len(counts)
    copies = [
        samplers.FixedUnigram.from_config(config),
        samplers.FixedUnigram.from_config({**config, "counts": counts.tolist()}),
        copy.deepcopy(sampler),
        pickle.loads(pickle.dumps(sampler)),
        keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(sampler)
        ),
    ]
    for other in copies:
        np.testing.assert_array_equal(other.counts, counts)
        assert (other.distortion, other.seed) == (0.5, 3)


@each_sampler
def test_a_cloned_model_draws_the_same(name):
    model = make_model(MAKERS[name](seed=2))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert three_losses(clone.layers[-1]) == three_losses(model.layers[-1])


@keras.saving.register_keras_serializable(package="tests")
class Even(samplers.Sampler):
    """Draws even classes, each as often as it was a label before."""

    def build(self, num_classes):
        super().build(num_classes)
        self.calls = tf.Variable(0, trainable=False)

    def supports(self, labels):
        return labels % 2 == 0

    def state(self):
        return {**super().state(), "calls": self.calls} if self.built else {}

    def draw(self, labels, label_mask, num_classes, num_sampled):
        self.calls.assign_add(1)
        ids = 2 * tf.range(num_sampled, dtype=tf.int64)
        return ids, lambda classes: tf.ones_like(classes, tf.float32)


def test_a_sampler_of_ones_own_is_asked_and_saved(tmp_path):
    model = make_model(Even(seed=1))
    head = model.layers[-1]
    assert np.isfinite(head.sampled_loss(FEATURES[:2], [2, 4])).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="`labels` must be"):
        head.sampled_loss(FEATURES[:2], [2, 3])
    assert int(head.sampler.calls) == 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1].sampler
    assert isinstance(loaded, Even)
    assert int(loaded.calls) == 1


def test_a_new_trace_of_a_head_continues_its_stream():
    head = make_model(samplers.Uniform(seed=1)).layers[-1]
    step = tf.function(head.sampled_loss)
    for size in (2, 3, 2):
        step(FEATURES[:size], LABELS[:size])
    assert step.experimental_get_tracing_count() == 2
    assert int(head.sampler.position) == 3


def test_learned_unigram_learns_labels_and_no_padding():
    sampler = samplers.LearnedUnigram()
    head = SampledSoftmax(CLASSES, SAMPLED, sampler=sampler, ignore_class=0)
    head.sampled_loss(FEATURES, [0, 0, 3, 3, 3, 4])
    expected = np.ones(CLASSES)
    expected[[3, 4]] += 3, 1
    np.testing.assert_array_equal(sampler.class_weights, expected)


def test_labels_not_ordered_by_frequency_warn_once():
    def messages(labels):
        sampler = samplers.LogUniform()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):  # too few labels, enough, more than enough
                sampler.sample(labels[:, np.newaxis], 5000, SAMPLED)
        return [str(warning.message) for warning in caught]

    rng = np.random.default_rng(1)
    assert messages(np.minimum(rng.zipf(1.3, 600) - 1, 4999)) == []
    for labels in (rng.integers(0, 5000, 600), np.full(600, 4999)):
        (message,) = messages(labels)
        assert message.startswith("The labels are not ordered by frequency")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samplers.Uniform(seed=1.5), "`seed` must be an int.*seed=1.5"),
        (lambda: samplers.FixedUnigram([[1.0]]), r"Received: shape=\(1, 1\)"),
        (lambda: samplers.FixedUnigram([1.0, -1.0]), "numbers from -1.0 to 1.0"),
        (lambda: samplers.FixedUnigram([1.0, np.inf]), "`counts` must be finite"),
        (lambda: samplers.FixedUnigram([1.0, np.nan]), "`counts` must be finite"),
        (lambda: samplers.FixedUnigram([0.0, 0.0]), "positive and finite sum"),
        (lambda: samplers.FixedUnigram([1e9] * 100, 4.5), "inf for class 0"),
        (
            lambda: SampledSoftmax(10, 2, sampler=samplers.FixedUnigram([1, 2])),
            "2 counts for 10 classes",
        ),
        (
            lambda: SampledSoftmax(3, 2, sampler=samplers.FixedUnigram([1, 0, 0])),
            "by which 1 of 3 classes would be drawn",
        ),
        (
            lambda: SampledSoftmax(
                100, 10, sampler=samplers.FixedUnigram([1.0] * 5 + [1e-9] * 95, 5.0)
            ),
            "by which 5 of 100 classes would be drawn",
        ),
        (
            lambda: SampledSoftmax(3, 4, sampler=samplers.LearnedUnigram()),
            "num_sampled=4, num_classes=3",
        ),
        (
            lambda: SampledSoftmax(3, 2, sampler=samplers.Uniform(), seed=1),
            r"Pass Uniform\(seed=1\)",
        ),
        (lambda: SampledSoftmax(3, 2, sampler="mean"), "an object of tfsampled.samp"),
    ],
)
def test_invalid_samplers_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_learned_unigram_for_two_numbers_of_classes_raises():
    sampler = samplers.LearnedUnigram()
    SampledSoftmax(10, 2, sampler=sampler).build((None, DIM))
    with pytest.raises(ValueError, match="num_classes=20, after num_classes=10"):
        SampledSoftmax(20, 2, sampler=sampler).build((None, DIM))


@pytest.mark.parametrize("name", ["sample_weight", "mask"])
def test_refused_weights_and_masks_move_nothing(name):
    head = SampledSoftmax(CLASSES, SAMPLED, samplers.LearnedUnigram())
    head.build((None, DIM))
    before = {k: v.numpy() for k, v in head.sampler.state().items()}
    with pytest.raises(ValueError, match=f"`{name}` must have the shape"):
        head.sampled_loss(FEATURES, LABELS, **{name: np.ones([len(LABELS), 2])})
    for key, value in head.sampler.state().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("label", [5, -1, CLASSES])
def test_refused_labels_raise_and_move_nothing(graph, label):
    counts = np.ones(CLASSES)
    counts[5] = 0
    sampler = samplers.FixedUnigram(counts, seed=1)
    sampler.build(CLASSES)

    def sample(labels):
        return sampler.sample(labels, CLASSES, 4)

    sample = tf.function(sample) if graph else sample
    message = "count in FixedUnigram" if label == 5 else rf"\[0, {CLASSES}\)"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        sample(tf.constant([[1], [label]], tf.int64))
    assert int(sampler.position) == 0


@pytest.mark.parametrize(
    ("sampler", "classes", "message"),
    [
        (samplers.Uniform(), 20, "`num_sampled` must be at most `num_classes`"),
        (samplers.LearnedUnigram(), 20, "`num_sampled` must be at most `num_classes`"),
        (samplers.FixedUnigram([1.0] * 5 + [0.0] * 95), 100, "let 25 classes be drawn"),
        (samplers.FixedUnigram([1.0] * 20), 30, "one number for each class"),
    ],
)
def test_draws_without_end_raise(sampler, classes, message):
    with pytest.raises(ValueError, match=message):
        sampler.sample([[1]], classes, 25)


@pytest.mark.parametrize(
    ("counts", "distortion"), [([], 1.0), (["a"], 1.0), (None, 1.0), ([1.0], "a")]
)
def test_invalid_counts_raise(counts, distortion):
    with pytest.raises(ValueError, match=r"`counts`|`distortion`"):
        samplers.FixedUnigram(counts, distortion)


def test_a_head_that_is_not_built_uses_fixed_unigram():
    head = SampledSoftmax(CLASSES, 5, sampler=samplers.FixedUnigram(COUNTS))
    assert head.sampled_loss(FEATURES, LABELS).shape == LABELS.shape


class Steps(samplers.Sampler):
    """Takes the next classes, and counts its calls in a variable of its own."""

    def __init__(self, stride=1, name=None):
        super().__init__(name=name)
        self.stride = stride

    def build(self, num_classes):
        self.calls = self.add_weight((num_classes,), "zeros", trainable=False)

    def draw(self, labels, label_mask, num_classes, num_sampled):
        self.calls.assign_add(tf.ones([num_classes]))
        ids = tf.range(0, num_sampled * self.stride, self.stride)  # int32
        return ids, lambda classes: tf.ones_like(classes, tf.float32)

    def state(self):
        return {"calls": self.calls.value}


def test_a_sampler_of_a_users_own_is_built_once_and_may_return_int32():
    sampler = Steps(stride=2)
    for head in (SampledSoftmax(CLASSES, 3, sampler) for _ in range(2)):
        head.sampled_loss(tf.ones([2, 4]), [1, 3])
    ids, *_ = sampler.sample([[1]], CLASSES, 3)
    assert ids.numpy().tolist() == [0, 2, 4]
    assert sampler.calls.numpy().tolist() == [3] * CLASSES
    with pytest.raises(ValueError, match="the same number of classes"):
        SampledSoftmax(CLASSES + 1, 3, sampler).sampled_loss(tf.ones([2, 4]), [1, 3])


def test_arguments_of_a_users_own_sampler_are_not_lost():
    with pytest.raises(NotImplementedError, match=r"arguments \['stride'\]"):
        Steps(stride=2).get_config()


def test_a_sampler_that_learns_keeps_its_number_of_classes():
    sampler = samplers.LearnedUnigram()
    sampler.sample([[1]], 10, 4)
    for num_classes, num_sampled in ((20, 4), (20, 12)):
        with pytest.raises(ValueError, match=r"num_classes=20, after num_classes=10"):
            sampler.sample([[15]], num_classes, num_sampled)
    uniform = samplers.Uniform()
    for num_classes in (10, 20):
        uniform.sample([[1]], num_classes, 4)


def test_numbers_of_numpy_are_taken():
    sampler, same = samplers.Uniform(seed=1), samplers.Uniform(seed=1)
    ids, *_ = sampler.sample([[3]], np.int64(CLASSES), np.int16(8))
    np.testing.assert_array_equal(ids, same.sample([[3]], CLASSES, 8)[0])
    mixed = samplers.Mixed([(samplers.Uniform(seed=1), np.int16(256))])
    draws = [mixed.sample([[3]], 100_000, None)[0].numpy() for _ in range(2)]
    assert set(draws[0]) != set(draws[1])
