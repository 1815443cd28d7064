"""A tiny random model of each causal-LM class of the transformers that is installed.

In: a model type. Out: such a model, and what the engine makes of it beside transformers' own ``generate`` and forward.
"""

import copy
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tangeval.core.errors import TangevalError
from tangeval.decoding.batch import Way, Workspace
from tangeval.decoding.decoder import TokenSequence
from tangeval.decoding.memory import decode_in_memory
from tangeval.decoding.noise import gumbel
from tangeval.decoding.planning import token_cost
from tangeval.decoding.self_check import choose_way
from tangeval.engines.likelihood import token_nats
from tests.support.plain_decoder import processors, sequence_of

#: What makes a model tiny, by every name that configurations have for it.
SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "n_embd": 32, "d_model": 32, "dim": 32, "embedding_size": 32,
    "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "n_inner": 64, "ffn_hidden_size": 64,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dff": 64, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32, "expert_ffn_hidden_size": 32, "d_inner": 64,
    "num_hidden_layers": 4, "encoder_layerdrop": 0.0, "n_layer": 4, "n_layers": 4, "num_layers": 4, "encoder_layers": 4, "decoder_layers": 4,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "num_decoder_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "d_kv": 8, "kv_channels": 8, "attention_head_size": 8, "lru_width": 32,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_k": 2, "moe_topk": 2, "n_group": 1, "topk_group": 1, "num_expert_group": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "qk_head_dim": 16, "v_head_dim": 8,
    "state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2,
    "mamba_num_heads": 4, "mamba_head_dim": 16, "mamba_n_groups": 1, "n_groups": 1, "time_step_rank": 4,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "max_position_embeddings": 128, "n_positions": 128, "seq_length": 128, "max_sequence_length": 128,
    "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "entity_vocab_size": 8,
    "first_k_dense_replace": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "text_vocab_size": 64, "audio_vocab_size": 64, "moe_layer_start_index": 1,
}  # fmt: skip
#: What a kind wants besides.
_DECODERS = (
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod", "reformer",
)  # fmt: skip
_HYBRID = ["linear_attention", "full_attention"] * 2
ALSO: dict[str, dict[str, Any]] = {kind: {"is_decoder": True} for kind in _DECODERS} | {
    "codegen": {"rotary_dim": 8}, "gptj": {"rotary_dim": 8}, "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "electra": {"is_decoder": True, "embedding_size": 32}, "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "hunyuan_v1_dense": {"head_dim": 8}, "hunyuan_v1_moe": {"head_dim": 8}, "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2}, "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "zaya": {"num_experts_per_tok": 1}, "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1}, "bamba": {"attn_layer_indices": [1, 3]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "bailing_hybrid": {"layer_types": _HYBRID, "linear_head_dim": 8, "linear_num_heads": 4, "layer_group_size": 2},
    "kimi_linear": {"layer_types": _HYBRID, "linear_head_dim": 8, "linear_num_heads": 4},
    "qwen4_exp_text": {"layer_types": ["linear_attention", "indexed_attention"] * 2, "indexer_n_heads": 2,
                       "indexer_kv_heads": 2, "indexer_head_dim": 8},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dots1": {"num_experts_per_tok": 2, "n_shared_experts": 1, "n_routed_experts": 4},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots3_note_text": {"index_head_dim": 16, "index_n_heads": 2, "shared_experts_intermediate_size": 32},
    "gemma3n_text": {"num_hidden_layers": 6, "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 6,
                     "layer_types": ["sliding_attention", "full_attention"] * 3, "laurel_rank": 8},
    "inkling2_text": {"unpadded_vocab_size": 64, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2},
    "inkling2_loop_text": {"unpadded_vocab_size": 64, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2},
    "xlm": {"n_words": 64, "emb_dim": 32, "causal": True},
    "xlstm": {"embedding_dim": 32, "num_blocks": 4, "num_heads": 4},
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1, "attention_head_dim": 16,
              "layers_block_type": ["linear_attention", "hybrid"] * 3, "use_mamba_kernels": False},
    "mpt": {"max_seq_len": 128}, "dbrx": {"max_seq_len": 128, "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4},
                                          "attn_config": {"kv_n_heads": 2}},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16]},
}  # fmt: skip


