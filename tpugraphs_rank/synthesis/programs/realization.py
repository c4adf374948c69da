"""Makes runnable programs of synthetic dataflow graphs: element types, shapes, and few repairs.

A generated node says its operation, the type and the rough size of its result, and which nodes it
takes. What is missing is found from the result towards the operands: nodes that compute elementwise
share one shape; each broadcast, reduction, product and so on derives its operands' shapes from its
own, as near to the sizes asked for as they can be. Where two users want different shapes of one
node, the later one gets a parameter of its own instead: that is a repair, and counted.
"""

from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np

from tpugraphs_rank.synthesis.programs import element_types as types_lib
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import shape_relations
from tpugraphs_rank.synthesis.programs import shapes

Shape = tuple[int, ...]
# Kinds of repairs, each of so many nodes.
REPAIRS = ("type", "operand", "operation", "left_out")
# Why a graph is refused; one with few sites may be a program, but leaves no layouts to request.
# Sites are lost where a program, of small or repaired tensors, has fewer than its graph.
SITES = "sites"
LOST_SITES = "lost_sites"
REFUSALS = ("one_node", "several_results", "operation", "operands", "constant", "repairs", "size",
            SITES, LOST_SITES)


@dataclasses.dataclass(frozen=True)
class Limits:
  """What is refused.

  Attributes:
    repaired: a program of which a larger share of the nodes was repaired.
    elements: one with a larger array.
    work: one of more multiplications, additions and so on; a kernel runs for milliseconds.
    sites: one with fewer operations whose layouts can be requested (see `programs.sites`).
    site_elements: of the largest tensor of each of these, at least: that of less is not seen.
    tries: so many times shapes are drawn; of the programs that are not refused the one with the
      fewest repairs is taken.
  """

  repaired: float = 0.5
  elements: int = 2 ** 24
  work: float = 2.0 ** 28
  sites: int = 0
  site_elements: int = 0
  tries: int = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a graph.

  Attributes:
    program: None where it is refused.
    refused: one of `REFUSALS`, or "".
    repairs: kind of repair -> nodes repaired in that way: of another element type; with a new
      operand in place of one that does not fit, or of one that is missing; of another operation; no
      longer used by anything.
    missed_buckets: nodes whose result is not of the size that the graph asks for.
    nodes: of the graph.
  """

  program: programs.RunnableProgram | None
  refused: str
  repairs: dict[str, int]
  missed_buckets: int
  nodes: int

  @property
  def repaired(self) -> float:
    """Repairs as a share of the graph's nodes."""
    return sum(self.repairs.values()) / self.nodes


def realize(nodes: Sequence[nodes_lib.Node], source: str, number: int, rng: np.random.Generator,
            limits: Limits = Limits()) -> Outcome:
  """Makes a program of one dataflow graph.

  Args:
    nodes: operands before users, the result last.
    source: where the graph comes from; the program's name begins with it.
    number: of the graph, in the name.
    rng: draws shapes and constants.
    limits: what is refused.
  """
  refused = _fault(nodes)
  if not refused and ops.count_sites(node.operation for node in nodes) < limits.sites:
    refused = SITES
  if refused:
    return Outcome(None, refused, dict.fromkeys(REPAIRS, 0), 0, len(nodes))
  outcome = _once(nodes, source, number, rng, limits)
  for _ in range(limits.tries - 1):
    if outcome.program is not None and not sum(outcome.repairs.values()):
      break
    outcome = min(outcome, _once(nodes, source, number, rng, limits),
                  key=lambda one: (one.program is None, sum(one.repairs.values())))
  return outcome


def _once(nodes: Sequence[nodes_lib.Node], source: str, number: int, rng: np.random.Generator,
          limits: Limits) -> Outcome:
  """Makes a program with shapes that are drawn once."""
  maker = _Maker(nodes, rng)
  maker.run()
  outcome = Outcome(None, "", maker.repairs, maker.missed, len(nodes))
  if outcome.repaired > limits.repaired:
    return dataclasses.replace(outcome, refused="repairs")
  found = maker.nodes()
  if not any(node.operation == ops.PARAMETER for node in found):
    return dataclasses.replace(outcome, refused="constant")
  if (max(programs.elements(node.shape) for node in found) > limits.elements
      or programs.work(found) > limits.work or programs.elements(found[-1].shape) < 8):
    return dataclasses.replace(outcome, refused="size")
  if limits.sites and programs.sites(found, limits.site_elements) < limits.sites:
    asked = sum(node.operation in ops.SITES for node in nodes)
    return dataclasses.replace(outcome, refused=SITES if asked < limits.sites else LOST_SITES)
  kind = nodes_lib.kind(list(nodes))
  return dataclasses.replace(outcome, program=programs.RunnableProgram(
      f"{source}_{kind}.{number}.{found[-1].type}", found))


