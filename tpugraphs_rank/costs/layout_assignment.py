"""A simulated layout assignment: which copies and loops each requested layout causes.

The rules are those of XLA's layout assignment on a CPU (checked against its output for version
0.10.2 of JAX). A request for an operand travels backward, through elementwise operations,
broadcasts, slices and transposes, so that these run in the requested order. It ends at products,
convolutions, reshapes and parameters, whose arrays are row-major: a copy follows them. Where two
requests meet, the one for the value itself wins, otherwise the first user's, and the others copy.
Requests do not travel forward: after a request for an output, a copy restores the row-major order
for the users. A product copies an operand back to row-major order. On hardware that pads arrays to
register tiles, products run in the requested layouts, and padding is what layouts change.

Every copy and every changed loop has one request as its cause. Numbers are relative to the
default, which requests nothing; a request that saves a copy has a negative number.
"""

from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

import numpy as np

from tpugraphs_rank.costs import layout_flow
from tpugraphs_rank.costs import layout_loops
from tpugraphs_rank.costs import layout_orders
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs

# The effects of a request, in elements; "runs" counts inner loops, elements / length of the
# minor-most axis.
EFFECTS: dict[str, str] = {
    "copy_near": "elements of copies that change the minor-most axis, reused in the first cache",
    "copy_middle": "the same, reused in the last cache",
    "copy_far": "the same, reused in no cache",
    "copy_outer": "elements of copies that change the order of outer axes only",
    "copy_runs": "inner loops of copies",
    "loop_changed": "elements of cheap loops that run in another order",
    "loop_runs": "more inner loops of cheap loops than by default",
    "math_changed": "elements of loops over costly functions that run in another order",
    "math_runs": "more inner loops over costly functions than by default",
    "sum_changed": "elements that are reduced to a result in another order",
    "math_wide": "more elements of costly functions in loops that are not vectorised",
    "math_split": "elements of costly functions in wide loops that a copy of a constant splits",
    "barrier": "elements of loops that are kept in memory because of the request",
    "row_major": "elements of tensors that are requested in row-major order",
    "padding": "more elements than by default after padding to register tiles",
}
_COLUMN = {name: column for column, name in enumerate(EFFECTS)}
_Costs = dict[str, float]
_LINE_BYTES = 64


class _Demand(NamedTuple):
  """The layout in which something wants a value, by configuration: number and cause, (c,)."""

  order: np.ndarray
  slot: np.ndarray


