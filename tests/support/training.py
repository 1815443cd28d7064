"""A few steps of transformers' own Trainer on a tiny model, for tests of what happens meanwhile."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from tangeval.core.config import validated
from tangeval.core.study import Study

#: Three validation poems × two settings × two samples.
STUDY: dict[str, Any] = {
    "name": "tiny", "data": {"path": "sample", "validation": 3}, "splits": ["validation"], "samples": 2,
    "decoding": {"temperature": [0.4, 1.0], "max_length": 12, "no_repeat_ngram_size": 0},
}  # fmt: skip


def small_study(**changes: Any) -> Study:
    return validated(Study, STUDY | changes, "study.yaml")


def make_model(base: Path, *, full: bool = False, dropout: float = 0.1) -> Any:
    """The tiny model, to train whole or with an adapter; the same each time."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], lora_dropout=dropout)
    return model if full else get_peft_model(model, lora)


def make_trainer(
    base: Path, out: Path, *, model: Any = None, kind: type[Trainer] = Trainer, **changes: Any
) -> Trainer:
    """A Trainer of four steps that saves every second."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [tokenizer.encode(f"春風不度玉門關{n}") for n in range(16)]
    rows = [{"input_ids": ids[:8], "labels": ids[:8], "attention_mask": [1] * 8} for ids in texts]
    asked: dict[str, Any] = {
        "per_device_train_batch_size": 2, "max_steps": 4, "save_steps": 2, "logging_steps": 1, "report_to": "none",
        "use_cpu": True, "learning_rate": 1e-2, "disable_tqdm": True,
    }  # fmt: skip
    settings = TrainingArguments(str(out), **asked | changes)
    return kind(
        model=model or make_model(base), args=settings, train_dataset=rows, processing_class=tokenizer
    )
