"""`models.SampledSoftmaxModel` and what Keras offers around `fit`."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cross_entropy64, slow, use_small_chunks
from tfsampled import metrics, optimizers, samplers
from tfsampled.layers import SampledSoftmax
from tfsampled.layers._keras import in_symbolic_scope
from tfsampled.models import SampledSoftmaxModel

pytestmark = pytest.mark.eager

CLASSES, SAMPLED, DIM, EXAMPLES = 50, 20, 6, 96
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def data():
    rng = np.random.default_rng(12)
    return (
        rng.normal(size=(EXAMPLES, DIM)).astype("float32"),
        rng.integers(0, CLASSES, EXAMPLES),
    )


def make(head=None, top_k=None, shape=(DIM,), **kwargs):
    encoder = keras.Sequential([keras.Input(shape), keras.layers.Dense(8)])
    head = SampledSoftmax(CLASSES, SAMPLED, **{"sampler": "uniform", **(head or {})})
    model = SampledSoftmaxModel(encoder, head, top_k=top_k)
    model.compile(**{"optimizer": keras.optimizers.SGD(0.5), **kwargs})
    return model


def test_the_private_names_of_keras():
    assert hasattr(keras.Model, "_maybe_symbolic_build")
    assert hasattr(keras.Model, "_lock_state")
    assert hasattr(keras.Model, "_clear_losses")
    assert hasattr(keras.Model, "_get_metrics_result_or_logs")
    with keras.SymbolicScope():
        assert in_symbolic_scope()
    assert not in_symbolic_scope()


class WithPenalty(SampledSoftmaxModel):
    """Adds a loss of a layer of its own, and reports it."""

    def __init__(self, encoder, head):
        super().__init__(encoder, head)
        self.penalty = keras.layers.Dense(1, kernel_initializer="ones")
        self.penalty_mean = keras.metrics.Mean(name="penalty")

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        penalty = tf.reduce_mean(self.penalty(y_pred) ** 2)
        self.penalty_mean.update_state(penalty)
        return super().compute_loss(x, y, y_pred, sample_weight, training) + penalty


def test_a_subclass_of_a_built_model_trains_a_layer_of_its_own(data):
    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(8)])
    model = WithPenalty(encoder, SampledSoftmax(CLASSES, SAMPLED, "uniform"))
    assert model.built
    model.penalty.build((None, 8))
    model.compile(keras.optimizers.SGD(0.1))
    x, y = data
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert history["penalty"][-1] < history["penalty"][0]
    assert not np.allclose(model.penalty.kernel, 1.0)
    losses = model.evaluate(x, y, verbose=0, return_dict=True)
    exact = cross_entropy64(model.predict(x, verbose=0), y[:, np.newaxis])
    assert losses["loss"] - losses["penalty"] == pytest.approx(np.mean(exact), rel=1e-5)


def test_the_encoder_and_the_head_are_not_replaced():
    encoder = keras.Sequential([keras.layers.Dense(8)])
    head = SampledSoftmax(CLASSES, SAMPLED, "uniform")
    model = SampledSoftmaxModel(encoder, head)
    for name in ("encoder", "head"):
        with pytest.raises(AttributeError, match=f"`{name}` must not be replaced"):
            setattr(model, name, keras.layers.Dense(8))
    assert model.encoder is encoder
    assert model.head is head


def losses_of(logits, labels):
    return cross_entropy64(logits, labels[..., np.newaxis])


ALL_METRICS = [
    metrics.Perplexity,
    lambda: metrics.TopKAccuracy(10),
    metrics.MeanReciprocalRank,
]


@pytest.mark.traced
@pytest.mark.parametrize("jit_compile", [True, slow("auto")])
def test_compiled_training_and_exact_evaluation(data, jit_compile):
    x, y = data
    model = make(jit_compile=jit_compile, metrics=[make() for make in ALL_METRICS])
    history = model.fit(x, y, epochs=2, validation_data=data, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert set(history) == {
        "loss",
        "val_loss",
        "val_perplexity",
        "val_top_10_accuracy",
        "val_mean_reciprocal_rank",
    }
    logits = model.predict(x, verbose=0)
    rank = (logits > np.take_along_axis(logits, y[:, None], axis=-1)).sum(axis=-1)
    expected = {
        "loss": losses_of(logits, y).mean(),
        "perplexity": np.exp(losses_of(logits, y).mean()),
        "top_10_accuracy": (rank < 10).mean(),
        "mean_reciprocal_rank": (1 / (rank + 1)).mean(),
    }
    logged = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logged == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_compiled_training_is_the_training_of_the_graph(data):
    def trained(jit_compile):
        keras.utils.set_random_seed(3)
        model = make(jit_compile=jit_compile)
        return model.fit(*data, shuffle=False, epochs=2, verbose=0).history["loss"]

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-5)


RESUME = """
import sys
import keras, numpy as np
import tfsampled  # registers the classes

