"""Parts of large programs: what computes one of their values, as far back as fits.

Whole programs are too large to be learned from a few dozen of them, and each of their parts is a
program of its own.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Which parts are taken.

  Attributes:
    count: of each program, at most.
    fewest, most: nodes; the largest number is drawn anew for each part.
    sites: fewest operations whose layouts can be requested, see `operations.SITES`.
    seed: of the roots and numbers.
  """

  count: int
  min_nodes: int = 15
  max_nodes: int = 50
  sites: int = 0
  seed: int = 0

  def __post_init__(self) -> None:
    if not (self.count >= 1 and 2 <= self.min_nodes <= self.max_nodes):
      raise errors.ConfigError(
          f"{self.count} parts of {self.min_nodes} to {self.max_nodes} nodes; expected 1 part or more, "
          "and at least 2 nodes")


def sample(nodes: Sequence[nodes_lib.Node], cut: Sampling, rng: np.random.Generator
               ) -> list[list[nodes_lib.Node]]:
  """Distinct parts at random roots; fewer where the program does not have as many.

  Args:
    nodes: operands before users.
    cut: what is taken; its seed is not used here.
    rng: draws roots and numbers of nodes.
  """
  found: list[list[nodes_lib.Node]] = []
  for root in rng.permutation(len(nodes)).tolist():
    if len(found) == cut.count:
      break
    part = cone(nodes, root, int(rng.integers(cut.min_nodes, cut.max_nodes + 1)))
    if len(part) >= cut.min_nodes and ops.count_sites(
        node.operation for node in part) >= cut.sites and part not in found:
      found.append(part)
  return found


def cone(nodes: Sequence[nodes_lib.Node], root: int, most: int) -> list[nodes_lib.Node]:
  """The root, last, and before it what it is computed from, nearer nodes first, up to `most`.

  A node comes with all of its operands. Where these no longer fit, or where its operation is none
  of `operations.ALL`, it becomes a parameter: the part begins there.
  """
  taken, order, begins = {root}, [root], set()
  for place in order:  # Grows on the way.
    node = nodes[place]
    new = [operand for operand in node.operands if operand not in taken]
    if node.operation not in ops.ALL or len(order) + len(new) > most:
      begins.add(place)
      continue
    taken.update(new)
    order += new
  kept = sorted(order)
  moved = {place: number for number, place in enumerate(kept)}
  return [nodes[place]._replace(operation=ops.PARAMETER, operands=()) if place in begins else
          nodes[place]._replace(operands=tuple(moved[operand] for operand in nodes[place].operands))
          for place in kept]
