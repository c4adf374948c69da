"""A Markdown table of a stored comparison (`comparison.Comparison.results`)."""

from collections.abc import Mapping
from typing import Any

from tpugraphs_rank import tables
from tpugraphs_rank.evaluation import result_tables

_SHOWN = ("opa", "tau", "tau_within3", "opa_gap5", "top1_slowdown", "top5_slowdown",
          "top10_slowdown")


def seen(results: Mapping[str, Any]) -> str:
  """Rankers on programs of groups that occur in training."""
  return tables.markdown(*result_tables.rows_of(results, "", _SHOWN))
