"""Options of the command that several families have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def integer(help: str, default: Any) -> dict[str, Any]:
    """Returns the settings of an option that takes a number."""
    return {"type": int, "metavar": "N", "help": f"{help} (default: {default})"}


def integers(help: str, default: Iterable[int]) -> dict[str, Any]:
    """Returns the settings of an option that takes several numbers."""
    return {**integer(help, " ".join(map(str, default))), "nargs": "+"}
