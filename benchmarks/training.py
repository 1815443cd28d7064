"""What a study costs while a model is trained: CPU seconds of evaluations, of the page at the end, and of the training.

python -m benchmarks.training [--merge]

Fine-tunes tang-mini on the sample for one epoch of 38 steps (``finetune/configs/demo.yaml``) and evaluates twice: 30 poems,
2 samples, 4 or 20 settings.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from finetune.__main__ import finetune
from finetune.config import SHIPPED, load_config
from tangeval.cli.progress import make_console
from tangeval.training.evaluation import Evaluations

GRIDS = {
    4: {"temperature": [0.1, 0.7], "top_p": [0.6, 1.0], "max_length": 64},
    20: {"temperature": [0.1, 0.4, 0.7, 1.0, 1.3], "top_k": [0, 5], "top_p": [0.6, 1.0], "max_length": 64},
}


def main() -> None:
    torch.set_num_threads(1)
    spent: dict[str, list[float]] = defaultdict(list)
    for name in ("evaluate", "write_page"):
        setattr(Evaluations, name, timed(getattr(Evaluations, name), spent[name]))
    for settings, grid in GRIDS.items():
        [own.clear() for own in spent.values()]
        study = {
            "name": "cost", "data": {"path": "sample", "validation": 30}, "splits": ["validation"], "decoding": grid, "samples": 2,
            "include_base": False, "checkpoints": "any", "load": {"merge": "--merge" in sys.argv},
        }  # fmt: skip
        with TemporaryDirectory() as folder:
            file = Path(folder, "study.yaml")
            file.write_text(yaml.safe_dump(study))
            keys = [f"output_dir={folder}/out", f"evaluate={file}", "save_steps=19"]
            config = load_config(SHIPPED / "demo.yaml", keys)
            began = time.process_time()
            finetune(config, make_console(quiet=True))
            whole = time.process_time() - began
        each, page = spent["evaluate"], sum(spent["write_page"])
        training = whole - sum(each) - page
        print(
            f"{settings} settings: an evaluation {sum(each) / len(each):.1f} s, the page {page:.1f} s, training {training:.1f} s"
        )


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments)
        finally:
            spent.append(time.process_time() - began)

    return wrapped


if __name__ == "__main__":
    main()
