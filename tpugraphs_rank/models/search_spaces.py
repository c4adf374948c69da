"""The settings that a sweep searches for a model, and the range of each.

A model may have an attribute `search_space` of the same form, which replaces the space here.
"""

from collections.abc import Mapping
from typing import Any

from tpugraphs_rank import registries

Space = Mapping[str, Mapping[str, Any]]

_EVERY_MODEL: Space = {
    "learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "hidden_width": {"choices": [32, 48, 64, 96, 128]},
    "num_convolutions": {"low": 1, "high": 4},
    "head_widths": {"choices": [[64], [128], [64, 64]]},
    "dropout": {"low": 0.0, "high": 0.3},
    "layer_norm": {"choices": [False, True]},
    "config_skew": {"low": 0.0, "high": 2.0},
    "max_configs": {"choices": [16, 32, 64]},
}
_OF_MODEL: dict[str, Space] = {
    "attention_gnn": {"attention_width": {"choices": [16, 32, 64]}},
}


def of(model: str) -> dict[str, dict[str, Any]]:
  """The search space of a registered model: for each setting its range, see `sweeps.space`."""
  space = getattr(registries.MODELS.get(model), "search_space", None)
  if space is None:
    space = {**_EVERY_MODEL, **_OF_MODEL.get(model, {})}
  return {name: dict(of_setting) for name, of_setting in space.items()}
