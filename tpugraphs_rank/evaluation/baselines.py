"""Rankers that a model must beat: trivial ones, and boosted trees on hand-made features.

All give scores of the configurations that take part, (c',) float64, higher = predicted faster.
"""

from collections.abc import Callable, Sequence
import zlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import splits

TRIVIAL = ("random", "default_configuration", "size_heuristic")
BOOSTED_TREES = "boosted_trees"
NAMES = (*TRIVIAL, BOOSTED_TREES)
DETERMINISTIC = ("size_heuristic",)

# Columns of `config_feat`: products over the sides of a tile.
_KERNEL_VOLUME, _OUTPUT_VOLUME = 7, 15


def random(programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """A random order of each program's configurations.

  It depends on the seed and the graph's name, not on which other graphs there are.
  """
  return [_rng(program.graph, seed).random(len(program.indices)) for program in programs]


def default_index(graph: graphs.Graph) -> int | None:
  """The compiler's (or collector's) default configuration; None where it cannot be told.

  Tile: the first configuration whose runtime equals its normalizer, which is the runtime of the
  default. Another configuration with exactly the same runtime and a lower index would be taken for
  it; at nanosecond resolution that hardly happens, and the bundled collections list the default
  first. Layout: the first row of -1 alone, which leaves every layout to the compiler.
  """
  if isinstance(graph, graphs.TileGraph):
    if not graph.has_runtimes:
      return None
    found = np.flatnonzero(graph.config_runtime == graph.config_runtime_normalizers)
  elif isinstance(graph, graphs.LayoutGraph):
    found = np.flatnonzero(_leaves_all(graph))
  else:
    return None
  return int(found[0]) if found.size else None


def _leaves_all(graph: graphs.LayoutGraph, rows: np.ndarray | None = None) -> np.ndarray:
  """(r,) bool: the configurations, all or `rows` (r,), that leave every layout to the compiler."""
  return np.concatenate([np.zeros([0], bool), *(
      (block == -1).all(axis=(1, 2)) for block in graph.layout_blocks(rows))])


def has_default(program: splits.ProgramView) -> bool:
  """Whether the default is known and among the program's usable configurations."""
  return bool(_is_default(program).any())


def default_configuration(programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """The default (and its repeats) first, the others in random order.

  Programs without a default (see `has_default`) are ranked at random.
  """
  return [scores + _is_default(program)
          for program, scores in zip(programs, random(programs, seed))]


def size_heuristic(programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """Tile: larger blocks first. Layout: fewer constraints first.

  Tile: by output elements times reduction elements of a block; among equals, more output elements
  first. Layout: by the number of tensors whose layout is not left to the compiler; equals tie.
  """
  del seed  # Nothing is random here.
  return [_size_score(program.graph, program.indices) for program in programs]


def _size_score(graph: graphs.Graph, indices: np.ndarray) -> np.ndarray:
  """(c',) float64."""
  if isinstance(graph, graphs.TileGraph):
    output = np.maximum(graph.config_feat[:, _OUTPUT_VOLUME], 1).astype(np.float64)
    # The product of no sides is stored as 0: nothing is reduced.
    kernel = np.maximum(graph.config_feat[:, _KERNEL_VOLUME], 1).astype(np.float64)
    keys = np.unique(np.stack([output * kernel, output], axis=1), axis=0, return_inverse=True)[1]
    return keys.reshape(-1)[indices].astype(np.float64)
  if isinstance(graph, graphs.LayoutGraph):
    counts = [(rows.reshape(len(rows), -1, 6) != -1).any(axis=2).sum(axis=1)
              for rows in graph.layout_blocks(indices)]
    return -np.concatenate([np.zeros([0]), *counts])
  raise errors.DataError(f"{graph.name} has no configurations to rank")


_FUNCTIONS: dict[str, Callable[[Sequence[splits.ProgramView], int], list[np.ndarray]]] = {
    "random": random,
    "default_configuration": default_configuration,
    "size_heuristic": size_heuristic,
}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
  """The names, if all are baselines.

  Raises:
    UnknownNameError: one is not; the message lists those there are.
  """
  for name in names:
    if name not in NAMES:
      raise errors.UnknownNameError(
          f"no baseline {name!r}; expected some of: {', '.join(NAMES)}")
  return tuple(names)


def trivial(name: str, programs: Sequence[splits.ProgramView], seed: int = 0) -> list[np.ndarray]:
  """Scores of one of TRIVIAL; `trees` has the boosted trees, which must be trained.

  Raises:
    UnknownNameError: there is no such baseline.
  """
  if name not in _FUNCTIONS:
    raise errors.UnknownNameError(
        f"no trivial baseline {name!r}; expected one of: {', '.join(TRIVIAL)}")
  return _FUNCTIONS[name](programs, seed)


def _is_default(program: splits.ProgramView) -> np.ndarray:
  """(c',) bool: the usable configurations that are the default."""
  if isinstance(program.graph, graphs.LayoutGraph):
    # Told from the row alone; the configurations that take no part are not read.
    return _leaves_all(program.graph, program.indices)
  index = default_index(program.graph)
  if index is None:
    return np.zeros(len(program.indices), bool)
  keys = program.graph.config_keys()
  return keys[program.indices] == keys[index]


def _rng(graph: graphs.Graph, seed: int) -> np.random.Generator:
  return np.random.default_rng([seed, zlib.crc32(graph.name.encode())])
