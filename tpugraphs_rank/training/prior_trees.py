"""Boosted trees of a run's prior, which rank tiles of kernels unlike those of training.

They see `costs.tile_relative` only: neither operations nor shapes, so that what they learn carries
over. The score falls with every term of the cost while all else is equal, which keeps it sensible
far from the training kernels. The target is the place of a configuration among those of its kernel.
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
  table = trees.make_table(np.concatenate(features), [places(values) for values in runtimes])
  return tree_arrays.joined([
      tree_arrays.from_regressor(
          trees.fit_table(table, SETTINGS, FITS * seed + number, _FALLING).regressor,
          table.columns.kept, features[0].shape[1], table.columns.edges)
      for number in range(fits)])
