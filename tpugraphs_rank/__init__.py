"""Learning to rank compiler configurations by runtime.

    import tpugraphs_rank as tgr
    run = tgr.train("tile:xla_cpu", "runs/first", epochs=10)
    print(run.evaluate("test").summary())
    graph = tgr.load_collection("tile:xla_cpu", "test")[0]
    best = tgr.load_run("bundled:tile_xla_cpu").rank(graph, k=5)

The names below are imported on first use, so importing the package takes almost no time. Reading
data and computing metrics does not import TensorFlow; `train`, `load_run`, `models` and `losses`
do.
"""

import importlib
import os
from typing import Any, TYPE_CHECKING

from tpugraphs_rank import errors

if TYPE_CHECKING:  # The same names as in `_LAZY`, for type checkers and editors.
  from tpugraphs_rank import losses
  from tpugraphs_rank import metrics
  from tpugraphs_rank import models
  from tpugraphs_rank import sklearn
  from tpugraphs_rank import tuning as tune
  from tpugraphs_rank.api import load_run
  from tpugraphs_rank.api import Run
  from tpugraphs_rank.api import train
  from tpugraphs_rank.data import LayoutGraph
  from tpugraphs_rank.data import load_collection
  from tpugraphs_rank.data import load_graph
  from tpugraphs_rank.data import register_collection
  from tpugraphs_rank.data import TileGraph
  from tpugraphs_rank.metrics import competition_score
  from tpugraphs_rank.metrics import kendall_tau
  from tpugraphs_rank.metrics import opa
  from tpugraphs_rank.metrics import topk_slowdown

__version__ = "0.1.0"

# The module of each name; a name without an attribute is the module itself.
_LAZY = {
    "LayoutGraph": "tpugraphs_rank.data:LayoutGraph",
    "Run": "tpugraphs_rank.api:Run",
    "TileGraph": "tpugraphs_rank.data:TileGraph",
    "competition_score": "tpugraphs_rank.metrics:competition_score",
    "kendall_tau": "tpugraphs_rank.metrics:kendall_tau",
    "load_collection": "tpugraphs_rank.data:load_collection",
    "load_graph": "tpugraphs_rank.data:load_graph",
    "load_run": "tpugraphs_rank.api:load_run",
    "losses": "tpugraphs_rank.losses",
    "metrics": "tpugraphs_rank.metrics",
    "models": "tpugraphs_rank.models",
    "opa": "tpugraphs_rank.metrics:opa",
    "register_collection": "tpugraphs_rank.data:register_collection",
    "sklearn": "tpugraphs_rank.sklearn",
    "topk_slowdown": "tpugraphs_rank.metrics:topk_slowdown",
    "train": "tpugraphs_rank.api:train",
    "tune": "tpugraphs_rank.tuning",
}

__all__ = [
    "LayoutGraph",
    "Run",
    "TileGraph",
    "__version__",
    "competition_score",
    "errors",
    "kendall_tau",
    "load_collection",
    "load_graph",
    "load_run",
    "losses",
    "metrics",
    "models",
    "opa",
    "register_collection",
    "sklearn",
    "topk_slowdown",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  # If this imports TensorFlow, its start-up messages would hide everything else.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  module, _, attribute = _LAZY[name].partition(":")
  value: Any = importlib.import_module(module)
  if attribute:
    value = getattr(value, attribute)
  globals()[name] = value  # The next use does not call this function.
  return value


def __dir__() -> list[str]:
  return sorted(set(globals()) | set(__all__))
