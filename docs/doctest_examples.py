"""Extension of griffe: shows the doctests of `Example:` sections as code."""

import re
from typing import Any

import griffe


class DoctestExamples(griffe.Extension):
    """Renames the section `Example:` to `Examples:`, the one that griffe parses."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of `obj`."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M
            )
