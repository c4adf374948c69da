"""How a requested layout can travel through a program: what each instruction does with one.

The flow is what `layout_assignment` needs of a program, whatever the configuration. Node features
state the shapes, the permutation of a transpose, and the axes of a broadcast.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from tpugraphs_rank.costs import layout_loops
from tpugraphs_rank.costs import layout_orders
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import operand_roles
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes

# What an instruction does with a layout that its users request of it.
FIXED = 0  # It writes row-major arrays, and a copy follows: products, parameters, reshapes.
LOOP = 1  # It is computed in that order and wants its operands in it.
MATH = 2  # The same, and an element takes many operations.
SUM = 3  # It writes in that order; what it reduces stays row-major.
VIEW = 4  # The same memory under other axes: a transpose.

TENSORS = 3  # Output, input and kernel of a configurable node.
_LENGTHS = slice(features.NODE_FEATURE_NAMES.index("shape_dimensions_0"),
                 features.NODE_FEATURE_NAMES.index("shape_dimensions_0") + layout_orders.MAX_AXES)
_AXES = slice(features.NODE_FEATURE_NAMES.index("dimensions_0"),
              features.NODE_FEATURE_NAMES.index("dimensions_0") + layout_orders.MAX_AXES)
_MATH = """atan2 cbrt cosine exponential exponential-minus-one log log-plus-one logistic power
    remainder rsqrt sine sqrt tan tanh""".split()
_LOOP = """abs add and bitcast-convert ceil clamp compare complex concatenate convert copy divide
    floor imag is-finite maximum minimum multiply negate not or pad popcnt real reduce-precision
    reverse round-nearest-afz round-nearest-even select shift-left shift-right-arithmetic
    shift-right-logical sign slice subtract xor""".split()
_BROADCAST, _TRANSPOSE, _RESHAPE, _CONSTANT = (
    opcodes.opcode_id(name) for name in ("broadcast", "transpose", "reshape", "constant"))
_KINDS = np.zeros(256, np.int8)
for _names, _kind in ((_MATH, MATH), (_LOOP, LOOP), (["broadcast"], LOOP), (["reduce"], SUM),
                      (["transpose"], VIEW)):
  for _name in _names:
    _KINDS[opcodes.opcode_id(_name)] = _kind
_KINDS[opcodes.UNKNOWN_OPCODE_ID] = FIXED
_LARGEST = 2.0 ** 40  # Longer axes are no lengths; products of six of them stay finite.


class Use(NamedTuple):
  """One way in which a node's value is used.

  Attributes:
    user: the node that uses it, or -1 for the caller of the program.
    slot: the request that applies to the value, `TENSORS` * site + tensor; -1: none.
    table: from the orders of the user's value to those of this one, see `layout_orders.moved`; None
      if the user reads a row-major array, whatever is requested of its own value.
  """

  user: int
  slot: int = -1
  table: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Flow:
  """The part of a program that requests can change.

  Attributes:
    nodes: those nodes, users before operands.
    kinds: (n,) FIXED, LOOP, MATH, SUM or VIEW.
    lengths: for each node the lengths of its axes; empty for scalars, tuples and arrays of more
      than six axes.
    elements: (n,) float64.
    item_bytes: (n,) float64 bytes of an element.
    uses: for each node the ways in which its value is used.
    natural: for each transpose among `nodes`, the order of its axes if its operand is row-major.
    read: (n,) float64, elements of the largest operand.
    site_of: for each configurable node its place among them.
    slot_lengths: for each slot the lengths of the tensor's axes.
    loops: the fused loops over costly functions, and those that broadcast scalars.
  """

  nodes: tuple[int, ...]
  kinds: np.ndarray
  lengths: tuple[tuple[int, ...], ...]
  elements: np.ndarray
  item_bytes: np.ndarray
  uses: dict[int, tuple[Use, ...]]
  natural: dict[int, int]
  read: np.ndarray
  site_of: dict[int, int]
  slot_lengths: tuple[tuple[int, ...], ...]
  loops: tuple[layout_loops.Loop, ...]


def flow_of(graph: graphs.LayoutGraph) -> Flow:
  """The flow of a program; takes time in proportion to its nodes and edges."""
  feat = graph.node_feat
  count = graph.num_nodes
  lengths = _lengths(feat)
  volume = np.clip(feat[:, tile_features.VOLUME], 0, _LARGEST).astype(np.float64)
  axes = np.clip(feat[:, _AXES], -1, layout_orders.MAX_AXES).astype(np.int64)
  kinds = _KINDS[graph.node_opcode].copy()
  sites = graph.node_config_ids.tolist()
  kinds[sites] = FIXED
  operands: list[list[int]] = [[] for _ in range(count)]
  users: list[list[int]] = [[] for _ in range(count)]
  for user, operand in graph.edge_index.tolist():
    operands[user].append(operand)
    users[operand].append(user)
  for node in np.flatnonzero((graph.node_opcode == _TRANSPOSE) | (graph.node_opcode == _BROADCAST)):
    if not _plausible(int(node), operands, lengths, axes, graph.node_opcode[node] == _TRANSPOSE):
      kinds[node] = FIXED
  roles = operand_roles.inputs_and_kernels(graph).tolist()
  slots = {node: [(roles[place][tensor - 1], TENSORS * place + tensor)
                  for tensor in range(1, TENSORS if graph.node_opcode[node] != _RESHAPE else 2)]
           for place, node in enumerate(sites)}
  root = tile_features.root(graph)
  uses: dict[int, tuple[Use, ...]] = {}
  natural: dict[int, int] = {}
  reached: list[int] = []
  active = np.zeros(count, bool)
  order = _users_first(operands, users)
  for node in order:
    if len(layout_orders.long_axes(lengths[node])) < 2 or graph.node_opcode[node] == _CONSTANT:
      continue  # One order only, or converted by the compiler.
    found: list[Use] = []
    for user in dict.fromkeys(users[node]):
      requested = [Use(user, slot) for operand, slot in slots.get(user, ()) if operand == node]
      if requested:
        found += requested
      elif active[user] and kinds[user] in (LOOP, MATH, VIEW):
        found.append(Use(user, table=_table(node, user, lengths, axes, graph.node_opcode[user])))
      else:
        found.append(Use(user))
    found.sort(key=lambda use: use.slot < 0)  # What is requested of the value itself comes first.
    if node == root:
      found.append(Use(-1))
    if node in slots or any(use.slot >= 0 or use.table is not None for use in found):
      active[node] = True
      uses[node] = tuple(found)
      reached.append(node)
      if kinds[node] == VIEW:
        natural[node] = _natural(lengths[node], axes[node])
  read = np.array([max((volume[operand] for operand in own), default=0.0) for own in operands])
  slot_lengths = [
      lengths[member] for place, node in enumerate(sites) for member in (node, *roles[place])]
  broadcasts = {
      int(node): tuple(axes[node, :len(lengths[operands[node][0]])].tolist())
      for node in np.flatnonzero((graph.node_opcode == _BROADCAST) & (kinds == LOOP))}
  loops = layout_loops.find(
      order, operands, users, lengths, volume, kinds == MATH, (kinds == LOOP) | (kinds == MATH),
      broadcasts)
  item_bytes = feat[:, tile_features.TYPES] @ tile_features.ITEM_BYTES
  return Flow(
      tuple(reached), kinds, lengths, volume, item_bytes, uses, natural, read,
      {node: place for place, node in enumerate(sites)}, tuple(slot_lengths),
      tuple(loop for loop in loops if loop.math or loop.scalars))


def _lengths(feat: np.ndarray) -> tuple[tuple[int, ...], ...]:
  """For each node the lengths of its axes, as far as its features show all of them."""
  sides = np.clip(feat[:, _LENGTHS], 0, _LARGEST).astype(np.int64)
  product = np.maximum(sides, 1).astype(np.float64).prod(axis=1)
  known = feat[:, tile_features.VOLUME] == product.astype(np.float32)
  rank = np.cumprod(sides > 0, axis=1).sum(axis=1) * known
  return tuple(tuple(row[:size]) for row, size in zip(sides.tolist(), rank.tolist()))


def _plausible(node: int, operands: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]],
               axes: np.ndarray, permutes: bool) -> bool:
  """Whether the axes of a transpose or broadcast agree with the shapes."""
  if len(operands[node]) != 1:
    return False
  taken, written = lengths[operands[node][0]], lengths[node]
  if permutes:
    order = axes[node, :len(written)].tolist()
    return (len(taken) == len(written) and sorted(order) == list(range(len(written)))
            and [taken[axis] for axis in order] == list(written))
  to = axes[node, :len(taken)].tolist()
  return all(0 <= axis < len(written) and written[axis] == length
             for axis, length in zip(to, taken)) and len(set(to)) == len(to)


def _table(node: int, user: int, lengths: Sequence[tuple[int, ...]], axes: np.ndarray, opcode: int
           ) -> np.ndarray | None:
  """The table of `Use` for a user that passes layouts on."""
  if opcode == _TRANSPOSE:
    to = axes[user, :len(lengths[user])].tolist()  # Axis j of the transpose is axis to[j] here.
  elif opcode == _BROADCAST:
    here = axes[user, :len(lengths[node])].tolist()
    to = [here.index(axis) if axis in here else -1 for axis in range(len(lengths[user]))]
  elif len(lengths[node]) == len(lengths[user]):
    to = list(range(len(lengths[user])))
  else:
    return None  # A scalar operand.
  own = layout_orders.long_axes(lengths[node])
  place = {axis: number for number, axis in enumerate(own)}
  return layout_orders.moved(
      tuple(place.get(to[axis], -1) for axis in layout_orders.long_axes(lengths[user])), len(own))


def _natural(lengths: tuple[int, ...], axes: np.ndarray) -> int:
  """The order of a transpose's axes over a row-major operand."""
  long = layout_orders.long_axes(lengths)
  return layout_orders.number_of(
      [long.index(axis) for axis in sorted(long, key=lambda axis: -axes[axis])])


def _users_first(operands: Sequence[Sequence[int]], users: Sequence[Sequence[int]]) -> list[int]:
  """All nodes, every user before its operands. Nodes on a cycle (damaged files) are left out."""
  waiting = [len(own) for own in users]
  order = [node for node in range(len(users) - 1, -1, -1) if not waiting[node]]
  for node in order:  # Grows while it is read.
    for operand in operands[node]:
      waiting[operand] -= 1
      if not waiting[operand]:
        order.append(operand)
  return order
