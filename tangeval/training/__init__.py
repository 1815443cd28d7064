"""A study of a model while it is trained: ``StudyCallback`` for transformers' Trainer and all that build on it."""

from tangeval.training.callback import Stopping as Stopping
from tangeval.training.callback import StudyCallback as StudyCallback
