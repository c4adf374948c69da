"""Tables of `results/attention_*_v1.json`: both networks on the first bundled collections.

Earlier versions of the demo wrote the files, at commits that they name. `quality_study --attention`
compares the networks on the present collections.
"""

from collections.abc import Mapping
from typing import Any

from tpugraphs_rank import tables
from tpugraphs_rank.evaluation import result_tables

_PARTS = {"models": "all", "models_unseen_groups": "unseen groups"}
_RANKERS = ("residual_gnn", "attention_gnn", "boosted_trees")
_SHOWN = ("tau", "top1_slowdown", "top5_slowdown", "top10_slowdown")


def table(stored: Mapping[str, Any]) -> str:
  """One row for each part of the test split and each ranker, with deviations over seeds."""
  titles = _PARTS if "models_unseen_groups" not in stored else {
      **_PARTS, "models": "families of training"}
  return tables.markdown(
      ["test programs", "ranker", *(result_tables.TITLES[name] for name in _SHOWN)],
      [[title, ranker, *(result_tables.cell(name, stored[part][ranker][name]) for name in _SHOWN)]
       for part, title in titles.items() if part in stored for ranker in _RANKERS])
