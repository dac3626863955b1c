"""Checks cases one after the other, or in several processes."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
from collections.abc import Iterator

import tensorflow as tf

import tfsampled
from compat_checks.cases.case import Case
from compat_checks.judge.check import Checker, Result, public_functions


def check_all(
    cases: list[Case], device: str, jobs: int, tf32: bool
) -> Iterator[Result]:
    """Yields the result of each case, in their order.

    Args:
        cases: What to check.
        device: "CPU:0" or "GPU:0".
        jobs: How many processes; 1 is this one.
        tf32: Whether a GPU may round factors of float32 products to TF32.
    """
    if jobs == 1:
        yield from map(_checker(device, tf32).check, cases)
        return
    with concurrent.futures.ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context("spawn"),  # TensorFlow does not survive a fork
        _start_process,
        (device, jobs, tf32),
    ) as pool:
        yield from pool.map(_check, cases)


def _checker(device: str, tf32: bool) -> Checker:
    tf.get_logger().setLevel("ERROR")
    return Checker(public_functions(tfsampled), device, tf32)


def _start_process(device: str, jobs: int, tf32: bool) -> None:
    global _process_checker
    threads = max((os.cpu_count() or 1) // jobs, 1)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    # Tracing makes many objects, and a collection looks at all there are.
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)
    _process_checker = _checker(device, tf32)


_process_checker: Checker


def _check(case: Case) -> Result:
    return _process_checker.check(case)
