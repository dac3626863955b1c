"""What the timings were taken on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import keras
import tensorflow as tf


def machine() -> dict[str, object]:
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "devices": [d.device_type for d in tf.config.list_physical_devices()],
    }


def processor() -> str:
    """Its name, or that of its kind where the system does not tell."""
    told = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", told.read_text() if told.exists() else "")
    return found[1] if found else platform.processor() or platform.machine()