class Assignment:
  """Simulates the layout assignment of one program."""

  def __init__(self, graph: graphs.LayoutGraph, facts: targets.TargetFacts):
    """Prepares the program.

    Args:
      graph: the program; its configurations are not read.
      facts: the hardware. `register_tile` (1, 1) means that products need row-major arrays.
    """
    self._flow = layout_flow.flow_of(graph)
    self._facts = facts
    self._pads = facts.register_tile != (1, 1)
    self._slots = len(self._flow.slot_lengths)
    self._copies = functools.cache(self._copy_costs)
    self._loops = functools.cache(self._loop_costs)

  def effects(self, layouts: np.ndarray) -> np.ndarray:
    """What each request causes.

    Args:
      layouts: (c, nc, 18) integers -1..5, as in `node_config_feat`.

    Returns:
      (c, nc, 3, len(EFFECTS)) float32, for the requests of each node's output, input and kernel.
    """
    count = len(layouts)
    requests = [layout_orders.requested(
        layouts[:, slot // layout_flow.TENSORS, axis:axis + layout_orders.MAX_AXES], lengths)
                for slot, lengths in enumerate(self._flow.slot_lengths)
                for axis in [slot % layout_flow.TENSORS * layout_orders.MAX_AXES]]
    self._result = np.zeros([count, self._slots, len(EFFECTS)], np.float32)
    self._rows = np.arange(count)
    wanted: dict[int, _Demand] = {}
    for node in self._flow.nodes:
      self._node(node, requests, wanted)
    self._fused_loops(wanted)
    return self._result.reshape(
        count, self._slots // layout_flow.TENSORS, layout_flow.TENSORS, len(EFFECTS))

  def _node(self, node: int, requests: Sequence[np.ndarray], wanted: dict[int, _Demand]) -> None:
    """Adds the effects at one node; its users were visited before."""
    flow = self._flow
    kind, axes = flow.kinds[node], len(layout_orders.long_axes(flow.lengths[node]))
    default = layout_orders.row_major(axes)
    none = _Demand(np.zeros(len(self._rows), np.int16), np.full(len(self._rows), -1))
    demands = []
    for use in flow.uses[node]:
      demand = none
      if use.slot >= 0:
        demand = _Demand(requests[use.slot], np.where(requests[use.slot] > 0, use.slot, -1))
      elif use.table is not None and use.user in wanted:
        above = wanted[use.user]
        demand = _Demand(use.table[above.order], above.slot)
      demands.append(demand)
    natural = flow.natural.get(node, default)
    own = none
    if kind != layout_flow.FIXED:
      for demand in reversed(demands):
        own = _Demand(*(np.where(demand.order > 0, new, old) for new, old in zip(demand, own)))
      if own.order.any():
        wanted[node] = own
        self._loop(node, own, default)
    out = _Demand(np.where(own.order > 0, own.order, natural), own.slot)
    if node in flow.site_of:
      slot = layout_flow.TENSORS * flow.site_of[node]
      request = requests[slot]
      asked = request > 0
      if asked.any():
        cause = np.where(asked, slot, -1)
        if not self._pads:
          self._copy(node, out.order, np.where(asked, request, out.order), cause)
        self._padding(node, request, cause)
        out = _Demand(np.where(asked, request, out.order), cause)
        self._request(node, request, cause, default, held=False)
    self._uses(node, demands, out, natural, default)

  def _uses(self, node: int, demands: Sequence[_Demand], out: _Demand, natural: int,
            default: int) -> None:
    """Copies between the layout of a value and those in which it is wanted."""
    plain = np.zeros(len(self._rows), bool)  # Whether a user reads it as by default.
    first = out.slot
    for use, demand in zip(self._flow.uses[node], demands):
      asked = demand.order > 0
      plain |= ~asked
      if not asked.any():
        continue
      first = np.where(first >= 0, first, demand.slot)
      self._copy(node, out.order, np.where(asked, demand.order, out.order), demand.slot)
      if use.slot >= 0:
        if not self._pads:
          self._copy(node, np.where(asked, demand.order, default), default, demand.slot)
        self._padding(node, demand.order, demand.slot)
        self._request(node, demand.order, demand.slot, default,
                      held=self._flow.kinds[node] != layout_flow.FIXED)
    if (first >= 0).any():
      # One copy serves all users that read the value as by default.
      self._copy(node, np.where(plain, out.order, default), default, first)
      if natural != default:
        self._copy(node, natural, default, first, sign=-1)

  def _loop(self, node: int, own: _Demand, default: int) -> None:
    """A loop that runs in the order `own`."""
    kind = self._flow.kinds[node]
    if kind == layout_flow.VIEW:
      return
    order = np.where(own.order > 0, own.order, default)
    self._add(order, own.slot, lambda number: self._loops(node, number))

  def _fused_loops(self, wanted: dict[int, _Demand]) -> None:
    """What requests do to loops over costly functions, see `layout_loops`."""
    changed: dict[tuple[int, ...], np.ndarray] = {}
    orders = []
    for loop in self._flow.loops:
      axes = len(layout_orders.long_axes(loop.lengths))
      default = layout_orders.row_major(axes)
      order = np.full(len(self._rows), default)
      slot = np.full(len(self._rows), -1)
      for node in loop.nodes:
        own = wanted.get(node)
        if own is not None and len(layout_orders.long_axes(self._flow.lengths[node])) == axes:
          free = (slot < 0) & (own.order > 0)
          order, slot = np.where(free, own.order, order), np.where(free, own.slot, slot)
      orders.append((loop, order, slot, default))
      moved = np.where(order != default, slot, -1)
      if (moved >= 0).any():
        for shape in loop.scalars:
          before = changed.get(shape)
          changed[shape] = moved if before is None else np.where(before >= 0, before, moved)
    for loop, order, slot, default in orders:
      if loop.math:
        self._math(loop, _Demand(order, slot), default, changed)

  def _math(self, loop: layout_loops.Loop, own: _Demand, default: int,
            changed: dict[tuple[int, ...], np.ndarray]) -> None:
    """The effects on one loop over costly functions.

    Args:
      loop: the loop.
      own: its order and the request behind it.
      default: its row-major order.
      changed: for each shape to which a loop in another order broadcasts a scalar, the request
        behind that order, (c,).
    """
    wide = loop.wide(default)
    self._add(own.order, own.slot,
              lambda number: {"math_wide": loop.math * (loop.wide(number) - wide)})
    if loop.arrays_along(default) >= layout_loops.WIDEST:
      for shape in loop.scalars & changed.keys():
        self._add(own.order, np.where(own.order == default, changed[shape], -1),
                  lambda number: {"math_split": loop.math})

  def _copy(self, node: int, before: np.ndarray | int, after: np.ndarray | int, slot: np.ndarray,
            sign: int = 1) -> None:
    """Copies a node's value from one order to another, where they differ."""
    pair = np.asarray(before, np.int32) * len(layout_orders.ORDERS) + after
    pair = np.broadcast_to(pair, slot.shape)
    self._add(pair, np.where(before == after, -1, slot),
              lambda code: self._copies(node, *divmod(code, len(layout_orders.ORDERS))), sign)

  def _padding(self, node: int, order: np.ndarray, slot: np.ndarray) -> None:
    if self._pads:
      self._add(order, slot, lambda number: {"padding": self._padded(node, number)})

  def _request(self, node: int, order: np.ndarray, slot: np.ndarray, default: int, held: bool
               ) -> None:
    """A request itself: it keeps a value in memory."""
    elements = float(self._flow.elements[node])
    self._add(order, slot, lambda number: {
        "barrier": elements if held else 0.0, "row_major": elements if number == default else 0.0})

  def _add(self, codes: np.ndarray, slot: np.ndarray, costs: Callable[[int], _Costs],
           sign: int = 1) -> None:
    """Adds the costs of each code (c,) to the effects of the request `slot` (c,), if any."""
    caused = np.flatnonzero(slot >= 0)
    if not caused.size:
      return
    codes = codes[caused]
    for code in np.unique(codes).tolist():
      rows = caused[codes == code]
      for name, value in costs(code).items():
        if value:
          self._result[rows, slot[rows], _COLUMN[name]] += sign * value

  def _copy_costs(self, node: int, before: int, after: int) -> _Costs:
    elements = float(self._flow.elements[node])
    one, other = layout_orders.ORDERS[before], layout_orders.ORDERS[after]
    runs = elements / self._minor(node, after)
    if one[0] == other[0]:
      return {"copy_outer": elements, "copy_runs": runs}
    # The lines read between two uses of one line: along the axes that come before the source's
    # minor-most axis in the order of the copy.
    lengths = self._flow.lengths[node]
    sides = [lengths[axis] for axis in layout_orders.long_axes(lengths)]
    inner = float(np.prod([float(sides[axis]) for axis in other[:other.index(one[0])]]))
    reused = min(inner * _LINE_BYTES, elements * self._flow.item_bytes[node])
    caches = self._facts.cache_bytes
    # A cache also holds what is written.
    name = ("copy_near" if reused <= 0.75 * caches[0] else
            "copy_middle" if reused <= 0.6 * caches[-1] else "copy_far")
    return {name: elements, "copy_runs": runs}

  def _loop_costs(self, node: int, order: int) -> _Costs:
    default = layout_orders.row_major(len(layout_orders.ORDERS[order]))
    if order == default:
      return {}
    elements = float(self._flow.elements[node])
    runs = elements / self._minor(node, order) - elements / self._minor(node, default)
    padding = self._padded(node, order) if self._pads else 0.0
    if self._flow.kinds[node] == layout_flow.SUM:
      return {"sum_changed": float(self._flow.read[node]), "padding": padding}
    name = "math" if self._flow.kinds[node] == layout_flow.MATH else "loop"
    return {f"{name}_changed": elements, f"{name}_runs": runs, "padding": padding}

  def _minor(self, node: int, order: int) -> int:
    """The length of the minor-most axis."""
    lengths = self._flow.lengths[node]
    return lengths[layout_orders.long_axes(lengths)[layout_orders.ORDERS[order][0]]]

  def _padded(self, node: int, order: int) -> float:
    """How many elements padding to register tiles adds, compared with the row-major order."""
    lengths = self._flow.lengths[node]
    sides = [lengths[axis] for axis in layout_orders.long_axes(lengths)]

    def size(axes: Sequence[int]) -> float:
      padded = [float(sides[axis]) for axis in axes]
      for place, multiple in enumerate(reversed(self._facts.register_tile)):
        padded[place] = -(-padded[place] // multiple) * multiple
      return float(np.prod(padded))

    return size(layout_orders.ORDERS[order]) - size(range(len(sides) - 1, -1, -1))
