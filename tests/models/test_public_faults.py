"""Faults that users of Keras have met in public, each with its siblings."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cases, slow, two_replicas
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import Perplexity, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam

pytestmark = pytest.mark.eager

CLASSES, DIM, BATCH = 30, 8, 16
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, DIM)).astype("float32"), RNG.integers(0, CLASSES, BATCH)
IDS = RNG.integers(0, CLASSES, (BATCH, 3))


def make(encoder=None, **head):
    head = SampledSoftmax(CLASSES, 5, "uniform", seed=1, **head)
    return SampledSoftmaxModel(
        encoder or keras.Sequential([keras.layers.Dense(8)]), head
    )


@keras.saving.register_keras_serializable(package="tests")
class TwoEmbeddings(keras.layers.Layer):
    """An encoder with two embeddings of one name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a = keras.layers.Embedding(CLASSES, DIM, name="e")
        self.b = keras.layers.Embedding(CLASSES, DIM, name="e")

    def build(self, input_shape):
        self.a.build(input_shape)
        self.b.build(input_shape)

    def call(self, ids):
        return tf.reduce_mean(self.a(ids) + 2 * self.b(ids), axis=1)


def nested_encoder():
    """A functional encoder with two embeddings in nested models."""
    ids = keras.Input((3,), dtype="int32")
    parts = []
    for _ in range(2):
        embedding = keras.layers.Embedding(CLASSES, DIM, name="e")
        pooled = keras.layers.GlobalAveragePooling1D()(embedding(ids))
        parts.append(keras.Model(ids, pooled))
    return keras.Model(ids, parts[0](ids) + 2 * parts[1](ids))


def tied_model(kind, index):
    """Returns a model whose head is tied to the first or second embedding."""
    if kind == "subclassed":
        encoder = TwoEmbeddings()
        embedding = [encoder.a, encoder.b][index]
    else:
        encoder = nested_encoder()
        models = [layer for layer in encoder.layers if isinstance(layer, keras.Model)]
        embedding = models[index].layers[1]
    model = make(encoder, tied_to=embedding, use_bias=False)
    model(IDS)
    return model


