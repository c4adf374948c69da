"""The simulated layout assignment of one configuration, in plain Python over lists of axes."""

import math

import numpy as np

from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.costs import layout_loops
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import operand_roles
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import opcodes

MATH = {"exponential", "tanh", "log", "power", "sqrt", "rsqrt", "log-plus-one", "logistic",
        "exponential-minus-one", "sine", "cosine", "tan", "atan2", "cbrt", "remainder"}
CHEAP = {"abs", "add", "and", "compare", "concatenate", "convert", "divide", "maximum", "minimum",
         "multiply", "negate", "or", "pad", "reverse", "select", "sign", "slice", "subtract"}


class Reference:
  """One program; `effects` simulates one configuration."""

  def __init__(self, graph: graphs.LayoutGraph, facts: targets.TargetFacts):
    self.facts, self.pads = facts, facts.register_tile != (1, 1)
    self.n = graph.num_nodes
    self.name = [opcodes.opcode_name(number) for number in graph.node_opcode]
    self.shape = []
    for feat in graph.node_feat:
      shape = []
      for side in feat[21:27]:
        if side <= 0:
          break
        shape.append(int(side))
      volume = np.float32(math.prod(max(int(side), 1) for side in feat[21:27]))
      self.shape.append(shape if volume == feat[28] else [])
    self.size = [float(max(feat[28], 0)) for feat in graph.node_feat]
    self.bytes = [float(feat[2:21] @ tile_features.ITEM_BYTES) for feat in graph.node_feat]
    self.axes = [[int(axis) for axis in feat[31:37]] for feat in graph.node_feat]
    self.operands = [sorted(v for u, v in graph.edge_index.tolist() if u == node)
                     for node in range(self.n)]
    self.users = [[u for u, v in graph.edge_index.tolist() if v == node] for node in range(self.n)]
    self.sites = graph.node_config_ids.tolist()
    roles = operand_roles.inputs_and_kernels(graph).tolist()
    self.role = {site: roles[place] for place, site in enumerate(self.sites)}
    self.root = tile_features.root(graph)
    self.kind = [self._kind(node) for node in range(self.n)]

  def _kind(self, node):
    name = self.name[node]
    if node in self.sites:
      return "fixed"
    if name in MATH:
      return "math"
    if name in CHEAP:
      return "loop"
    if name == "reduce":
      return "sum"
    if name in ("transpose", "broadcast") and len(self.operands[node]) == 1:
      taken = self.shape[self.operands[node][0]]
      written, axes = self.shape[node], self.axes[node]
      if name == "transpose":
        good = sorted(axes[:len(written)]) == list(range(len(written))) and [
            taken[axis] for axis in axes[:len(written)] if axis < len(taken)] == written and (
                len(taken) == len(written))
        return "view" if good else "fixed"
      axes = axes[:len(taken)]
      good = len(set(axes)) == len(axes) and all(
          0 <= axis < len(written) and written[axis] == side for axis, side in zip(axes, taken))
      return "loop" if good else "fixed"
    return "fixed"

  def row_major(self, node):
    return [axis for axis in reversed(range(len(self.shape[node]))) if self.shape[node][axis] > 1]

  def _complete(self, node, axes):
    kept = []
    for axis in [*axes, *self.row_major(node)]:
      if axis in self.row_major(node) and axis not in kept:
        kept.append(axis)
    return kept

  def effects(self, layouts):
    """{(site, tensor, name of effect): value} of one configuration (nc, 18)."""
    self.result = {}
    requests = {}
    for place, site in enumerate(self.sites):
      for tensor, node in enumerate((site, *self.role[site])):
        entries = [int(axis) for axis in layouts[place][6 * tensor:6 * tensor + 6]]
        if any(axis >= 0 for axis in entries):
          requests[site, tensor] = self._complete(node, entries)
    want = {}  # Node -> (order, cause).
    left = set(range(self.n))
    while left:
      node = max(node for node in left if not set(self.users[node]) & left)
      left.remove(node)
      if len(self.row_major(node)) > 1 and self.name[node] != "constant":
        self._visit(node, requests, want)
    self._loops(want)
    return {key: value for key, value in self.result.items() if value}

  def _add(self, cause, name, value):
    place = self.sites.index(cause[0])
    key = place, cause[1], name
    self.result[key] = self.result.get(key, 0.0) + value

  def _demands(self, node, requests, want):
    """[(demand or None, whether a site asks)] of each use: (order, cause)."""
    asked, others = [], []
    for user in dict.fromkeys(self.users[node]):
      tensors = [tensor for tensor in (1, 2) if user in self.sites
                 and self.role[user][tensor - 1] == node
                 and not (tensor == 2 and self.name[user] == "reshape")]
      for tensor in tensors:
        order = requests.get((user, tensor))
        asked.append(((order, (user, tensor)) if order else None, True))
      if tensors:
        continue
      if user in want and self.kind[user] in ("loop", "math", "view"):
        order, cause = want[user]
        if self.name[user] == "transpose":
          order = [self.axes[user][axis] for axis in order]
        elif self.name[user] == "broadcast":
          here = self.axes[user][:len(self.shape[node])]
          order = [here.index(axis) for axis in order if axis in here]
        elif len(self.shape[user]) != len(self.shape[node]):
          order = None
        if order is not None:
          others.append(((self._complete(node, order), cause), False))
          continue
      others.append((None, False))
    return asked + others + ([(None, False)] if node == self.root else [])

  def _visit(self, node, requests, want):
    default = self.row_major(node)
    natural = default
    if self.kind[node] == "view":
      natural = sorted(default, key=lambda axis: -self.axes[node][axis])
    uses = self._demands(node, requests, want)
    given = [demand for demand, _ in uses if demand]
    out = natural, None
    if self.kind[node] != "fixed" and given:
      want[node] = out = given[0]
      if self.kind[node] in ("loop", "math", "sum") and out[0] != default:
        self._run(node, *out)
    if (node, 0) in requests:
      cause = node, 0
      if not self.pads:
        self._copy(node, out[0], requests[cause], cause)
      self._pad(node, requests[cause], cause)
      out = requests[cause], cause
      if requests[cause] == default:
        self._add(cause, "row_major", self.size[node])
    for demand, of_site in uses:
      if demand:
        order, cause = demand
        self._copy(node, out[0], order, cause)
        if of_site:
          if not self.pads:
            self._copy(node, order, default, cause)
          self._pad(node, order, cause)
          if self.kind[node] != "fixed":
            self._add(cause, "barrier", self.size[node])
          if order == default:
            self._add(cause, "row_major", self.size[node])
    cause = out[1] or (given[0][1] if given else None)
    if cause:
      if any(demand is None for demand, _ in uses):
        self._copy(node, out[0], default, cause)
      self._copy(node, natural, default, cause, -1)

  def _copy(self, node, before, after, cause, sign=1):
    if before == after:
      return
    size = self.size[node]
    self._add(cause, "copy_runs", sign * size / self.shape[node][after[0]])
    if before[0] == after[0]:
      self._add(cause, "copy_outer", sign * size)
      return
    reused = 64.0
    for axis in after[:after.index(before[0])]:
      reused *= self.shape[node][axis]
    reused = min(reused, size * self.bytes[node])
    first, last = self.facts.cache_bytes[0], self.facts.cache_bytes[-1]
    name = ("copy_near" if reused <= .75 * first else
            "copy_middle" if reused <= .6 * last else "copy_far")
    self._add(cause, name, sign * size)

  def _pad(self, node, order, cause):
    if self.pads:
      self._add(cause, "padding", self._padded(node, order))

  def _padded(self, node, order):
    def padded(axes):
      total = 1.0
      for place, axis in enumerate(axes):
        side = self.shape[node][axis]
        if place < 2:
          multiple = self.facts.register_tile[1 - place]
          side = math.ceil(side / multiple) * multiple
        total *= side
      return total

    return padded(order) - padded(self.row_major(node))

  def _run(self, node, order, cause):
    self._pad(node, order, cause)
    if self.kind[node] == "sum":
      self._add(cause, "sum_changed", max(self.size[operand] for operand in self.operands[node]))
      return
    size, shape = self.size[node], self.shape[node]
    self._add(cause, self.kind[node] + "_changed", size)
    self._add(cause, self.kind[node] + "_runs",
              size / shape[order[0]] - size / shape[self.row_major(node)[0]])

  def _loops(self, want):
    """The effects on fused loops."""
    fusible = [self.kind[node] in ("loop", "math") and bool(self.shape[node])
               for node in range(self.n)]
    scalar = [self.name[node] == "broadcast" and self.kind[node] == "loop"
              and not self.shape[self.operands[node][0]] for node in range(self.n)]
    loop_of = {}
    left = set(range(self.n))
    while left:
      node = max(node for node in left if not set(self.users[node]) & left)
      left.remove(node)
      if not fusible[node] or scalar[node]:
        continue
      loops = {loop_of.get(user) for user in self.users[node]}
      (one,) = loops if len(loops) == 1 else (None,)
      loop_of[node] = node if one is None else one
    changed, states = {}, []
    for top in sorted(set(loop_of.values()), reverse=True):
      nodes = [node for node in range(self.n - 1, -1, -1) if loop_of.get(node) == top]
      default = self.row_major(top)
      found = [want[node] for node in nodes
               if node in want and len(self.row_major(node)) == len(default)]
      # Lengths may differ within a loop (a slice): compare places among the long axes.
      order, cause = found[0] if found else (default, None)
      owner = next((node for node in nodes if node in want
                    and len(self.row_major(node)) == len(default)), top)
      long = sorted(self.row_major(owner))
      order = [sorted(default)[long.index(axis)] for axis in order]
      shapes = {tuple(self.shape[operand]) for node in nodes for operand in self.operands[node]
                if scalar[operand]}
      if cause and order != default:
        for shape in shapes:
          changed.setdefault(shape, cause)
      states.append((top, nodes, order, cause, shapes))
    for top, nodes, order, cause, shapes in states:
      heavy = sum(self.size[node] for node in nodes if self.kind[node] == "math")
      default = self.row_major(top)
      wide = lambda axes: self._arrays(top, nodes, loop_of, scalar, axes) > layout_loops.WIDEST
      if cause:
        self._add(cause, "math_wide", heavy * (wide(order) - wide(default)))
      if order == default and (
          self._arrays(top, nodes, loop_of, scalar, default) >= layout_loops.WIDEST):
        for shape in shapes & changed.keys():
          self._add(changed[shape], "math_split", heavy)

  def _arrays(self, top, nodes, loop_of, scalar, order):
    if not order:
      return 0
    varying = {}
    for node in nodes:
      for operand in self.operands[node]:
        if scalar[operand] or not self.shape[operand] or loop_of.get(operand) == top:
          continue
        axes = (self.axes[node][:len(self.shape[operand])] if self.name[node] == "broadcast"
                else range(len(self.shape[operand])))
        varying[operand] = (axes if len(self.shape[node]) == len(self.shape[top])
                            else range(len(self.shape[top])))
    return sum(order[0] in axes for axes in varying.values())


def effects(graph, facts, layouts):
  """(c, nc, 3, effects) as `layout_assignment.Assignment.effects`, one configuration at a time."""
  reference = Reference(graph, facts)
  result = np.zeros([len(layouts), len(graph.node_config_ids), 3, len(layout_assignment.EFFECTS)])
  names = list(layout_assignment.EFFECTS)
  for row, layout in enumerate(layouts):
    for (site, tensor, name), value in reference.effects(layout).items():
      result[row, site, tensor, names.index(name)] = value
  return result
