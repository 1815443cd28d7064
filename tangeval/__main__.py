"""``python -m tangeval`` is ``tangeval``."""

from tangeval.cli.app import main

main()
