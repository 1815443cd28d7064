"""How likely each sample is under the checkpoint that wrote it: one pass over text that is there, nothing is decoded.

In: a resolved study and the generations of one of its checkpoints. Out: nats. Knows nothing of what they are for.
"""

import pandas as pd

from tangeval.core.errors import usable
from tangeval.core.types import Checkpoint
from tangeval.decoding.batch import Workspace
from tangeval.decoding.self_check import choose_way
from tangeval.engines.base import asked
from tangeval.engines.likelihood import token_nats
from tangeval.models import adapters, loading
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.resolve import ResolvedStudy

#: What tells texts apart.
TEXT = ["example_id", "text", "finish_reason"]


def sample_nats(resolved: ResolvedStudy, checkpoint: Checkpoint, rows: pd.DataFrame) -> pd.DataFrame:
    """Return each distinct text of ``rows`` (with ``TEXT``), and its ``nats``: its negative log-likelihood at temperature 1.

    Of its tokens as the tokenizer spells it, the space before it too, and EOS where it ended by itself. Cuts, penalties
    and constraints count for nothing.

    Raises:
        UnusableError: the checkpoint's weights are others than those resolved, or a library fails.
    """
    texts = rows[TEXT].drop_duplicates().reset_index(drop=True)
    load = resolved.study.loading(allow_pickle=resolved.allow_pickle)
    tokenizer = loading.load_tokenizer(resolved.base)
    prompts, answers = list[list[int]](), list[list[int]]()
    for name, text, reason in texts.to_numpy():
        prompt = asked(resolved, resolved.dataset.by_id[name])
        answer = encode_completion(tokenizer, prompt, text)
        prompts.append(encode_prompt(tokenizer, prompt))
        answers.append(answer if reason == "stop" else answer[:-1])
    base = None if checkpoint.kind == "full" else loading.load_model(resolved.base, load)
    recorded = resolved.fingerprints[checkpoint.name]
    with usable(), adapters.with_checkpoint(base, checkpoint, load, recorded) as model:
        workspace = Workspace(way=choose_way(model, prompts, max(map(len, answers))))
        return texts.assign(nats=[sum(each) for each in token_nats(model, prompts, answers, workspace)])
