"""A decoder of KerasHub with a sampled head, beside its own full softmax.

`python -m examples.keras_hub_decoder` trains a small Gemma with random weights on
synthetic tokens, each with the one before it or one by frequency: once on the logits of
all tokens, with Keras's Adam, and once with a `SampledSoftmax` on the same token
embedding, with LazyAdam. Each runs in a process of its own; printed are the time of a
step, the memory that training takes beside the model and its slots, and the exact
perplexity of held-out tokens.

It needs `pip install keras-hub`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import Any

import keras
import numpy as np

from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam

LENGTH = 64


def tokens(size: int, vocabulary: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what the decoder reads, and the tokens that follow, `[size, LENGTH]`."""
    rng = np.random.default_rng(seed)
    # Low ids are frequent, as in the vocabularies of most tokenizers.
    shape = size, LENGTH + 1
    ids = np.exp(rng.random(shape) * np.log(vocabulary)).astype("int32") - 1
    for position in range(LENGTH):
        repeated = rng.random(size) < 0.5
        ids[repeated, position + 1] = ids[repeated, position]
    inputs = {"token_ids": ids[:, :-1], "padding_mask": np.ones([size, LENGTH], bool)}
    return inputs, ids[:, 1:]


def decoder(vocabulary: int) -> keras.Model:
    """Returns a Gemma of two blocks with random weights."""
    try:
        import keras_hub
    except ImportError as error:
        message = "`keras_hub` must be installed: pip install keras-hub."
        raise ImportError(message) from error
    return keras_hub.models.GemmaBackbone(
        vocabulary_size=vocabulary,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=1,
        hidden_dim=128,
        intermediate_dim=256,
        head_dim=32,
    )


def full_model(vocabulary: int) -> keras.Model:
    """Computes the logits of all tokens, as KerasHub's own causal language models."""
    backbone = decoder(vocabulary)
    logits = backbone.token_embedding(backbone.output, reverse=True)
    model = keras.Model(backbone.input, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    return model


def sampled_model(vocabulary: int) -> keras.Model:
    """Trains the decoder on its own token embedding, a sample of tokens at a time."""
    backbone = decoder(vocabulary)
    head = SampledSoftmax(
        vocabulary, num_sampled=1024, use_bias=False, tied_to=backbone.token_embedding
    )
    model = SampledSoftmaxModel(backbone, head)
    model.compile(LazyAdam(3e-3))
    return model


class StepTimes(keras.callbacks.Callback):
    """Times the steps, and reads the memory before the first and after the last."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.seconds: list[float] = []
        self.before = _peak_megabytes()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self.start)

    def on_train_end(self, logs: Any = None) -> None:
        self.megabytes = _peak_megabytes() - self.before


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def train(kind: str, vocabulary: int, steps: int, batch_size: int) -> dict[str, float]:
    """Returns milliseconds of a step, megabytes of training, held-out perplexity."""
    keras.utils.set_random_seed(1)
    model = {"full": full_model, "sampled": sampled_model}[kind](vocabulary)
    model.optimizer.build(model.trainable_variables)
    times = StepTimes()
    x, y = tokens(steps * batch_size, vocabulary, seed=1)
    model.fit(x, y, batch_size=batch_size, callbacks=[times], verbose=0)
    x, y = tokens(4 * batch_size, vocabulary, seed=2)
    loss = model.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    return {
        "milliseconds": statistics.median(times.seconds[steps // 10 :]) * 1e3,
        "megabytes": times.megabytes,
        "perplexity": float(np.exp(loss["loss"])),
    }


def main(
    vocabulary: int = 50_000, steps: int = 100, batch_size: int = 16
) -> dict[str, dict[str, float]]:
    """Trains both, each in a new process."""
    results = {}
    for kind in ("full", "sampled"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[kind] = pool.apply(train, (kind, vocabulary, steps, batch_size))
        row = results[kind]
        print(
            f"{kind:>7} softmax: {row['milliseconds']:.0f} ms a step, "
            f"{row['megabytes']:.0f} MB, perplexity {row['perplexity']:.0f}"
        )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    main(**vars(parser.parse_args()))
