"""The record of a run: a dict that `--json` writes and the HTML page reads."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from compat_checks.judge import budget
from compat_checks.judge.check import Result

SCHEMA = 1
"""The version of the record: grows when a field is renamed, removed or redefined."""


@dataclasses.dataclass(frozen=True)
class Run:
    """All results on one device."""

    device: str
    results: list[Result]
    seconds: float
    tf32: bool = False


def cpu_name() -> str:
    """Returns the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """Returns the model of a device."""
    if device.startswith("CPU"):
        return cpu_name()
    physical = tf.config.list_physical_devices("GPU")[0]
    details = tf.config.experimental.get_device_details(physical)
    return str(details.get("device_name", device))


def as_dict(runs: list[Run]) -> dict[str, Any]:
    """Returns versions, rule, and for each device every case with its errors."""
    return {
        "schema": SCHEMA,
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "system": platform.platform(),
        },
        "cpu": cpu_name(),
        "rule": {
            "max_ulps": budget.MAX_ULPS,
            "rms_ulps": budget.RMS_ULPS,
            "truth_ulps": budget.TRUTH_ULPS,
        },
        "runs": [
            {
                "device": run.device,
                "tf32": run.tf32,
                "name": device_name(run.device),
                "seconds": round(run.seconds, 1),
                "cases": [_case(result) for result in run.results],
            }
            for run in runs
        ],
    }


def _case(result: Result) -> dict[str, Any]:
    return {
        "name": result.case.name,
        "family": result.case.family,
        "mode": result.case.mode,
        "passed": result.passed,
        "seconds": round(result.seconds, 3),
        "relative": _number(result.relative),
        "reasons": result.reasons(),
        "arrays": [
            {
                "array": verdict.array,
                "tfsampled": _number(verdict.actual_max),
                "tfsampled_rms": _number(verdict.actual_rms),
                "tensorflow": _number(verdict.reference_max),
                "tensorflow_rms": _number(verdict.reference_rms),
                "allowed": _number(verdict.allowed_max),
            }
            for verdict in result.verdicts
        ],
    }


def _number(value: float) -> float | None:
    """Rounds a number; None for infinity, which JSON does not have."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes the record as JSON."""
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Reads a record.

    Raises:
        ValueError: If the file is not a record, or of another schema.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be a record. Received: {error}") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"{path} must be a record of schema {SCHEMA}. Received: schema={schema!r}."
        )
    return record
