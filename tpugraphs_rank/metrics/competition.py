"""The score of the TpuGraphs competition ("Predict AI Model Runtime"), per graph and overall."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math

from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import aggregate
from tpugraphs_rank.metrics import pairs
from tpugraphs_rank.metrics import slowdown

COMPETITION_COLLECTIONS: tuple[str, ...] = (
    "tile:xla", "layout:xla:random", "layout:xla:default", "layout:nlp:random",
    "layout:nlp:default")
TILE_K = 5


@dataclasses.dataclass(frozen=True)
class CompetitionScore:
  """The competition's score and its components.

  Attributes:
    score: mean of the collections' means; NaN if a collection is missing, because the competition
      score needs all of them.
    partial: mean of the collections that are present; NaN if there are none.
    collections: the mean of each collection that is present, in the order of the competition.
    missing: the collections without a graph to score.
  """
  score: float
  partial: float
  collections: Mapping[str, aggregate.GraphMean]
  missing: tuple[str, ...]


def tile_competition_score(
    runtimes: ArrayLike,
    scores: ArrayLike,
    normalizers: ArrayLike | None = None,
) -> float:
  """The competition's score of one tile graph.

      1 - slowdown_5 = 2 - min_{i in top 5} y_i / min_i y_i,  y = runtimes / normalizers

  Equal scores are ordered by index. Shapes and errors are as for `topk_slowdown`. For a submitted
  list of indices, pass the `scores_from_ranking` of its first five.
  """
  return 1.0 - slowdown.topk_slowdown(runtimes, scores, TILE_K, normalizers, ties=slowdown.INDEX)


def layout_competition_score(runtimes: ArrayLike, scores: ArrayLike) -> float:
  """The competition's score of one layout graph: (C - D) / (C + D), see `kendall_tau`."""
  return pairs.kendall_tau(runtimes, scores, variant="competition")


def competition_score(
    graph_scores: Mapping[str, Iterable[float]],
    collections: Sequence[str] = COMPETITION_COLLECTIONS,
) -> CompetitionScore:
  """The competition's score: the mean over collections of the mean over their graphs.

      score = 1 / n sum_collection 1 / g sum_graph score(graph)

  Args:
    graph_scores: for each collection the scores of its graphs, from `tile_competition_score` or
      `layout_competition_score`. NaN (a graph with nothing to rank) is skipped and counted.
    collections: the names of the n collections that make up the score.
  Raises:
    UnknownNameError: `graph_scores` names a collection that is not one of them.
    DataError: a score is infinite.
  """
  for name in graph_scores:
    if name not in collections:
      raise errors.UnknownNameError(
          f"unknown collection {name!r} in the competition score; expected one of "
          f"{', '.join(collections)}")
  means = {}
  for name in collections:
    mean = aggregate.mean_over_graphs(list(graph_scores.get(name, ())))
    if mean.graphs:
      means[name] = mean
  missing = tuple(name for name in collections if name not in means)
  partial = aggregate.mean_over_graphs([mean.mean for mean in means.values()]).mean
  return CompetitionScore(math.nan if missing else partial, partial, means, missing)
