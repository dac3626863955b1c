"""Calls functions in fresh processes, which nothing that ran before affects.

    call("benchmarks.fit_worker:measure", "keras Adam", 1000, 5.0, False)
    step_peak_mib("benchmarks.fit_worker:first_step", "keras Adam", 1000, False)

Arguments and results pass between the processes as JSON.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def call(function: str, *args: Any, **kwargs: Any) -> Any:
    """Calls the function `module:name` in a fresh process; returns its result.

    Raises:
        RuntimeError: If the process died, as for lack of memory.
    """
    request = json.dumps([function, args, kwargs])
    command = [sys.executable, "-m", "benchmarks.fresh", request]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=_ROOT
    )
    if done.returncode:
        raise RuntimeError(
            f"{function} with {args} {kwargs} ended with exit code {done.returncode} "
            f"(-9: killed for its memory).\n{done.stderr[-1000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def step_peak_mib(make_step: str, *args: Any, **kwargs: Any) -> float:
    """Measures the peak memory of one step above its inputs, in a fresh process.

    That is the peak of the resident memory during one call, less the resident memory
    right before it. Inputs, variables and imports do not count; what the first call
    traces and compiles does.

    Args:
        make_step: The name `module:name` of a function that makes the inputs and
            returns the step, a function without arguments. It must not call the step:
            TensorFlow keeps the memory it frees, so that a second call would seem to
            need none.
        *args: Arguments of that function.
        **kwargs: Arguments of that function.

    Returns:
        MiB.
    """
    return call("benchmarks.fresh:_peak_above_inputs", make_step, *args, **kwargs)


def peak_mib() -> float:
    """Returns the peak of this process's resident memory."""
    if _STATUS.exists():
        # ru_maxrss may include the parent process.
        return _resident("VmHWM")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _resident(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    assert found
    return int(found[1]) / 1024


def _peak_above_inputs(make_step: str, *args: Any, **kwargs: Any) -> float:
    step = _function(make_step)(*args, **kwargs)
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(
            0
        )  # memory freed while making the step must not serve the step
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # resets the peak to what is resident now
        before = _resident("VmRSS")
    else:
        before = peak_mib()
    step()
    return peak_mib() - before


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name, arguments, named = json.loads(sys.argv[1])
    print(json.dumps(_function(name)(*arguments, **named)))
