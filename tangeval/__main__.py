"""``python -m tangeval`` is ``tangeval``."""

from tangeval.cli import main

main()
