"""An axolotl plug-in: the configuration's ``tangeval`` section is what ``StudyCallback`` takes.

In: axolotl's configuration and its trainer. Out: the callback. axolotl is no part of tangeval.
"""

from typing import Any

from pydantic import BaseModel

from tangeval.core.config import Section, validated
from tangeval.training.callback import DEFAULT, Stopping, StudyCallback

try:
    from axolotl.integrations.base import BasePlugin
except ModuleNotFoundError:  # then nobody asks for the plug-in, and its documentation can still be made
    BasePlugin = object


class StudyArgs(BaseModel):
    """The key that axolotl's configuration gets."""

    tangeval: dict[str, Any] | None = None


class _Stop(Section):
    metric: str = Stopping.metric
    patience: int = Stopping.patience
    alpha: float = Stopping.alpha


class _Asked(Section):
    study: str = str(DEFAULT)
    steps: int | None = None
    minutes: float | None = None
    stop: _Stop | None = None


class StudyPlugin(BasePlugin):  # type: ignore[misc]
    """``plugins: [tangeval.training.axolotl.StudyPlugin]``"""

    def get_input_args(self) -> str:
        return f"{__name__}.{StudyArgs.__name__}"

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[StudyCallback]:
        asked = validated(_Asked, dict(cfg["tangeval"] or {}), "tangeval")
        stop = Stopping(**dict(asked.stop)) if asked.stop else None
        return [
            StudyCallback(asked.study, steps=asked.steps, minutes=asked.minutes, stop=stop, trainer=trainer)
        ]
