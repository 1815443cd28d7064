"""A model of a given architecture and size with random weights, and an adapter for it.

    python -m benchmarks.shapes breeze-7b checkpoints/breeze-7b-shape

For measuring time and memory where the real weights are not at hand: speed does not depend on
what the weights say. Writes the model in bfloat16 with tang-mini's tokenizer, and beside it
``checkpoint-1``, a LoRA adapter as the homework's (r 8, seven modules).
"""

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig, PretrainedConfig

from benchmarks.command import command_line
from tangeval.core.types import ASSETS
from tangeval.models import loading as models

_SEVEN_B = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096, "pad_token_id": None,
}  # fmt: skip
#: ``pad_token_id`` None, since torch fills that token's embedding with zeros: tang-mini's tokenizer has its BOS at 0.
#: The sizes that time and memory depend on; positions reach as far as a poem needs.
SHAPES: dict[str, PretrainedConfig] = {
    "breeze-7b": MistralConfig(
        **_SEVEN_B, vocab_size=61872, intermediate_size=14336, num_key_value_heads=8, sliding_window=None
    ),
    "taide-7b": LlamaConfig(**_SEVEN_B, vocab_size=56064, intermediate_size=11008),
    "gemma3-270m": Gemma3TextConfig(
        vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
        num_key_value_heads=1, head_dim=256, sliding_window=512, pad_token_id=None,
    ),
}  # fmt: skip
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write(shape: str, folder: Path, seed: int = 0) -> None:
    """Write the model and its adapter to ``folder``."""
    torch.manual_seed(seed)
    with models.device():
        model = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for file in (ASSETS / "tang-mini").glob("tokenizer*"):
        shutil.copy(file, folder)
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=MODULES))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    adapted.save_pretrained(folder / "checkpoint-1")


if __name__ == "__main__":
    parser = command_line(__file__, __doc__)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write(options.shape, options.folder)
