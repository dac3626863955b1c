"""`models.SampledSoftmaxModel`: fit, evaluate and predict, and what they mean."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cross_entropy64, slow
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel

pytestmark = pytest.mark.eager

CLASSES, SAMPLED, WORDS, TIME, EXAMPLES = 60, 20, 30, 4, 192


@pytest.fixture
def data():
    """Words and, from the first of them, a class: something to learn."""
    rng = np.random.default_rng(2)
    x = rng.integers(1, WORDS, (EXAMPLES, TIME))
    return x, x[:, 0] * 2


def encoder(sequences=False, mask_zero=False):
    return keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            keras.layers.Embedding(WORDS, 16, mask_zero=mask_zero),
            keras.layers.GRU(16, return_sequences=True)
            if sequences
            else keras.layers.Flatten(),
            keras.layers.Dense(16),
        ]
    )


def make(sequences=False, mask_zero=False, top_k=None, head=None, **kwargs):
    model = SampledSoftmaxModel(
        encoder(sequences, mask_zero),
        SampledSoftmax(CLASSES, SAMPLED, sampler="uniform", **(head or {})),
        top_k=top_k,
    )
    model.compile(**{"optimizer": keras.optimizers.Adam(0.01), **kwargs})
    return model


def losses_of(logits, labels):
    return cross_entropy64(logits, labels[..., np.newaxis])


@pytest.mark.traced
@pytest.mark.parametrize("as_dataset", [False, slow(True)])
def test_steps_are_traced_once(as_dataset, data, monkeypatch):
    """TensorFlow traces a function twice that makes variables."""
    names = []
    for name in ("train_step", "test_step"):
        step = getattr(SampledSoftmaxModel, name)

        def counted(self, data, step=step, name=name):
            names.append(name)
            return step(self, data)

        monkeypatch.setattr(SampledSoftmaxModel, name, counted)
    model = make()
    x, y = data
    if as_dataset:
        x, y = tf.data.Dataset.from_tensor_slices(data).batch(32), None
    model.fit(x, y, shuffle=False, verbose=0)
    model.evaluate(x, y, verbose=0)
    assert names == ["train_step", "test_step"]


def test_evaluation_makes_no_slots(data):
    x, y = data
    model = make()
    model.evaluate(x, y, verbose=0)
    assert not model.optimizer.built


@pytest.mark.traced
@pytest.mark.parametrize("run_eagerly", [False, slow(True)])
def test_fit_learns_from_plain_labels(data, run_eagerly):
    x, y = data
    model = make(run_eagerly=run_eagerly)
    before = model.evaluate(x, y, verbose=0)
    history = model.fit(
        x, y, epochs=12, batch_size=32, validation_data=(x, y), verbose=0
    ).history
    assert history["val_loss"][-1] < before / 4
    assert history["loss"][-1] < history["loss"][0] / 4
    assert (model.predict(x, verbose=0).argmax(axis=-1) == y).mean() > 0.9


def test_arrays_of_one_batch_run_eagerly():
    model = SampledSoftmaxModel(keras.layers.Dense(8), SampledSoftmax(30, 5))
    model.compile("sgd", run_eagerly=True)
    batch = np.ones((4, 8), "float32"), np.arange(4), np.ones(4)
    assert np.isfinite(model.train_on_batch(*batch))
    assert np.isfinite(model.test_on_batch(*batch))


@pytest.mark.parametrize(
    ("sequences", "run_eagerly"),
    [
        slow(True, False),
        (False, True),
        slow(False, False),
        slow(True, True),
    ],
)
def test_evaluate_is_the_softmax_of_predicts_logits(data, sequences, run_eagerly):
    x, y = data
    y = x * 2 if sequences else y
    model = make(sequences, run_eagerly=run_eagerly)
    model.fit(x, y, batch_size=EXAMPLES, verbose=0)
    logits = model.predict(x, verbose=0)
    assert logits.shape == (*y.shape, CLASSES)
    # 192 examples are whole batches of 32: the mean of their means is the mean.
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0), losses_of(logits, y).mean(), rtol=1e-5
    )


def test_sample_weights_weigh(data):
    x, y = data
    weight = np.linspace(0, 2, EXAMPLES).astype("float32")
    model = make()
    expected = (losses_of(model.predict(x, verbose=0), y) * weight).mean()
    ours = model.evaluate(x, y, sample_weight=weight, verbose=0)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_an_example_of_no_weight_teaches_nothing(data):
    x, y = data
    model = make(optimizer=keras.optimizers.SGD(1.0))
    model.build((None, TIME))
    before = model.get_weights()
    model.fit(x, y, sample_weight=np.zeros(EXAMPLES), verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_class_weights_are_sample_weights(data):
    x, y = data
    class_weight = dict.fromkeys(range(CLASSES), 0.0)
    class_weight[int(y[0])] = 1.0

    def loss(**weights):
        keras.utils.set_random_seed(4)
        model = make()
        return model.fit(x, y, verbose=0, shuffle=False, **weights).history["loss"][0]

    expected = loss(sample_weight=(y == y[0]).astype("float32"))
    np.testing.assert_allclose(loss(class_weight=class_weight), expected, rtol=1e-6)


@pytest.mark.slow
def test_masked_steps_take_no_part(data):
    x = np.where(np.arange(TIME) < 2, data[0], 0)
    y = np.where(x > 0, x * 2, -1)  # no class: heeding the mask is not optional
    model = make(sequences=True, mask_zero=True)
    model.fit(x, y, batch_size=EXAMPLES, verbose=0)
    logits = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0),
        losses_of(logits[:, :2], y[:, :2]).mean(),
        rtol=1e-5,
    )


@pytest.mark.slow
def test_top_k_is_predicts_best(data):
    x, y = data
    model = make(top_k=5)
    model.fit(x, y, verbose=0)
    best = model.predict(x, verbose=0)
    logits = model.head(model.encoder(x)).numpy()
    assert set(best) == {"classes", "scores"}
    np.testing.assert_array_equal(best["classes"], tf.math.top_k(logits, 5).indices)
    np.testing.assert_allclose(
        best["scores"],
        np.take_along_axis(logits, best["classes"], axis=-1),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("which", ["train", "test"])
def test_neither_training_nor_evaluation_makes_all_the_logits(data, which):
    x, y = data
    head = SampledSoftmax(50_000, SAMPLED)
    model = SampledSoftmaxModel(encoder(), head)
    model.compile(optimizer="sgd")
    model.build((None, TIME))
    step = tf.function(getattr(model, f"{which}_step"))
    graph = step.get_concrete_function((tf.constant(x), tf.constant(y))).graph
    sizes = [
        tensor.shape.num_elements() or 0
        for operation in graph.get_operations()
        for tensor in operation.outputs
        if tensor.dtype.is_floating
    ]
    table = head.kernel.shape[0] * head.kernel.shape[1]
    assert max(sizes) <= max(table, EXAMPLES * 8192)
    assert max(table, EXAMPLES * 8192) < EXAMPLES * 50_000


def test_fit_hands_the_optimizer_a_row_sparse_gradient(data):
    kinds = {}

    class Watching(keras.optimizers.SGD):
        def apply_gradients(self, pairs):
            pairs = list(pairs)
            kinds.update({variable.path: type(grad) for grad, variable in pairs})
            return super().apply_gradients(pairs)

    model = make(optimizer=Watching(0.1))
    model.fit(*data, verbose=0)
    for variable in model.head.weights:
        assert kinds[variable.path] is tf.IndexedSlices


@pytest.mark.slow
def test_the_same_seed_trains_the_same_model(data):
    def trained():
        keras.utils.set_random_seed(8)
        model = make()
        model.fit(*data, epochs=2, verbose=0)
        return model.get_weights()

    for one, other in zip(trained(), trained(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.traced
def test_callbacks_and_datasets(data, tmp_path):
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(32)
    best = tmp_path / "best.keras"
    callbacks = [
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=1),
        keras.callbacks.ModelCheckpoint(best, save_best_only=True),
    ]
    model = make(steps_per_execution=3)
    history = model.fit(
        dataset,
        epochs=4,
        validation_data=dataset,
        callbacks=callbacks,
        verbose=0,
        shuffle=False,
    )
    loaded = keras.models.load_model(best)
    np.testing.assert_allclose(
        loaded.evaluate(dataset, verbose=0), min(history.history["val_loss"]), rtol=1e-6
    )


def test_train_on_batch_and_test_on_batch(data):
    x, y = data
    model = make()
    first = model.train_on_batch(x, y)
    for _ in range(10):
        last = model.train_on_batch(x, y)
    assert last < first
    model.reset_metrics()
    expected = losses_of(model.predict(x, verbose=0), y).mean()
    np.testing.assert_allclose(model.test_on_batch(x, y), expected, rtol=1e-5)


def test_regularizers_are_part_of_the_loss(data):
    x, y = data
    model = make(head={"kernel_regularizer": keras.regularizers.L2(0.1)})
    logits = model.predict(x, verbose=0)
    extra = 0.1 * np.sum(np.square(model.head.get_weights()[0]))
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0), losses_of(logits, y).mean() + extra, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_policies_learn(data, policy):
    keras.config.set_dtype_policy(policy)
    x, y = data
    model = make()
    history = model.fit(x, y, epochs=12, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0] / 2
    logits = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0), losses_of(logits, y).mean(), rtol=2e-3
    )


LOADING = """
import sys
import keras, numpy as np
import tfsampled  # registers the classes