model = keras.models.load_model(sys.argv[1])
data = np.load(sys.argv[2])
history = model.fit(data["x"], data["y"], epochs=2, shuffle=False, verbose=0).history
np.save(sys.argv[3], history["loss"])
"""


@pytest.mark.slow
def test_a_resumed_run_is_the_unbroken_run_loss_by_loss(data, tmp_path):
    x, y = data
    model = make({"sampler": samplers.LearnedUnigram()}, optimizer="adam")
    model.fit(x, y, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    names = ["model.keras", "data.npz", "losses.npy"]
    paths = [str(tmp_path / name) for name in names]
    subprocess.run([sys.executable, "-c", RESUME, *paths], check=True, cwd=ROOT)
    unbroken = model.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert np.load(tmp_path / "losses.npy").tolist() == unbroken


def test_a_run_that_broke_off_is_restored(data, tmp_path):
    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(model, *callbacks):
        return model.fit(
            *data, epochs=3, shuffle=False, verbose=0, callbacks=list(callbacks)
        ).history["loss"]

    head = {"seed": 1, "kernel_initializer": keras.initializers.RandomNormal(seed=1)}

    def fresh():
        keras.utils.set_random_seed(1)
        return make(head)

    def restore():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    unbroken = fit(fresh())
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), restore(), Breaks())
    assert fit(fresh(), restore()) == unbroken[2:]


@pytest.mark.slow
def test_a_functional_model_is_wrapped_and_learns(data, tmp_path):
    x, y = data
    inputs = keras.Input((DIM,))
    features = keras.layers.Dense(8)(inputs)
    logits = SampledSoftmax(CLASSES, SAMPLED, sampler="uniform")(features)
    plain = keras.Model(inputs, logits)
    before = plain.predict(x, verbose=0)
    model = SampledSoftmaxModel.from_model(plain, top_k=3)
    model.compile(optimizer="sgd")
    model.fit(x, y, verbose=0)
    after = plain.predict(x, verbose=0)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0), losses_of(after, y).mean(), rtol=1e-5
    )
    best = model.predict(x, verbose=0)
    np.testing.assert_array_equal(best["classes"], tf.math.top_k(after, 3).indices)


def test_invalid_models_raise():
    dense = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(3)])
    unbuilt = keras.Sequential([SampledSoftmax(CLASSES, SAMPLED)])
    for model in (dense, unbuilt, make()):
        with pytest.raises(ValueError, match="`model` must be a functional or"):
            SampledSoftmaxModel.from_model(model)


def test_an_exported_model_serves_the_best_classes(tmp_path):
    encoder = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(30, 8),
            keras.layers.Flatten(),
        ]
    )
    model = SampledSoftmaxModel(encoder, SampledSoftmax(CLASSES, SAMPLED), top_k=5)
    x = np.arange(24).reshape(6, 4)
    best = model.predict(x, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    result = served.serve(tf.constant(x[:3], tf.int32))  # another batch size
    np.testing.assert_array_equal(result["classes"], best["classes"][:3])
    np.testing.assert_allclose(result["scores"], best["scores"][:3], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("exclude", [None, "seen"])
@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated")
def test_an_exported_model_runs_in_litert(tmp_path, monkeypatch, exclude):
    """In several chunks of classes, and without TensorFlow's own operations."""
    use_small_chunks(monkeypatch, 128)
    inputs = {
        "x": keras.Input((DIM,), name="x"),
        "seen": keras.Input((3,), dtype="int64", name="seen"),
    }
    features = keras.layers.Dense(8)(inputs["x"])
    head = SampledSoftmax(500, SAMPLED)
    encoder = keras.Model(inputs, features)
    model = SampledSoftmaxModel(encoder, head, top_k=5, exclude=exclude)
    rows = np.random.default_rng(0).normal(size=(7, DIM)).astype("float32")
    x = {"x": rows, "seen": np.full([7, 3], -1)}
    best = model.predict(x, verbose=0)
    if exclude:
        x["seen"] = best["classes"][:, [3, 0, 3]].astype("int64")
        best = model.predict(x, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "served"))
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    serve = interpreter.get_signature_runner("serving_default")
    result = serve(**x)
    np.testing.assert_array_equal(result["classes"], best["classes"])
    np.testing.assert_allclose(result["scores"], best["scores"], rtol=1e-5)


