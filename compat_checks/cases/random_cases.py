"""A case with every option drawn from a seed."""

from __future__ import annotations

import random

from compat_checks.cases.case import EAGER, FUNCTION, GRAPH, STATIC, Case
from compat_checks.cases.variants import NCE, SOFTMAX, V1, V2


def random_case(seed: int) -> Case:
    """Returns the case of `seed`. TensorFlow accepts each of them."""
    rng = random.Random(seed)
    loss = rng.choice([SOFTMAX, NCE])
    is_v1 = rng.random() < 0.5
    mode = rng.choice([EAGER, EAGER, FUNCTION, STATIC, GRAPH])
    rows = rng.randint(5, 60)
    num_classes = rng.choice([rows, rows, rng.randint(4, rows)])
    num_true = rng.choice([1, 1, 2, 3, 5])
    shards = rng.choice([0, 0, 1, 2, 3, 4, 5])
    samplers = [None, None, "numpy", "log_uniform", "uniform", "fixed_unigram"]
    sampler = rng.choice(samplers)
    unique = rng.random() < 0.5
    table_types = ["tensor", "tensor", "variable", "keras"]
    if shards and mode == GRAPH:
        table_types = ["tensor", "variable", "partitioned"]
    elif shards:
        table_types.append("sharded")
    elif mode == GRAPH:
        table_types = ["tensor", "variable"]
    batch = rng.randint(1, 12)
    count_shapes = ["sampler", "sampler", "scalar", "row", "column", "full"]
    label_rows = 1 if rng.random() < 0.1 else None
    return Case(
        f"random/{seed}",
        path=(V1 if is_v1 else V2) + loss,
        mode=mode,
        rows=rows,
        num_classes=num_classes,
        dim=rng.choice([1, 2, 3, 8, 17]),
        num_true=num_true,
        num_sampled=rng.randint(1, num_classes),
        batch_sizes=(batch,) * rng.choice([1, 1, 2]),
        label_rows=label_rows if batch > 1 else None,
        labels=rng.choice(["any", "any", "any", "same", "repeated"]),
        label_dtype=rng.choice(["int64", "int64", "int32", "uint8"]),
        numpy_labels=mode == EAGER and rng.random() < 0.2,
        remove_hits=rng.choice([None, True, False]),
        partition_strategy=rng.choice(["mod", "div", None]) if is_v1 else None,
        weight_shards=shards,
        bias_shards=shards if rng.random() < 0.7 else 0,
        table_type=rng.choice(table_types),
        sampler=sampler,
        unique=unique,
        true_count_shape=rng.choice(count_shapes) if sampler else "sampler",
        sampled_count_shape=rng.choice(count_shapes) if sampler else "sampler",
        seed=None if loss == NCE else rng.choice([None, 1, 77]),
        global_seed=rng.choice([3, 17, 2**33]),
        logit_scale=rng.choice([0.1, 1.0, 1.0, 10.0]),
        static_batch=rng.random() < 0.5,
    )
