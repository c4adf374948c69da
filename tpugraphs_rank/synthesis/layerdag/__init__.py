"""LayerDAG, a generative model of directed acyclic graphs (arXiv 2411.02322).

`LayerDAG`, `load` and `bundled` are imported from `model` on first use, because `model` imports
TensorFlow.
"""

from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
  from tpugraphs_rank.synthesis.layerdag.model import bundled
  from tpugraphs_rank.synthesis.layerdag.model import LayerDAG
  from tpugraphs_rank.synthesis.layerdag.model import load

__all__ = ["LayerDAG", "bundled", "load"]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from tpugraphs_rank.synthesis.layerdag import model
  return getattr(model, name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
