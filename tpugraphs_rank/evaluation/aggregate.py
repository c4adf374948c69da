"""Aggregates of a frame of `per_graph.evaluate` as JSON values, without NaN."""

from collections.abc import Callable
import math
from typing import Any

import numpy as np
import pandas as pd

from tpugraphs_rank import metrics
from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import per_graph

# The results of this collection include a mean over programs. Its families are its programs.
_BY_PROGRAM = "tile:xla"


def summary(frame: pd.DataFrame) -> dict[str, Any]:
  """Means over the graphs of a frame.

  Returns:
    `graphs`: the number of graphs. `mean`: the mean of each metric, None if no graph has it.
    `undefined`: for each metric the number of graphs without it (they have one configuration or
    equal runtimes), if there are any. `degenerate_graphs`: the number of graphs whose scores are
    all equal. `tied_scores`: mean share of configurations whose score another one has, too; None if
    unknown. `opa_weighted_by_pairs`: the share of correct pairs over all graphs, which is what
    TensorFlow Ranking's `OPAMetric` reports.
  """
  means = {name: metrics.mean_over_graphs(frame[name].to_numpy(np.float64))
           for name in per_graph.metric_columns(frame)}
  weighted = metrics.mean_over_graphs(
      frame["opa"].to_numpy(np.float64), frame["opa_pairs"].to_numpy(np.float64))
  return {
      "graphs": len(frame),
      "mean": {name: _number(mean.mean) for name, mean in means.items()},
      "undefined": {name: mean.skipped for name, mean in means.items() if mean.skipped},
      "opa_weighted_by_pairs": _number(weighted.mean),
      "degenerate_graphs": int(frame["degenerate"].sum()),
      "tied_scores": _number(float(frame["tied"].mean())) if "tied" in frame else None,
  }


def aggregate(frame: pd.DataFrame, collection: registry.Collection, split: str) -> dict[str, Any]:
  """All aggregates of one ranker on one split.

  Returns:
    `collection`, `split`, and the `summary` of all graphs. `by_family` and `by_group`: the summary
    of each family and group. `mean_over_families` and `mean_over_groups`: means of their means, so
    that all families have equal weight. `seen` and `unseen_groups`: the summaries of the graphs
    whose group has a family in training and of those whose group has none, if that is known and
    there are such graphs. For the public tile collection, `mean_over_programs`.
  """
  result = {"collection": collection.name, "split": split, **summary(frame)}
  for column, many in (("family", "families"), ("group", "groups")):
    parts = {name: summary(part) for name, part in frame.groupby(column, sort=True)}
    result[f"mean_over_{many}"] = {
        metric: _number(metrics.mean_over_graphs(
            [math.nan if part["mean"][metric] is None else part["mean"][metric]
             for part in parts.values()]).mean)
        for metric in result["mean"]}
    result[f"by_{column}"] = parts
  if collection.name == _BY_PROGRAM:
    result["mean_over_programs"] = {
        metric: _number(metrics.mean_over_programs(frame[metric].to_numpy(np.float64),
                                                   frame["graph"]))
        for metric in result["mean"]}
  for name, part in (("seen", seen(frame)), ("unseen_groups", unseen(frame))):
    if len(part):
      result[name] = summary(part)
  return result


def seen(frame: pd.DataFrame) -> pd.DataFrame:
  """The graphs whose group has a family in training."""
  return frame[[not pd.isna(value) and bool(value) for value in frame["seen"]]]


def unseen(frame: pd.DataFrame) -> pd.DataFrame:
  """The graphs whose group has no family in training."""
  return frame[[not pd.isna(value) and not value for value in frame["seen"]]]


def parts(frame: pd.DataFrame) -> dict[str, Callable[[pd.DataFrame], pd.DataFrame]]:
  """The parts of a split that are reported separately, each with the function that selects it.

  The keys are suffixes of the names of results: "" for graphs of groups that training saw (or for
  all graphs if that is unknown), "_unseen_groups" for the others. Parts without graphs are left
  out.
  """
  if frame["seen"].isna().any():
    return {"": lambda other: other}
  every = {"": seen, "_unseen_groups": unseen}
  return {suffix: select for suffix, select in every.items() if len(select(frame))}


def _number(value: float) -> float | None:
  """None instead of NaN, which JSON does not have."""
  return None if math.isnan(value) else float(value)
