"""Families for what a caller passes to a loss: tables, candidates, seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compat_checks.cases.case import (
    EAGER,
    FUNCTION,
    GRAPH,
    STATIC,
    TENSORFLOW_MODES,
    Case,
)
from compat_checks.cases.variants import LOSSES, NCE, SOFTMAX, V1, V2, loss_variants


def basic() -> Iterator[Case]:
    """Yields every variant, num_true and mode, with and without accidental hits."""
    settings = [(1, EAGER), (2, EAGER), (5, EAGER)]
    settings += [(2, FUNCTION), (1, STATIC), (5, GRAPH)]
    options = itertools.product(loss_variants(), settings, (True, False))
    for (variant, case), (num_true, mode), remove_hits in options:
        hits = "hits removed" if remove_hits else "hits kept"
        yield case.replace(
            name=f"basic/{variant} {num_true} true {hits} {mode}",
            num_true=num_true,
            remove_hits=remove_hits,
            mode=mode,
        )


def shards() -> Iterator[Case]:
    """Yields 23 rows in 1 to 5 shards (uneven), for both tables or for one."""
    options = itertools.product(loss_variants(), range(1, 6), (True, False))
    for (variant, case), count, both in options:
        biases = "sharded biases" if both else "one bias"
        yield case.replace(
            name=f"shards/{variant} {count} {biases}",
            weight_shards=count,
            bias_shards=count if both else 0,
        )
    for (variant, case), mode in itertools.product(loss_variants(), (FUNCTION, GRAPH)):
        yield case.replace(
            name=f"shards/{variant} 3 {mode}",
            mode=mode,
            static_batch=mode == GRAPH,
            weight_shards=3,
            bias_shards=3,
        )
    for variant, case in loss_variants():
        yield case.replace(
            name=f"shards/{variant} biases alone", weight_shards=0, bias_shards=3
        )
        # With "div" TensorFlow divides by 0 here.
        if case.effective_partition_strategy == "mod":
            yield case.replace(
                name=f"shards/{variant} fewer rows than shards",
                rows=4,
                num_sampled=3,
                weight_shards=5,
                bias_shards=5,
            )


def table_types() -> Iterator[Case]:
    """Yields tables as variables of each type, alone and in lists."""
    for (variant, case), table_type in itertools.product(
        loss_variants(), ("variable", "keras")
    ):
        for count, mode in [(0, EAGER), (2, EAGER), (3, FUNCTION)]:
            yield case.replace(
                name=f"table_types/{variant} {table_type} {count} {mode}",
                table_type=table_type,
                mode=mode,
                static_batch=table_type == "keras",
                weight_shards=count,
                bias_shards=count,
            )
    for variant, case in loss_variants():
        for count, mode in [(1, EAGER), (3, EAGER), (3, FUNCTION)]:
            yield case.replace(
                name=f"table_types/{variant} sharded {count} {mode}",
                table_type="sharded",
                mode=mode,
                weight_shards=count,
                bias_shards=count,
            )
        for count, both in [(3, True), (4, False)]:
            tables = "both" if both else "weights"
            yield case.replace(
                name=f"table_types/{variant} partitioned {count} {tables}",
                table_type="partitioned",
                mode=GRAPH,
                static_batch=both,
                weight_shards=count,
                bias_shards=count if both else 0,
            )
        yield case.replace(
            name=f"table_types/{variant} variable graph",
            table_type="variable",
            mode=GRAPH,
            static_batch=True,
            weight_shards=2,
            bias_shards=2,
        )


def sampled_values() -> Iterator[Case]:
    """Yields `sampled_values` of each sampler, with and without replacement."""
    options = itertools.product(
        LOSSES,
        ("log_uniform", "uniform", "learned_unigram", "fixed_unigram"),
        (True, False),
        (True, False),
    )
    for loss, sampler, unique, remove_hits in options:
        replacement = "unique" if unique else "duplicates"
        hits = "hits removed" if remove_hits else "hits kept"
        for num_true, mode in [(1, EAGER), (3, FUNCTION)]:
            yield Case(
                f"sampled_values/{loss} {sampler} {replacement} {hits} {num_true} true",
                path=V2 + loss,
                mode=mode,
                static_batch=not remove_hits,
                rows=13,
                num_sampled=9,
                num_true=num_true,
                sampler=sampler,
                unique=unique,
                remove_hits=remove_hits,
            )
    for loss, mode in itertools.product(LOSSES, TENSORFLOW_MODES):
        v1 = Case("", path=V1 + loss, mode=mode, remove_hits=True, weight_shards=3)
        yield v1.replace(
            name=f"sampled_values/{loss} all classes {mode}",
            sampler="all",
            rows=11,
            num_sampled=11,
        )
        yield v1.replace(
            name=f"sampled_values/{loss} duplicates sharded {mode}",
            sampler="uniform",
            unique=False,
            rows=9,
            num_sampled=20,
            num_true=2,
        )


def counts() -> Iterator[Case]:
    """Yields expected counts of every shape that broadcasts, and of extreme size."""
    shapes = ("sampler", "scalar", "row", "column", "full")
    options = itertools.product(LOSSES, shapes, shapes, (1, 2))
    for loss, true_shape, sampled_shape, num_true in options:
        if num_true == 1 and true_shape != sampled_shape:
            continue
        yield Case(
            f"counts/{loss} {true_shape} {sampled_shape} {num_true} true",
            path=V2 + loss,
            mode=FUNCTION if true_shape == sampled_shape else EAGER,
            static_batch=num_true == 1,
            sampler="numpy",
            num_true=num_true,
            true_count_shape=true_shape,
            sampled_count_shape=sampled_shape,
            remove_hits=True,
        )
    for loss, size in itertools.product(LOSSES, (1e-30, 1e-6, 1e6)):
        yield Case(
            f"counts/{loss} times {size:g}",
            path=V2 + loss,
            sampler="numpy",
            count_scale=size,
            num_true=2,
        )


def seeds() -> Iterator[Case]:
    """Yields three calls in a row: with an op seed, a global seed, both, odd ones."""
    seeds_of_cases: list[tuple[int | None, int | None]] = [
        (None, 17),
        (4, None),
        (4, 17),
        (0, None),
        (0, 0),
        (-3, 17),
        (2**31 + 5, 2**40),
    ]
    for (seed, global_seed), mode in itertools.product(
        seeds_of_cases, (EAGER, FUNCTION, GRAPH)
    ):
        for path in (V2 + SOFTMAX, V1 + SOFTMAX):
            yield Case(
                f"seeds/{path} op {seed} global {global_seed} {mode}",
                path=path,
                mode=mode,
                static_batch=path == V1 + SOFTMAX,
                seed=seed,
                global_seed=global_seed,
                batch_sizes=(3, 3, 3),
            )
    for path, mode in itertools.product((V2 + NCE, V1 + NCE), TENSORFLOW_MODES):
        yield Case(f"seeds/{path} {mode}", path=path, mode=mode, batch_sizes=(3, 3, 3))
    options = itertools.product(LOSSES, (True, False), (EAGER, FUNCTION, GRAPH))
    for loss, remove_hits, mode in options:
        yield Case(
            f"seeds/third call of {loss} hits {remove_hits} {mode}",
            path=V2 + loss,
            mode=mode,
            remove_hits=remove_hits,
            earlier_calls=2,
            batch_sizes=(3, 3),
        )
