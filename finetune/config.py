"""A fine-tuning configuration: YAML and ``key=value`` overrides → a validated ``Config``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tangeval.records import Load
from tangeval.study import LoadSection, Section, read_yaml, validated


class Lora(Section):
    r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    #: The homework's seven: every linear layer of a Llama or a Mistral.
    target_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


class Config(Section):
    """One fine-tuning run. ``batch`` records make a step, ``micro_batch`` fit the memory at a time."""

    base_model: str = "tang-mini"
    data: str = "sample"
    validation: Annotated[int, Field(ge=1)] | None = None  #: poems; the data set's own number if null
    prompt: Literal["hw5", "chat"] = "hw5"
    output_dir: str
    records: Annotated[int, Field(ge=1)] | None = None  #: the first so many; all if null
    include_validation: bool = False
    load: LoadSection = LoadSection()
    lora: Lora = Lora()
    epochs: Annotated[float, Field(gt=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    micro_batch: Annotated[int, Field(ge=1)] = 4
    batch: Annotated[int, Field(ge=1)] = 16
    cutoff: Annotated[int, Field(ge=8)] = 256  #: tokens of prompt and completion together
    logging_steps: Annotated[int, Field(ge=1)] = 20
    save_steps: Annotated[int, Field(ge=1)] = 65
    gradient_checkpointing: bool = False
    seed: int = 42

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.batch % self.micro_batch:
            raise ValueError(f"batch: {self.batch} is no multiple of micro_batch {self.micro_batch}")
        if self.load.merge:
            raise ValueError("load.merge: an adapter that is trained is not merged; leave it out")
        return self

    def load_settings(self) -> Load:
        return Load(self.load.quantization, self.load.dtype)


def load_config(path: Path, overrides: list[str]) -> Config:
    """Read a configuration.

    Raises:
        TangevalError: naming the file, the key, and what would be right.
    """
    return validated(Config, read_yaml(path, overrides), path)
