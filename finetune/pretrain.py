"""Make tang-mini, the small base model that ships with tangeval, from chinese-poetry.

    python -m finetune.pretrain CHINESE_POETRY_FOLDER [--out tangeval/assets/tang-mini] [--hw5 hw5]

In: the unpacked npm package chinese-poetry, and HW5's data and the embedded sample, whose
test and validation poems are kept out. Out: a folder that ``from_pretrained`` loads, with a
model card of what was measured. Minutes on a GPU, hours on a CPU. Knows nothing of prompts:
the model has never seen the task that fine-tuning teaches.
"""

import argparse
import json
import math
import string
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune.corpus import Poem, hold_out, is_regulated, leave_out, read, without_repeats
from tangeval import dataset
from tangeval.poem import HAN_PATTERN

