"""Runs on another device than the host: CPU:1 in place of a GPU, or `--device`."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from compat_checks.cases import BY_NAME
from compat_checks.judge.check import Checker, public_functions
from tests.helpers import MODES, cases, nodes_of
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import InBatch, LearnedUnigram, Mixed

CLASSES, DIM, BATCH = 50, 4, 6
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((BATCH, DIM)).astype("float32")
LABELS = RNG.integers(0, CLASSES, (BATCH, 1))
LOSSES = {
    "sampled_softmax_loss": {"num_sampled": 8, "num_classes": CLASSES},
    "nce_loss": {"num_sampled": 8, "num_classes": CLASSES},
    "softmax_loss": {},
}


@pytest.fixture
def device(request):
    name = request.config.getoption("device") or "CPU:1"
    with tf.device(name):
        yield name


def is_on(device, *tensors):
    return all((getattr(x, "values", x)).device.endswith(device) for x in tensors)


@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(device, name, mode):
    rng = np.random.default_rng(1)
    weights = tf.Variable(rng.standard_normal((CLASSES, DIM)), dtype="float32")
    biases = tf.Variable(tf.zeros([CLASSES]))

    @MODES[mode]
    def run(labels, inputs):
        function = getattr(tfsampled.nn, name)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = function(weights, biases, labels, inputs, **LOSSES[name])
        return loss, tape.gradient(loss, [weights, biases, inputs])

    loss, gradients = run(tf.constant(LABELS), tf.constant(INPUTS))
    assert is_on(device, loss, *gradients)


@pytest.mark.parametrize(
    ("name", "dtype"),
    cases(
        LOSSES,
        ["float32", "float16", "bfloat16"],
        quick=lambda name, dtype: name != "nce_loss" and dtype == "float32",
    ),
)
def test_an_id_out_of_range_never_has_a_finite_loss(device, name, dtype):
    """A lookup on a GPU returns zeros there."""
    del device
    weights = tf.ones([CLASSES, DIM], dtype)
    biases, inputs = tf.ones([CLASSES], dtype), tf.cast(INPUTS, dtype)
    labels = tf.constant([[CLASSES], [-1], [0], [1], [2], [3]], tf.int64)

    def run(labels):
        function = getattr(tfsampled.nn, name)
        return function(weights, biases, labels, inputs, **LOSSES[name])

    for mode in ("eager", "function"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="from -1 to 50"):
            MODES[mode](run)(labels)
    losses = MODES["jit"](run)(labels)
    np.testing.assert_array_equal(np.isfinite(losses), [0, 0, 1, 1, 1, 1])


def sampler_state(sampler):
    parts = getattr(sampler, "samplers", [sampler])
    state = [variable for part in parts for variable in part.state().values()]
    assert state
    return state


SAMPLERS: dict[str, Any] = {
    "LogUniform": lambda: (8,),
    "LearnedUnigram": lambda: (8, LearnedUnigram()),
    "Mixed": lambda: (None, Mixed([InBatch(), (LearnedUnigram(), 9)])),
}


@pytest.mark.parametrize(
    ("sampler", "mode"),
    cases(
        SAMPLERS,
        ["function", "jit"],
        quick=lambda *case: case == ("LogUniform", "function"),
    ),
)
def test_a_step_of_the_head(device, sampler, mode):
    head = SampledSoftmax(CLASSES, *SAMPLERS[sampler](), ignore_class=-1)
    head.build((None, DIM))
    optimizer = LazyAdam(0.1)
    optimizer.build(head.trainable_variables)
    before = head.table()

    @MODES[mode]
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            losses = head.sampled_loss(inputs, labels)
        gradients = tape.gradient(losses, head.trainable_variables)
        optimizer.apply(gradients, head.trainable_variables)
        return losses

    labels = np.where(np.arange(BATCH) == 2, -1, LABELS[:, 0])
    losses = step(tf.constant(INPUTS), tf.constant(labels))
    assert is_on(device, losses, head.kernel.value, optimizer.variables[2].value)
    assert is_on(device, *sampler_state(head.sampler))
    moved = np.any(head.table() != before, axis=1)
    assert moved[LABELS[:2, 0]].all()


@pytest.mark.usefixtures("device")
def test_labels_and_draws_are_placed_on_the_host():
    head = SampledSoftmax(CLASSES, 8)
    head.build((None, DIM))

    @tf.function(autograph=False)
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            losses = head.sampled_loss(inputs, labels)
        return tape.gradient(losses, head.trainable_variables)

    specs = tf.TensorSpec([None, DIM]), tf.TensorSpec([None], tf.int64)
    nodes = list(nodes_of(step.get_concrete_function(*specs)))

    def on_host(operation):
        devices = [node.device for node in nodes if node.op == operation]
        assert devices
        return {device.endswith("CPU:0") for device in devices}

    for operation in ("All", "Assert", "StatelessRandomUniformFullIntV2", "Unique"):
        assert on_host(operation) == {True}, operation
    assert on_host("ComputeAccidentalHits") == {True}
    for operation in ("ResourceGather", "MatMul", "Softmax"):
        assert True not in on_host(operation), operation


def test_a_result_on_another_device_is_a_difference():
    case = BY_NAME["basic/sampled_softmax_loss v2 1 true hits removed eager"]
    sound = public_functions(tfsampled)

    def on_the_host(path):
        def function(*args, **kwargs):
            with tf.device("CPU:0"):
                return sound(path)(*args, **kwargs)

        return function

    assert Checker(sound, "CPU:1").check(case).passed
    reasons = Checker(on_the_host, "CPU:1").check(case).reasons()
    assert "loss: computed on CPU:0, not on CPU:1" in reasons


def test_compile_chooses_xla_where_there_is_a_gpu(monkeypatch):
    devices = tf.config.list_physical_devices
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")

    def with_gpu(kind=None):
        return devices(kind) + ([gpu] if kind in (None, "GPU") else [])

    monkeypatch.setattr(tf.config, "list_physical_devices", with_gpu)
    encoder = keras.Sequential([keras.Input([DIM]), keras.layers.Dense(DIM)])
    model = SampledSoftmaxModel(encoder, SampledSoftmax(CLASSES, 8))
    model.compile(LazyAdam(0.05))
    assert model.jit_compile
