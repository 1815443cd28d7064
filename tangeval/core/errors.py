"""The one error that a user is shown, and what makes it of a library's own. Knows nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager

#: What is said of a model whose logits are NaN.
NOT_NUMBERS = (
    "its logits are not numbers (NaN): the weights are damaged, or too large for load.dtype; in float16 some models "
    "overflow (Gemma 3): set load.dtype=float32"
)


class TangevalError(Exception):
    """Something the user can mend; the message names file, field and remedy."""


class DamagedError(TangevalError):
    """A file can be read, and is not what it should be."""


class UnusableError(TangevalError):
    """One checkpoint cannot be used; others may be."""


@contextmanager
def usable() -> Iterator[None]:
    """Return a context around all that libraries do with one checkpoint, from its loading to its leaving.

    Raises:
        UnusableError: a library failed in its own way. Memory that does not suffice is no fault of the checkpoint's.
    """
    try:
        yield
    except (TangevalError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            raise
        said = " ".join(str(error).split())[:300]
        raise UnusableError(f"a library cannot take it ({type(error).__name__}: {said})") from error
