"""An axolotl plug-in: the configuration's ``tangeval`` section is what ``StudyCallback`` takes.

In: axolotl's configuration and its trainer. Out: the callback. axolotl is no part of tangeval.
"""

from typing import Any

from pydantic import BaseModel

from tangeval.training.callback import Stopping, StudyCallback

try:
    from axolotl.integrations.base import BasePlugin
except ModuleNotFoundError:  # then nobody asks for the plug-in, and its documentation can still be made
    BasePlugin = object


class StudyArgs(BaseModel):
    """The key that axolotl's configuration gets."""

    tangeval: dict[str, Any] | None = None


class StudyPlugin(BasePlugin):  # type: ignore[misc]
    """``plugins: [tangeval.training.axolotl.StudyPlugin]``"""

    def get_input_args(self) -> str:
        return f"{__name__}.{StudyArgs.__name__}"

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[StudyCallback]:
        asked = dict(cfg["tangeval"] or {})
        stop = asked.pop("stop", None)
        return [StudyCallback(**asked, stop=Stopping(**stop) if stop else None, trainer=trainer)]
