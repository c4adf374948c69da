"""Assigns compatible element types, as close as possible to the types that the nodes request."""

from collections.abc import Sequence
from typing import NamedTuple

from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops

_FALLBACK = "f32"


class Types(NamedTuple):
  """The result of `assign`.

  Attributes:
    types: element type of each node's result.
    changed: nodes that requested another type.
    predicates: for each select, the operand that decides; None: no operand can.
    indices: for each gather, the operand that holds the row indices; None: no operand can.
  """

  types: list[str]
  changed: set[int]
  predicates: dict[int, int | None]
  indices: dict[int, int | None]


def assign(nodes: Sequence[nodes_lib.Node]) -> Types:
  """Assigns types to all nodes. Constants take the type of their first user."""
  parent = list(range(len(nodes)))

  def find(node: int) -> int:
    while parent[node] != node:
      node = parent[node]
    return node

  allowed: dict[int, frozenset[str]] = {}

  def restrict(node: int, types: frozenset[str]) -> None:
    allowed[node] = allowed.get(node, ops.TYPES) & types

  def join(members: Sequence[int]) -> None:
    members = [node for node in members if nodes[node].operation != ops.CONSTANT]
    for member in members[1:]:
      parent[find(member)] = find(members[0])

  predicates: dict[int, int | None] = {}
  indices: dict[int, int | None] = {}
  for place, node in enumerate(nodes):
    operation, operands = node.operation, list(node.operands)
    if operation == ops.COMPARE:
      restrict(place, frozenset({"pred"}))
      join(operands)
      for operand in operands:
        restrict(operand, ops.NUMBERS)
    elif operation == ops.SELECT:
      predicates[place] = predicate = _first(nodes, operands, "pred")
      if predicate is not None:
        restrict(predicate, frozenset({"pred"}))
        operands.remove(predicate)
      join([place, *operands])
    elif operation == ops.GATHER:
      indices[place] = rows = _first(nodes, operands, "s32")
      if rows is not None:
        restrict(rows, frozenset({"s32"}))
        operands.remove(rows)
      join([place, *operands[:1]])
    elif operation in (ops.DOT, ops.CONVOLUTION):
      join(operands)
      for member in (place, *operands):
        restrict(member, ops.NUMBERS if operation == ops.DOT else ops.FLOATS)
      # Products of bfloat16 may be summed in float32; otherwise all types are equal.
      if not (nodes[operands[0]].type == "bf16" and node.type == "f32"):
        join([place, *operands])
    elif operation != ops.CONVERT and operation not in ops.LEAVES:
      join([place, *operands])
      restrict(place, _OPERATIONS.get(operation, ops.TYPES))
  groups: dict[int, list[int]] = {}
  for place in range(len(nodes)):
    groups.setdefault(find(place), []).append(place)
  types = [""] * len(nodes)
  for members in groups.values():
    fit = ops.TYPES
    for member in members:
      fit &= allowed.get(member, ops.TYPES)
    chosen = _vote([nodes[member].type for member in members], fit or ops.TYPES)
    for member in members:
      types[member] = chosen
  changed = {place for place, node in enumerate(nodes)
             if node.type != types[place] and node.operation != ops.CONSTANT}
  for place in range(len(nodes) - 1, -1, -1):
    if nodes[place].operation == ops.CONSTANT:
      types[place] = _of_users(nodes, types, place)
  return Types(types, changed, predicates, indices)


_OPERATIONS: dict[str, frozenset[str]] = {**ops.UNARY, **ops.BINARY, **ops.REDUCTIONS}


_RESULTS: dict[str, frozenset[str]] = {
    **_OPERATIONS, ops.COMPARE: frozenset({"pred"}), ops.DOT: ops.NUMBERS,
    ops.CONVOLUTION: ops.FLOATS}


def fits(operation: str, type_: str) -> bool:
  """Whether an operation's result can have that type."""
  return type_ in _RESULTS.get(operation, ops.TYPES)


def substitute(operation: str, type_: str) -> str:
  """An operation with the same number of operands whose result can have that type."""
  if operation == ops.CONVOLUTION and type_ in ops.NUMBERS:
    return ops.DOT
  if operation in ops.REDUCTIONS and type_ in ops.NUMBERS:
    return "reduce-maximum"
  if operation in ops.BINARY or operation in (ops.COMPARE, ops.DOT, ops.CONVOLUTION):
    return "and" if type_ == "pred" else "add"
  return "not" if type_ == "pred" else "negate"


def of_operands(operation: str, type_: str, current: Sequence[str]) -> list[str]:
  """The types that operands must have, as close as possible to their current types.

  Args:
    operation: an operation for which `fits` holds.
    type_: element type of its result.
    current: element types of its operands, in operand order.
  """
  if operation == ops.CONVERT:
    return list(current)
  if operation == ops.COMPARE:
    numeric = [operand for operand in current if operand in ops.NUMBERS]
    return [numeric[0] if numeric else _FALLBACK] * len(current)
  if operation == ops.SELECT:
    return ["pred", type_, type_]
  if operation == ops.GATHER:
    return [type_, "s32"]
  if operation in (ops.DOT, ops.CONVOLUTION) and type_ == "f32" and set(current) == {"bf16"}:
    return list(current)
  return [type_] * len(current)


def _first(nodes: Sequence[nodes_lib.Node], operands: Sequence[int], type_: str) -> int | None:
  """The first operand that requested a type; constants do not count."""
  matching = [operand for operand in operands if nodes[operand].type == type_
              and nodes[operand].operation != ops.CONSTANT]
  return matching[0] if matching else None


def _vote(requested: Sequence[str], fit: frozenset[str]) -> str:
  votes = [(requested.count(name), name) for name in sorted(fit) if name in requested]
  if votes:
    return max(votes)[1]
  return _FALLBACK if _FALLBACK in fit else sorted(fit)[0]


def _of_users(nodes: Sequence[nodes_lib.Node], types: Sequence[str], constant: int) -> str:
  for user in range(constant + 1, len(nodes)):
    if constant not in nodes[user].operands:
      continue
    if nodes[user].operation == ops.COMPARE:
      others: tuple[int, ...] = tuple(
          operand for operand in nodes[user].operands if operand != constant)
      return types[others[0]] if others else _FALLBACK
    if nodes[user].operation == ops.CONVERT:
      return nodes[constant].type if nodes[constant].type in ops.TYPES else "s32"
    return types[user]
  return _FALLBACK
