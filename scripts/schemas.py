"""The JSON Schemas that editors read, made of the models that check the files.

python -m scripts.schemas
"""

import json
from typing import Any

from pydantic import BaseModel

from finetune.config import Config
from tangeval.core.schemas import KINDS, file_of
from tangeval.core.study import Study
from tangeval.tasks.declared.schema import Declared

MODELS: dict[str, type[BaseModel]] = dict(zip(KINDS, (Study, Declared, Config), strict=True))


def main() -> None:
    for kind in KINDS:
        file_of(kind).write_text(text(kind), "utf-8")


def text(kind: str) -> str:
    """Return the schema of a kind of file, as its file has it."""
    content: dict[str, Any] = MODELS[kind].model_json_schema()
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **content,
        "title": f"tangeval {kind}",
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
