"""Synthetic layout programs of any size, with random or searched configurations."""

from collections.abc import Iterator

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import partition

# Edges per node, close to those of the public and of the bundled layout programs.
_EDGES_PER_NODE = 1.6
_PERMUTATIONS = np.array(
    [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 2, 3], [0, 2, 1, 3], [-1] * 4], np.int8)


def program(nodes: int, coverage: float, configs: int, seed: int = 0) -> graphs.LayoutGraph:
  """A program with a given share of nodes within one hop of a configurable node.

  Args:
    nodes: number of nodes.
    coverage: that share; the number of configurable nodes is chosen to match it within 1 %.
    configs: number of random configurations.
    seed: seed of all random choices.
  """
  rng = np.random.default_rng(seed)
  user = np.repeat(np.arange(1, nodes), 1 + (rng.random(nodes - 1) < _EDGES_PER_NODE - 1))
  # Most operands are near, as in real programs.
  operand = np.maximum(user - 1 - rng.geometric(0.15, len(user)), 0)
  edges = np.unique(np.stack([user, operand], axis=1), axis=0)
  order = rng.permutation(nodes)
  low, high = 1, nodes
  while high - low > max(nodes // 1000, 1):
    middle = (low + high) // 2
    share = covered(edges, order[:middle], nodes)[0]
    low, high = (middle, high) if share < coverage else (low, middle)
  chosen = np.sort(order[:low])
  return graphs.LayoutGraph(
      name=f"synthetic.{nodes}.{coverage:g}", node_feat=rng.random([nodes, 140], np.float32),
      node_opcode=rng.integers(0, 100, nodes).astype(np.uint8), edge_index=edges,
      config_runtime=np.arange(configs) + 1000, node_config_ids=chosen,
      node_config_feat=random_layouts(len(chosen), configs, rng))


def covered(edges: np.ndarray, starts: np.ndarray, nodes: int) -> tuple[float, float]:
  """Shares of the nodes within one and within two hops of the starts."""
  distance = partition.hops(
      nodes, starts, [(edges[:, 1], edges[:, 0]), (edges[:, 0], edges[:, 1])], 2)
  return float((distance <= 1).mean()), float((distance <= 2).mean())


def random_layouts(nodes: int, configs: int, rng: np.random.Generator) -> np.ndarray:
  """(configs, nodes, 18) int8 layouts, independent for each tensor."""
  layouts = np.full([configs, nodes, 18], -1, np.int8)
  for start in (0, 6, 12):
    layouts[:, :, start:start + 4] = _PERMUTATIONS[
        rng.integers(len(_PERMUTATIONS), size=[configs, nodes])]
  return layouts


def searched_layouts(nodes: int, configs: int, rng: np.random.Generator) -> np.ndarray:
  """(configs, nodes, 18) int8 layouts of a search that changes a few nodes at a time.

  The search starts from the default layouts. Each configuration differs from the best one so far at
  1 + Poisson(2) nodes; one in twenty is better and becomes the new best one.
  """
  return next(searched_blocks(nodes, configs, rng, configs))


def searched_blocks(nodes: int, configs: int, rng: np.random.Generator, size: int
                    ) -> Iterator[np.ndarray]:
  """The same as `searched_layouts`, in blocks of `size`."""
  best = np.full([nodes, 18], -1, np.int8)
  for first in range(0, configs, size):
    layouts = np.empty([min(size, configs - first), nodes, 18], np.int8)
    for place, layout in enumerate(layouts):
      layout[:] = best
      if first + place:
        changed = rng.choice(nodes, min(1 + rng.poisson(2), nodes), replace=False)
        start = rng.choice([0, 6, 12], len(changed))[:, None] + np.arange(4)
        layout[changed[:, None], start] = _PERMUTATIONS[
            rng.integers(len(_PERMUTATIONS), size=len(changed))]
        if rng.random() < 0.05:
          best = layout.copy()
    yield layouts
