"""The only list of cases: the command and the tests both read CASES.

Families are functions that yield cases; a case's name is its family and the options
that set it apart. A family of another kind ("samplers") is one more function here.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator

import tensorflow as tf

from compat_checks.case import EAGER, FUNCTION, GRAPH, MODES, STATIC, Case
from compat_checks.random_cases import random_case

SOFTMAX, NCE = "sampled_softmax_loss", "nce_loss"
LOSSES = (SOFTMAX, NCE)
V1, V2 = "compat.v1.nn.", "nn."
RANDOM_CASES = 120


def forms(loss: str) -> list[tuple[str, Case]]:
    """A loss in each of its forms: v2, v1 "mod", v1 "div"."""
    start = Case("", path=V1 + loss)
    return [
        (f"{loss} v2", start.replace(path=V2 + loss)),
        (f"{loss} mod", start.replace(partition="mod")),
        (f"{loss} div", start.replace(partition="div")),
    ]


def all_forms() -> list[tuple[str, Case]]:
    return [form for loss in LOSSES for form in forms(loss)]


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
            yield case.replace(
                name=f"holders/{form} partitioned {count} {'both' if both else 'weights'}",
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


def traces() -> Iterator[Case]:
    """Batches of several sizes through one trace; name scopes."""
    for (form, case), mode in itertools.product(all_forms(), (FUNCTION, GRAPH)):
        yield case.replace(
            name=f"traces/{form} {mode}",
            mode=mode,
            seed=None if case.nce else 8,
            batches=(5, 2, 7, 0),
            num_true=2,
        )
        for scope in ("head", "outer/head"):
            yield case.replace(name=f"traces/{form} {scope} {mode}", mode=mode, scope=scope)


def labels() -> Iterator[Case]:
    """Integer dtypes, NumPy, repeated labels, one row for the whole batch."""
    for loss, dtype in itertools.product(
        LOSSES, ("int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64")
    ):
        for numpy in (True, False):
            start = Case("", path=V2 + loss, label_dtype=dtype, label_numpy=numpy)
            form = "NumPy" if numpy else "tensor"
            yield start.replace(name=f"labels/{loss} {dtype} {form}", num_true=2)
    for (form, case), mode in itertools.product(all_forms(), (EAGER, FUNCTION)):
        start = case.replace(mode=mode, num_true=3, remove_hits=True)
        for kind in ("same", "repeated"):
            yield start.replace(name=f"labels/{form} {kind} {mode}", labels=kind)
    for loss, remove_hits in itertools.product(LOSSES, (True, False)):
        for num_true, sampler in itertools.product((1, 3), (None, "given")):
            yield Case(
                f"labels/{loss} one row hits {remove_hits} {num_true} true {sampler}",
                path=V2 + loss,
                label_batch=1,
                remove_hits=remove_hits,
                num_true=num_true,
                sampler=sampler,
            )


def edges() -> Iterator[Case]:
    """Sizes of 0 and 1, every class drawn, hits everywhere, huge and tiny logits."""
    for (form, case), mode in itertools.product(all_forms(), (EAGER, FUNCTION, GRAPH)):
        start = case.replace(mode=mode, remove_hits=True)
        every = {"sampler": "given", "labels": "sampled"}
        options: dict[str, dict[str, object]] = {
            "batch of 0": {"batches": (0,)},
            "dim 1": {"dim": 1},
            "one sampled": {"num_sampled": 1},
            "all sampled": {"num_sampled": 23},
            "labels all drawn": {**every, "num_true": 2},
            "all drawn are labels": {**every, "num_sampled": 2, "num_true": 12},
            "fewer classes than rows": {"num_classes": 15},
        }
        if mode != EAGER:
            few = ("batch of 0", "all drawn are labels", "fewer classes than rows")
            options = {edge: options[edge] for edge in few}
        else:
            options |= {
                "batch of 1": {"batches": (1,)},
                "one class": {"rows": 1, "num_sampled": 1},
                "logits 1e2": {"scale": 1e2},
                "logits 1e4": {"scale": 1e4},
                "logits 1e30": {"scale": 1e30},
                "logits 1e-30": {"scale": 1e-30},
                "wide": {"dim": 33, "rows": 101, "num_sampled": 50, "batches": (40,)},
            }
        for edge, changes in options.items():
            yield start.replace(name=f"edges/{form} {edge} {mode}", **changes)


def second() -> Iterator[Case]:
    """Second derivatives along a direction."""
    for (form, case), mode in itertools.product(all_forms(), (EAGER, FUNCTION, GRAPH)):
        for num_true, count in [(1, 0), (3, 2)] if mode == EAGER else [(2, 3)]:
            yield case.replace(
                name=f"second/{form} {num_true} true {count} shards {mode}",
                mode=mode,
                second=True,
                remove_hits=True,
                num_true=num_true,
                weight_shards=count,
                bias_shards=count,
            )


def dtypes() -> Iterator[Case]:
    """float64 where TensorFlow takes it, and dtypes that differ."""
    for (form, case), mode in itertools.product(all_forms(), (EAGER, FUNCTION)):
        start = case.replace(mode=mode, sampler="given", num_true=2)
        yield start.replace(
            name=f"dtypes/{form} float32 inputs, float64 tables {mode}",
            weight_dtype="float64",
        )
        yield start.replace(
            name=f"dtypes/{form} float32 inputs, float16 tables {mode}",
            weight_dtype="float16",
        )
        yield start.replace(
            name=f"dtypes/{form} float32 inputs, bfloat16 tables {mode}",
            weight_dtype="bfloat16",
            weight_shards=2,
        )


def beyond() -> Iterator[Case]:
    """What TensorFlow refuses: other dtypes with the default sampler."""
    options = itertools.product(all_forms(), ("float16", "bfloat16", "float64"))
    for (form, case), dtype in options:
        start = case.replace(dtype=dtype, expect="beyond", remove_hits=True)
        for mode, num_true in [(EAGER, 1), (FUNCTION, 2)]:
            yield start.replace(
                name=f"beyond/{form} {dtype} {num_true} true {mode}",
                mode=mode,
                num_true=num_true,
            )
        yield start.replace(
            name=f"beyond/{form} {dtype} every row hits",
            num_sampled=23,
            scale=8.0,
            dim=16,
            batches=(12,),
        )
        yield start.replace(
            name=f"beyond/{form} {dtype} shards graph",
            mode=GRAPH,
            weight_shards=3,
            bias_shards=3,
        )


def errors() -> Iterator[Case]:
    """Bad input: TensorFlow fails too; ours raises the class named here."""
    known, data = ("ValueError",), ("InvalidArgumentError",)
    table: list[tuple[str, tuple[str, ...], dict[str, object]]] = [
        ("label too high", data, {}),
        ("label negative", data, {}),
        ("label too high", data, {"sampler": "given"}),
        ("label negative", data, {"sampler": "given"}),
        ("labels of rank 1", known, {}),
        ("labels of rank 3", known, {}),
        ("num_true too high", known, {}),
        ("num_true 0", known, {}),
        ("num_sampled 0", known, {}),
        ("num_sampled too high", known, {}),
        ("num_classes too high", known, {}),
        ("dim", known, {}),
        ("batch", known + data, {}),
        ("bias length", known, {}),
        ("shards", known, {"weight_shards": 2}),
        ("partition_strategy", known, {"weight_shards": 2, "path": V1}),
        ("two sampled_values", known, {"sampler": "given"}),
        ("sampled ids too few", known, {"sampler": "given"}),
    ]
    for loss, mode, (spoil, raises, changes) in itertools.product(
        LOSSES, (EAGER, FUNCTION), table
    ):
        path = str(changes.get("path", V2)) + loss
        options = {"expect": "error", "spoil": spoil, "raises": raises, **changes}
        given = " own candidates" if "sampler" in changes else ""
        start = Case(f"errors/{loss} {spoil}{given} {mode}", mode=mode)
        yield start.replace(**options | {"path": path})


def signatures() -> Iterator[Case]:
    """Every public path of tf that has one of the losses."""
    roots = ["", "compat.v1.", "compat.v2."]
    nested = [f"compat.{a}.compat.{b}." for a in ("v1", "v2") for b in ("v1", "v2")]
    for root, loss in itertools.product(roots + nested, LOSSES):
        path = f"{root}nn.{loss}"
        try:
            operator.attrgetter(path)(tf)
        except AttributeError:
            continue
        yield Case(f"signatures/{path}", kind="signature", path=path)


def random() -> Iterator[Case]:
    """Configurations with all options drawn, by seed."""
    return (random_case(seed) for seed in range(RANDOM_CASES))


FAMILIES = (
    *(basic, shards, holders, sampled_values, counts, seeds, traces, labels, edges),
    *(second, dtypes, beyond, errors, signatures, random),
)
CASES: tuple[Case, ...] = tuple(case for family in FAMILIES for case in family())
BY_NAME: dict[str, Case] = {case.name: case for case in CASES}


def select(pattern: str | None) -> list[Case]:
    """Cases whose name contains `pattern`; all of them for None."""
    return [case for case in CASES if pattern is None or pattern in case.name]
