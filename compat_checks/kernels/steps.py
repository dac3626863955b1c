"""What is traced: each public function, the head, its optimizers and its samplers."""

from __future__ import annotations

import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import tfsampled
from compat_checks.kernels.placement import GPU_STAND_IN, Placement, find_placement
from tfsampled import metrics, optimizers, samplers
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel

DTYPES = ["float32", "float64", "float16", "bfloat16"]
# More classes than a chunk of the full softmax has.
CLASSES, DIM, SAMPLED, K = 100_000, 8, 128, 10
HOST_ARGUMENTS = ["labels", "sampled", "exclude", "negatives"]
BATCH_SIGNATURE = {
    "labels": tf.TensorSpec([None], tf.int64),
    "inputs": tf.TensorSpec([None, DIM]),
}


class Step(NamedTuple):
    """A function to trace.

    Attributes:
        name: Such as "nn.softmax_loss float32".
        make: Makes its variables; returns the function.
        signature: Its arguments. Class ids are on the host, the others on the GPU.
    """

    name: str
    make: Callable[[], Callable[..., Any]]
    signature: dict[str, tf.TensorSpec]

    def placement(self) -> Placement:
        """Traces the function, as on a machine with a GPU."""
        cpus = tf.config.list_physical_devices("CPU")
        gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")

        def devices(kind: str | None = None) -> list[Any]:
            return [d for d in [*cpus, gpu] if kind in (None, d.device_type)]

        with (
            tf.device(GPU_STAND_IN),
            unittest.mock.patch.object(tf.config, "list_physical_devices", devices),
        ):
            function = tf.function(self.make(), autograph=False)
            concrete = function.get_concrete_function(**self.signature)
        return find_placement(concrete, HOST_ARGUMENTS)


def add_stand_in() -> None:
    """Makes the second logical CPU, in place of the GPU, unless there is one."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    if tf.config.get_logical_device_configuration(cpu) is None:
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)


def steps() -> Iterator[Step]:
    """Yields every step, TensorFlow's functions for comparison first."""
    for dtype in DTYPES:
        yield from _functions(dtype)
    yield from _candidate_samplers()
    for dtype in DTYPES:
        yield from _heads(dtype)
    yield from _samplers()
    yield from _optimizers()


def _labels(num_true: int = 1) -> tf.TensorSpec:
    return tf.TensorSpec([None, num_true], tf.int64, "labels")


def _functions(dtype: str) -> Iterator[Step]:
    """Yields the losses with their gradients, and the top k."""
    signature = {"labels": _labels(), "inputs": tf.TensorSpec([None, DIM], dtype)}
    drawn = {"num_sampled": SAMPLED, "num_classes": CLASSES}
    given = {
        **drawn,
        "sampled_values": (
            tf.range(SAMPLED, dtype=tf.int64),
            tf.ones([1, 1]),
            tf.ones([SAMPLED]),
        ),
    }
    losses: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "nn.sampled_softmax_loss": (tfsampled.nn.sampled_softmax_loss, drawn),
        "nn.sampled_softmax_loss, sampled_values": (
            tfsampled.nn.sampled_softmax_loss,
            given,
        ),
        "nn.nce_loss": (tfsampled.nn.nce_loss, drawn),
        "nn.softmax_loss": (tfsampled.nn.softmax_loss, {}),
        "nn.softmax_loss, all options": (
            tfsampled.nn.softmax_loss,
            {"label_smoothing": 0.1, "logit_soft_cap": 30.0, "z_loss": 1e-4},
        ),
    }
    if dtype == "float32":  # the only one that TensorFlow's take
        yield Step(
            "tf.nn.sampled_softmax_loss",
            _loss(tf.nn.sampled_softmax_loss, dtype, drawn),
            signature,
        )
    for name, (function, arguments) in losses.items():
        yield Step(f"{name} {dtype}", _loss(function, dtype, arguments), signature)

    def top_k() -> Callable[..., Any]:
        weights, biases = _tables(dtype)

        def run(inputs: tf.Tensor, exclude: tf.Tensor | None = None) -> Any:
            return tfsampled.nn.softmax_top_k(
                weights, biases, inputs, K, exclude=exclude
            )

        return run

    inputs = {"inputs": signature["inputs"]}
    exclude = tf.TensorSpec([None, 5], tf.int64)
    yield Step(f"nn.softmax_top_k {dtype}", top_k, inputs)
    yield Step(
        f"nn.softmax_top_k, exclude {dtype}", top_k, {**inputs, "exclude": exclude}
    )


