"""One poem measured by what measures many."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tangeval.tasks.tang.poems import read


def one(measure: Callable[..., Any], couplet: str, text: str, *more: Any) -> Any:
    """Return a measure of one poem: a number, or numbers by their names."""
    found = measure(read([couplet], [text]), *more)
    return (
        {name: np.asarray(own)[0] for name, own in found.items()} if isinstance(found, Mapping) else found[0]
    )
