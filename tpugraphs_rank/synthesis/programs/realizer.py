"""Chooses types, shapes and repairs for a dataflow graph; `realization` checks the result."""

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
# Kinds of repairs; each is counted in nodes.
REPAIRS = ("type", "operand", "operation", "left_out")


class Realizer:
  """The state of one realization.

  Entries of `_operands` below the number of nodes are nodes of the graph; the others are leaves
  that were added.
  """

  def __init__(self, nodes: Sequence[nodes_lib.Node], rng: np.random.Generator):
    self._nodes = list(nodes)
    self._rng = rng
    self.repairs = dict.fromkeys(REPAIRS, 0)
    self.missed = 0
    self._operations = [node.operation for node in nodes]
    self._operands = [list(node.operands) for node in nodes]
    self._added: list[programs.Node] = []
    assigned = types_lib.assign(nodes)
    self._types = assigned.types
    self.repairs["type"] = len(assigned.changed)
    self._check_operations()
    self._order_operands(assigned)
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
    """Replaces operations that cannot compute with their type."""
    for place, operation in enumerate(self._operations):
      type_ = self._types[place]
      same = operation == ops.CONVERT and type_ == self._types[self._operands[place][0]] and (
          self._operations[self._operands[place][0]] != ops.CONSTANT)
      if same or not types_lib.fits(operation, type_):
        self._operations[place] = types_lib.substitute(operation, type_)
        self.repairs["operation"] += 1

  def _order_operands(self, assigned: types_lib.Types) -> None:
    """Puts the predicate of selects first and the rows of gathers last; adds what is missing."""
    for place, operation in enumerate(self._operations):
      operands = self._operands[place]
      if operation == ops.SELECT:
        decides = assigned.predicates[place]
        others = [operand for operand in operands if operand != decides]
        if decides is None:
          # Its shape, like that of every added operand, is set when the operand is placed.
          decides = self._add(ops.PARAMETER, "pred", ())
          lost = {operand: self._lost(place, [operand]) for operand in others}
          others = sorted(others, key=lost.__getitem__, reverse=True)[:2]
          self.repairs["operand"] += 1
        if len(others) < 2:
          others.append(self._add(ops.CONSTANT, self._types[place], ()))
          self.repairs["operand"] += 1
        self._operands[place] = [decides, *others]
      elif operation == ops.GATHER:
        rows = assigned.indices[place]
        table = [operand for operand in operands if operand != rows]
        if rows is None:
          rows = self._add(ops.PARAMETER, "s32", ())
          self.repairs["operand"] += 1
        self._operands[place] = [table[0], rows]
      elif (operation in ops.BINARY or operation == ops.DOT) and len(operands) == 1:
        self._operands[place] = operands * 2

  def _check_operands(self) -> None:
    """Replaces operands whose type the operation does not accept."""
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
    """For each node the representative of the group of nodes that share its shape."""
    parent = list(range(len(self._nodes)))

    def find(node: int) -> int:
      while parent[node] != node:
        node = parent[node]
      return node

    for node, operation in enumerate(self._operations):
      if operation in ops.ELEMENTWISE:
        for operand in self._operands[node]:
          # A constant is a scalar for every user.
          if operand < len(parent) and self._operations[operand] != ops.CONSTANT:
            parent[find(operand)] = find(node)
    return [find(node) for node in range(len(parent))]

  def run(self) -> None:
    """Determines all shapes, users before their operands."""
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
    """Gives added arrays the shape of their user."""
    for operand in self._operands[node]:
      added = operand - len(self._nodes)
      if added >= 0 and self._added[added].operation != ops.CONSTANT:
        self._added[added] = dataclasses.replace(self._added[added], shape=shape)

  def _members(self, group: int) -> list[int]:
    return [node for node, of_node in enumerate(self._group) if of_node == group]

  def _least_rank(self, group: int) -> int:
    """The smallest number of axes that the operations of a group need."""
    needs = {ops.TRANSPOSE: 2, ops.DOT: 2, ops.CONVOLUTION: 4, ops.CONCATENATE: 1, ops.SLICE: 1,
             ops.GATHER: 1, ops.BROADCAST: 1}
    return max(needs.get(self._operations[node], 0) for node in self._members(group))

  def _first_shape(self, group: int) -> Shape:
    """The shape of the result, which no other shape determines."""
    members = self._members(group)
    votes = [self._nodes[node].bucket for node in members]
    bucket = max(set(votes), key=lambda vote: (votes.count(vote), vote))
    rank = int(self._rng.choice([1, 2, 3, 4], p=[0.1, 0.6, 0.25, 0.05]))
    node_of = {self._operations[node]: node for node in members}
    logs: Sequence[float] | None = None
    if ops.CONVOLUTION in node_of:
      # One or two images, with about as many rows as columns.
      side = self._rng.uniform(4.3, 5.3)
      few = float(self._rng.choice([0.0, 0.0, 1.0]))
      width = max(bucket + 0.5 - 2 * side - few, 3.0)
      return (int(2 ** few), shapes.nice(2 ** side, self._rng), shapes.nice(2 ** side, self._rng),
              shapes.nice(2 ** width, self._rng))
    if ops.DOT in node_of and rank < 3:
      rank = 2
      one, other = (self._nodes[operand].bucket if operand < len(self._nodes) else bucket
                    for operand in self._operands[node_of[ops.DOT]])
      # Arrays have m n, m k and k n elements, so the ratio of the operands' sizes is m / n.
      logs = ((one - other) / 2, (other - one) / 2)
    elif ops.GATHER in node_of:
      rank = 2
      rows = self._operands[node_of[ops.GATHER]][1]
      if rows < len(self._nodes):
        length = self._nodes[rows].bucket + 0.5
        logs = (length - bucket / 2, bucket / 2 - length)
    rank = max(rank, self._least_rank(group))
    return shapes.of_bucket(bucket, rank, self._rng, logs)

  def _relate(self, node: int, shape: Shape) -> None:
    """Determines the shapes of a node's operands; replaces operands that do not fit."""
    operands = self._operands[node]
    operation = self._operations[node]
    known = [self._known(operand, node) for operand in operands]
    for count in range(len(operands) + 1):
      if count and len(operands) == 1 and known[0].shape in (None, shape) and self._lost(
          node, operands):
        break  # Making the node elementwise changes only its operation and loses no operand.
      fitting = []
      for freed in itertools.combinations(range(len(operands)), count):
        relation = shape_relations.relate(operation, shape, [
            shape_relations.Operand(self._bucket(operand, shape), None) if place in freed else view
            for place, (operand, view) in enumerate(zip(operands, known))], self._rng)
        if relation is not None:
          lost = self._lost(node, [operands[place] for place in freed])
          fitting.append((lost, freed, relation))
      if fitting:
        _, freed, relation = min(fitting, key=lambda one: one[:2])
        self._settle(node, relation, freed)
        return
    self._change(node, shape)

  def _lost(self, node: int, operands: Sequence[int]) -> int:
    """Nodes that the result would no longer depend on if `node` dropped some operands."""
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

  def _settle(self, node: int, relation: shape_relations.Relation, freed: Sequence[int]) -> None:
    operands = self._operands[node]
    # First the operands whose loss would cost the most nodes.
    order = sorted(range(len(operands)), key=lambda place: -self._lost(node, [operands[place]]))
    for place in order:
      operand, shape = operands[place], relation.shapes[place]
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
      # Two operands in one shape group, or one operand used twice, may need two different shapes.
      if place in freed or self._shapes[group] != shape:
        operands[place] = self._add(ops.PARAMETER, self._types[operand], shape)
        self.repairs["operand"] += 1
    self._relations[node] = relation

  def _change(self, node: int, shape: Shape) -> None:
    """Replaces the operation of a node whose operands cannot have fitting shapes."""
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
    """The program's nodes: everything that the result depends on, operands first."""
    count = len(self._nodes)
    ordered: list[programs.Node] = []
    index_of: dict[int, int] = {}

    def place(node: int) -> int:
      if node not in index_of:
        if node >= count:
          ordered.append(self._added[node - count])
        else:
          operands = tuple(place(operand) for operand in self._operands[node])
          ordered.append(self._node(node, operands))
        index_of[node] = len(ordered) - 1
      return index_of[node]

    # Operands are stored before users, so the recursion depth is at most one added leaf.
    for node in range(count):
      if node in self._live:
        place(node)
    return tuple(ordered)

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