def _tables(dtype: str) -> tuple[tf.Variable, tf.Variable]:
    return tf.Variable(tf.zeros([CLASSES, DIM], dtype)), tf.Variable(
        tf.zeros([CLASSES], dtype)
    )


def _loss(
    function: Callable[..., Any], dtype: str, arguments: dict[str, Any]
) -> Callable[[], Callable[..., Any]]:
    """Returns a maker of a loss with its gradients."""

    def make() -> Callable[..., Any]:
        weights, biases = _tables(dtype)

        def run(labels: tf.Tensor, inputs: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                loss = function(weights, biases, labels, inputs, **arguments)
            return loss, tape.gradient(loss, [weights, biases, inputs])

        return run

    return make


def _candidate_samplers() -> Iterator[Step]:
    """Yields the mirrors of TensorFlow's samplers."""
    drawn = {"num_sampled": SAMPLED, "unique": True, "range_max": 1000}
    calls: dict[str, dict[str, Any]] = {
        "log_uniform_candidate_sampler": drawn,
        "uniform_candidate_sampler": drawn,
        "learned_unigram_candidate_sampler": drawn,
        "fixed_unigram_candidate_sampler": {**drawn, "unigrams": [1.0] * 1000},
        "all_candidate_sampler": {"num_sampled": SAMPLED, "unique": True},
    }
    for name, arguments in calls.items():
        function = getattr(tfsampled.random, name)

        def make(function: Any = function, arguments: Any = arguments) -> Any:
            return lambda labels: function(labels, 1, **arguments)

        yield Step(f"random.{name}", make, {"labels": _labels()})

    def hits(labels: tf.Tensor, sampled: tf.Tensor) -> Any:
        return tfsampled.nn.compute_accidental_hits(labels, sampled, num_true=1)

    sampled = tf.TensorSpec([SAMPLED], tf.int64)
    yield Step(
        "nn.compute_accidental_hits",
        lambda: hits,
        {"labels": _labels(), "sampled": sampled},
    )


def _head(**arguments: Any) -> SampledSoftmax:
    head = SampledSoftmax(CLASSES, **{"num_sampled": SAMPLED, **arguments})
    head.build((None, DIM))
    return head


def _head_step(
    method: str, optimizer: Callable[[], Any] | None = None, **arguments: Any
) -> Callable[[], Callable[..., Any]]:
    """Returns a maker of a loss of a head, its gradients and the optimizer's step."""

    def make() -> Callable[..., Any]:
        head = _head(**arguments)
        variables = head.trainable_variables
        rule = None if optimizer is None else optimizer()
        if rule is not None:
            rule.build(variables)

        def run(labels: tf.Tensor, inputs: tf.Tensor, **more: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(getattr(head, method)(inputs, labels, **more))
            gradients = tape.gradient(loss, variables)
            if rule is None:
                return loss, gradients
            rule.apply(gradients, variables)
            return loss

        return run

    return make


def _heads(dtype: str) -> Iterator[Step]:
    """Yields the methods of a head."""
    labels = tf.TensorSpec([None], tf.int64)
    inputs = tf.TensorSpec([None, DIM], dtype)
    signature = {"labels": labels, "inputs": inputs}
    negatives = tf.TensorSpec([None, 5], tf.int64)
    padding = {"ignore_class": -1, "num_true": 3}
    tower = {
        "class_encoder": keras.layers.Dense(DIM),
        "class_features": np.zeros((CLASSES, 3), "float32"),
    }
    name = "layers.SampledSoftmax"
    for method, options, arguments, more in (
        ("sampled_loss", "", {}, {}),
        ("sampled_loss", ", padding", padding, {"labels": _labels(3)}),
        ("sampled_loss", ", negatives", {}, {"negatives": negatives}),
        ("sampled_loss", ", shards", {"num_shards": 4}, {}),
        ("sampled_loss", ", class_encoder", tower, {}),
        ("exact_loss", "", {}, {}),
        ("exact_loss", ", padding", padding, {"labels": _labels(3)}),
    ):
        make = _head_step(method, dtype=dtype, **arguments)
        yield Step(f"{name}.{method}{options} {dtype}", make, {**signature, **more})

    def ranks() -> Callable[..., Any]:
        head = _head(dtype=dtype)
        return lambda labels, inputs, exclude: head.ranks(
            inputs, labels, exclude=exclude
        )

    yield Step(f"{name}.ranks {dtype}", ranks, {**signature, "exclude": negatives})

    def top_k() -> Callable[..., Any]:
        head = _head(dtype=dtype)
        return lambda inputs, exclude: head.top_k(inputs, K, exclude=exclude)

    yield Step(f"{name}.top_k {dtype}", top_k, {"inputs": inputs, "exclude": negatives})


def _samplers() -> Iterator[Step]:
    """Yields the loss of a head with each sampler, whose state is on the host."""
    makers: dict[str, Callable[[], Any]] = {
        "Uniform": samplers.Uniform,
        "LogUniform": samplers.LogUniform,
        "FixedUnigram": lambda: samplers.FixedUnigram(np.ones(CLASSES)),
        "LearnedUnigram": samplers.LearnedUnigram,
        "InBatch": samplers.InBatch,
        "InBatch, counts": lambda: samplers.InBatch(np.ones(CLASSES)),
        "Recent": lambda: samplers.Recent(512),
        "Mixed": lambda: samplers.Mixed(
            [samplers.InBatch(), (samplers.Uniform(), SAMPLED)]
        ),
    }
    for name, maker in makers.items():

        def make(maker=maker) -> Callable[..., Any]:
            sampler = maker()
            with tf.device("CPU:0"):
                sampler.build(CLASSES)
            number = SAMPLED if sampler.takes_num_sampled else None
            return _head_step("sampled_loss", num_sampled=number, sampler=sampler)()

        yield Step(f"samplers.{name}", make, BATCH_SIGNATURE)


def _optimizers() -> Iterator[Step]:
    """Yields a step of a head with each optimizer, and the steps of a model."""
    makers: dict[str, Callable[[], Any]] = {
        "LazyAdam": lambda: optimizers.LazyAdam(0.01, global_clipnorm=1.0),
        "Adagrad": lambda: optimizers.Adagrad(0.01),
        "RowWiseAdagrad": lambda: optimizers.RowWiseAdagrad(0.01),
        "LossScaleOptimizer": lambda: optimizers.LossScaleOptimizer(
            optimizers.LazyAdam(0.01)
        ),
    }
    for name, maker in makers.items():
        make_step = _head_step("sampled_loss", maker)
        yield Step(f"optimizers.{name}", make_step, BATCH_SIGNATURE)

    for method in ("train_step", "test_step"):

        def make(method=method) -> Callable[..., Any]:
            encoder = keras.Sequential([keras.Input([DIM]), keras.layers.Dense(DIM)])
            model = SampledSoftmaxModel(encoder, _head())
            model.compile(optimizers.LazyAdam(0.01), metrics=[metrics.Perplexity()])
            model.optimizer.build(model.trainable_variables)
            return lambda labels, inputs: getattr(model, method)((inputs, labels))

        yield Step(f"models.SampledSoftmaxModel.{method}", make, BATCH_SIGNATURE)
