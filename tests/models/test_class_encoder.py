"""Classes whose rows an item tower makes: equal to a table of all its rows."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import MODES, cases, logsumexp64, slow
from tfsampled.layers import SampledSoftmax, _class_tower
from tfsampled.metrics import NDCG, Perplexity
from tfsampled.models import SampledSoftmaxModel
from tfsampled.samplers import InBatch, Mixed, Uniform

pytestmark = pytest.mark.eager

CLASSES, DIM, BATCH = 60, 8, 16
RNG = np.random.default_rng(9)
ITEMS = {
    "brand": RNG.integers(0, 7, CLASSES),
    "price": RNG.normal(size=(CLASSES, 2)).astype("float32"),
}
X = RNG.normal(size=(BATCH, 5)).astype("float32")
Y = RNG.integers(0, CLASSES, BATCH)


def item_tower():
    brand = keras.Input((), dtype="int32", name="brand")
    price = keras.Input((2,), name="price")
    x = keras.layers.Embedding(7, 4)(brand)
    x = keras.layers.Concatenate()([x, keras.layers.Dense(4)(price)])
    x = keras.layers.Dense(DIM)(x)
    return keras.Model({"brand": brand, "price": price}, x)


def make_head(**kwargs):
    kwargs = {"num_sampled": 12, "sampler": "uniform", "seed": 2, **kwargs}
    return SampledSoftmax(
        CLASSES, class_encoder=item_tower(), class_features=ITEMS, **kwargs
    )


def make_model(head=None, **kwargs):
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(DIM)])
    return SampledSoftmaxModel(encoder, head or make_head(), **kwargs)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(_class_tower, "CHUNK", 16)


@pytest.mark.traced
@pytest.mark.parametrize(
    ("name", "normalize", "mode"),
    cases(
        ["sampled_loss", "exact_loss"],
        [False, True],
        MODES,
        quick=lambda name, normalize, mode: (
            mode == "eager" or (name == "sampled_loss" and normalize and mode == "jit")
        ),
    ),
)
def test_losses_and_gradients_are_those_of_a_table(name, mode, normalize, small_chunks):
    head = make_head(normalize=normalize, num_hard_negatives=5)
    plain = SampledSoftmax(
        CLASSES,
        12,
        "uniform",
        seed=2,
        normalize=normalize,
        num_hard_negatives=5,
        use_bias=False,
    )
    rng = np.random.default_rng(1)
    inputs = tf.constant(rng.normal(size=(BATCH, DIM)).astype("float32"))
    head(inputs)
    plain(inputs)
    tower = head.class_tower.encoder

    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = getattr(head, name)(inputs, Y)
        sources = [inputs, *(w.value for w in tower.trainable_weights)]
        return loss, [tf.convert_to_tensor(g) for g in tape.gradient(loss, sources)]

    loss, gradients = MODES[mode](compute)(inputs)
    # The loss of a table of the same rows, and its gradient sent through the tower.
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        rows = tower(ITEMS)
        plain.set_table(rows)
        expected = getattr(plain, name)(inputs, Y)
    d_inputs, d_rows = tape.gradient(expected, [inputs, plain.kernel.value])
    d_rows = tf.convert_to_tensor(d_rows)
    weights = [w.value for w in tower.trainable_weights]
    d_weights = tape.gradient(rows, weights, d_rows)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    expected = [tf.convert_to_tensor(x) for x in (d_inputs, *d_weights)]
    scale = max(np.abs(x).max() for x in expected)  # a common bias has the gradient 0
    for actual, desired in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-5 * scale)


def test_logits_ranks_and_the_best_are_those_of_all_rows(small_chunks):
    head = make_head()
    inputs = np.random.default_rng(1).normal(size=(BATCH, DIM)).astype("float32")
    logits = head(inputs).numpy()
    rows = head.class_tower.encoder(ITEMS).numpy()
    np.testing.assert_allclose(head.table(), rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, inputs @ rows.T, rtol=1e-4, atol=1e-5)
    _, classes = head.top_k(inputs, 4)
    np.testing.assert_array_equal(classes, np.argsort(-logits, axis=1)[:, :4])


def test_training_encodes_each_class_of_a_step_once():
    encoded = []

    @keras.saving.register_keras_serializable()
    class Tower(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(DIM)

        def call(self, features, training=False):
            if isinstance(features["brand"], tf.Tensor) and tf.executing_eagerly():
                encoded.append((len(features["brand"]), training))
            return self.dense(features["price"])

    head = SampledSoftmax(
        CLASSES, None, InBatch(), class_encoder=Tower(), class_features=ITEMS
    )
    inputs = tf.ones([BATCH, DIM])
    head.build(inputs.shape)
    head.sampled_loss(inputs, Y)
    assert encoded == [(len(set(Y.tolist())), True)]


@pytest.mark.traced
@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_a_model_trains_and_evaluates_exactly(jit_compile, small_chunks):
    model = make_model(
        make_head(
            sampler=Mixed([InBatch(), (Uniform(seed=1), 8)]),
            num_sampled=None,
            seed=None,
        ),
        top_k=3,
    )
    model.compile(
        keras.optimizers.Adam(0.03),
        metrics=[Perplexity(), NDCG(5)],
        jit_compile=jit_compile,
    )
    before = model.evaluate(X, Y, verbose=0, return_dict=True)
    options = {"validation_data": (X, Y), "validation_freq": 15}
    model.fit(X, Y, epochs=30, batch_size=8, verbose=0, **options)
    logs = model.evaluate(X, Y, batch_size=5, verbose=0, return_dict=True)
    assert logs["loss"] < before["loss"] / 2
    # The classes were encoded anew, and as inference does.
    logits = model.encoder(X).numpy() @ model.head.class_tower.encoder(ITEMS).numpy().T
    logits += model.head.bias.numpy()
    losses = logsumexp64(logits) - logits[np.arange(BATCH), Y]
    np.testing.assert_allclose(logs["loss"], losses.mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["perplexity"], np.exp(losses.mean()), rtol=1e-4)
    best = np.argsort(-logits, axis=1)[:, :3]
    np.testing.assert_array_equal(model.predict(X, verbose=0)["classes"], best)
    np.testing.assert_array_equal(model.predict_on_batch(X)["classes"], best)


def test_the_catalogue_is_encoded_once_in_evaluate_and_predict():
    model, calls = make_model(top_k=3), []
    model.compile("sgd", run_eagerly=True)
    encode = model.head.class_tower.encode

    def counted(ids, training):
        calls.append(len(ids))
        return encode(ids, training)

    model.head.class_tower.encode = counted
    model.evaluate(X, Y, batch_size=4, verbose=0)
    model.predict(X, batch_size=4, verbose=0)
    assert calls == [CLASSES, CLASSES]


def test_a_penalty_of_the_tower_is_none_of_evaluation():
    tower = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(DIM, activity_regularizer="l2")]
    )
    head = SampledSoftmax(
        CLASSES, 12, "uniform", class_encoder=tower, class_features=ITEMS["price"]
    )
    model = make_model(head)
    model.compile("sgd")
    features = model.encoder(X)
    expected = np.mean(head.exact_loss(features, Y))
    for _ in range(2):
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)


LOADING = """
import sys
import keras, numpy as np, tensorflow as tf
import tfsampled
model = keras.models.load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(x, verbose=0)["classes"])
"""


@pytest.mark.slow
def test_a_model_is_loaded_in_a_new_process_and_served(tmp_path):
    model = make_model(make_head(normalize=True, temperature=0.1), top_k=3)
    model.compile(keras.optimizers.Adam(0.03))
    model.fit(X, Y, epochs=3, verbose=0)
    expected = model.predict(X, verbose=0)["classes"]
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    paths = [str(tmp_path / n) for n in ("model.keras", "x.npy", "classes.npy")]
    subprocess.run([sys.executable, "-c", LOADING, *paths], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "classes.npy"), expected)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_array_equal(served.serve(X)["classes"], expected)


@pytest.mark.slow
def test_features_of_text_and_a_plain_array(tmp_path):
    names = np.array([f"item {index % 9}" for index in range(CLASSES)])
    lookup = keras.layers.StringLookup(vocabulary=sorted(set(names.tolist())))
    tower = keras.Sequential([lookup, keras.layers.Embedding(10, DIM)])
    head = SampledSoftmax(
        CLASSES, 12, "uniform", class_encoder=tower, class_features=names
    )
    model = make_model(head, top_k=2)
    model.compile("adam", jit_compile=False)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0)["classes"], model.predict(X, verbose=0)["classes"]
    )


def test_a_layer_that_both_towers_share_is_not_saved_whole(tmp_path):
    items = keras.layers.Embedding(CLASSES, DIM)
    history = keras.Input((4,), dtype="int32")
    x = keras.layers.GlobalAveragePooling1D()(items(history))
    item = keras.Input((), dtype="int32")
    head = SampledSoftmax(
        CLASSES,
        12,
        "uniform",
        class_encoder=keras.Model(item, items(item)),
        class_features=np.arange(CLASSES),
    )
    model = SampledSoftmaxModel(keras.Model(history, x), head)
    model.compile("adam")
    words = np.random.default_rng(1).integers(0, CLASSES, (BATCH, 4))
    model.fit(words, Y, verbose=0)
    assert len(model.trainable_weights) == 2
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match=f"shared layers \\['{items.name}'\\]"):
        model.save(tmp_path / "model.keras")


def test_batch_normalization_and_dropout_in_the_tower():
    tower = keras.Sequential(
        [
            keras.layers.Dense(DIM),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ]
    )
    head = SampledSoftmax(
        CLASSES, 12, "uniform", class_encoder=tower, class_features=ITEMS["price"]
    )
    model = make_model(head)
    model.compile("sgd", jit_compile=False)
    moving = tower.layers[1].moving_mean.numpy().copy()
    model.fit(X, Y, verbose=0)
    trained = tower.layers[1].moving_mean.numpy().copy()
    assert not np.allclose(trained, moving)
    first = model.evaluate(X, Y, verbose=0)
    assert model.evaluate(X, Y, verbose=0) == first
    np.testing.assert_array_equal(tower.layers[1].moving_mean, trained)


def test_invalid_arguments_raise():
    def head(encoder=None, features=ITEMS["price"], **kwargs):
        encoder = encoder or keras.Sequential([keras.layers.Dense(DIM)])
        return SampledSoftmax(
            CLASSES,
            12,
            "uniform",
            class_encoder=encoder,
            class_features=features,
            **kwargs,
        )

    with pytest.raises(ValueError, match="must be given together"):
        SampledSoftmax(CLASSES, 12, "uniform", class_features=ITEMS)
    with pytest.raises(ValueError, match=r"\[59\] rows, num_classes=60"):
        head(features=ITEMS["price"][1:])
    with pytest.raises(ValueError, match="`class_encoder` must be a keras"):
        head(encoder=lambda x: x)
    with pytest.raises(ValueError, match="`num_shards` must be 1 with `class_encoder`"):
        head(num_shards=2)
    with pytest.raises(ValueError, match=r"the shape \(None, 8\), inputs of dim 4"):
        head()(tf.ones([2, 4]))
    layer = head()
    layer(tf.ones([2, DIM]))
    with pytest.raises(ValueError, match="no variable table"):
        layer.set_table(np.zeros((CLASSES, DIM)), np.zeros(CLASSES))
    clone = SampledSoftmax.from_config(layer.get_config())
    with pytest.raises(ValueError, match="`class_features` must be loaded or given"):
        clone(tf.ones([2, DIM]))


class Shifted(keras.callbacks.Callback):
    """Sets the class encoder's weights when prediction begins."""

    def on_predict_begin(self, logs=None):
        for variable in self.model.head.class_tower.encoder.weights:
            variable.assign(tf.reverse(variable, [-1]))