def test_a_tied_model_is_tied_again_when_loaded(tmp_path):
    words = keras.layers.Embedding(CLASSES, 8)
    inputs = keras.Input((4,), dtype="int32")
    features = keras.layers.GlobalAveragePooling1D()(words(inputs))
    head = SampledSoftmax(CLASSES, SAMPLED, sampler="uniform", tied_to=words)
    model = SampledSoftmaxModel(keras.Model(inputs, features), head)
    model.compile("adam")
    x = np.arange(CLASSES * 4).reshape(-1, 4) % CLASSES
    model.fit(x, x[:, 0], verbose=0)
    assert len(model.trainable_variables) == 2  # the table, once, and the bias
    model.save(tmp_path / "tied.keras")
    loaded = keras.models.load_model(tmp_path / "tied.keras")
    copied = SampledSoftmaxModel.from_config(model.get_config())
    for other in (loaded, copied):
        embedding = other.encoder.get_layer(words.name)
        assert other.head.tied_to is embedding
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert loaded.head.kernel is loaded.encoder.get_layer(words.name).embeddings


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_tied_model_learns_under_a_mixed_policy(policy):
    keras.config.set_dtype_policy(policy)
    words = keras.layers.Embedding(CLASSES, 8)
    encoder = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            words,
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(8),
        ]
    )
    head = SampledSoftmax(CLASSES, SAMPLED, sampler="uniform", tied_to=words)
    model = SampledSoftmaxModel(encoder, head)
    model.compile(keras.optimizers.Adam(0.02))
    x = np.arange(CLASSES * 4).reshape(-1, 4) % CLASSES
    history = model.fit(x, x[:, 0], epochs=20, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0] / 2
    logits = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        model.evaluate(x, x[:, 0], verbose=0),
        losses_of(logits, x[:, 0]).mean(),
        rtol=2e-3,  # the tied table is read in the compute dtype
    )


