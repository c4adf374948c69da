"""Learning to rank compiler configurations by runtime.

The names below are imported when they are first used: importing the package costs almost nothing,
and neither it nor reading data or computing a metric imports TensorFlow; `load_run` does.
"""

import importlib
from typing import Any, List, TYPE_CHECKING

from tpugraphs_rank import errors

if TYPE_CHECKING:  # What `_LAZY` says, for type checkers and editors, which do not run it.
  from tpugraphs_rank.data import LayoutGraph
  from tpugraphs_rank.data import load_collection
  from tpugraphs_rank.data import load_graph
  from tpugraphs_rank.data import register_collection
  from tpugraphs_rank.data import TileGraph
  from tpugraphs_rank.metrics import competition_score
  from tpugraphs_rank.metrics import kendall_tau
  from tpugraphs_rank.metrics import opa
  from tpugraphs_rank.metrics import topk_slowdown
  from tpugraphs_rank.training.run import load_run

__version__ = "0.1.0"

_LAZY = {
    "LayoutGraph": "tpugraphs_rank.data",
    "TileGraph": "tpugraphs_rank.data",
    "competition_score": "tpugraphs_rank.metrics",
    "kendall_tau": "tpugraphs_rank.metrics",
    "load_collection": "tpugraphs_rank.data",
    "load_graph": "tpugraphs_rank.data",
    "load_run": "tpugraphs_rank.training.run",
    "opa": "tpugraphs_rank.metrics",
    "register_collection": "tpugraphs_rank.data",
    "topk_slowdown": "tpugraphs_rank.metrics",
}

__all__ = [
    "LayoutGraph",
    "TileGraph",
    "__version__",
    "competition_score",
    "errors",
    "kendall_tau",
    "load_collection",
    "load_graph",
    "load_run",
    "opa",
    "register_collection",
    "topk_slowdown",
]


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  value = getattr(importlib.import_module(_LAZY[name]), name)
  globals()[name] = value  # The next use finds it without this function.
  return value


def __dir__() -> list[str]:
  return sorted(set(globals()) | set(__all__))
