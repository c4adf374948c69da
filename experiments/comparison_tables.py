"""Markdown tables of stored comparisons (`comparison.Comparison.results`)."""

from collections.abc import Mapping
from typing import Any

from tpugraphs_rank import tables
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import result_tables

_SHOWN = ("opa", "tau", "tau_within3", "opa_gap5", "top1_slowdown", "top5_slowdown",
          "top10_slowdown")
_SUMMARY = ("opa", "tau", "top1_slowdown", "top5_slowdown")
_SHOWN_OF_LAYOUTS = ("opa", "tau", "opa_gap5", "top1_slowdown", "top10_slowdown")


def summary(results: Mapping[str, Any]) -> str:
  """The main figures of rankers on programs of groups that occur in training."""
  return tables.markdown(*result_tables.rows_of(results, "", _SUMMARY))


def seen(results: Mapping[str, Any]) -> str:
  """Rankers on programs of groups that occur in training."""
  return tables.markdown(*result_tables.rows_of(results, "", _SHOWN))


def layouts(results: Mapping[str, Any]) -> str:
  """Rankers of layouts; top-100 figures are omitted, because most programs have fewer layouts."""
  return tables.markdown(*result_tables.rows_of(results, "", _SHOWN_OF_LAYOUTS))


def unseen_groups(results: Mapping[str, Any]) -> str:
  """Rankers on programs of groups that do not occur in training."""
  return tables.markdown(*result_tables.rows_of(results, "_unseen_groups", _SHOWN))


def differences(results: Mapping[str, Any]) -> str:
  """Paired gains of each model over each baseline, with intervals."""
  blocks = []
  for model, by_baseline in results["paired_differences"].items():
    intervals = {
        baseline: {metric: bootstrap.Interval(**value) for metric, value in metrics.items()}
        for baseline, metrics in by_baseline.items()}
    blocks.append(tables.markdown(*result_tables.difference_rows(model, intervals)))
  return "\n".join(blocks)
