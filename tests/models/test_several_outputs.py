"""Models with several outputs: of heads, and of layers that train on Keras losses."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import cross_entropy64, slow, two_replicas
from tfsampled._core.labels import Labels
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import Perplexity, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam

pytestmark = pytest.mark.eager

BRANDS, ITEMS, DIM, EXAMPLES = 20, 30, 8, 64
X = np.random.default_rng(0).normal(size=(EXAMPLES, DIM)).astype("float32")
Y = {
    "item": np.arange(EXAMPLES) % ITEMS,
    "price": X[:, :1] * 2,
    "brand": np.arange(EXAMPLES) % BRANDS,
}
WEIGHTS = {"item": 1.0, "price": 0.5, "brand": 2.0}


def make_plain(as_list=False):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((DIM,))
    features = keras.layers.Dense(DIM, "relu", kernel_regularizer="l2", name="hidden")(
        inputs
    )
    outputs = {
        "item": SampledSoftmax(ITEMS, 5, name="item")(features),
        "price": keras.layers.Dense(1, name="price")(features),
        "brand": SampledSoftmax(BRANDS, 5, "uniform", name="brand")(features),
    }
    return keras.Model(inputs, list(outputs.values()) if as_list else outputs)


def make(as_list=False, top_k=None, optimizer="sgd", **kwargs):
    model = SampledSoftmaxModel.from_model(make_plain(as_list), top_k)
    model.compile(
        optimizer,
        loss={"price": "mse"},
        loss_weights={"price": 0.5, "brand": 2.0},
        metrics={
            "brand": [TopKAccuracy(1)],
            "price": ["mae"],
            "item": Perplexity(),
        },
        weighted_metrics={"price": ["mae"], "item": [TopKAccuracy(2)]},
        **kwargs,
    )
    return model


def assert_equal_weights(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("as_list", [False, True])
def test_evaluation_is_that_of_the_logits(as_list):
    plain = make_plain(as_list)
    model = make(as_list)
    outputs = model.predict(X, verbose=0)
    predicted = plain.predict(X, verbose=0)
    expected: Any = dict(zip(Y, predicted, strict=True)) if as_list else predicted
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-6, atol=1e-6)
    weight = np.linspace(0, 2, EXAMPLES).astype("float32")
    y = list(Y.values()) if as_list else Y
    ones = np.ones(EXAMPLES, "float32")
    by_name = {"item": weight, "price": weight[::-1], "brand": ones}
    weights = list(by_name.values()) if as_list else by_name
    logs = model.evaluate(
        X, y, EXAMPLES, verbose=0, sample_weight=weights, return_dict=True
    )
    losses = {
        name: cross_entropy64(expected[name], Y[name][:, np.newaxis])
        for name in ("item", "brand")
    }
    errors = expected["price"] - Y["price"]
    means = {
        "item": np.mean(weight * losses["item"]),
        "brand": np.mean(losses["brand"]),
        "price": np.mean(weight[::-1] * errors[:, 0] ** 2),
    }
    regularization = float(tf.add_n(model.losses))
    total = sum(WEIGHTS[name] * means[name] for name in means) + regularization
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    for name, mean in means.items():
        assert logs[f"{name}_loss"] == pytest.approx(mean, rel=1e-5)
    assert logs["item_perplexity"] == pytest.approx(
        np.exp(losses["item"].mean()), rel=1e-5
    )
    best = expected["brand"].argmax(axis=1)
    assert logs["brand_top_1_accuracy"] == pytest.approx(np.mean(best == Y["brand"]))
    above = (
        expected["item"]
        > np.take_along_axis(expected["item"], Y["item"][:, np.newaxis], axis=1)
    ).sum(axis=1)
    assert logs["item_top_2_accuracy"] == pytest.approx(
        np.average(above < 2, weights=weight), rel=1e-5
    )
    assert logs["price_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert logs["price_weighted_mae"] == pytest.approx(
        np.average(np.abs(errors[:, 0]), weights=weight[::-1]), rel=1e-5
    )
    assert logs.keys() == {
        "loss",
        *(f"{name}_loss" for name in Y),
        "item_perplexity",
        "item_top_2_accuracy",
        "brand_top_1_accuracy",
        "price_mae",
        "price_weighted_mae",
    }


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_a_step_is_that_of_a_loop_by_hand(jit_compile):
    plain = make_plain()
    heads = {name: plain.get_layer(name) for name in ("item", "brand")}
    optimizer = keras.optimizers.SGD(0.01)
    losses = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            features = plain.layers[1](X)
            terms = [
                WEIGHTS[name] * tf.reduce_mean(head.sampled_loss(features, Y[name]))
                for name, head in heads.items()
            ]
            errors = plain.get_layer("price")(features) - Y["price"]
            terms.append(WEIGHTS["price"] * tf.reduce_mean(errors**2))
            loss = tf.add_n(terms + plain.losses)
        gradients = tape.gradient(loss, plain.trainable_variables)
        optimizer.apply(gradients, plain.trainable_variables)
        losses.append(float(loss))
    model = make(optimizer=keras.optimizers.SGD(0.01), jit_compile=jit_compile)
    history = model.fit(X, Y, EXAMPLES, epochs=3, verbose=0, shuffle=False).history
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    assert history.keys() == {"loss", *(f"{name}_loss" for name in Y)}
    trained = model.trainable_variables
    for variable in plain.trainable_variables:
        (value,) = (v for v in trained if v.path.endswith(variable.path))
        np.testing.assert_allclose(value, variable, rtol=1e-5, atol=1e-6)


# Keras 3.10 warns of every functional model with one input that it has loaded.
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn.t match")
def test_a_loaded_model_goes_on_and_is_served(tmp_path):
    model = make(top_k={"brand": 3}, optimizer=LazyAdam(0.01))
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    model.fit(data, verbose=0, shuffle=False, validation_data=data)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.top_k == {"brand": 3}
    model.reset_metrics()  # of fit, which Keras 3.10 adds to those of train_on_batch
    for _ in range(2):
        assert loaded.train_on_batch(X, Y) == model.train_on_batch(X, Y)
    expected = model.predict(X, verbose=0)
    assert expected.keys() == {"item", "price", "brand_classes", "brand_scores"}
    assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    loaded.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    for name, value in served.serve(X).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


def test_heads_stay_tied_after_loading(tmp_path):
    ids = keras.Input((3,), dtype="int32")
    embeddings = [keras.layers.Embedding(ITEMS, DIM) for _ in range(2)]
    features = keras.layers.Add()([embedding(ids) for embedding in embeddings])
    heads = {
        name: SampledSoftmax(ITEMS, 5, tied_to=embedding)(features)
        for name, embedding in zip(("a", "b"), embeddings, strict=True)
    }
    model = SampledSoftmaxModel.from_model(keras.Model(ids, heads))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.arange(12).reshape(4, 3)
    for name, value in model.predict(x, verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(x, verbose=0)[name], value)
    assert len(loaded.trainable_variables) == 4  # two tables, two biases


def test_padding_counts_in_no_mean():
    ids = keras.Input((4,), dtype="int32")
    sequence = keras.layers.Embedding(ITEMS, DIM, mask_zero=True)(ids)
    outputs = {
        "next": SampledSoftmax(ITEMS, 5)(sequence),
        "rating": keras.layers.Dense(1)(keras.layers.LSTM(DIM)(sequence)),
    }
    model = SampledSoftmaxModel.from_model(keras.Model(ids, outputs))
    model.compile("sgd", loss={"rating": "mse"})
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 6]])
    y = {"next": np.array([[2, 3, 99, 99], [4, 5, 6, 7]]), "rating": np.ones((2, 1))}
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0)["next"][x > 0]
    labels = y["next"][x > 0][:, np.newaxis]
    expected = cross_entropy64(logits, labels).mean()
    assert logs["next_loss"] == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(model.train_on_batch(x, y)[0])


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize("jit_compile", [False, True])
def test_invalid_labels_of_one_head_change_nothing(jit_compile):
    model = make(optimizer=LazyAdam(), jit_compile=jit_compile)
    model.train_on_batch(X, Y)
    before = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[0, 20\).* 15 to 34"):
        model.train_on_batch(X, {**Y, "brand": Y["brand"] + 15})
    after = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    assert_equal_weights(after, before)


def test_what_compiled_steps_recorded_is_raised_once():
    model = make()
    outputs = model._outputs._head_outputs()
    for output in outputs.values():
        output.label_check.record(Labels(tf.constant([[99]], tf.int64), None, None), 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: ids from 99"):
        model._outputs.raise_if_invalid()
    model._outputs.raise_if_invalid()


@pytest.mark.slow
@pytest.mark.usefixtures("young_iterators")
@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_a_masked_output_counts_its_steps_on_all_replicas(reduction):
    words = np.array([[1, 2, 3, 4], [1, 0, 0, 0], [5, 6, 0, 0]])
    y = {"next": words % 3, "rate": np.random.default_rng(1).normal(size=(3, 4, 1))}
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            inputs = keras.Input((4,), dtype="int32")
            features = keras.layers.Embedding(9, DIM, mask_zero=True)(inputs)
            outputs = {
                "next": SampledSoftmax(3, 3, "uniform")(features),
                "rate": keras.layers.Dense(1, name="rate")(features),
            }
            model = SampledSoftmaxModel.from_model(keras.Model(inputs, outputs))
            loss = keras.losses.MeanSquaredError(reduction=reduction)
            model.compile(keras.optimizers.SGD(0.5), loss={"rate": loss})
        history = model.fit(words, y, batch_size=3, verbose=0).history
        results.append([history["rate_loss"], *model.get_weights()])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


def mean_square(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred))


class LengthOfFeatures(SampledSoftmaxModel):
    def __init__(self, encoder, head):
        super().__init__(encoder, head)
        self.length = keras.metrics.Mean(name="length")

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        self.length.update_state(tf.norm(y_pred["price"], axis=-1))
        return super().compute_loss(x, y, y_pred, sample_weight, training)


@pytest.mark.usefixtures("young_iterators")
@pytest.mark.parametrize(
    ("loss", "weighted"),
    [
        (mean_square, False),
        slow(keras.losses.MeanSquaredError("mean_with_sample_weight"), True),
        slow(keras.losses.MeanSquaredError, False),  # a class
        slow(keras.losses.MeanSquaredError("mean_with_sample_weight"), False),
        slow(keras.losses.MeanSquaredError(), True),
        slow("mse", False),
    ],
)
def test_losses_of_keras_on_replicas(loss, weighted):
    """A batch of 4 + 1 and one of 4 + 0 examples: those of one device."""
    x, price = X[:9], (np.arange(9.0) ** 2)[:, np.newaxis]
    weight = 1.0 + np.arange(9) if weighted else None
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            plain, inputs = keras.layers.Dense(1), keras.Input((DIM,))
            encoder = keras.Model(inputs, {"price": plain(inputs), "item": inputs})
            head = SampledSoftmax(ITEMS, 5, "uniform", seed=1)
            model = LengthOfFeatures(encoder, {"item": head})
            metrics = {"item": [Perplexity()]}
            model.compile(keras.optimizers.SGD(1e-4), {"price": loss}, metrics=metrics)
        data = x, {"item": np.zeros(9, int), "price": price}
        data = tf.data.Dataset.from_tensor_slices(
            data if weight is None else (*data, {"price": weight})
        )
        data = data.batch(5, drop_remainder=False)
        history = model.fit(data, shuffle=False, verbose=0).history
        logs = model.evaluate(data, verbose=0, return_dict=True)
        names = "price_loss", "length"
        logged = [[of[name] for name in names] for of in (history, logs)]
        results.append([*logged, *model.encoder.get_weights()])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("young_iterators")
def test_replicas_give_the_loss_of_one_device():
    logs = []
    for strategy in (
        tf.distribute.get_strategy(),
        two_replicas(),
    ):
        with strategy.scope():
            model = make()
        data = tf.data.Dataset.from_tensor_slices((X, Y)).take(7).batch(4)
        logs.append(model.evaluate(data, verbose=0, return_dict=True))
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)


def test_outputs_of_one_layer_need_a_dict():
    head, inputs = SampledSoftmax(ITEMS, 5), keras.Input((DIM,))
    outputs = [head(keras.layers.Dense(DIM)(inputs)) for _ in range(2)]
    with pytest.raises(ValueError, match="`model` must have outputs of different la"):
        SampledSoftmaxModel.from_model(keras.Model(inputs, outputs))


def test_an_output_with_metrics_alone_has_no_loss_in_logs():
    model = SampledSoftmaxModel.from_model(make_plain())
    model.compile("sgd", metrics={"price": ["mae"]})
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs.keys() == {"loss", "item_loss", "brand_loss", "price_mae"}


def test_an_output_without_loss_is_only_predicted():
    model = SampledSoftmaxModel.from_model(make_plain())
    model.compile("sgd")
    y = {"item": Y["item"], "brand": Y["brand"]}
    with pytest.warns(UserWarning, match="did you forget to provide a `loss`"):
        history = model.fit(X, y, verbose=0).history
    assert history.keys() == {"loss", "item_loss", "brand_loss"}
    assert model.predict(X, verbose=0)["price"].shape == (EXAMPLES, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": {"item": "mse"}}, "`loss` must be None for an output of a SampledS"),
        ({"loss": {"cost": "mse"}}, "`loss` must be a dict by output"),
        ({"loss": "mse"}, "`loss` must be a dict by output"),
        ({"metrics": ["mae"]}, "`metrics` must be a dict by output"),
        ({"metrics": {"item": ["mae"]}}, "must be metrics of tfsampled.metrics"),
    ],
)
def test_invalid_arguments_of_compile_raise(arguments, message):
    model = SampledSoftmaxModel.from_model(make_plain())
    with pytest.raises(ValueError, match=message):
        model.compile("sgd", **arguments)


def test_invalid_targets_raise():
    model = make()
    with pytest.raises(ValueError, match=r"`y` must have targets .* for \['price'\]"):
        model.fit(X, {"item": Y["item"], "brand": Y["brand"]}, verbose=0)
    with pytest.raises(ValueError, match="`y` must be a dict by output"):
        model.fit(X, Y["item"], verbose=0)
    with pytest.raises(ValueError, match="`class_weight` must be None"):
        model.fit(X, Y, verbose=0, class_weight={1: 2.0})


def test_invalid_heads_raise():
    head = SampledSoftmax(ITEMS, 5)
    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
    with pytest.raises(ValueError, match="whose output is a dict"):
        SampledSoftmaxModel(encoder, {"item": head})
    inputs = keras.Input((DIM,))
    features = keras.layers.Dense(DIM)(inputs)
    outputs = {"a": features, "b": features}
    with pytest.raises(ValueError, match="a different layer for each output"):
        SampledSoftmaxModel(keras.Model(inputs, outputs), {"a": head, "b": head})
    with pytest.raises(ValueError, match="`top_k` must be at most"):
        SampledSoftmaxModel.from_model(make_plain(), top_k={"item": ITEMS + 1})


@pytest.mark.parametrize("num_examples", [33, slow(64)])
def test_metrics_that_need_as_many_targets_as_predictions(num_examples):
    inputs = keras.Input((DIM,))
    outputs = {
        "item": SampledSoftmax(ITEMS, 5, name="item")(inputs),
        "click": keras.layers.Dense(1, "sigmoid", name="click")(inputs),
    }
    model = SampledSoftmaxModel.from_model(keras.Model(inputs, outputs))
    model.compile(
        "sgd",
        loss={"click": "binary_crossentropy"},
        metrics={"click": [keras.metrics.AUC(), keras.metrics.MeanIoU(2)]},
    )
    x = np.resize(X, (num_examples, DIM))
    y = {"item": np.zeros(num_examples, int), "click": (x[:, :1] > 0).astype("float32")}
    model.fit(x, y, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    metric = keras.metrics.AUC()
    metric.update_state(y["click"], model.predict(x, verbose=0)["click"])
    np.testing.assert_allclose(logs["click_auc"], metric.result(), rtol=1e-5)


def test_evaluate_returns_values_in_the_order_of_the_metrics():
    model = make()
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert list(logs)[:4] == ["loss", "item_loss", "price_loss", "brand_loss"]
    assert list(logs) == list(model.get_metrics_result())
    assert model.evaluate(X, Y, verbose=0) == list(logs.values())
    assert model.test_on_batch(X, Y) == pytest.approx(list(logs.values()))


def test_a_head_of_two_outputs_raises_and_of_two_models_is_shared():
    inputs = keras.Input((DIM,))
    head = SampledSoftmax(ITEMS, 5)
    first, second = head(inputs), head(keras.layers.Dense(DIM)(inputs))
    with pytest.raises(ValueError, match="`head` must have a different layer for each"):
        SampledSoftmaxModel.from_model(keras.Model(inputs, {"a": first, "b": second}))
    for output in (first, second):
        plain = keras.Model(inputs, output)
        model = SampledSoftmaxModel.from_model(plain)
        assert model.head is head
        np.testing.assert_allclose(
            model.predict(X, verbose=0), plain.predict(X, verbose=0), rtol=1e-6
        )


@pytest.mark.parametrize("argument", ["top_k", "exclude", "negatives"])
def test_arguments_of_outputs_without_a_head_raise(argument):
    names: Any = {"price": 3 if argument == "top_k" else "ids"}
    with pytest.raises(ValueError, match=f"`{argument}` must name outputs that have a"):
        SampledSoftmaxModel.from_model(make_plain(), **{argument: names})
    with pytest.raises(AttributeError):
        setattr(make(), argument, names)


def test_a_single_metric_of_a_keras_output():
    model = SampledSoftmaxModel.from_model(make_plain())
    results = []
    for metric in ("mae", ["mae"]):
        model.compile("sgd", loss={"price": "mse"}, metrics={"price": metric})
        results.append(model.evaluate(X, Y, verbose=0, return_dict=True))
    assert "price_mae" in results[0]
    assert results[0] == results[1]


def test_outputs_share_no_metric_object():
    model, metric = make(), TopKAccuracy(1)
    with pytest.raises(ValueError, match="share a metric object"):
        model.compile("sgd", metrics={"item": metric, "brand": [metric]})
    metric = keras.metrics.MeanAbsoluteError()
    with pytest.raises(ValueError, match="share a metric object"):
        model.compile(
            "sgd",
            loss={"price": "mse"},
            metrics={"price": [metric]},
            weighted_metrics={"price": metric},
        )
