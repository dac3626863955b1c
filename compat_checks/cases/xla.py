"""The family of the losses under XLA."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compat_checks.cases.case import JIT, Case
from compat_checks.cases.variants import LOSSES, V1, V2


def jit() -> Iterator[Case]:
    """Yields losses with jit_compile=True, against TensorFlow's without it."""
    for loss, remove_hits, num_true in itertools.product(LOSSES, (True, False), (1, 3)):
        hits = "hits removed" if remove_hits else "hits kept"
        start = Case(
            f"jit/{loss} {hits} {num_true} true",
            path=V2 + loss,
            mode=JIT,
            remove_hits=remove_hits,
            num_true=num_true,
        )
        yield start.replace(batch_sizes=(5, 5, 5))
        yield start.replace(
            name=f"{start.name} duplicates",
            static_batch=True,
            sampler="uniform",
            unique=False,
            rows=13,
            num_sampled=9,
        )
    for loss, partition_strategy in itertools.product(LOSSES, ("mod", "div")):
        yield Case(
            f"jit/{loss} {partition_strategy} 3 shards",
            path=V1 + loss,
            mode=JIT,
            static_batch=True,
            partition_strategy=partition_strategy,
            weight_shards=3,
            bias_shards=3,
        )
    for loss, dtype in itertools.product(LOSSES, ("float16", "bfloat16", "float64")):
        yield Case(
            f"jit/{loss} {dtype}",
            path=V2 + loss,
            mode=JIT,
            static_batch=dtype == "float16",
            dtype=dtype,
            # Expected counts are within 2 ulp of float32; float64 losses would differ.
            sampler="log_uniform" if dtype == "float64" else None,
            expect="extension",
            remove_hits=True,
        )
    for loss in LOSSES:
        yield Case(
            f"jit/{loss} second order", path=V2 + loss, mode=JIT, second_order=True
        )
