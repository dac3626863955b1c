"""What a step of the full softmax needs beyond its inputs, in fresh processes."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import fresh
from tfsampled.layers import SampledSoftmax

MIB = 2**20


@pytest.fixture(autouse=True)
def freed_memory_returns(monkeypatch):
    """Gives back large tensors to the system when they are freed.

    What glibc keeps otherwise depends on how the threads take turns.
    """
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(MIB))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")


@pytest.mark.slow
def test_loss_and_gradients_need_the_gradient_of_the_table_and_64_mib():
    sizes = num_classes, dim, batch = 100_000, 128, 1024
    arguments = "tfsampled", "loss and gradients", *sizes
    peak = fresh.step_peak_mib("benchmarks.exact:cold_step", *arguments)
    gradient = num_classes * dim * 4 / MIB
    assert gradient <= peak <= gradient + 64
    assert num_classes * batch * 4 / MIB > 3 * peak  # what the logits would take


@pytest.mark.slow
@pytest.mark.parametrize("k", [10, 100])
def test_top_k_never_holds_half_of_the_logits(k):
    sizes = num_classes, _, batch = 100_000, 128, 1024
    arguments = "tfsampled", f"top {k}", *sizes
    peak = fresh.step_peak_mib("benchmarks.exact:cold_step", *arguments)
    assert peak < num_classes * batch * 4 / MIB / 2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exact_loss_of_a_head_needs_the_gradient_of_the_table_and_64_mib(dtype):
    sizes = num_classes, dim, batch = 200_000, 16, 1024
    peak = fresh.step_peak_mib(f"{__name__}:head_step", *sizes, dtype)
    gradient = num_classes * dim * tf.as_dtype(dtype).size / MIB
    assert gradient <= peak <= gradient + 64
    assert num_classes * batch * 4 / MIB > 8 * peak


def head_step(num_classes, dim, batch, dtype):
    """Returns a step of `SampledSoftmax.exact_loss`; only a small one has run."""
    _head_step(1000, dim, batch, dtype)()
    return _head_step(num_classes, dim, batch, dtype)


def _head_step(num_classes, dim, batch, dtype):
    rng = np.random.default_rng(0)
    # Zeros: memory freed by a random initializer would serve the step.
    head = SampledSoftmax(
        num_classes, num_sampled=16, dtype=dtype, kernel_initializer="zeros"
    )
    head.build((batch, dim))
    inputs = tf.constant(rng.standard_normal((batch, dim), np.float32))
    labels = tf.constant(rng.integers(0, num_classes, batch))

    @tf.function(autograph=False)
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head.exact_loss(inputs, labels))
        return loss, tape.gradient(loss, head.trainable_variables)

    traced = step.get_concrete_function(inputs, labels)
    return lambda: traced(inputs, labels)