def _fault(nodes: Sequence[nodes_lib.Node]) -> str:
  """Why a graph cannot be a program, whatever its shapes; or ""."""
  if len(nodes) < 2:
    return "one_node"
  used: set[int] = {operand for node in nodes for operand in node.operands}
  if used != set(range(len(nodes) - 1)):
    return "several_results"
  for node in nodes:
    if node.operation not in ops.ALL:
      return "operation"
    if len(node.operands) not in ops.ARITIES[node.operation]:
      return "operands"
  return "" if any(node.operation == ops.PARAMETER for node in nodes) else "constant"


class _Maker:
  """The state of one realisation.

  Operands of `_operands` from the number of nodes on are leaves that were added.
  """

  def __init__(self, nodes: Sequence[nodes_lib.Node], rng: np.random.Generator):
    self._nodes = list(nodes)
    self._rng = rng
    self.repairs = dict.fromkeys(REPAIRS, 0)
    self.missed = 0
    self._operations = [node.operation for node in nodes]
    self._operands = [list(node.operands) for node in nodes]
    self._added: list[programs.Node] = []
    found = types_lib.assign(nodes)
    self._types = found.types
    self.repairs["type"] = len(found.changed)
    self._check_operations()
    self._order_operands(found)
    self._check_operands()
    self._group = self._shape_groups()
    self._shapes: dict[int, Shape] = {}
    self._relations: dict[int, shape_relations.Relation] = {}
    self._live = {len(nodes) - 1}

  def _add(self, operation: str, type_: str, shape: Shape) -> int:
    self._added.append(programs.Node(operation, (), type_, shape, value=self._constant(type_)))
    return len(self._nodes) + len(self._added) - 1

  def _constant(self, type_: str) -> float:
    if type_ == "pred":
      return 1.0
    if type_ == "s32":
      return float(self._rng.integers(1, 4))
    return float(np.round(self._rng.uniform(0.25, 2.0), 3))

  def _check_operations(self) -> None:
    """Operations that cannot compute with their type become others."""
    for place, operation in enumerate(self._operations):
      type_ = self._types[place]
      same = operation == ops.CONVERT and type_ == self._types[self._operands[place][0]] and (
          self._operations[self._operands[place][0]] != ops.CONSTANT)
      if same or not types_lib.fits(operation, type_):
        self._operations[place] = types_lib.substitute(operation, type_)
        self.repairs["operation"] += 1

  def _order_operands(self, found: types_lib.Types) -> None:
    """Selects take what decides first, gathers the rows last; what is missing is added."""
    for place, operation in enumerate(self._operations):
      operands = self._operands[place]
      if operation == ops.SELECT:
        decides = found.predicates[place]
        others = [operand for operand in operands if operand != decides]
        if decides is None:
          # Its shape follows when it is placed, as that of every added operand.
          decides = self._add(ops.PARAMETER, "pred", ())
          others = sorted(others, key=lambda one, user=place: -self._lost(user, [one]))[:2]
          self.repairs["operand"] += 1
        if len(others) < 2:
          others.append(self._add(ops.CONSTANT, self._types[place], ()))
          self.repairs["operand"] += 1
        self._operands[place] = [decides, *others]
      elif operation == ops.GATHER:
        rows = found.indices[place]
        table = [operand for operand in operands if operand != rows]
        if rows is None:
          rows = self._add(ops.PARAMETER, "s32", ())
          self.repairs["operand"] += 1
        self._operands[place] = [table[0], rows]
      elif (operation in ops.BINARY or operation == ops.DOT) and len(operands) == 1:
        self._operands[place] = operands * 2

  def _check_operands(self) -> None:
    """Operands of a type that cannot be taken are replaced."""
    type_of = lambda operand: (self._types[operand] if operand < len(self._nodes)
                               else self._added[operand - len(self._nodes)].type)
    for place, operands in enumerate(self._operands):
      wanted = types_lib.of_operands(
          self._operations[place], self._types[place], [type_of(operand) for operand in operands])
      for position, (operand, type_) in enumerate(zip(list(operands), wanted)):
        constant = operand < len(self._nodes) and self._operations[operand] == ops.CONSTANT
        if type_of(operand) != type_ and not constant:
          operands[position] = self._add(ops.PARAMETER, type_, ())
          self.repairs["operand"] += 1

  def _shape_groups(self) -> list[int]:
    """For each node a node that stands for all that share its shape."""
    parent = list(range(len(self._nodes)))

    def find(node: int) -> int:
      while parent[node] != node:
        node = parent[node]
      return node

    for node, operation in enumerate(self._operations):
      if operation in ops.ELEMENTWISE:
        for operand in self._operands[node]:
          # A constant is a scalar, whoever takes it.
          if operand < len(parent) and self._operations[operand] != ops.CONSTANT:
            parent[find(operand)] = find(node)
    return [find(node) for node in range(len(parent))]

  def run(self) -> None:
    """Settles all shapes, users before their operands."""
    for node in range(len(self._nodes) - 1, -1, -1):
      if node not in self._live:
        self.repairs["left_out"] += 1
        continue
      operation = self._operations[node]
      if operation == ops.CONSTANT:
        continue
      group = self._group[node]
      if group not in self._shapes:
        self._shapes[group] = self._first_shape(group)
      shape = self._shapes[group]
      self.missed += nodes_lib.bucket_of(programs.elements(shape)) != self._nodes[node].bucket
      if operation in ops.ELEMENTWISE:
        self._widen(node, shape)
      elif operation not in ops.LEAVES:
        self._relate(node, shape)
      self._live.update(operand for operand in self._operands[node]
                        if operand < len(self._nodes))

  def _widen(self, node: int, shape: Shape) -> None:
    """Added arrays have the shape of their user."""
    for operand in self._operands[node]:
      added = operand - len(self._nodes)
      if added >= 0 and self._added[added].operation != ops.CONSTANT:
        self._added[added] = dataclasses.replace(self._added[added], shape=shape)

  def _members(self, group: int) -> list[int]:
    return [node for node, own in enumerate(self._group) if own == group]

  def _least_rank(self, group: int) -> int:
    """Axes that what computes a group's nodes needs."""
    needs = {ops.TRANSPOSE: 2, ops.DOT: 2, ops.CONVOLUTION: 4, ops.CONCATENATE: 1, ops.SLICE: 1,
             ops.GATHER: 1, ops.BROADCAST: 1}
    return max(needs.get(self._operations[node], 0) for node in self._members(group))

  def _first_shape(self, group: int) -> Shape:
    """The shape of the result, which nothing else settles."""
    members = self._members(group)
    votes = [self._nodes[node].bucket for node in members]
    bucket = max(set(votes), key=lambda found: (votes.count(found), found))
    rank = int(self._rng.choice([1, 2, 3, 4], p=[0.1, 0.6, 0.25, 0.05]))
    found = {self._operations[node]: node for node in members}
    logs: Sequence[float] | None = None
    if ops.CONVOLUTION in found:
      # One image or a few; as many rows as columns, about.
      side = self._rng.uniform(4.3, 5.3)
      few = float(self._rng.choice([0.0, 0.0, 1.0]))
      width = max(bucket + 0.5 - 2 * side - few, 3.0)
      return (int(2 ** few), shapes.nice(2 ** side, self._rng), shapes.nice(2 ** side, self._rng),
              shapes.nice(2 ** width, self._rng))
    if ops.DOT in found and rank < 3:
      rank = 2
      one, other = (self._nodes[operand].bucket if operand < len(self._nodes) else bucket
                    for operand in self._operands[found[ops.DOT]])
      # Elements m n, m k and k n: m / n is that of the operands.
      logs = ((one - other) / 2, (other - one) / 2)
    elif ops.GATHER in found:
      rank = 2
      rows = self._operands[found[ops.GATHER]][1]
      if rows < len(self._nodes):
        length = self._nodes[rows].bucket + 0.5
        logs = (length - bucket / 2, bucket / 2 - length)
    rank = max(rank, self._least_rank(group))
    return shapes.of_bucket(bucket, rank, self._rng, logs)

  def _relate(self, node: int, shape: Shape) -> None:
    """Settles the shapes of a node's operands; what does not fit is replaced."""
    operands = self._operands[node]
    operation = self._operations[node]
    known = [self._known(operand, node) for operand in operands]
    for count in range(len(operands) + 1):
      if count and len(operands) == 1 and known[0].shape in (None, shape) and self._lost(
          node, operands):
        break  # No more than its operation is lost where the node computes elementwise instead.
      fitting = []
      for freed in itertools.combinations(range(len(operands)), count):
        found = shape_relations.relate(operation, shape, [
            shape_relations.Operand(self._bucket(operand, shape), None) if place in freed else view
            for place, (operand, view) in enumerate(zip(operands, known))], self._rng)
        if found is not None:
          fitting.append((self._lost(node, [operands[place] for place in freed]), freed, found))
      if fitting:
        _, freed, found = min(fitting, key=lambda one: one[:2])
        self._settle(node, found, freed)
        return
    self._change(node, shape)

  def _lost(self, node: int, operands: Sequence[int]) -> int:
    """How many nodes the result would no longer depend on if a node did not take some operands."""
    count = len(self._nodes)
    seen, waiting = {count - 1}, [count - 1]
    while waiting:
      user = waiting.pop()
      below = {operand for operand in self._operands[user] if operand < count}
      below -= seen | (set(operands) if user == node else set())
      seen |= below
      waiting += below
    return count - len(seen)

  def _known(self, operand: int, user: int) -> shape_relations.Operand:
    if operand >= len(self._nodes):
      return shape_relations.Operand(0, None)
    if self._operations[operand] == ops.CONSTANT:
      return shape_relations.Operand(0, ())
    group = self._group[operand]
    settled = self._shapes.get(group)
    return shape_relations.Operand(self._nodes[operand].bucket, settled, self._least_rank(group))

  def _bucket(self, operand: int, shape: Shape) -> int:
    if operand < len(self._nodes):
      return self._nodes[operand].bucket
    return nodes_lib.bucket_of(programs.elements(shape))

  def _settle(self, node: int, found: shape_relations.Relation, freed: Sequence[int]) -> None:
    operands = self._operands[node]
    # Those come first without which the most would be lost.
    order = sorted(range(len(operands)), key=lambda place: -self._lost(node, [operands[place]]))
    for place in order:
      operand, shape = operands[place], found.shapes[place]
      added = operand - len(self._nodes)
      if added >= 0:
        self._added[added] = dataclasses.replace(self._added[added], shape=shape)
        continue
      group = self._group[operand]
      fits = place not in freed and self._operations[operand] != ops.CONSTANT
      if fits and group not in self._shapes:
        self._shapes[group] = shape
      if self._operations[operand] == ops.CONSTANT and place not in freed:
        continue
      # Two operands of one shape group, or one taken twice, may have been given two shapes.
      if place in freed or self._shapes[group] != shape:
        operands[place] = self._add(ops.PARAMETER, self._types[operand], shape)
        self.repairs["operand"] += 1
    self._relations[node] = found

  def _change(self, node: int, shape: Shape) -> None:
    """No shapes of operands fit: the node becomes another operation."""
    self.repairs["operation"] += 1
    operands = self._operands[node]
    if self._operations[node] == ops.CONVOLUTION and shape:
      self._operations[node] = ops.DOT
      self._relate(node, shape)
      return
    type_ = self._types[node]
    self._operations[node] = "not" if type_ == "pred" else "negate"
    operand = operands[0]
    self._operands[node] = [operand]
    if operand < len(self._nodes):
      group = self._group[operand]
      if self._operations[operand] != ops.CONSTANT:
        self._shapes.setdefault(group, shape)
        if self._shapes[group] == shape and self._types[operand] == type_:
          return
      self._operands[node] = [self._add(ops.PARAMETER, type_, shape)]

  def nodes(self) -> tuple[programs.Node, ...]:
    """The program's nodes: what the result depends on, operands first."""
    count = len(self._nodes)
    made: list[programs.Node] = []
    places: dict[int, int] = {}

    def place(node: int) -> int:
      if node not in places:
        if node >= count:
          made.append(self._added[node - count])
        else:
          operands = tuple(place(operand) for operand in self._operands[node])
          made.append(self._node(node, operands))
        places[node] = len(made) - 1
      return places[node]

    # Operands stand before users, so that no recursion is deeper than one added leaf.
    for node in range(count):
      if node in self._live:
        place(node)
    return tuple(made)

  def _node(self, node: int, operands: tuple[int, ...]) -> programs.Node:
    operation, type_ = self._operations[node], self._types[node]
    if operation == ops.CONSTANT:
      return programs.Node(operation, (), type_, (), value=self._constant(type_))
    relation = self._relations.get(node) if operation not in ops.ELEMENTWISE else None
    shape = self._shapes[self._group[node]]
    if relation is None:
      return programs.Node(operation, operands, type_, shape)
    return programs.Node(operation, operands, type_, shape, relation.equation, relation.starts,
                         relation.axis)
