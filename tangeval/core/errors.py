"""The one error that a user is shown. Knows nothing else."""

#: What is said of a model whose logits are NaN.
NOT_NUMBERS = "its logits are not numbers (NaN): the weights are damaged, or too large for load.dtype"


class TangevalError(Exception):
    """Something the user can mend; the message names file, field and remedy."""


class DamagedError(TangevalError):
    """A file can be read, and is not what it should be."""


class UnusableError(TangevalError):
    """One checkpoint cannot be used; others may be."""