COPIES = {
    "keras file": lambda model: model,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize(
    ("kind", "index", "how"),
    cases(
        ["subclassed", "nested"],
        [0, 1],
        COPIES,
        quick=lambda kind, index, how: how == "keras file" and index == 1,
    ),
)
def test_a_copy_is_tied_to_the_same_embedding(kind, index, how, tmp_path):
    """Keras #10898: a layer that is found by its name may be another."""
    model = tied_model(kind, index)
    if how == "keras file":
        model.save(tmp_path / "model.keras")
        other = keras.models.load_model(tmp_path / "model.keras")
    else:
        other = COPIES[how](model)
    np.testing.assert_array_equal(other.predict(IDS), model.predict(IDS))
    tied = [other.encoder.a, other.encoder.b] if kind == "subclassed" else None
    if tied:
        assert other.head.tied_to is tied[index]
    assert len(other.weights) == len(model.weights)


def test_an_ambiguous_name_in_an_old_config_raises():
    config = tied_model("subclassed", 1).get_config()
    del config["tied_embedding"]  # as version 0.1.0 wrote it
    with pytest.raises(ValueError, match="the encoder has 2 of that name"):
        SampledSoftmaxModel.from_config(config)


def test_tied_to_an_embedding_with_other_reverse_weights_raises():
    """keras-hub #883, Keras PR #21753."""
    embedding = keras.layers.Embedding(CLASSES, DIM)
    head = SampledSoftmax(CLASSES, 5, tied_to=embedding)
    head.build((None, DIM))
    embedding.enable_lora(2)
    with pytest.raises(ValueError, match=r"Received: tied_to.lora_enabled=True"):
        head(X)
    embedding = keras.layers.Embedding(CLASSES, DIM)
    head = SampledSoftmax(CLASSES, 5, tied_to=embedding)
    head.build((None, DIM))
    embedding.quantize("int8")
    for call in (head, lambda x: head.sampled_loss(x, Y), lambda x: head.top_k(x, 2)):
        with pytest.raises(ValueError, match=r"tied_to.quantization_mode='int8'"):
            call(X)
    if hasattr(keras.layers, "ReversibleEmbedding"):
        embedding = keras.layers.ReversibleEmbedding(CLASSES, DIM, tie_weights=False)
        with pytest.raises(ValueError, match=r"tied_to\.tie_weights"):
            SampledSoftmax(CLASSES, 5, tied_to=embedding)
        for cap in (None, 0.05):
            embedding = keras.layers.ReversibleEmbedding(
                CLASSES, DIM, logit_soft_cap=cap
            )
            head = SampledSoftmax(CLASSES, 5, tied_to=embedding, use_bias=False)
            logits = embedding(X, reverse=True)
            np.testing.assert_allclose(head(X), logits, rtol=1e-5)
            best = tf.math.top_k(logits, 3).values
            np.testing.assert_allclose(head.top_k(X, 3)[0], best, rtol=1e-5)
        with pytest.raises(ValueError, match="`logit_soft_cap` must be that of `tied"):
            SampledSoftmax(CLASSES, 5, tied_to=embedding, logit_soft_cap=3.0)


FIRST = {
    "build": lambda model: model.build((None, DIM)),
    "predict": lambda model: model.predict(X, verbose=0),
    "evaluate": lambda model: model.evaluate(X, Y, verbose=0),
    "fit": lambda model: model.fit(X, Y, verbose=0),
}


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize(
    ("first", "jit_compile"),
    [
        ("evaluate", False),
        *(slow(first, True) for first in FIRST),
        *(slow(first, False) for first in ("build", "predict", "fit")),
    ],
)
def test_fit_after_anything(first, jit_compile):
    """State that is first made while a step is traced fails in its second trace."""
    model = make()
    model.compile("adam", jit_compile=jit_compile)
    FIRST[first](model)
    model.fit(X, Y, batch_size=12, verbose=0)  # two shapes, two traces
    model.compile(LazyAdam(0.1), jit_compile=jit_compile)
    model.fit(X, Y, batch_size=12, verbose=0)
    assert model.optimizer.iterations == 2


@pytest.mark.slow
def test_fit_after_loading(tmp_path):
    model = make()
    model.compile("adam")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    other.fit(X, Y, batch_size=12, verbose=0)
    assert other.optimizer.iterations == 3


@pytest.mark.slow
@pytest.mark.traced
def test_a_step_of_ones_own_builds_nothing_while_it_is_traced():
    model = make()
    model.compile(LazyAdam(0.1))
    step = tf.function(lambda x, y: model.train_step((x, y)), reduce_retracing=True)
    for size in (BATCH, 5, 7):
        step(X[:size], Y[:size])
    assert model.optimizer.iterations == 3


def test_labels_in_a_list_of_one():
    """Plain Keras trains on `fit(x, [y])` and on datasets of `(x, (y,))`."""
    losses = []
    for data in (
        (X, Y),
        (X, [Y]),
        (tf.data.Dataset.from_tensors((X, (Y,))),),
        (tf.data.Dataset.from_tensors((X, {"y": Y})),),
    ):
        keras.utils.set_random_seed(1)
        model = make()
        model.compile("sgd")
        losses.append(model.fit(*data, verbose=0, shuffle=False).history["loss"])
    assert losses[0] == losses[1] == losses[2] == losses[3]
    with pytest.raises(ValueError, match=r"`y` must be one array of labels.*2 arrays"):
        model.fit(X[:2], [Y[:2], Y[:2]], verbose=0)


def test_ragged_labels_in_fit():
    """They train as if they were filled up with `ignore_class`."""
    ragged = tf.ragged.constant([[3], [4, 5], [6, 7, 8], [9]] * 4, tf.int64)
    losses = []
    for labels in (ragged, ragged.to_tensor(-1)):
        keras.utils.set_random_seed(1)
        model = make(num_true=3, ignore_class=-1)
        model.compile("sgd")
        data = tf.data.Dataset.from_tensor_slices((X, labels)).batch(8)
        losses.append(model.fit(data, verbose=0, shuffle=False).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_a_callback_list_of_the_users_stays_as_it_is():
    model = make()
    model.compile("sgd")
    callbacks = keras.callbacks.CallbackList([], add_history=True, model=model)
    before = list(callbacks.callbacks)
    for _ in range(2):
        model.fit(X, Y, verbose=0, callbacks=callbacks)
    assert callbacks.callbacks == before


def test_positional_arguments_of_keras(tmp_path):
    model = make(keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(8)]))
    model.compile("sgd")
    logs = model.evaluate(X, Y, None, 0, None, None, None, True)
    assert model.test_on_batch(X, Y, None, True) == pytest.approx(logs)
    signature = [tf.TensorSpec([None, DIM])]
    model.export(tmp_path / "served", "tf_saved_model", False, signature)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(X), model.predict(X, verbose=0), rtol=1e-5)