@pytest.mark.slow
def test_classes_are_encoded_after_callbacks_have_set_the_weights():
    model = make_model(make_head(), top_k=3)
    model.compile(keras.optimizers.Adam(0.1, use_ema=True))
    swap = keras.callbacks.SwapEMAWeights()
    history = model.fit(
        X, Y, epochs=2, validation_data=(X, Y), callbacks=[swap], verbose=0
    )
    model.optimizer.finalize_variable_values(model.trainable_variables)
    exact = np.mean(model.head.exact_loss(model.encoder(X), Y))
    np.testing.assert_allclose(history.history["val_loss"][-1], exact, rtol=1e-5)
    best = model.predict(X, callbacks=[Shifted()], verbose=0)["classes"]
    np.testing.assert_array_equal(best, model.predict(X, verbose=0)["classes"])


@pytest.mark.traced
def test_a_clone_without_features_is_refused_in_a_graph():
    inputs = keras.Input((5,))
    plain = keras.Model(inputs, make_head()(keras.layers.Dense(DIM)(inputs)))
    plain.predict(X, verbose=0)
    clone = keras.models.clone_model(plain)
    with pytest.raises(ValueError, match="must be loaded or given"):
        clone.predict(X, verbose=0)


def test_a_feature_that_the_tower_does_not_read():
    head = make_head()
    more = {"id": np.arange(CLASSES), **ITEMS, "a": np.ones(CLASSES)}
    other = SampledSoftmax(
        CLASSES,
        12,
        "uniform",
        class_encoder=head.class_tower.encoder,
        class_features=more,
    )
    for one in (head, other):
        one.build((None, DIM))
    np.testing.assert_array_equal(other.table(), head.table())


@pytest.mark.parametrize("chunk", [10, 4096])
def test_a_penalty_of_the_tower_is_none_of_a_loss_over_all_classes(chunk, monkeypatch):
    monkeypatch.setattr(_class_tower, "CHUNK", chunk)
    tower = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(DIM, activity_regularizer="l2")]
    )
    head = SampledSoftmax(
        CLASSES, 12, "uniform", class_encoder=tower, class_features=ITEMS["price"]
    )
    head.build((None, DIM))

    @tf.function
    def step():
        return head.exact_loss(tf.ones([2, DIM]), [1, 2]), tf.add_n([0.0, *head.losses])

    assert step()[1] == 0
