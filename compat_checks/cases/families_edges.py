"""Families of cases for edges, other dtypes, second derivatives and bad input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compat_checks.cases.case import EAGER, FUNCTION, GRAPH, Case
from compat_checks.cases.variants import LOSSES, V1, V2, all_forms


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
            yield case.replace(
                name=f"traces/{form} {scope} {mode}", mode=mode, scope=scope
            )


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
    for loss, num_true in itertools.product(LOSSES, (1, 3)):
        yield Case(
            f"labels/{loss} one row of inputs {num_true} true",
            path=V2 + loss,
            batches=(1,),
            label_batch=5,
            remove_hits=True,
            num_true=num_true,
            sampled_count="full",
            sampler="given",
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
