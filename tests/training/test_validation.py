"""Ranking metrics on the validation split."""

import numpy as np
import pytest

from tests import synthetic
from tests.helpers import registrations
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank import registries
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import splits
from tpugraphs_rank.training import validation


def _prepared(graphs, choices=None):
  normalizer = normalize.Normalizer.fit(graphs)
  return [batches.prepare(splits.ProgramView(graph, choice), normalizer)
          for graph, choice in zip(graphs, choices or [None] * len(graphs))]


def test_the_metrics_that_can_be_chosen():
  assert set(validation.STANDARD) == set(registries.VALIDATION_METRICS.names())
  assert [name for name in validation.STANDARD if validation.higher_is_better(name)] == [
      "kendall_tau", "opa"]


def test_a_registered_metric_is_computed_where_it_is_selected():
  metrics.register("last_score", lambda runtimes, scores: scores[-1], higher_is_better=False)
  try:
    graphs = [synthetic.tile_graph(seed, num_configs=3) for seed in range(2)]
    scores = [np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, np.nan])]
    actual = validation.ranking_metrics(_prepared(graphs[:1]), scores[:1], "last_score")
    assert actual["last_score"] == 3.0
    assert set(actual) == {*validation.STANDARD, "last_score"}
    assert not validation.higher_is_better("last_score")
  finally:
    registries.VALIDATION_METRICS.unregister("last_score")


@pytest.mark.parametrize(("function", "message"), [
    (lambda runtimes, scores: None, "returns NoneType; expected a number"),
    (lambda runtimes, scores: scores, "returns ndarray; expected a number"),
    (lambda runtimes, scores: scores[99], r"fails: IndexError: .*test_validation.py:\d+\)$"),
])
def test_a_wrong_metric_is_named(function, message):
  with registrations.undone():
    metrics.register("mine", function, higher_is_better=True)
    with pytest.raises(errors.ConfigError, match="the validation metric 'mine' " + message):
      validation.ranking_metrics(
          _prepared([synthetic.tile_graph(0, num_configs=3)]), [np.arange(3.0)], "mine")


def test_means_over_graphs_of_the_usable_configurations():
  prepared = _prepared([synthetic.tile_graph(seed, num_configs=20) for seed in range(3)],
                       [None, np.array([1, 4, 6, 9]), np.array([0, 2, 3])])
  rng = np.random.default_rng(0)
  scores = [rng.normal(size=len(member.choice)) for member in prepared]
  actual = validation.ranking_metrics(prepared, scores)
  lists = [(member.runtimes[member.choice], score) for member, score in zip(prepared, scores)]
  expected = {"kendall_tau": np.mean([metrics.kendall_tau(*pair) for pair in lists]),
              "opa": np.mean([metrics.opa(*pair) for pair in lists]),
              **{f"top{k}_slowdown": np.mean([metrics.topk_slowdown(*pair, k) for pair in lists])
                 for k in (1, 5, 10)}}
  assert actual == pytest.approx(expected)


def test_runtimes_are_relative_to_the_normalizers():
  graph = synthetic.tile_graph(
      0, num_configs=3, config_runtime=np.array([10, 20, 30]),
      config_runtime_normalizers=np.array([1, 10, 30]))
  actual = validation.ranking_metrics(_prepared([graph]), [np.array([0.0, 1.0, 2.0])])
  assert actual["kendall_tau"] == 1.0 and actual["opa"] == 1.0  # 10, 2 and 1 times the default.
  assert actual["top1_slowdown"] == 0.0


def test_graphs_without_a_pair_to_order_are_left_out():
  equal = synthetic.tile_graph(0, num_configs=3, config_runtime=np.array([7, 7, 7]),
                               config_runtime_normalizers=np.array([7, 7, 7]))
  other = synthetic.tile_graph(1, num_configs=3, config_runtime=np.array([1, 2, 3]),
                               config_runtime_normalizers=np.array([1, 1, 1]))
  scores = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])]
  actual = validation.ranking_metrics(_prepared([equal, other]), scores)
  assert actual["kendall_tau"] == 1.0 and actual["opa"] == 1.0


@pytest.mark.parametrize("count", [3, 1])
def test_equal_runtimes_everywhere_give_no_metric(count):
  graph = synthetic.tile_graph(0, num_configs=count, config_runtime=np.full(count, 7),
                               config_runtime_normalizers=np.full(count, 7))
  actual = validation.ranking_metrics(_prepared([graph]), [np.arange(float(count))])
  assert set(actual) == set(validation.STANDARD) and set(actual.values()) == {None}
