"""The loops into which a compiler fuses elementwise operations, and what layouts do to them.

XLA on a CPU vectorises a fused loop over costly functions only if it walks along few arrays,
because it has to check at run time that no two of them overlap. A bias of a layer is such an array
in a row-major loop, but not in a loop along another axis. A request can therefore make a loop
faster in which nothing is copied. A request also splits other loops: broadcasts of one scalar to
one shape are one array, and where two loops want it in different orders, each has its own copy.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank.costs import layout_orders

# A loop with more arrays than this along its minor-most axis is not vectorised. Chosen on the
# training and validation programs of `layout:xla_cpu:mixed:v1`; 4 and 5 do equally well.
WIDEST = 3


@dataclasses.dataclass(frozen=True)
class Loop:
  """A fused loop.

  Attributes:
    nodes: its operations, the last in the program first.
    lengths: lengths of the axes of its result.
    math: elements of its operations that take many instructions each.
    arrays: for each array that it reads, the axes of the result along which the array varies.
    scalars: shapes to which it broadcasts scalars.
  """

  nodes: tuple[int, ...]
  lengths: tuple[int, ...]
  math: float
  arrays: tuple[frozenset[int], ...]
  scalars: frozenset[tuple[int, ...]]

  def arrays_along(self, order: int) -> int:
    """How many arrays vary along the minor-most axis of an order (`layout_orders`)."""
    axes = layout_orders.ORDERS[order]
    if not axes:
      return 0
    minor = layout_orders.long_axes(self.lengths)[axes[0]]
    return sum(minor in varying for varying in self.arrays)

  def wide(self, order: int) -> bool:
    """Whether it walks along more than `WIDEST` arrays."""
    return self.arrays_along(order) > WIDEST


def find(order: Sequence[int], operands: Sequence[Sequence[int]], users: Sequence[Sequence[int]],
         lengths: Sequence[tuple[int, ...]], elements: np.ndarray, math: np.ndarray,
         fusible: np.ndarray, broadcast_axes: dict[int, tuple[int, ...]]) -> list[Loop]:
  """The fused loops of a program, the last one first.

  An operation joins the loop of its users if all of them are in one loop. Others keep their result
  in memory, and so begin a loop.

  Args:
    order: all nodes, every user before its operands.
    operands: of each node.
    users: of each node.
    lengths: of the axes of each node.
    elements: (n,) of each node.
    math: (n,) whether an element takes many instructions.
    fusible: (n,) whether a node is an elementwise operation or a broadcast.
    broadcast_axes: for each broadcast the axes of its result that its operand has.
  """
  scalar = {node for node, axes in broadcast_axes.items() if not axes}
  loop_of: dict[int, int] = {}
  members: dict[int, list[int]] = {}
  for node in order:
    if not fusible[node] or node in scalar or not lengths[node]:
      continue
    above = {loop_of.get(user, -1) for user in users[node]}
    top = above.pop() if len(above) == 1 else -1
    loop_of[node] = top if top >= 0 else node
    members.setdefault(loop_of[node], []).append(node)
  loops = []
  for top in sorted(members, reverse=True):
    nodes = sorted(members[top], reverse=True)
    arrays: dict[int, frozenset[int]] = {}
    scalars = set()
    for node in nodes:
      for operand in operands[node]:
        if operand in scalar:
          scalars.add(lengths[operand])
        elif lengths[operand] and loop_of.get(operand) != top:
          axes = broadcast_axes.get(node, range(len(lengths[operand])))
          arrays[operand] = frozenset(axes if len(lengths[node]) == len(lengths[top])
                                      else range(len(lengths[top])))
    loops.append(Loop(tuple(nodes), lengths[top], float(elements[nodes] @ math[nodes]),
                      tuple(arrays.values()), frozenset(scalars)))
  return loops