model = keras.models.load_model(sys.argv[1])
data = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(data["x"], verbose=0)["scores"])
assert model.optimizer.learning_rate == np.float32(0.01)
model.fit(data["x"], data["y"], verbose=0)
"""


@pytest.mark.slow
def test_a_saved_model_loads_in_a_new_process(data, tmp_path):
    x, y = data
    model = make(top_k=3)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    names = ["model.keras", "data.npz", "scores.npy"]
    subprocess.run(
        [sys.executable, "-c", LOADING, *(str(tmp_path / name) for name in names)],
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "scores.npy"),
        model.predict(x, verbose=0)["scores"],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("argument", "value"),
    [("loss", "sparse_categorical_crossentropy"), ("metrics", ["accuracy"])],
)
def test_compile_takes_no_other_loss_or_metric(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be .*: {argument}="):
        make(**{argument: value})


def test_invalid_parts_raise():
    with pytest.raises(ValueError, match=r"`head` must be a tfsampled\.layers"):
        SampledSoftmaxModel(encoder(), keras.layers.Dense(CLASSES))
    with pytest.raises(ValueError, match=r"`top_k` must be at most .* top_k=61"):
        make(top_k=CLASSES + 1)


def test_invalid_labels_raise(data):
    x, y = data
    with pytest.raises(ValueError, match="`y` must be given: integer class ids"):
        make().fit(x, verbose=0)
    with pytest.raises(ValueError, match="`labels` must be integer class ids"):
        make().fit(x, y.astype("float32"), verbose=0)
    with pytest.raises(ValueError, match="`labels` must have the shape"):
        make().fit(x, np.eye(CLASSES, dtype="int32")[y], verbose=0)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="`labels` must be class ids"
    ):
        make().fit(x, y + CLASSES, verbose=0)


class Encoder(keras.layers.Layer):
    """As users write them: no build, no compute_output_shape."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclassed_encoder():
    x, y = np.ones([8, 3], "float32"), np.arange(8)
    model = SampledSoftmaxModel(Encoder(), SampledSoftmax(10, num_sampled=5))
    model.compile("sgd")
    model.fit(x, y, verbose=0)
    assert len(model.trainable_weights) == 4
    assert model.predict(x, verbose=0).shape == (8, 10)


def test_a_diverged_model_ranks_every_label_last():
    head = SampledSoftmax(10, num_sampled=5)
    head.build((None, 3))
    head.kernel.assign(np.full([10, 3], np.nan))
    ranks = head.ranks(np.ones([2, 3], "float32"), np.array([0, 7]))
    assert np.min(ranks) >= 9