def test_padding_takes_no_part_in_any_mean():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(40, 3, DIM)).astype("float32")
    y = rng.integers(0, CLASSES, (40, 3))
    y[20:, 1:] = -1  # batches differ in how much they hold
    model = make(
        {"ignore_class": -1}, shape=(None, DIM), metrics=[metrics.Perplexity()]
    )
    logged = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0)
    mean = losses_of(logits[y >= 0], y[y >= 0]).mean()
    assert logged == pytest.approx({"loss": mean, "perplexity": np.exp(mean)}, rel=1e-5)
    before = model.get_weights()
    model.fit(x, np.full_like(y, -1), verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weighted_metrics_weigh(data):
    x, y = data
    weight = np.linspace(0, 2, EXAMPLES)
    model = make(
        metrics=[metrics.Perplexity()],
        weighted_metrics=[metrics.Perplexity("weighted")],
    )
    logged = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    losses = losses_of(model.predict(x, verbose=0), y)
    assert logged == pytest.approx(
        {
            "loss": (losses * weight).mean(),
            "perplexity": np.exp(losses.mean()),
            "weighted": np.exp(np.average(losses, weights=weight)),
        },
        rel=1e-5,
    )


def test_one_metric_with_and_without_weights(data):
    x, y = data
    weight = np.linspace(0, 2, EXAMPLES)
    model = make(
        metrics=[metrics.Perplexity()], weighted_metrics=[metrics.Perplexity()]
    )
    logged = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    losses = losses_of(model.predict(x, verbose=0), y)
    assert logged == pytest.approx(
        {
            "loss": (losses * weight).mean(),
            "perplexity": np.exp(losses.mean()),
            "weighted_perplexity": np.exp(np.average(losses, weights=weight)),
        },
        rel=1e-5,
    )
    assert model.evaluate(x, y, sample_weight=weight, verbose=0) == list(
        logged.values()
    )
    assert model.metrics_names == list(logged)


def test_metrics_of_one_name_raise():
    both = [metrics.Perplexity(), metrics.Perplexity()]
    with pytest.raises(ValueError, match="`metrics` must have different names"):
        make(metrics=both)
    with pytest.raises(ValueError, match="share a metric object"):
        make(metrics=both[:1], weighted_metrics=both[:1])


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_a_frozen_model_is_told_to_learn_nothing(data, jit_compile):
    model = make(jit_compile=jit_compile)
    model.trainable = False
    model.compile("adam", jit_compile=jit_compile)
    before = model.get_weights()
    with pytest.warns(UserWarning, match="The model has no trainable weights"):
        history = model.fit(*data, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_mixed_float16_scales_losses_by_rows(data, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = make(optimizer=optimizers.LazyAdam(0.01))
    assert type(model.optimizer) is optimizers.LossScaleOptimizer
    model.fit(*data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is optimizers.LossScaleOptimizer
    assert type(loaded.optimizer.inner_optimizer) is optimizers.LazyAdam
    model.compile(optimizers.LazyAdam(0.01), auto_scale_loss=False)
    assert type(model.optimizer) is optimizers.LazyAdam
    model.compile("adam")
    assert type(model.optimizer) is optimizers.LossScaleOptimizer
    model.compile(own := keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
    assert model.optimizer is own


def test_metrics_are_saved_with_the_model(data, tmp_path):
    model = make(metrics=[metrics.TopKAccuracy(7)])
    model.fit(*data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    logged = loaded.evaluate(*data, verbose=0, return_dict=True)
    assert logged == model.evaluate(*data, verbose=0, return_dict=True)
    assert set(logged) == {"loss", "top_7_accuracy"}


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(index * 32, (index + 1) * 32)
        return self.x[rows], self.y[rows]


@pytest.mark.slow
def test_every_kind_of_data_gives_the_same_evaluation(data):
    model = make()
    expected = model.evaluate(*data, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(32)
    for source in (dataset, Batches(*data)):
        assert model.evaluate(source, verbose=0) == pytest.approx(expected, rel=1e-6)
        logs = model.fit(source, verbose=0, shuffle=False).history
        assert np.isfinite(logs["loss"]).all()
        expected = model.evaluate(*data, verbose=0)


@pytest.mark.parametrize(
    "name",
    [
        *(slow(n) for n in ("rmsprop", "adagrad")),
        "adamw",
    ],
)
def test_optimizers_of_keras_train_it(data, name):
    model = make(optimizer=name)
    history = model.fit(*data, epochs=1, verbose=0).history["loss"]
    assert np.isfinite(history).all()


@pytest.mark.traced
def test_labels_in_the_wrong_order_are_told_in_fit(data):
    x, _ = data
    head = SampledSoftmax(5000, SAMPLED)
    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(8)])
    model = SampledSoftmaxModel(encoder, head)
    model.compile("sgd")
    with pytest.warns(UserWarning, match="The labels are not ordered by frequency"):
        model.fit(np.tile(x, (11, 1)), 4999 - np.arange(11 * EXAMPLES), 352, verbose=0)


@pytest.mark.traced
def test_float_labels_are_refused_in_compiled_training(data):
    x, y = data
    with pytest.raises(ValueError, match="`labels` must be integer class ids"):
        make(jit_compile=True).fit(x, y.astype("float64"), verbose=0)


class AddsLoss(SampledSoftmaxModel):
    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        self.add_loss(tf.ones_like(y_pred[0, 0]))
        return super().compute_loss(x, y, y_pred, sample_weight, training)


@pytest.mark.parametrize("run_eagerly", [True, slow(False)])
def test_a_loss_that_a_step_adds_is_of_this_step(data, run_eagerly):
    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(8)])
    model = AddsLoss(encoder, SampledSoftmax(CLASSES, SAMPLED, "uniform"))
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=run_eagerly)
    x, y = (array[:64] for array in data)
    expected = 1 + float(tf.reduce_mean(model.head.exact_loss(encoder(x), y)))
    for _ in range(2):
        model.fit(x, y, batch_size=32, verbose=0)
        assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_custom_objects_of_from_config():
    class Encoder(keras.layers.Dense):
        pass

    model = SampledSoftmaxModel(Encoder(4), SampledSoftmax(CLASSES, SAMPLED))
    config = model.get_config()
    again = SampledSoftmaxModel.from_config(config, {"Encoder": Encoder})
    assert type(again.encoder) is Encoder
