"""Calls in a process of their own, which owes nothing to what ran before.

    call("benchmarks.fit_worker:measure", "keras Adam", 1000, 5.0, False)
    step_peak_mib("benchmarks.fit_worker:first_step", "keras Adam", 1000, False)

Names of functions, their arguments and their results pass between the processes as
text, so the arguments and results must be such as JSON can hold.
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
    """What the function `module:name` returns in a fresh process.

    Raises:
        RuntimeError: The process died, of too little memory perhaps.
    """
    told = json.dumps([function, args, kwargs])
    command = [sys.executable, "-m", "benchmarks.fresh", told]
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
    """Peak memory of one step above its inputs, MiB, measured in a fresh process.

    `make_step`, the name `module:name` of a function of these arguments, makes the
    inputs and returns the step, a function without arguments. The figure is the most
    resident memory while the step is called once, less what was resident right
    before: inputs, variables and imports do not count, what the first call traces
    and compiles does. `make_step` must not call the step: TensorFlow's allocator
    keeps what was freed, and a second call would seem to need nothing.
    """
    return call("benchmarks.fresh:_peak_above_inputs", make_step, *args, **kwargs)


def peak_mib() -> float:
    """The most resident memory that this process had."""
    if _STATUS.exists():
        # ru_maxrss may be that of the process that started this one.
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
        libc.malloc_trim(0)  # what the making left free is not the step's to use
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # the peak begins anew, from what is resident now
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
