"""Means over graphs, families, groups and parts; no NaN in JSON."""

import json
import math

import pandas as pd
import pytest

from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import aggregate

COLLECTION = registry.Collection(name="tile:made_up", kind="tile", target="none", splits={})


def _frame(**changes):
  columns = {
      "graph": ["a_1", "a_2", "b_1", "c_1"],
      "family": ["a", "a", "b", "c"],
      "group": ["letters", "letters", "letters", "others"],
      "seen": [True, True, True, False],
      "degenerate": [False, False, True, False],
      "tied": [0.0, 0.5, 1.0, 0.0],
      "opa": [1.0, 0.5, math.nan, 0.25],
      "opa_pairs": [10, 30, 0, 60],
      "kendall_tau": [1.0, 0.0, math.nan, -0.5],
      "top1_slowdown": [0.0, 0.2, 0.0, 0.4]}
  return pd.DataFrame({**columns, **changes})


def test_means_are_their_formulas():
  result = aggregate.aggregate(_frame(), COLLECTION, "test")
  assert result["collection"] == "tile:made_up" and result["split"] == "test"
  assert result["graphs"] == 4 and result["degenerate_graphs"] == 1
  assert result["tied_scores"] == 1.5 / 4 and result["by_family"]["a"]["tied_scores"] == 0.25
  assert result["mean"]["kendall_tau"] == pytest.approx((1.0 + 0.0 - 0.5) / 3)
  assert result["mean"]["top1_slowdown"] == pytest.approx(0.6 / 4)
  assert result["undefined"] == {"opa": 1, "kendall_tau": 1}
  assert result["opa_weighted_by_pairs"] == pytest.approx((10 + 15 + 15) / 100)
  assert result["by_family"]["a"]["mean"]["opa"] == 0.75
  assert result["by_group"]["letters"]["graphs"] == 3
  assert result["mean_over_families"]["top1_slowdown"] == pytest.approx((0.1 + 0.0 + 0.4) / 3)
  assert result["mean_over_groups"]["kendall_tau"] == pytest.approx((0.5 - 0.5) / 2)
  assert result["seen"]["graphs"] == 3 and result["seen"]["mean"]["opa"] == 0.75
  assert result["unseen_groups"]["graphs"] == 1
  assert "mean_over_programs" not in result


def test_a_metric_without_values_is_null():
  result = aggregate.aggregate(_frame(), COLLECTION, "test")
  assert result["by_family"]["b"]["mean"]["opa"] is None
  assert result["by_family"]["b"]["opa_weighted_by_pairs"] is None
  # A family without the metric has no part in the mean over families.
  assert result["mean_over_families"]["opa"] == pytest.approx((0.75 + 0.25) / 2)
  json.dumps(result, allow_nan=False)


def test_the_public_tile_collection_is_reported_per_program():
  result = aggregate.aggregate(
      _frame(), registry.get_collection("tile:xla"), "valid")
  assert result["mean_over_programs"]["kendall_tau"] == pytest.approx((0.5 - 0.5) / 2)


def test_parts():
  frame = _frame()
  assert {suffix: len(select(frame)) for suffix, select in aggregate.parts(frame).items()} == {
      "": 3, "_unseen_groups": 1}
  assert list(aggregate.parts(_frame(seen=[True] * 4))) == [""]
  assert list(aggregate.parts(_frame(seen=[False] * 4))) == ["_unseen_groups"]


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_where_training_is_not_known_there_is_one_part(unknown):
  frame = _frame(seen=[unknown] * 4)
  result = aggregate.aggregate(frame, COLLECTION, "test")
  assert "seen" not in result and "unseen_groups" not in result
  assert {suffix: len(select(frame)) for suffix, select in aggregate.parts(frame).items()} == {
      "": 4}
