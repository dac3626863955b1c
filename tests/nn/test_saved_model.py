"""A SavedModel with a training step loads where tfsampled is not installed."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import load_arrays

CLASSES, DIM, BATCH = 30, 4, 6

LOADING = """
import sys
import numpy as np, tensorflow as tf

module, data = tf.saved_model.load(sys.argv[1]), np.load(sys.argv[2])
x, y = tf.constant(data["x"]), tf.constant(data["y"])
with tf.GradientTape() as tape:
    tape.watch(x)
    loss = module.loss(x, y)
gradient = tape.gradient(loss, x)
losses = [module.step(x, y) for _ in range(3)]
np.savez(sys.argv[3], loss=loss, gradient=gradient, losses=losses)
assert "tfsampled" not in sys.modules
"""

BATCHES = [tf.TensorSpec([None, DIM]), tf.TensorSpec([None, 1], tf.int64)]


class Trainer(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.stateless_normal([CLASSES, DIM], [1, 2]))
        self.biases = tf.Variable(tf.zeros([CLASSES]))

    @tf.function(input_signature=BATCHES)
    def loss(self, inputs, labels):
        return tfsampled.nn.softmax_loss(self.weights, self.biases, labels, inputs)

    @tf.function(input_signature=BATCHES)
    def step(self, inputs, labels):
        candidates = tf.range(10, dtype=tf.int64), tf.constant(0.3), tf.constant(0.3)
        with tf.GradientTape() as tape:
            loss = tfsampled.nn.sampled_softmax_loss(
                self.weights,
                self.biases,
                labels,
                inputs,
                num_sampled=10,
                num_classes=CLASSES,
                sampled_values=candidates,
            )
        for variable, gradient in zip(
            (self.weights, self.biases),
            tape.gradient(loss, [self.weights, self.biases]),
            strict=True,
        ):
            variable.scatter_sub(
                tf.IndexedSlices(0.1 * gradient.values, gradient.indices)
            )
        return tf.reduce_mean(loss)


@pytest.mark.slow
def test_a_step_is_loaded_without_tfsampled(tmp_path):
    module = Trainer()
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, tmp_path / "saved", options=options)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH, DIM)).astype("float32"), rng.integers(0, 30, (6, 1))
    np.savez(tmp_path / "data.npz", x=x, y=y)
    paths = [str(tmp_path / name) for name in ("saved", "data.npz", "result.npz")]
    subprocess.run([sys.executable, "-c", LOADING, *paths], check=True, cwd=tmp_path)
    result = load_arrays(tmp_path / "result.npz")
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = module.loss(inputs, tf.constant(y))
    np.testing.assert_allclose(result["loss"], loss, rtol=1e-6)
    gradient = tape.gradient(loss, inputs)
    np.testing.assert_allclose(result["gradient"], gradient, rtol=1e-5, atol=1e-6)
    losses = [module.step(inputs, tf.constant(y)) for _ in range(3)]
    np.testing.assert_allclose(result["losses"], losses, rtol=1e-6)