def test_a_subclass_may_override_compute_loss():
    @keras.saving.register_keras_serializable(package="tests")
    class Doubled(SampledSoftmaxModel):
        def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
            return 2 * super().compute_loss(x, y, y_pred, *args, **kwargs)

    losses = []
    for kind in (SampledSoftmaxModel, Doubled):
        keras.utils.set_random_seed(1)
        encoder = keras.Sequential([keras.layers.Dense(8)])
        model = kind(encoder, SampledSoftmax(CLASSES, 5, "uniform", seed=1))
        model.compile("sgd")
        losses.append(model.fit(X, Y, verbose=0).history["loss"][0])
    assert losses[1] == pytest.approx(2 * losses[0])


@pytest.mark.traced
def test_a_compiled_step_of_several_replicas_raises():
    with two_replicas().scope():
        model = make()
        model.compile("sgd", jit_compile=True)
    with pytest.raises(
        ValueError, match="`jit_compile` must be False with several rep"
    ):
        model.fit(X, Y, verbose=0)


def test_several_steps_per_execution_of_several_replicas_raise():
    with two_replicas().scope():
        model = make()
        with pytest.raises(
            ValueError, match=r"`steps_per_execution` must be 1 .*=3, 2 replicas"
        ):
            model.compile("sgd", steps_per_execution=3)


RAGGED = [[1], [2, 3], [], [4]]


@pytest.mark.parametrize("weights", [slow(None), {2: 3.0}])
def test_ragged_labels_are_padded_labels(weights):
    """With the default sampler, and class weights."""
    losses = []
    ragged = tf.ragged.constant(RAGGED, dtype=tf.int64)
    for labels in (ragged, ragged.to_tensor(-1).numpy()):
        keras.utils.set_random_seed(1)
        head = SampledSoftmax(CLASSES, 5, num_true=2, ignore_class=-1, seed=1)
        model = SampledSoftmaxModel(keras.Sequential([keras.layers.Dense(8)]), head)
        model.compile("sgd")
        history = model.fit(X[:4], labels, class_weight=weights, verbose=0).history
        losses.append(history["loss"][0])
    assert losses[0] == losses[1]


@pytest.mark.traced
def test_ragged_labels_in_a_compiled_step_raise():
    head = SampledSoftmax(CLASSES, 5, "uniform", num_true=2, ignore_class=-1)
    model = SampledSoftmaxModel(keras.Sequential([keras.layers.Dense(8)]), head)
    model.compile("sgd", jit_compile=True)
    with pytest.raises(ValueError, match="`labels` must be dense under jit_compile"):
        model.fit(X[:4], tf.ragged.constant(RAGGED, dtype=tf.int64), verbose=0)


def one_batch(*arrays):
    """A dataset that tells no batch size, as a generator's does not."""
    return tf.data.Dataset.from_generator(
        lambda: iter([arrays]),
        output_signature=tuple(
            tf.TensorSpec([None, *array.shape[1:]], array.dtype) for array in arrays
        ),
    ).apply(tf.data.experimental.assert_cardinality(1))


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize("compute", ["fit", "evaluate"])
def test_one_label_or_weight_is_none_for_a_batch(compute):
    model = make()
    model.compile("sgd")
    run = getattr(model, compute)
    options = {"verbose": 0} | ({"shuffle": False} if compute == "fit" else {})
    run(one_batch(X[:4], Y[:4], np.ones(4, "float32")), **options)
    weights = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match="1 values for 4 examples"):
        run(one_batch(X[:4], Y[:1]), **options)
    with pytest.raises(tf.errors.InvalidArgumentError, match="1 values for 4 examples"):
        run(one_batch(X[:4], Y[:4], np.ones(1, "float32")), **options)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_labels_and_weights_of_one_output_are_unwrapped_alike():
    weight = np.linspace(0, 2, len(Y)).astype("float32")
    model = make()
    model.compile("sgd")
    expected = model.evaluate(X, Y, sample_weight=weight, verbose=0)
    assert model.evaluate(X, [Y], sample_weight=[weight], verbose=0) == expected
    data = tf.data.Dataset.from_tensor_slices((X, (Y,), (weight,))).batch(len(Y))
    assert model.evaluate(data, verbose=0) == pytest.approx(expected)
    for empty in ([], [None]):
        with pytest.raises(ValueError, match="`y` must be"):
            model.train_on_batch(X, empty)