def kinds() -> list[str]:
    """Return every model type that transformers has a causal language model for."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(kind: str) -> Any:
    """Return a tiny configuration of a model type."""
    cls = CONFIG_MAPPING[kind]
    return cls(**_small(cls, cls().to_dict()) | ALSO.get(kind, {}))


def _small(cls: Any, usual: dict[str, Any]) -> dict[str, Any]:
    names = {*usual, *inspect.signature(cls.__init__).parameters}
    changed = {name: size for name, size in SIZES.items() if name in names and usual.get(name, 0) is not None}
    if usual.get("kv_lora_rank"):  # keys and values made of a latent, for each head
        changed["num_key_value_heads"] = SIZES["num_attention_heads"]
    for name, part in usual.items():
        if isinstance(part, dict) and name.endswith("_config") and part.get("model_type"):
            kind = part["model_type"]
            changed[name] = {"model_type": kind} | _small(CONFIG_MAPPING[kind], part) | ALSO.get(kind, {})
    return changed


def tiny_model(config: Any) -> Any:
    """Return a model whose next token is neither certain nor uniform, in float32."""
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
    if size > 20_000_000:
        raise ValueError(f"it has {size:,} parameters")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() >= 2 and not any(part in name for part in ("A_log", "conv", "time_", "dt_")):
                p.normal_(0, 0.2)
    return model


PROMPTS = [[5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 10], [11, 12, 13, 14, 15, 16]]
ANSWERS = [[21, 22, 23], [24, 25, 26, 27, 28], [29]]
LENGTH, EOS = 10, 63


@dataclass(frozen=True)
class Outcome:
    """What became of a model: its class, how its rows were kept, and ``equal`` or why not."""

    kind: str
    model: str
    way: str
    result: str

    def row(self) -> str:
        return f"| {self.kind} | {self.model} | {self.way} | {self.result} |"


def outcome(kind: str) -> Outcome:
    """Return what the engine makes of a model type.

    ``equal``: greedy tokens are ``generate``'s, drawn ones too when it is given the engine's noise, and each token's
    likelihood is that of a forward pass of its text alone.
    """
    try:
        config = tiny_config(kind)
        model = tiny_model(config)
        expected = [_generated(model, prompt) for prompt in PROMPTS]
    except Exception as error:
        return Outcome(kind, "", "", f"none made: {_first_line(error)}")
    name = type(model).__name__
    try:
        token_cost(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            way = choose_way(model, PROMPTS, LENGTH)
    except TangevalError as error:
        return Outcome(kind, name, "", f"refused: {_first_line(error)}")
    try:
        result = ", ".join(_differing(model, way, expected)) or "equal"
    except Exception as error:
        result = f"fails, so texts differ: {_first_line(error)}"
    return Outcome(kind, name, str(way), result)


def _differing(model: Any, way: Way, expected: list[list[int]]) -> Iterator[str]:
    sequences = [
        sequence_of(p, t, 5 if t else 0, 1.0, LENGTH, key=p + 1) for p in range(3) for t in (0.0, 0.8)
    ]
    tokens = decode_in_memory(model, PROMPTS, sequences, eos=[EOS], workspace=Workspace(way=way))
    if tokens[::2] != expected:
        yield "greedy tokens differ"
    if tokens[1::2] != [_generated(model, PROMPTS[s.prompt], s) for s in sequences[1::2]]:
        yield "drawn tokens differ"
    nats = token_nats(model, PROMPTS, ANSWERS, Workspace(way=way))
    for prompt, answer, own in zip(PROMPTS, ANSWERS, nats, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
        alone = -logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]
        if not torch.allclose(alone, torch.tensor(own, dtype=torch.float64), rtol=1e-3, atol=1e-3):
            yield "likelihood differs"
            break


class _Noise(LogitsProcessor):
    """The engine's own noise, after the warpers: the largest wins."""

    def __init__(self, sequence: TokenSequence) -> None:
        self.sequence, self.begin = sequence, len(PROMPTS[sequence.prompt])

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        every = torch.arange(scores.shape[1])[None]
        return scores + gumbel(torch.tensor([self.sequence.key]), ids.shape[1] - self.begin, every)


def _generated(model: Any, prompt: list[int], sequence: TokenSequence | None = None) -> list[int]:
    """A prompt's tokens by transformers: the likeliest, or those that a sequence draws."""
    ids = torch.tensor([prompt])
    steps = LogitsProcessorList(
        [*processors(sequence, len(prompt), [EOS]), _Noise(sequence)] if sequence else []
    )
    tokens = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1, max_new_tokens=LENGTH, eos_token_id=EOS,
        pad_token_id=0, forced_eos_token_id=None, forced_bos_token_id=None, logits_processor=steps,
    )  # fmt: skip
    return list(tokens[0, len(prompt) :].tolist())


def _first_line(error: Exception) -> str:
    """What an error says, as a table can hold it."""
    return " ".join(str(error).replace("|", "/").split())[:150] or type(error).__name__
