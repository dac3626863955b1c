"""Ways to make one argument of a loss invalid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Arguments = dict[str, Any]


def _uneven_shards(kwargs: Arguments) -> Arguments:
    """Cuts the weights where neither partition strategy does."""
    rows = tf.concat(kwargs["weights"], 0)
    return {"weights": [rows[:2], rows[2:]]}


def _one_id_less(kwargs: Arguments) -> Arguments:
    ids, *counts = kwargs["sampled_values"]
    return {"sampled_values": (ids[1:], *counts)}


# Each takes the valid arguments and returns those that it changes.
INVALID_INPUTS: dict[str, Callable[[Arguments], Arguments]] = {
    "label too high": lambda k: {"labels": k["labels"] + k["num_classes"]},
    "label negative": lambda k: {"labels": k["labels"] - k["num_classes"]},
    "labels of rank 1": lambda k: {"labels": k["labels"][:, 0]},
    "labels of rank 3": lambda k: {"labels": k["labels"][:, :, None]},
    "num_true too high": lambda k: {"num_true": k["num_true"] + 1},
    "num_true 0": lambda k: {"num_true": 0},
    "num_sampled 0": lambda k: {"num_sampled": 0},
    "num_sampled too high": lambda k: {"num_sampled": k["num_classes"] + 1},
    "num_classes too high": lambda k: {"num_classes": k["num_classes"] * 1000},
    "dim": lambda k: {"inputs": k["inputs"][:, 1:]},
    "batch": lambda k: {"labels": k["labels"][:2]},
    "bias length": lambda k: {"biases": k["biases"][:2]},
    "shards": _uneven_shards,
    "partition_strategy": lambda k: {"partition_strategy": "block"},
    "two sampled_values": lambda k: {"sampled_values": k["sampled_values"][:2]},
    "too few sampled ids": _one_id_less,
}