@pytest.mark.parametrize(
    "weights", [{True: 2.0}, {1: 1e300}, {1: True}], ids=["id", "inf", "bool"]
)
def test_class_weights_that_are_no_float32_raise(weights):
    model = make()
    model.compile("sgd")
    with pytest.raises(ValueError, match="`class_weight` must map class ids to finite"):
        model.fit(X, Y, class_weight=weights, verbose=0)


@pytest.mark.parametrize("encoder", [None, "a", lambda x: x, keras.layers.Dense])
def test_an_encoder_that_is_no_layer_raises(encoder):
    with pytest.raises(ValueError, match=r"`encoder` must be a keras\.layers\.Layer"):
        SampledSoftmaxModel(encoder, SampledSoftmax(CLASSES, 5))


@keras.saving.register_keras_serializable(package="tests")
class Unnamed(keras.Model):
    """An encoder whose Embeddings get another name in each process."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a = keras.layers.Embedding(CLASSES, 8)
        self.b = keras.layers.Embedding(CLASSES, 8)
        self.pool = keras.layers.GlobalAveragePooling1D()

    def call(self, ids):
        return self.pool(self.a(ids) + self.b(ids))


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_head_stays_tied_to_an_embedding_without_a_name(tmp_path, name):
    encoder = Unnamed()
    head = SampledSoftmax(CLASSES, 5, tied_to=getattr(encoder, name))
    model = SampledSoftmaxModel(encoder, head)
    ids = np.arange(12).reshape(4, 3)
    expected = model.predict(ids, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.head.tied_to is getattr(loaded.encoder, name)
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), expected)


def test_evaluate_returns_the_loss_first():
    """Keras sorts the logs by name."""
    model = make()
    model.compile("sgd", metrics=[TopKAccuracy(3, name="b"), Perplexity(name="a")])
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert list(logs) == ["loss", "b", "a"]
    assert model.evaluate(X, Y, verbose=0) == list(logs.values())


def test_the_mean_of_16_bit_losses_does_not_overflow():
    model = make(dtype="float16")
    model.compile("sgd", auto_scale_loss=False)
    x, y = np.zeros([20_000, DIM], "float32"), np.zeros(20_000, int)
    expected = np.log(CLASSES)  # the sum is above the greatest float16
    np.testing.assert_allclose(
        model.evaluate(x, y, batch_size=20_000, verbose=0), expected, rtol=1e-3
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_predict_sees_the_inputs_of_evaluate(policy):
    """A mixed policy rounds neither ids in floats nor what a float32 layer makes."""
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((DIM,))
    scaled = keras.layers.Rescaling(1e-5, dtype="float32")(inputs)
    plain = keras.Model(inputs, SampledSoftmax(CLASSES, 5, "uniform")(scaled))
    assert plain.output.dtype == "float32"
    model = SampledSoftmaxModel.from_model(plain)
    model.compile("sgd", metrics=[Perplexity()])
    x = 1e5 * X
    logits = model.predict(x, verbose=0)
    np.testing.assert_allclose(logits, plain.predict(x, verbose=0), rtol=1e-6)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits)
    loss, _ = model.evaluate(x, Y, verbose=0)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-6)


def test_losses_and_steps_without_compile():
    model = make()
    features = model.encoder(X)
    loss = model.compute_loss(X, Y, features, training=False)
    np.testing.assert_allclose(
        loss, np.mean(model.head.exact_loss(features, Y)), rtol=1e-6
    )
    logs = model.test_step((tf.constant(X), tf.constant(Y)))
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-6)


def test_a_regularizer_of_logits_raises():
    with pytest.raises(ValueError, match="`activity_regularizer` must be None"):
        SampledSoftmax(CLASSES, 5, activity_regularizer="l2")
    head = SampledSoftmax(CLASSES, 5, autocast=True)  # an argument of Layer, too
    with pytest.raises(ValueError, match="`activity_regularizer` must be None"):
        SampledSoftmaxModel(keras.layers.Dense(8), head, activity_regularizer="l2")


@pytest.mark.parametrize(
    "arguments", [{"optimizer": "none"}, {"loss": "mse"}, {"metrics": ["mae"]}]
)
def test_a_refused_compile_changes_nothing(arguments):
    model = make()
    model.compile("sgd", metrics=[TopKAccuracy(5)])
    before = model.evaluate(X, Y, verbose=0)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        model.compile(**{"metrics": [Perplexity()], **arguments})
    assert model.evaluate(X, Y, verbose=0) == before
    assert model.metrics_names == ["loss", "top_5_accuracy"]


class Watched(keras.layers.Layer):
    """Adds a loss for each example, and has a metric of its own."""

    def __init__(self):
        super().__init__()
        self.mean = keras.metrics.Mean(name="watched")

    def call(self, x):
        self.mean.update_state(x)
        self.add_loss(tf.reduce_sum(x * x, axis=-1))
        return x


def test_losses_of_each_example_and_metrics_of_layers():
    model = make(keras.Sequential([keras.Input((DIM,)), Watched()]))
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(X, Y, batch_size=BATCH, verbose=0).history
    assert logs["watched"] == pytest.approx([X.mean()], abs=1e-6)
    exact = np.mean(model.head.exact_loss(X, Y))
    loss = model.evaluate(X, Y, batch_size=BATCH, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(exact + np.sum(X.astype("float64") ** 2), rel=1e-5)


def test_an_encoder_of_several_tensors_needs_a_dict_of_heads():
    inputs = keras.Input((DIM,))
    encoder = keras.Model(inputs, {"a": inputs, "b": keras.layers.Dense(8)(inputs)})
    with pytest.raises(ValueError, match="`encoder` must return one tensor for a sing"):
        make(encoder)


def test_no_optimizer_under_a_policy_that_scales_losses():
    keras.config.set_dtype_policy("mixed_float16")
    model = make()
    model.compile(optimizer=None)
    assert np.isfinite(model.evaluate(X, Y, verbose=0))


def test_weights_of_a_wrong_shape_move_no_sampler():
    model = make()
    model.compile("sgd")
    model.train_on_batch(X, Y)
    position = int(model.head.sampler.position)
    with pytest.raises(ValueError, match="`sample_weight` must have the shape"):
        model.train_on_batch(X, Y, sample_weight=np.ones([BATCH, 3], "float32"))
    assert int(model.head.sampler.position) == position


def test_a_mixed_policy_reads_the_values_of_a_stateless_call():
    keras.config.set_dtype_policy("mixed_bfloat16")
    ids = keras.Input((3,), dtype="int32")
    embedding = keras.layers.Embedding(CLASSES, DIM)
    features = keras.layers.GlobalAveragePooling1D()(embedding(ids))
    head = SampledSoftmax(CLASSES, 5, tied_to=embedding, use_bias=False)
    model = keras.Model(ids, head(features))
    expected = 2.0 * np.asarray(model(IDS))
    doubled = [2.0 * tf.constant(v) for v in model.trainable_variables]
    others = list(model.non_trainable_variables)
    logits, _ = model.stateless_call(doubled, others, IDS)
    # Both the inputs and the table are doubled.
    np.testing.assert_allclose(logits, 2.0 * expected, rtol=1e-5)


def test_a_subclass_of_the_head_may_take_training():
    class Head(SampledSoftmax):
        def call(self, inputs, training=False):
            return super().call(inputs)

    inputs = keras.Input((DIM,))
    model = keras.Model(inputs, Head(CLASSES, 5)(inputs, training=True))
    assert model(X).shape == (BATCH, CLASSES)


@pytest.mark.parametrize("top_k", [None, 5])
def test_predict_reads_a_tied_table_as_evaluate_does(top_k):
    keras.config.set_dtype_policy("mixed_bfloat16")
    words = keras.layers.Embedding(CLASSES, DIM)
    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Rescaling(1.0)])
    model = SampledSoftmaxModel(encoder, SampledSoftmax(CLASSES, 5, tied_to=words))
    logits = tf.matmul(model.encoder(X), words.embeddings._value, transpose_b=True)
    model = SampledSoftmaxModel(encoder, model.head, top_k)
    result = model.predict(X, verbose=0)
    if top_k:
        result, logits = result["scores"], tf.math.top_k(logits, top_k).values
    np.testing.assert_allclose(result, logits, rtol=1e-5, atol=1e-5)


def test_evaluate_of_no_data_is_keras_empty_list():
    model = make()
    model.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).take(0)
    with pytest.warns(UserWarning, match="ran out of data"):
        assert model.evaluate(data, verbose=0) == []


def test_a_callback_with_a_mode_and_no_monitor():
    callback = keras.callbacks.Callback()
    callback.mode = "auto"
    model = make()
    model.compile("sgd")
    model.fit(X, Y, callbacks=[callback], verbose=0)
