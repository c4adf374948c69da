"""Boosted trees of a run's prior, which rank tiles of kernels unlike those of training.

They see `costs.tile_relative` only: neither operations nor shapes, so that what they learn carries
over. The score falls with every term of the cost while all else is equal, which keeps it sensible
far from the training kernels. The target is the place of a configuration among those of its kernel.

Kernels that add up floating-point numbers, those that add up integers, and all others have trees of
their own: the same loops make one kind fast and another slow.
"""

from collections.abc import Sequence

import numpy as np

from tpugraphs_rank import metrics
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_relative
from tpugraphs_rank.data import graphs
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.evaluation import trees

FILE = "prior.npz"
SETTINGS = trees.Settings(iterations=80, learning_rate=0.1)
FITS = 3  # Their scores are averaged.
# A kind with fewer training kernels gets the trees of all kernels.
LEAST_OF_A_KIND = 12
# The first columns of `tile_relative.features` are the terms, then their shares, then the cost.
_FALLING = (*range(len(tile_cost.TERMS)), 2 * len(tile_cost.TERMS), 2 * len(tile_cost.TERMS) + 1)


def rows_of(graph: graphs.TileGraph, facts: targets.TargetFacts,
            terms: np.ndarray | None = None) -> np.ndarray:
  """(c, f) float32: all configurations of a kernel, as `tile_relative.features`."""
  return tile_relative.features(graph, facts, terms).astype(np.float32)


def places(runtimes: np.ndarray) -> np.ndarray:
  """(c,) the targets for runtimes (c,): places, higher = faster, with mean 0 and deviation 1.

  Equal runtimes have equal targets. If all are equal, the targets are 0.
  """
  ranks = metrics.mean_ranks(runtimes)
  return (ranks - ranks.mean()) / max(float(ranks.std()), 1e-9)


def fit(features: Sequence[np.ndarray], runtimes: Sequence[np.ndarray], seed: int,
        fits: int = FITS) -> tree_arrays.TreeArrays:
  """Fits the trees.

  Args:
    features: for each kernel (c', f) the rows of `rows_of` that were measured.
    runtimes: for each kernel (c',).
    seed: of the fits.
    fits: how many have their scores averaged.
  """
  kinds = [int(rows[0, tile_relative.KIND]) for rows in features]
  everything = range(len(kinds))
  of_kinds: dict[tuple[int, ...], tree_arrays.TreeArrays] = {}
  parts = []
  for kind in tile_relative.KINDS:
    chosen = tuple(place for place in everything if kinds[place] == kind)
    if len(chosen) < LEAST_OF_A_KIND:
      chosen = tuple(everything)
    if chosen not in of_kinds:
      of_kinds[chosen] = _fit([features[place] for place in chosen],
                              [runtimes[place] for place in chosen], seed, fits)
    parts.append(of_kinds[chosen])
  return tree_arrays.routed(parts, tile_relative.KIND)


def _fit(features: Sequence[np.ndarray], runtimes: Sequence[np.ndarray], seed: int, fits: int
         ) -> tree_arrays.TreeArrays:
  """The same for kernels that share their trees."""
  table = trees.make_table(np.concatenate(features), [places(values) for values in runtimes])
  return tree_arrays.joined([
      tree_arrays.from_regressor(
          trees.fit_table(table, SETTINGS, FITS * seed + number, _FALLING).regressor,
          table.columns.kept, features[0].shape[1], table.columns.edges)
      for number in range(fits)])
