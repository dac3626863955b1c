"""Ways to make one argument of a call wrong, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Arguments = dict[str, Any]


def _with(change: Callable[[Arguments], Arguments]) -> Callable[[Arguments], Arguments]:
    return lambda kwargs: kwargs | change(kwargs)


def _uneven(shards: list[tf.Tensor]) -> list[tf.Tensor]:
    """The same rows, cut where neither layout cuts them."""
    rows = tf.concat(shards, 0)
    return [rows[:2], rows[2:]]


SPOILS: dict[str, Callable[[Arguments], Arguments]] = {
    "label too high": _with(lambda k: {"labels": k["labels"] + k["num_classes"]}),
    "label negative": _with(lambda k: {"labels": k["labels"] - k["num_classes"]}),
    "labels of rank 1": _with(lambda k: {"labels": k["labels"][:, 0]}),
    "labels of rank 3": _with(lambda k: {"labels": k["labels"][:, :, None]}),
    "num_true too high": _with(lambda k: {"num_true": k["num_true"] + 1}),
    "num_true 0": _with(lambda k: {"num_true": 0}),
    "num_sampled 0": _with(lambda k: {"num_sampled": 0}),
    "num_sampled too high": _with(lambda k: {"num_sampled": k["num_classes"] + 1}),
    "num_classes too high": _with(lambda k: {"num_classes": k["num_classes"] * 1000}),
    "dim": _with(lambda k: {"inputs": k["inputs"][:, 1:]}),
    "batch": _with(lambda k: {"labels": k["labels"][:2]}),
    "bias length": _with(lambda k: {"biases": k["biases"][:2]}),
    "shards": _with(lambda k: {"weights": _uneven(k["weights"])}),
    "partition_strategy": _with(lambda k: {"partition_strategy": "block"}),
    "two sampled_values": _with(lambda k: {"sampled_values": k["sampled_values"][:2]}),
    "sampled ids too few": _with(
        lambda k: {
            "sampled_values": (k["sampled_values"][0][1:], *k["sampled_values"][1:])
        }
    ),
}
