"""The one thing that pyproject.toml cannot say: the folder finetune/ is installed as ``tangeval.finetune``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tangeval", "tangeval.*"]), "tangeval.finetune"],
    package_dir={"tangeval.finetune": "finetune"},
)
