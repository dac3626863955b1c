"""Describes the machine on which timings are taken."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import keras
import tensorflow as tf


def machine() -> dict[str, object]:
    """Returns versions and hardware."""
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "devices": [d.device_type for d in tf.config.list_physical_devices()],
    }


def processor() -> str:
    """Returns the processor's name, or its architecture if the name is unknown."""
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(
        r"model name\s*: (.+)", cpuinfo.read_text() if cpuinfo.exists() else ""
    )
    return match[1] if match else platform.processor() or platform.machine()
