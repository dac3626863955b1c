"""A configuration with every option drawn, from a seed."""

from __future__ import annotations

import random

from compat_checks.cases.case import EAGER, FUNCTION, GRAPH, STATIC, Case


def random_case(seed: int) -> Case:
    """The configuration number `seed`; TensorFlow accepts each of them."""
    draw = random.Random(seed)
    loss = draw.choice(["sampled_softmax_loss", "nce_loss"])
    v1 = draw.random() < 0.5
    mode = draw.choice([EAGER, EAGER, FUNCTION, STATIC, GRAPH])
    rows = draw.randint(5, 60)
    classes = draw.choice([rows, rows, draw.randint(4, rows)])
    num_true = draw.choice([1, 1, 2, 3, 5])
    shards = draw.choice([0, 0, 1, 2, 3, 4, 5])
    sampler = draw.choice(
        [None, None, "given", "log_uniform", "uniform", "fixed_unigram"]
    )
    unique = draw.random() < 0.5
    holders = ["tensor", "tensor", "variable", "keras"]
    if shards and mode == GRAPH:
        holders = ["tensor", "variable", "partitioned"]
    elif shards:
        holders.append("sharded")
    elif mode == GRAPH:
        holders = ["tensor", "variable"]
    batch = draw.randint(1, 12)
    counts = ["drawn", "drawn", "scalar", "row", "column", "full"]
    label_batch = 1 if draw.random() < 0.1 else None
    return Case(
        f"random/{seed}",
        path=("compat.v1.nn." if v1 else "nn.") + loss,
        mode=mode,
        rows=rows,
        num_classes=classes,
        dim=draw.choice([1, 2, 3, 8, 17]),
        num_true=num_true,
        num_sampled=draw.randint(1, classes),
        batches=(batch,) * draw.choice([1, 1, 2]),
        label_batch=label_batch if batch > 1 else None,
        labels=draw.choice(["any", "any", "any", "same", "repeated"]),
        label_dtype=draw.choice(["int64", "int64", "int32", "uint8"]),
        label_numpy=mode == EAGER and draw.random() < 0.2,
        remove_hits=draw.choice([None, True, False]),
        partition=draw.choice(["mod", "div", None]) if v1 else None,
        weight_shards=shards,
        bias_shards=shards if draw.random() < 0.7 else 0,
        holder=draw.choice(holders),
        sampler=sampler,
        unique=unique,
        true_count=draw.choice(counts) if sampler else "drawn",
        sampled_count=draw.choice(counts) if sampler else "drawn",
        seed=None if loss == "nce_loss" else draw.choice([None, 1, 77]),
        global_seed=draw.choice([3, 17, 2**33]),
        scale=draw.choice([0.1, 1.0, 1.0, 10.0]),
    )
