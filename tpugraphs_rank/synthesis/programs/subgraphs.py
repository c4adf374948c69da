"""Samples sub-graphs of large programs: a value and what computes it, up to a size limit.

A few dozen whole programs are too large and too few to learn from; each sub-graph is a program in
its own right.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Which sub-graphs are sampled.

  Attributes:
    count: the largest number of sub-graphs per program.
    min_nodes: the smallest number of nodes.
    max_nodes: the largest number of nodes; each sub-graph's limit is drawn between the two.
    sites: the smallest number of operations whose layouts can be requested; see `operations.SITES`.
    seed: seed of the roots and limits.
  """

  count: int
  min_nodes: int = 15
  max_nodes: int = 50
  sites: int = 0
  seed: int = 0

  def __post_init__(self) -> None:
    if not (self.count >= 1 and 2 <= self.min_nodes <= self.max_nodes):
      raise errors.ConfigError(
          f"{self.count} sub-graphs of {self.min_nodes} to {self.max_nodes} nodes; expected at "
          "least 1 sub-graph and at least 2 nodes")


def sample(nodes: Sequence[nodes_lib.Node], sampling: Sampling, rng: np.random.Generator
           ) -> list[list[nodes_lib.Node]]:
  """Distinct sub-graphs at random roots; fewer where the program does not have enough.

  Args:
    nodes: the program's nodes, operands before users.
    sampling: what is sampled; its seed is not used here.
    rng: source of roots and limits.
  """
  subgraphs: list[list[nodes_lib.Node]] = []
  for root in rng.permutation(len(nodes)).tolist():
    if len(subgraphs) == sampling.count:
      break
    limit = int(rng.integers(sampling.min_nodes, sampling.max_nodes + 1))
    subgraph = cone(nodes, root, limit)
    if len(subgraph) >= sampling.min_nodes and ops.count_sites(
        node.operation for node in subgraph) >= sampling.sites and subgraph not in subgraphs:
      subgraphs.append(subgraph)
  return subgraphs


def cone(nodes: Sequence[nodes_lib.Node], root: int, max_nodes: int) -> list[nodes_lib.Node]:
  """The sub-graph that computes the root, which comes last, with nearer nodes preferred.

  A node comes with all of its operands. Where these no longer fit, or where its operation is not in
  `operations.ALL`, the node becomes a parameter of the sub-graph.
  """
  taken, order, parameters = {root}, [root], set()
  for index in order:  # `order` grows in the loop.
    node = nodes[index]
    new = [operand for operand in node.operands if operand not in taken]
    if node.operation not in ops.ALL or len(order) + len(new) > max_nodes:
      parameters.add(index)
      continue
    taken.update(new)
    order += new
  kept = sorted(order)
  new_index = {index: number for number, index in enumerate(kept)}
  return [nodes[index]._replace(operation=ops.PARAMETER, operands=()) if index in parameters else
          nodes[index]._replace(
              operands=tuple(new_index[operand] for operand in nodes[index].operands))
          for index in kept]
