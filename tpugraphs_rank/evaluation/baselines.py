"""Baselines that are not fitted: a random order, the default first, sizes, and an analytic cost.

All return scores of the evaluated configurations, (c',) float64, higher = predicted faster. The
boosted trees and LambdaRank are in `tree_scores`.
"""

from collections.abc import Callable, Sequence
import zlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import splits

# Those that order configurations at random.
RANDOM = ("random", "default_configuration")
TRIVIAL = (*RANDOM, "size_heuristic")
BOOSTED_TREES = "boosted_trees"
LAMBDARANK = "lambdarank"
# Fitted to the training split, with hyperparameters from the validation split.
TUNED = (BOOSTED_TREES, LAMBDARANK)
ANALYTIC_COST = "analytic_cost"
NAMES = (*TRIVIAL, ANALYTIC_COST, *TUNED)
# Without LambdaRank, which needs as long as the boosted trees, and whose tau is no better.
DEFAULT = (*TRIVIAL, BOOSTED_TREES)
DETERMINISTIC = ("size_heuristic", ANALYTIC_COST)

# Columns of `config_feat`: the products of a tile's sides.
_KERNEL_VOLUME, _OUTPUT_VOLUME = 7, 15


def random(programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """A random order of each program's configurations.

  The order depends on the seed and the graph's name only, not on the other graphs.
  """
  return [_rng(program.graph, seed).random(len(program.indices)) for program in programs]


def default_index(graph: graphs.Graph) -> int | None:
  """The default configuration of the compiler or collector; None if it cannot be identified.

  Tile: the first configuration whose runtime equals its normalizer, which is the runtime of the
  default. This would choose another configuration with exactly the same runtime and a lower index,
  which is unlikely at nanosecond resolution; the bundled collections list the default first.
  Layout: the first row that contains only -1, which leaves every layout to the compiler.
  """
  if isinstance(graph, graphs.TileGraph):
    if not graph.has_runtimes:
      return None
    defaults = np.flatnonzero(graph.config_runtime == graph.config_runtime_normalizers)
  elif isinstance(graph, graphs.LayoutGraph):
    defaults = np.flatnonzero(_leaves_all(graph))
  else:
    return None
  return int(defaults[0]) if defaults.size else None


def _leaves_all(graph: graphs.LayoutGraph, rows: np.ndarray | None = None) -> np.ndarray:
  """(r,) bool: whether configurations (all, or `rows`) leave every layout to the compiler."""
  return np.concatenate([np.zeros([0], bool), *(
      (block == -1).all(axis=(1, 2)) for block in graph.layout_blocks(rows))])


def has_default(program: splits.ProgramView) -> bool:
  """Whether the default is known and among the program's evaluated configurations."""
  return bool(_is_default(program).any())


def default_place(program: splits.ProgramView) -> int | None:
  """The position of the default among a program's evaluated configurations; None if unknown.

  Of repeats of the default it is the first.
  """
  places = np.flatnonzero(_is_default(program))
  return int(places[0]) if places.size else None


def default_runtime(program: splits.ProgramView, everywhere: bool = True) -> float | None:
  """The runtime of the default, in the unit of `program.runtimes`; None if it is unknown.

  Args:
    program: a graph with runtimes, and its evaluated configurations.
    everywhere: whether to look for a default that is not among the evaluated configurations, too.
  """
  place = default_place(program)
  if place is not None:
    return float(program.runtimes[program.indices[place]])
  index = default_index(program.graph) if everywhere and program.choice is not None else None
  return None if index is None else float(program.runtimes[index])


def default_configuration(programs: Sequence[splits.ProgramView], seed: int = 0
                          ) -> list[np.ndarray]:
  """Ranks the default (and its repeats) first, the others in random order.

  Programs without a known default (see `has_default`) are ranked at random.
  """
  return [scores + _is_default(program)
          for program, scores in zip(programs, random(programs, seed))]


def size_heuristic(programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """Ranks tiles with larger blocks first, and layouts with fewer constraints first.

  Tile: by output elements times reduction elements of a block, then by output elements. Layout: by
  the number of tensors whose layout is not left to the compiler; equal numbers tie.
  """
  del seed  # The order is deterministic.
  return [_size_score(program.graph, program.indices) for program in programs]


def _size_score(graph: graphs.Graph, indices: np.ndarray) -> np.ndarray:
  """(c',) float64."""
  if isinstance(graph, graphs.TileGraph):
    output = np.maximum(graph.config_feat[:, _OUTPUT_VOLUME], 1).astype(np.float64)
    # 0 is the product of no sides: nothing is reduced.
    kernel = np.maximum(graph.config_feat[:, _KERNEL_VOLUME], 1).astype(np.float64)
    keys = np.unique(np.stack([output * kernel, output], axis=1), axis=0, return_inverse=True)[1]
    return keys.reshape(-1)[indices].astype(np.float64)
  if isinstance(graph, graphs.LayoutGraph):
    counts = [(rows.reshape(len(rows), -1, 6) != -1).any(axis=2).sum(axis=1)
              for rows in graph.layout_blocks(indices)]
    return -np.concatenate([np.zeros([0]), *counts])
  raise errors.DataError(f"{graph.name} has no configurations to rank")


def analytic_cost(programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """Ranks tiles by `costs.tile_cost` with its preset weights, which no training changes.

  Raises:
    ConfigError: a program has layouts.
  """
  del seed  # The order is deterministic.
  scores = []
  for program in programs:
    if not isinstance(program.graph, graphs.TileGraph):
      raise errors.ConfigError(
          f"{ANALYTIC_COST} ranks tiles, and {program.graph.name} has layouts; leave it out of "
          "--baselines")
    scores.append(-tile_cost.log_cost(program.graph)[program.indices])
  return scores


_FUNCTIONS: dict[str, Callable[[Sequence[splits.ProgramView], int], list[np.ndarray]]] = {
    "random": random,
    "default_configuration": default_configuration,
    "size_heuristic": size_heuristic,
    ANALYTIC_COST: analytic_cost,
}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the names if all are names of baselines.

  Raises:
    UnknownNameError: one is not; the message lists the baselines.
  """
  for name in names:
    if name not in NAMES:
      raise errors.UnknownNameError(
          f"no baseline {name!r}; expected some of: {', '.join(NAMES)}")
  return tuple(names)


def trivial(name: str, programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """Scores of one of TRIVIAL, or of ANALYTIC_COST.

  Raises:
    UnknownNameError: there is no such baseline.
  """
  if name not in _FUNCTIONS:
    raise errors.UnknownNameError(
        f"no trivial baseline {name!r}; expected one of: {', '.join(_FUNCTIONS)}")
  return _FUNCTIONS[name](programs, seed)


def scores_with_ties(name: str, programs: Sequence[splits.ProgramView]) -> list[np.ndarray] | None:
  """Scores in which the configurations tie that a baseline orders at random; None for the others.

  Slowdowns of tied scores are means over all orders, so that they do not depend on the one order
  that a seed draws.
  """
  if name == "random":
    return [np.zeros(len(program.indices)) for program in programs]
  if name == "default_configuration":
    return [_is_default(program).astype(np.float64) for program in programs]
  return None


def _is_default(program: splits.ProgramView) -> np.ndarray:
  """(c',) bool: which of the evaluated configurations are the default."""
  if isinstance(program.graph, graphs.LayoutGraph):
    # The row alone decides, so configurations that are not evaluated are not read.
    return _leaves_all(program.graph, program.indices)
  index = default_index(program.graph)
  if index is None:
    return np.zeros(len(program.indices), bool)
  keys = program.graph.config_keys()
  return keys[program.indices] == keys[index]


def _rng(graph: graphs.Graph, seed: int) -> np.random.Generator:
  return np.random.default_rng([seed, zlib.crc32(graph.name.encode())])
