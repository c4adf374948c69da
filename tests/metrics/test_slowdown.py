"""Top-K slowdown, rankings and the competition's score."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import metrics


def test_slowdown_is_its_formula():
  runtimes, scores = [10.0, 12.0, 11.0, 40.0], [1.0, 3.0, 2.0, 4.0]
  assert metrics.topk_slowdown(runtimes, scores, 1) == 40.0 / 10.0 - 1
  assert metrics.topk_slowdown(runtimes, scores, 2) == 12.0 / 10.0 - 1
  assert metrics.topk_slowdown(runtimes, scores, 3) == 11.0 / 10.0 - 1
  assert metrics.topk_slowdown(runtimes, scores, 4) == 0.0
  assert metrics.topk_slowdown(runtimes, scores, 100) == 0.0


def test_normalizers_divide_the_runtimes():
  runtimes, scores, normalizers = [10.0, 30.0], [0.0, 1.0], [10.0, 60.0]
  assert metrics.topk_slowdown(runtimes, scores, 1) == 30 / 10 - 1
  assert metrics.topk_slowdown(runtimes, scores, 1, normalizers) == 0.0
  assert metrics.topk_slowdown(runtimes, [1.0, 0.0], 1, normalizers) == (10 / 10) / (30 / 60) - 1


@hypothesis.given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=30))
def test_slowdown_falls_with_k_and_ends_at_zero(graph):
  runtimes, scores = np.array(graph, np.float64).T
  values = [metrics.topk_slowdown(runtimes, scores, k) for k in range(1, len(graph) + 1)]
  assert values == sorted(values, reverse=True)
  assert values[-1] == 0.0
  assert metrics.topk_slowdown(runtimes, -runtimes, 1) == 0.0


def test_a_ranking_lists_ties_by_index():
  np.testing.assert_array_equal(metrics.ranking([1.0, 2.0, 2.0, 0.0, 2.0]), [1, 2, 4, 0, 3])
  assert metrics.topk_slowdown([3.0, 1.0, 2.0], [0.0, 0.0, 0.0], 1, ties="index") == 2.0
  # Unsigned and smallest integers have no negative of their own type.
  np.testing.assert_array_equal(metrics.ranking(np.array([0, 2, 1], np.uint8)), [1, 2, 0])
  np.testing.assert_array_equal(metrics.ranking(np.array([-128, 127, 0], np.int8)), [1, 2, 0])


@hypothesis.given(st.permutations(range(9)))
def test_scores_from_ranking_inverts_ranking(order):
  np.testing.assert_array_equal(
      metrics.ranking(metrics.scores_from_ranking(order, 9)), order)


def test_scores_from_a_short_ranking():
  np.testing.assert_array_equal(metrics.scores_from_ranking([3, 0], 5), [1, 0, 0, 2, 0])


@pytest.mark.parametrize("indices,message", [
    ([0, 0], "twice"),
    ([0, 3], "names configuration 3; expected indices from 0 to 2"),
    ([-1, 2], "names configuration -1"),
    ([0.0, 1.0], "list of integers"),
    ([[0, 1]], "list of integers"),
])
def test_a_bad_ranking_is_a_data_error(indices, message):
  with pytest.raises(errors.DataError, match=message):
    metrics.scores_from_ranking(indices, 3)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None])
def test_a_bad_k_is_a_config_error(k):
  with pytest.raises(errors.ConfigError, match="k="):
    metrics.topk_slowdown([1.0, 2.0], [1.0, 2.0], k)


def test_an_unknown_way_to_break_ties_is_a_config_error():
  with pytest.raises(errors.ConfigError, match="ties='random'; expected one of: expected, index"):
    metrics.topk_slowdown([1.0, 2.0], [1.0, 2.0], 1, ties="random")


@pytest.mark.parametrize("normalizers", [[1.0], [0.0, 1.0], [math.nan, 1.0], [[1.0, 1.0]]])
def test_bad_normalizers_are_a_data_error(normalizers):
  with pytest.raises(errors.DataError, match="normalizers"):
    metrics.topk_slowdown([1.0, 2.0], [1.0, 2.0], 1, normalizers)


def test_the_competition_breaks_ties_by_index():
  runtimes = np.array([9.0, 8, 7, 6, 5, 1])
  assert metrics.tile_competition_score(runtimes, np.zeros(6)) == 2 - 5 / 1
  assert metrics.tile_competition_score(runtimes[::-1], np.zeros(6)) == 2 - 1 / 1


def test_tile_competition_score_is_its_formula():
  runtimes = np.array([10.0, 12, 13, 14, 15, 16, 17])
  scores = np.array([0.0, 1, 2, 3, 4, 5, 6])
  # The five best scores are the last five; the best of them takes 13.
  assert metrics.tile_competition_score(runtimes, scores) == pytest.approx(2 - 13 / 10)
  assert metrics.tile_competition_score(runtimes, -runtimes) == 1.0
  assert metrics.tile_competition_score(runtimes, scores, runtimes) == 1.0


def test_a_submitted_top_five_scores_like_its_model():
  rng = np.random.default_rng(2)
  runtimes, scores = rng.random(50) + 1, rng.random(50)
  submitted = metrics.scores_from_ranking(metrics.ranking(scores)[:5], 50)
  assert metrics.tile_competition_score(runtimes, submitted) == metrics.tile_competition_score(
      runtimes, scores)


def test_layout_competition_score_is_the_competitions_tau():
  runtimes, scores = [1.0, 2.0, 3.0, 3.0], [4.0, 1.0, 2.0, 2.0]
  # (1,2) (1,3) (1,3) are right, (2,3) (2,3) wrong, the last pair tied.
  assert metrics.layout_competition_score(runtimes, scores) == (3 - 2) / (3 + 2)


def test_competition_score_is_the_mean_of_the_collections_means():
  scores = {name: [0.5, 1.0, math.nan] for name in metrics.COMPETITION_COLLECTIONS}
  scores["tile:xla"] = [0.25]
  result = metrics.competition_score(scores)
  assert result.score == result.partial == (0.25 + 4 * 0.75) / 5
  assert result.missing == ()
  assert result.collections["layout:nlp:default"] == metrics.GraphMean(0.75, 2, 1)


def test_competition_score_names_what_is_missing():
  result = metrics.competition_score({"layout:xla:random": [0.5], "layout:nlp:random": [math.nan]})
  assert math.isnan(result.score)
  assert result.partial == 0.5
  assert result.missing == (
      "tile:xla", "layout:xla:default", "layout:nlp:random", "layout:nlp:default")
  nothing = metrics.competition_score({})
  assert math.isnan(nothing.partial) and nothing.missing == metrics.COMPETITION_COLLECTIONS


def test_competition_score_of_other_collections():
  assert metrics.competition_score({"tile:mine": [0.5]}, ["tile:mine"]).score == 0.5
  with pytest.raises(errors.UnknownNameError, match="layout:nlp:default"):
    metrics.competition_score({"layout:nlp": [0.5]})
