"""Families of cases for what a caller hands over: tables, candidates, seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compat_checks.cases.case import EAGER, FUNCTION, GRAPH, MODES, STATIC, Case
from compat_checks.cases.variants import LOSSES, NCE, SOFTMAX, V1, V2, all_forms


def basic() -> Iterator[Case]:
    """Every form, num_true and mode, hits removed or not."""
    covered = [*itertools.product((1, 2, 5), (EAGER,))]
    covered += [(2, FUNCTION), (1, STATIC), (5, GRAPH)]
    options = itertools.product(all_forms(), covered, (True, False))
    for (form, case), (num_true, mode), remove_hits in options:
        hits = "hits removed" if remove_hits else "hits kept"
        yield case.replace(
            name=f"basic/{form} {num_true} true {hits} {mode}",
            num_true=num_true,
            remove_hits=remove_hits,
            mode=mode,
        )


def shards() -> Iterator[Case]:
    """1 to 5 shards of 23 rows (uneven), for both tables or for the weights alone."""
    options = itertools.product(all_forms(), range(1, 6), (True, False))
    for (form, case), count, both in options:
        biases = "sharded biases" if both else "one bias"
        yield case.replace(
            name=f"shards/{form} {count} {biases}",
            weight_shards=count,
            bias_shards=count if both else 0,
        )
    for (form, case), mode in itertools.product(all_forms(), (FUNCTION, GRAPH)):
        yield case.replace(
            name=f"shards/{form} 3 {mode}", mode=mode, weight_shards=3, bias_shards=3
        )
    for form, case in all_forms():
        yield case.replace(
            name=f"shards/{form} biases alone", weight_shards=0, bias_shards=3
        )
        if case.strategy == "mod":  # TensorFlow divides by 0 in "div"
            yield case.replace(
                name=f"shards/{form} fewer rows than shards",
                rows=4,
                num_sampled=3,
                weight_shards=5,
                bias_shards=5,
            )


def holders() -> Iterator[Case]:
    """Tables as variables of each kind, alone and in lists."""
    for (form, case), holder in itertools.product(all_forms(), ("variable", "keras")):
        for count, mode in [(0, EAGER), (2, EAGER), (3, FUNCTION)]:
            yield case.replace(
                name=f"holders/{form} {holder} {count} {mode}",
                holder=holder,
                mode=mode,
                weight_shards=count,
                bias_shards=count,
            )
    for form, case in all_forms():
        for count, mode in [(1, EAGER), (3, EAGER), (3, FUNCTION)]:
            yield case.replace(
                name=f"holders/{form} sharded {count} {mode}",
                holder="sharded",
                mode=mode,
                weight_shards=count,
                bias_shards=count,
            )
        for count, both in [(3, True), (4, False)]:
            tables = "both" if both else "weights"
            yield case.replace(
                name=f"holders/{form} partitioned {count} {tables}",
                holder="partitioned",
                mode=GRAPH,
                weight_shards=count,
                bias_shards=count if both else 0,
            )
        yield case.replace(
            name=f"holders/{form} variable graph",
            holder="variable",
            mode=GRAPH,
            weight_shards=2,
            bias_shards=2,
        )


def sampled_values() -> Iterator[Case]:
    """Candidates handed over from each sampler, with and without replacement."""
    options = itertools.product(
        LOSSES,
        ("log_uniform", "uniform", "learned_unigram", "fixed_unigram"),
        (True, False),
        (True, False),
    )
    for loss, sampler, unique, remove_hits in options:
        drawn = "unique" if unique else "duplicates"
        hits = "hits removed" if remove_hits else "hits kept"
        for num_true, mode in [(1, EAGER), (3, FUNCTION)]:
            yield Case(
                f"sampled_values/{loss} {sampler} {drawn} {hits} {num_true} true",
                path=V2 + loss,
                mode=mode,
                rows=13,
                num_sampled=9,
                num_true=num_true,
                sampler=sampler,
                unique=unique,
                remove_hits=remove_hits,
            )
    for loss, mode in itertools.product(LOSSES, MODES):
        start = Case("", path=V1 + loss, mode=mode, remove_hits=True, weight_shards=3)
        yield start.replace(
            name=f"sampled_values/{loss} all classes {mode}",
            sampler="all",
            rows=11,
            num_sampled=11,
        )
        yield start.replace(
            name=f"sampled_values/{loss} duplicates sharded {mode}",
            sampler="uniform",
            unique=False,
            rows=9,
            num_sampled=20,
            num_true=2,
        )


def counts() -> Iterator[Case]:
    """Expected counts of every shape that broadcasts, and very small ones."""
    true_forms = ("drawn", "scalar", "row", "column", "full")
    options = itertools.product(LOSSES, true_forms, true_forms, (1, 2))
    for loss, true_count, sampled_count, num_true in options:
        if num_true == 1 and true_count != sampled_count:
            continue
        yield Case(
            f"counts/{loss} {true_count} {sampled_count} {num_true} true",
            path=V2 + loss,
            mode=FUNCTION if true_count == sampled_count else EAGER,
            sampler="given",
            num_true=num_true,
            true_count=true_count,
            sampled_count=sampled_count,
            remove_hits=True,
        )
    for loss, size in itertools.product(LOSSES, (1e-30, 1e-6, 1e6)):
        yield Case(
            f"counts/{loss} times {size:g}",
            path=V2 + loss,
            sampler="given",
            count_scale=size,
            num_true=2,
        )


def seeds() -> Iterator[Case]:
    """Three calls one after the other: op seed, global seed, both, odd values."""
    pairs: list[tuple[int | None, int | None]] = [
        (None, 17),
        (4, None),
        (4, 17),
        (0, None),
        (0, 0),
        (-3, 17),
        (2**31 + 5, 2**40),
    ]
    for (op, graph), mode in itertools.product(pairs, (EAGER, FUNCTION, GRAPH)):
        for path in (V2 + SOFTMAX, V1 + SOFTMAX):
            yield Case(
                f"seeds/{path} op {op} global {graph} {mode}",
                path=path,
                mode=mode,
                seed=op,
                global_seed=graph,
                batches=(3, 3, 3),
            )
    for path, mode in itertools.product((V2 + NCE, V1 + NCE), MODES):
        yield Case(f"seeds/{path} {mode}", path=path, mode=mode, batches=(3, 3, 3))
    options = itertools.product(LOSSES, (True, False), (EAGER, FUNCTION, GRAPH))
    for loss, remove_hits, mode in options:
        yield Case(
            f"seeds/third {loss} hits {remove_hits} {mode}",
            path=V2 + loss,
            mode=mode,
            remove_hits=remove_hits,
            before=2,
            batches=(3, 3),
        )
