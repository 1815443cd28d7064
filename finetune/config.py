"""A fine-tuning configuration: YAML and ``key=value`` overrides → a validated ``Config``."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tangeval.core.config import Section, read_yaml, validated
from tangeval.core.study import LoadSection
from tangeval.core.types import Load

#: The configurations that come with an installation.
SHIPPED = Path(__file__).parent / "configs"


def _spelt_out(seeds: Any) -> Any:
    """``1..3`` as 1, 2, 3; a number as itself alone."""
    first, dots, last = str(seeds).partition("..")
    if dots and first.isdigit() and last.isdigit():
        return tuple(range(int(first), int(last) + 1))
    return (seeds,) if isinstance(seeds, int) else seeds


_Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as numpy takes it


class Lora(Section):
    r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    #: The homework's seven: every linear layer of a Llama or a Mistral.
    target_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


#: What the homework does otherwise than ``Config``'s defaults, a key for each of its ways.
HW5: dict[str, Any] = {
    "prompt": "hw5",
    "records": 1040,
    "loss_on": "all",
    "eos": "twice",
    "padding": "cutoff",
    "attention_mask": "ones",
    "overflow": "cut",
    "precision": "float16",
    "gradient_checkpointing": True,
    "save_total_limit": 3,
}
RECIPES: dict[str, dict[str, Any]] = {"default": {}, "hw5": HW5}


class Config(Section):
    """One fine-tuning run. ``batch`` records make a step, ``per_device_batch_size`` fit the memory at a time.

    ``recipe`` says what keys that are not given are: ``hw5`` is the homework as it runs.
    """

    recipe: Literal["default", "hw5"] = "default"
    base_model: str = "tang-mini"
    cache_dir: str | None = None  #: where the hub's library keeps a model; its own place if null
    resume_adapter: str | None = None  #: an adapter to go on training; a new one if null
    task: str | dict[str, Any] = "tang"  #: as in a study
    data: str = "sample"
    validation: Annotated[int, Field(ge=1)] | None = None  #: poems; the data set's own number if null
    prompt: str | None = None  #: a template of the task; its first if null
    output_dir: str
    records: Annotated[int, Field(ge=1)] | None = None  #: the first so many; all if null
    include_validation: bool = False
    load: LoadSection = LoadSection()
    lora: Lora = Lora()
    epochs: Annotated[float, Field(gt=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    per_device_batch_size: Annotated[int, Field(ge=1)] = 4
    batch: Annotated[int, Field(ge=1)] = 16
    cutoff: Annotated[int, Field(ge=8)] = 256  #: tokens of prompt and completion together
    overflow: Literal["leave_out", "cut"] = "leave_out"  #: what happens to longer texts
    loss_on: Literal["completion", "all"] = "completion"  #: the tokens that the loss is on
    eos: Literal["once", "twice", "masked"] = "once"  #: at a text's end; masked where it also pads
    #: none, in one row; to the longest of a micro batch; or always to the cutoff. auto: packed on a CPU, longest on a GPU
    padding: Literal["auto", "packed", "longest", "cutoff"] = "auto"
    attention_mask: Literal["real", "ones"] = "real"  #: ones lets texts see what pads them
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  #: of mixed-precision training
    logging_steps: Annotated[int, Field(ge=1)] = 20
    save_steps: Annotated[int, Field(ge=1)] = 65
    save_total_limit: Annotated[int, Field(ge=1)] | None = None  #: so many checkpoints; all if null
    report_to: tuple[str, ...] = Field(default=(), examples=[["tensorboard"]])  #: transformers' integrations
    evaluate: str | None = (
        None  #: a study that is run at each save; its task, data and weights are those trained on
    )
    gradient_checkpointing: bool = False
    fsdp: bool = False  #: share the base's weights out among torchrun's processes
    seed: _Seed = 42
    #: a run for each, in its own ``output_dir-seedN``
    seeds: (
        Annotated[
            tuple[_Seed, ...],
            Field(min_length=1),
            BeforeValidator(_spelt_out, json_schema_input_type=int | str | list[int]),
        ]
        | None
    ) = Field(default=None, examples=[[1, 2, 3]])

    @model_validator(mode="before")
    @classmethod
    def _of_the_recipe(cls, content: Any) -> Any:
        return {**RECIPES.get(str(content.get("recipe")), {}), **content}

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.batch % self.per_device_batch_size:
            raise ValueError(
                f"batch: {self.batch} is no multiple of per_device_batch_size {self.per_device_batch_size}"
            )
        if self.seeds and ("seed" in self.model_fields_set or len(set(self.seeds)) < len(self.seeds)):
            raise ValueError("seeds: give each once, such as 1..5, and no seed beside them")
        if self.load.merge:
            raise ValueError("load.merge: an adapter that is trained is not merged; leave it out")
        if self.load.compile:
            raise ValueError("load.compile: decoding alone is compiled; leave it out")
        if self.fsdp and self.evaluate:
            raise ValueError(
                "fsdp: no process holds the weights whole; leave evaluate out, and run the study on the checkpoints"
            )
        if self.fsdp and self.load.quantization == "int8":
            raise ValueError("fsdp: int8 weights cannot be shared out; set load.quantization to nf4 or none")
        return self

    def folder_of(self, seed: int) -> Path:
        """Return where the run of one of ``seeds`` is."""
        return Path(f"{Path(self.output_dir)}-seed{seed}")

    def load_settings(self) -> Load:
        return Load(self.load.quantization, self.load.dtype)


def load_config(path: Path, overrides: list[str]) -> Config:
    """Return a configuration; a TangevalError names the file, the key, and what would be right."""
    return validated(Config, read_yaml(path, overrides, SHIPPED), path)
