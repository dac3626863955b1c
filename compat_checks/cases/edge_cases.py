"""Families for extreme sizes, dtypes, second derivatives and invalid input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compat_checks.cases.case import EAGER, FUNCTION, GRAPH, JIT, Case
from compat_checks.cases.variants import LOSSES, V1, V2, loss_variants


def traces() -> Iterator[Case]:
    """Yields batches of several sizes through one trace, and name scopes."""
    for (variant, case), mode in itertools.product(loss_variants(), (FUNCTION, GRAPH)):
        yield case.replace(
            name=f"traces/{variant} {mode}",
            mode=mode,
            seed=None if case.is_nce else 8,
            batch_sizes=(5, 2, 7, 0),
            num_true=2,
        )
        for name_scope in ("head", "outer/head"):
            yield case.replace(
                name=f"traces/{variant} {name_scope} {mode}",
                mode=mode,
                name_scope=name_scope,
            )


def labels() -> Iterator[Case]:
    """Yields labels of each dtype, NumPy labels, repeated ones, one row for all."""
    for loss, dtype in itertools.product(
        LOSSES, ("int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64")
    ):
        for numpy_labels in (True, False):
            start = Case(
                "", path=V2 + loss, label_dtype=dtype, numpy_labels=numpy_labels
            )
            passed_as = "NumPy" if numpy_labels else "tensor"
            yield start.replace(name=f"labels/{loss} {dtype} {passed_as}", num_true=2)
    for (variant, case), mode in itertools.product(loss_variants(), (EAGER, FUNCTION)):
        start = case.replace(mode=mode, num_true=3, remove_hits=True)
        yield start.replace(name=f"labels/{variant} same {mode}", labels="same")
        start = start.replace(static_batch=True)
        yield start.replace(name=f"labels/{variant} repeated {mode}", labels="repeated")
    for loss, remove_hits in itertools.product(LOSSES, (True, False)):
        for num_true, sampler in itertools.product((1, 3), (None, "numpy")):
            yield Case(
                f"labels/{loss} one row hits {remove_hits} {num_true} true {sampler}",
                path=V2 + loss,
                label_rows=1,
                remove_hits=remove_hits,
                num_true=num_true,
                sampler=sampler,
            )
    for loss, num_true in itertools.product(LOSSES, (1, 3)):
        yield Case(
            f"labels/{loss} one row of inputs {num_true} true",
            path=V2 + loss,
            batch_sizes=(1,),
            label_rows=5,
            remove_hits=True,
            num_true=num_true,
            sampled_count_shape="full",
            sampler="numpy",
        )


def edges() -> Iterator[Case]:
    """Yields sizes of 0 and 1, every class sampled, hits only, extreme logits."""
    for (variant, case), mode in itertools.product(
        loss_variants(), (EAGER, FUNCTION, GRAPH)
    ):
        start = case.replace(mode=mode, static_batch=mode == GRAPH, remove_hits=True)
        only_hits = {"sampler": "numpy", "labels": "sampled"}
        options: dict[str, dict[str, object]] = {
            "batch of 0": {"batch_sizes": (0,)},
            "dim 1": {"dim": 1},
            "one sampled": {"num_sampled": 1},
            "all sampled": {"num_sampled": 23},
            "all labels sampled": {**only_hits, "num_true": 2},
            "all sampled are labels": {**only_hits, "num_sampled": 2, "num_true": 12},
            "fewer classes than rows": {"num_classes": 15},
        }
        if mode != EAGER:
            del options["dim 1"], options["one sampled"]
            del options["all sampled"], options["all labels sampled"]
        else:
            options |= {
                "batch of 1": {"batch_sizes": (1,)},
                "one class": {"rows": 1, "num_sampled": 1},
                "logits 1e2": {"logit_scale": 1e2},
                "logits 1e4": {"logit_scale": 1e4},
                "logits 1e30": {"logit_scale": 1e30},
                "logits 1e-30": {"logit_scale": 1e-30},
                "wide": {"dim": 33, "rows": 101, "num_sampled": 50}
                | {"batch_sizes": (40,)},
            }
        for edge, changes in options.items():
            yield start.replace(name=f"edges/{variant} {edge} {mode}", **changes)


def second_order() -> Iterator[Case]:
    """Yields second derivatives along a direction."""
    for (variant, case), mode in itertools.product(
        loss_variants(), (EAGER, FUNCTION, GRAPH)
    ):
        for num_true, count in [(1, 0), (3, 2)] if mode == EAGER else [(2, 3)]:
            yield case.replace(
                name=f"second_order/{variant} {num_true} true {count} shards {mode}",
                mode=mode,
                static_batch=mode == GRAPH,
                second_order=True,
                remove_hits=True,
                num_true=num_true,
                weight_shards=count,
                bias_shards=count,
            )


def dtypes() -> Iterator[Case]:
    """Yields tables of another dtype than the inputs."""
    for (variant, case), mode in itertools.product(loss_variants(), (EAGER, FUNCTION)):
        start = case.replace(mode=mode, sampler="numpy", num_true=2)
        for dtype in ("float64", "float16"):
            yield start.replace(
                name=f"dtypes/{variant} float32 inputs, {dtype} tables {mode}",
                static_batch=dtype == "float64",
                table_dtype=dtype,
            )
        yield start.replace(
            name=f"dtypes/{variant} float32 inputs, bfloat16 tables {mode}",
            table_dtype="bfloat16",
            weight_shards=2,
        )


def extensions() -> Iterator[Case]:
    """Yields what TensorFlow refuses: other dtypes with the default sampler."""
    options = itertools.product(loss_variants(), ("float16", "bfloat16", "float64"))
    for (variant, case), dtype in options:
        start = case.replace(dtype=dtype, expect="extension", remove_hits=True)
        for mode, num_true in [(EAGER, 1), (FUNCTION, 2)]:
            yield start.replace(
                name=f"extensions/{variant} {dtype} {num_true} true {mode}",
                mode=mode,
                num_true=num_true,
            )
        yield start.replace(
            name=f"extensions/{variant} {dtype} every row hits",
            num_sampled=23,
            logit_scale=8.0,
            dim=16,
            batch_sizes=(12,),
        )
        yield start.replace(
            name=f"extensions/{variant} {dtype} shards graph",
            mode=GRAPH,
            static_batch=True,
            weight_shards=3,
            bias_shards=3,
        )


def large() -> Iterator[Case]:
    """Yields batches whose logits are computed in another way than those of a few."""
    for loss in LOSSES:
        start = Case("", path=V2 + loss, rows=900, remove_hits=True)
        for batch, num_sampled, mode, static_batch in [
            (64, 700, FUNCTION, True),
            (300, 500, EAGER, True),
            (300, 500, FUNCTION, True),
            (300, 500, FUNCTION, False),
            (300, 500, GRAPH, False),
            (300, 500, JIT, True),
        ]:
            known = "known" if static_batch else "unknown"
            yield start.replace(
                name=f"large/{loss} {batch} x {num_sampled} {known} {mode}",
                batch_sizes=(batch,),
                num_sampled=num_sampled,
                mode=mode,
                static_batch=static_batch,
            )


def errors() -> Iterator[Case]:
    """Yields invalid input: TensorFlow fails too, tfsampled raises what is named."""
    static, dynamic = ("ValueError",), ("InvalidArgumentError",)
    table: list[tuple[str, tuple[str, ...], dict[str, object]]] = [
        ("label too high", dynamic, {}),
        ("label negative", dynamic, {}),
        ("label too high", dynamic, {"sampler": "numpy"}),
        ("label negative", dynamic, {"sampler": "numpy"}),
        ("labels of rank 1", static, {}),
        ("labels of rank 3", static, {}),
        ("num_true too high", static, {}),
        ("num_true 0", static, {}),
        ("num_sampled 0", static, {}),
        ("num_sampled too high", static, {}),
        ("num_classes too high", static, {}),
        ("dim", static, {}),
        ("batch", static + dynamic, {}),
        ("bias length", static, {}),
        ("shards", static, {"weight_shards": 2}),
        ("partition_strategy", static, {"weight_shards": 2, "path": V1}),
        ("two sampled_values", static, {"sampler": "numpy"}),
        ("too few sampled ids", static, {"sampler": "numpy"}),
    ]
    for loss, mode, (invalid_input, raises, changes) in itertools.product(
        LOSSES, (EAGER, FUNCTION), table
    ):
        path = str(changes.get("path", V2)) + loss
        options = {
            "expect": "error",
            "invalid_input": invalid_input,
            "raises": raises,
            **changes,
        }
        candidates = " sampled_values" if "sampler" in changes else ""
        start = Case(f"errors/{loss} {invalid_input}{candidates} {mode}", mode=mode)
        yield start.replace(**options | {"path": path})
