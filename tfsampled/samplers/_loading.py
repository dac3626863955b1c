"""Why a layer cannot take what a file holds for it."""

from __future__ import annotations

from typing import Any


class Misfit:
    """The reason, once it is known.

    Keras looks for a layer under each attribute that leads to it, and reports the last
    place only. Where that place is empty, what a fuller one showed is the reason.
    """

    def __init__(self) -> None:
        self._reason: str | None = None

    def error(self, saved: dict[str, Any], reason: str) -> ValueError:
        """The error to raise for what was found in one place.

        Args:
            saved: The shapes found, by name.
            reason: Why they do not fit.
        """
        if saved or self._reason is None:
            self._reason = reason
        return ValueError(self._reason)


def shapes(store: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of what Keras has saved of one object, or is to save, by name."""
    return {name: tuple(store[name].shape) for name in store.keys()}  # noqa: SIM118
