"""Two replicas of a `SampledSoftmaxModel` train what one device trains."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]

MIRRORED = """
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras, numpy as np
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import Perplexity
from tfsampled.models import SampledSoftmaxModel

rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 8)).astype("float32"), rng.integers(0, 30, 64)
initial = [rng.normal(size=size) / 3 for size in [(8, 8), (8,), (30, 8), (30,)]]

def trained(strategy, dtype):
    keras.config.set_dtype_policy(dtype)
    with strategy.scope():
        encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        model = SampledSoftmaxModel(encoder, SampledSoftmax(30, 30, seed=1))
        model.set_weights([array.astype("float32") for array in initial])
        model.compile(keras.optimizers.SGD(0.5), metrics=[Perplexity()])
    history = model.fit(
        x, y, batch_size=32, shuffle=False, verbose=0, validation_data=(x, y)
    ).history
    return [np.array([*history.values()]), *model.get_weights()]

here = tf.distribute.get_strategy()
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
truth, one = trained(here, "float64"), trained(here, "float32")
two = trained(mirrored, "float32")
for name, exact, theirs, ours in zip(
    ["logs", "encoder kernel", "encoder bias", "kernel", "bias"],
    truth, one, two, strict=True,
):
    assert exact.dtype == "float64" and ours.shape == exact.shape
    few_ulp = 4 * np.spacing(np.abs(exact).max().astype("float32"))
    error, allowed = np.abs(ours - exact).max(), np.abs(theirs - exact).max() + few_ulp
    print(name, error / few_ulp, allowed / few_ulp)
    assert error <= allowed, (name, error, allowed)
"""


def test_two_replicas_are_as_near_float64_as_one_device():
    # All classes are drawn, so that the loss does not depend on which.
    result = subprocess.run(
        [sys.executable, "-c", MIRRORED], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr[-2000:]
