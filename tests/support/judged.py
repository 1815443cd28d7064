"""A folder to judge, and the command that judges it."""

import dataclasses

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tangeval.judge.asking import Judge, Prompt, load_prompt
from tests.support.command import tangeval
from tests.support.tiny import SPECIAL

STUDY = """
name: tiny
base_model: {base}
checkpoints: {run}
data: sample
splits: [test]
decoding: {{temperature: [0.0, 0.7], max_length: [4]}}
samples: 2
select: {{split: test, setting: {{by: bleu, require: {{han_only: ">= 0.0"}}}}}}
"""
POEMS = 15


def a_judge(**changes):
    return dataclasses.replace(Judge("http://h/v1", "m", load_prompt(Prompt)), **changes)


def run_judge(here, server, *options):
    """``tangeval judge`` in ``here``, by a server or the one at an address."""
    url = server if isinstance(server, str) else server.url
    return tangeval(here, "judge", "results/tiny", "--endpoint", url, "--model", "stub", *options)


def make_first_judge(folder):
    """Write a chat model to ``folder`` that prefers what is shown first, whatever it is.

    One layer that adds nothing, so that the next token depends on the last alone; the answer is one token.
    """
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, '{"better": "A"}'))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    fast.save_pretrained(folder)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=2048, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        )
    )  # fmt: skip
    asked, said = torch.eye(64)[:2]
    with torch.no_grad():
        for weights in (model.model.layers[0].self_attn.o_proj, model.model.layers[0].mlp.down_proj):
            weights.weight.zero_()
        model.model.embed_tokens.weight.copy_(asked.expand(64, 64))
        model.model.embed_tokens.weight[4] = said
        model.lm_head.weight.zero_()
        model.lm_head.weight[4] = 3 * asked
        model.lm_head.weight[3] = 3 * said
    model.save_pretrained(folder)
    return folder
