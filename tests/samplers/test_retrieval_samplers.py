"""Samplers of labels, and mixtures: what they take, expect and learn."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import MODES, cases, each_mode, slow
from tfsampled._core.candidate_sampling.samplers import Draw
from tfsampled.layers import SampledSoftmax
from tfsampled.samplers import (
    FixedUnigram,
    InBatch,
    LogUniform,
    Mixed,
    Recent,
    Uniform,
)

CLASSES, DIM = 12, 4
SHARE = np.arange(1, CLASSES + 1) / np.arange(1, CLASSES + 1).sum()

MAKERS = {
    "in_batch": InBatch,
    "in_batch_counts": lambda: InBatch(counts=SHARE),
    "recent": lambda: Recent(size=24),
    "mixed": lambda: Mixed([InBatch(), (Uniform(seed=1), 5)]),
    "mixed_drawn": lambda: Mixed([(LogUniform(seed=2), 4), (Uniform(seed=1), 3)]),
}
each_sampler = pytest.mark.parametrize("name", MAKERS)
quick_samplers = pytest.mark.parametrize(
    "name", [name if name == "mixed" else slow(name) for name in MAKERS]
)


def batches(count, batch=16):
    return np.random.default_rng(7).choice(CLASSES, (count, batch, 1), p=SHARE)


def found(candidates):
    """Returns the classes that have a part in the loss."""
    ids, _, counts = (x.numpy() for x in candidates)
    return ids[np.isfinite(counts)].tolist()


@each_mode("jit")
def test_in_batch_takes_each_label_once(mode):
    sampler = InBatch()
    sampler.build(CLASSES)
    labels = tf.constant([[3], [5], [3], [1]])
    drawn = MODES[mode](lambda labels: sampler.sample(labels, CLASSES, None))(labels)
    assert sorted(found(drawn)) == [1, 3, 5]
    mask = tf.constant([[True], [True], [True], [False]])
    sample = MODES[mode](lambda x, m: sampler.sample(x, CLASSES, None, m))
    assert sorted(found(sample(labels, mask))) == [3, 5]
    assert not found(sample(labels, tf.zeros_like(mask)))


@each_mode("function")
def test_recent_takes_the_last_labels_of_the_last_batches(mode):
    sampler = Recent(size=4)
    sampler.build(CLASSES)
    mask = tf.constant([[True], [False], [True]])
    sample = MODES[mode](lambda labels: sampler.sample(labels, CLASSES, None, mask))
    assert sorted(found(sample(tf.constant([[3], [5], [1]])))) == [1, 3]
    assert sorted(found(sample(tf.constant([[2], [9], [1]])))) == [1, 2, 3]
    assert sorted(found(sample(tf.constant([[7], [9], [8]])))) == [1, 2, 7, 8]
    assert sampler.recent.numpy().tolist() == [2, 1, 7, 8]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["in_batch", "recent", "mixed"])
def test_one_sampler_draws_alike_in_all_modes(name):
    labels, draws = batches(3), []
    for mode in MODES.values():
        sampler = MAKERS[name]()
        sampler.build(CLASSES)
        sample = mode(lambda x, sampler=sampler: sampler.sample(x, CLASSES, None))
        for batch in labels:
            drawn = sample(tf.constant(batch))
        counts = dict(zip(drawn[0].numpy(), drawn[2].numpy(), strict=True))
        draws.append((sorted(found(drawn)), drawn[1].numpy(), counts))
    for ids, true_count, counts in draws[1:]:
        assert ids == draws[0][0]
        np.testing.assert_allclose(true_count, draws[0][1], rtol=1e-5)
        expected = [draws[0][2][id] for id in ids]
        np.testing.assert_allclose([counts[id] for id in ids], expected, rtol=1e-5)


@each_sampler
@pytest.mark.slow
def test_expected_counts_are_the_share_of_draws(name):
    sampler, draws = MAKERS[name](), 1200
    sampler.build(CLASSES)
    probe = tf.range(CLASSES, dtype=tf.int64)
    seen, expected = np.zeros(CLASSES), np.zeros(CLASSES)

    @tf.function
    def draw(labels):
        drawn = sampler.draw(labels, None, CLASSES, None)
        return drawn[0], drawn[1](probe)

    for step, batch in enumerate(tf.constant(batches(draws + 300))):
        ids, counts = draw(batch)
        if step >= 300:  # when the frequencies are learned
            # An example's own label is there for certain: look at the others'.
            seen[np.unique(ids)] += 1
            expected += counts.numpy()
    # InBatch expects what the 15 other examples bring.
    slack = 0.05 if "in_batch" in name or name == "mixed" else 0.0
    error = 5 * 0.5 / np.sqrt(draws) + 0.02 + slack
    np.testing.assert_allclose(seen / draws, expected / draws, atol=error)


def test_learned_frequencies_decay():
    sampler = InBatch(decay=0.5)
    sampler.build(CLASSES)
    for batch in ([[0], [0], [2]], [[1], [1], [1]], [[0], [1], [1]]):
        sampler.sample(batch, CLASSES, None)
    # The steps weigh 1/4, 1/2, 1: class 0 has 2/4 + 1, class 1 3/2 + 2, class 2 1/4.
    share = np.array([1.5, 3.5, 0.25]) / (1.5 + 3.5 + 0.25)
    presence = sampler.frequency.presence(tf.constant([0, 1, 2], tf.int64), 1.0)
    np.testing.assert_allclose(presence, share, rtol=1e-5)


def test_a_class_of_two_samplers_counts_once():
    in_batch, uniform = InBatch(counts=SHARE), Uniform(seed=3)
    mixed = Mixed([in_batch, (uniform, CLASSES)])
    ids, of_labels, of_ids = mixed.sample([[1], [2]], CLASSES, None)
    assert sorted(ids.numpy().tolist()) == list(range(CLASSES))
    uniform.position.assign(0)
    _, _, drawn = uniform.sample([[1]], CLASSES, CLASSES)
    expected = 1 - (1 - SHARE[ids]) * (1 - drawn[0].numpy())
    np.testing.assert_allclose(of_ids, expected, rtol=1e-5)
    np.testing.assert_allclose(of_labels[:, 0], 1 - (1 - SHARE[1:3]) * (1 - drawn[0]))


def full_gradient(head, inputs, labels):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(head.exact_loss(inputs, labels))
    return tf.convert_to_tensor(tape.gradient(loss, head.kernel.value)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "log_q"),
    cases(
        MAKERS,
        ["standard", "corrected"],
        quick=lambda *case: case == ("mixed", "corrected"),
    ),
)
def test_the_mean_gradient_nears_that_of_the_full_softmax(name, log_q):
    """More samples bring it nearer; all of them reach it."""
    makers = {
        "in_batch": lambda n: (InBatch(counts=SHARE), None, n),
        "in_batch_counts": lambda n: (InBatch(), None, n),
        "recent": lambda n: (Recent(n), None, 16),
        "mixed": lambda n: (
            Mixed([InBatch(counts=SHARE), (Uniform(seed=1), min(n // 8, CLASSES))]),
            None,
            n,
        ),
        "mixed_drawn": lambda n: (
            Mixed([Uniform(seed=1), (LogUniform(seed=2), 4)]),
            min(n // 16, CLASSES),
            16,
        ),
    }
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(1, DIM)).astype("float32")
    table = rng.normal(size=(CLASSES, DIM)).astype("float32")
    errors = []
    for n in (16, 256):
        sampler, num_sampled, batch = makers[name](n)
        head = SampledSoftmax(
            CLASSES, num_sampled, sampler, log_q=log_q, use_bias=False
        )
        head.build((None, DIM))
        head.set_table(table)
        rows = tf.constant(np.repeat(inputs, batch, axis=0))

        @tf.function
        def step(labels, head=head, rows=rows):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(head.sampled_loss(rows, labels))
            return tf.convert_to_tensor(tape.gradient(loss, head.kernel.value))

        draws = [rng.choice(CLASSES, batch, p=SHARE) for _ in range(300)]
        sampled = np.mean([step(tf.constant(x)).numpy() for x in draws], axis=0)
        every = np.concatenate(draws)
        exact = full_gradient(head, np.repeat(inputs, len(every), axis=0), every)
        errors.append(np.abs(sampled - exact).max() / np.abs(exact).max())
    assert errors[1] < errors[0] / 2 or errors[1] < 0.01
    assert errors[1] < 0.05


@each_sampler
@pytest.mark.slow
def test_a_model_of_frequencies_alone_learns_them(name):
    num_sampled = None
    head = SampledSoftmax(CLASSES, num_sampled, MAKERS[name](), log_q="corrected")
    head.build((None, 1))
    head.set_table(np.zeros((CLASSES, 1)), np.zeros(CLASSES))
    optimizer = keras.optimizers.SGD(2.0)
    optimizer.build([head.bias])
    inputs = tf.zeros([64, 1])

    @tf.function
    def step(labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head.sampled_loss(inputs, labels))
        gradient = tf.convert_to_tensor(tape.gradient(loss, head.bias.value))
        optimizer.apply([gradient], [head.bias])

    data = tf.constant(np.random.default_rng(1).choice(CLASSES, (600, 64), p=SHARE))
    mean = np.zeros(CLASSES)
    for index, labels in enumerate(data):
        if index == 300:
            optimizer.learning_rate = 0.2
        step(labels)
        if index >= 400:
            mean += tf.nn.softmax(head.bias.value).numpy() / 200
    np.testing.assert_allclose(mean, SHARE, rtol=0.25)


@quick_samplers
def test_a_saved_sampler_goes_on(name, tmp_path):
    def make():
        layers = [keras.Input((DIM,)), SampledSoftmax(CLASSES, None, MAKERS[name]())]
        return keras.Sequential(layers)

    def losses(model):
        head, rng = model.layers[-1], np.random.default_rng(2)
        inputs = rng.normal(size=(8, DIM)).astype("float32")
        return [
            head.sampled_loss(inputs, rng.integers(0, CLASSES, 8)).numpy().tolist()
            for _ in range(2)
        ]

    model = make()
    losses(model)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded, other = keras.models.load_model(tmp_path / "model.keras"), make()
    other.load_weights(tmp_path / "model.weights.h5")
    checkpoint = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    restored = make()
    tf.train.Checkpoint(model=restored).restore(checkpoint).expect_partial()
    expected = losses(model)
    assert losses(loaded) == losses(other) == losses(restored) == expected


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="`num_sampled` must be None with InBatch"):
        SampledSoftmax(CLASSES, 4, InBatch())
    with pytest.raises(ValueError, match="`num_sampled` must be an int"):
        SampledSoftmax(CLASSES, None, "uniform")
    with pytest.raises(ValueError, match="`num_sampled` must be an int"):
        SampledSoftmax(CLASSES, None, Mixed([InBatch(), Uniform()]))
    with pytest.raises(ValueError, match="`num_sampled` must be None with Mixed"):
        SampledSoftmax(CLASSES, 3, Mixed([InBatch(), (Uniform(), 4)]))
    with pytest.raises(ValueError, match=r"at random alone. Received: \(InBatch, 4\)"):
        Mixed([(InBatch(), 4)])
    with pytest.raises(ValueError, match="`counts` must not all be 0"):
        InBatch(counts=[0, 0])
    for shared in (InBatch(), Mixed([InBatch(), (Uniform(), 4)])):
        shared.sample([[1], [2]], CLASSES, None)
        with pytest.raises(ValueError, match="the same number of classes"):
            shared.sample([[1], [2]], CLASSES + 1, None)
    with pytest.raises(ValueError, match="`samplers` must be a list"):
        Mixed([])
    with pytest.raises(ValueError, match="at most `num_classes`"):
        SampledSoftmax(CLASSES, None, Mixed([(Uniform(), CLASSES + 1)]))
    with pytest.raises(ValueError, match="`remove_accidental_hits` must be True"):
        SampledSoftmax(CLASSES, None, InBatch(), remove_accidental_hits=False)
    with pytest.raises(ValueError, match="3 counts for 12 classes"):
        SampledSoftmax(CLASSES, None, InBatch(counts=[1, 2, 3]))
    with pytest.raises(ValueError, match="`decay` must be at most 1"):
        InBatch(decay=2)
    with pytest.raises(ValueError, match="`size` must be an int of at least 1"):
        Recent(0)


def test_a_batch_of_one_example_has_no_loss():
    head = SampledSoftmax(CLASSES, None, InBatch())
    loss = head.sampled_loss(np.ones((1, DIM), "float32"), [1])
    np.testing.assert_allclose(loss, [0], atol=1e-6)


def test_labels_that_no_sampler_takes_are_refused():
    counts = np.ones(CLASSES)
    counts[3] = 0
    head = SampledSoftmax(CLASSES, None, InBatch(counts))
    with pytest.raises(tf.errors.InvalidArgumentError, match="count in the sampler"):
        head.sampled_loss(np.ones((2, DIM), "float32"), [1, 3])
    mixed = Mixed([InBatch(counts), (Uniform(), 2)])
    head = SampledSoftmax(CLASSES, None, mixed)
    assert np.isfinite(head.sampled_loss(np.ones((2, DIM), "float32"), [1, 3])).all()


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_one_labeled_example_has_no_one_to_be_compared_with(jit_compile):
    head = SampledSoftmax(CLASSES, None, InBatch(), ignore_class=-1)
    inputs = tf.ones([3, DIM])
    head.build(inputs.shape)
    labels = tf.constant([4, -1, -1])

    @tf.function(jit_compile=jit_compile)
    def step():
        with tf.GradientTape() as tape:
            loss = head.sampled_loss(inputs, labels)
        return loss, tf.convert_to_tensor(tape.gradient(loss, head.kernel.value))

    loss, gradient = step()
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    mixed = Mixed([InBatch(), (Uniform(seed=1), 5)])
    head = SampledSoftmax(CLASSES, None, mixed)
    assert head.sampled_loss(np.ones((1, DIM), "float32"), [1])[0] > 0


@pytest.mark.parametrize("masked", [False, True])
def test_beside_one_labeled_example_a_mixture_counts_as_its_other_samplers(masked):
    labels = tf.constant([[4], [2]] if masked else [[4]], tf.int64)
    mask = tf.constant([[True], [False]]) if masked else None
    ids = tf.range(CLASSES, dtype=tf.int64)
    counts = []
    inner = Mixed([InBatch()])
    for sampler in (
        Mixed([InBatch(), (Uniform(seed=1), 5)]),
        Mixed([inner, (Uniform(seed=1), 5)]),
        Uniform(seed=1),
    ):
        sampler.build(CLASSES)
        drawn = sampler.draw(labels, mask, CLASSES, 5)
        counts.append(Draw(*drawn).expected_count(ids))
    for one in counts[:2]:
        np.testing.assert_allclose(one, counts[2], rtol=1e-6)
    # The only label, which no other sampler draws, has a count to be divided by.
    never = np.where(np.arange(CLASSES) == 4, 0.0, 1.0)
    sampler = Mixed([InBatch(), (FixedUnigram(never), 5)])
    sampler.build(CLASSES)
    drawn = sampler.draw(labels, mask, CLASSES, None)
    assert Draw(*drawn).expected_count(ids)[4] == 1


def test_refused_labels_teach_nothing():
    head = SampledSoftmax(CLASSES, None, InBatch())
    step = tf.function(head.sampled_loss)
    step(tf.ones([2, DIM]), tf.constant([1, 2]))
    before = {k: v.numpy() for k, v in head.sampler.state().items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match="`labels`"):
        step(tf.ones([2, DIM]), tf.constant([1, CLASSES]))
    for key, value in head.sampler.state().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.slow
def test_recent_starts_with_a_batch_of_padding():
    head = SampledSoftmax(CLASSES, None, Recent(4), ignore_class=-1)
    head.build((None, DIM))

    @tf.function(jit_compile=True)
    def step(labels):
        with tf.GradientTape() as tape:
            loss = head.sampled_loss(tf.ones([3, DIM]), labels)
        return loss, tf.convert_to_tensor(tape.gradient(loss, head.kernel.value))

    for result in step(tf.constant([-1, -1, -1])):
        np.testing.assert_array_equal(result, tf.zeros_like(result))


def test_learned_counts_go_on_beyond_the_whole_numbers_of_float32():
    sampler = InBatch(decay=1.0)
    sampler.build(CLASSES)
    frequency = sampler.frequency
    frequency._sums.assign(np.full(CLASSES, 2.0**25))
    frequency._total.assign(CLASSES * 2.0**25)
    labels = tf.ones([64], tf.int64)
    for _ in range(3):
        frequency.update(labels, None)
    assert float(frequency._sums[1]) == 2**25 + 3 * 64
    assert float(frequency._total) == CLASSES * 2**25 + 3 * 64


def test_labels_of_another_rank_teach_nothing():
    sampler = InBatch()
    sampler.build(CLASSES)
    with pytest.raises(ValueError, match=r"shape \[batch, num_true\]"):
        sampler.sample([1, 2], CLASSES, None)
    assert float(sampler.frequency._total) == 0


def test_labels_out_of_range_of_given_counts_raise():
    for sampler in (InBatch(SHARE), Recent(4, SHARE), Mixed([InBatch(SHARE)])):
        head = SampledSoftmax(CLASSES, None, sampler)
        for label in (-1, CLASSES):
            with pytest.raises(
                tf.errors.InvalidArgumentError, match="`labels` must be"
            ):
                head.sampled_loss(np.ones([2, DIM], "float32"), [1, label])


@pytest.mark.parametrize("make", [lambda: Recent(8), slow(InBatch)])
def test_a_label_out_of_range_is_nan_for_its_example_alone_under_xla(make):
    head = SampledSoftmax(CLASSES, None, make())
    head.build((None, DIM))
    inputs = tf.random.stateless_normal([3, DIM], [1, 2])
    step = tf.function(head.sampled_loss, jit_compile=True)
    for bad in (CLASSES, -1):
        losses = step(inputs, tf.constant([3, bad, 5]))
        assert np.isnan(losses).tolist() == [False, True, False]
    assert np.isfinite(step(inputs, tf.constant([3, 4, 5]))).all()


def test_the_expected_count_of_a_label_out_of_range_is_nan_under_xla():
    sampler = InBatch(counts=SHARE)

    @tf.function(jit_compile=True)
    def counts(labels):
        return sampler.sample(labels, CLASSES, None).true_expected_count

    expected = counts(tf.constant([[3], [CLASSES], [5]]))
    assert np.isnan(expected).tolist() == [[False], [True], [False]]


def test_seeds_are_for_samplers_that_draw_at_random():
    for make in (InBatch, lambda **kwargs: Mixed([InBatch()], **kwargs)):
        for name in ("seed", "per_replica"):
            with pytest.raises(ValueError, match=f"`{name}` must be given to samplers"):
                make(**{name: 1})


def test_counts_are_those_given():
    counts = np.ones(CLASSES, "float32")
    sampler = FixedUnigram(counts)
    counts[0] = 9
    assert sampler.counts[0] == 1
