"""Nodes of dataflow graphs, and the kind of kernel that a graph is. See `dataflow`."""

from collections.abc import Sequence
from typing import NamedTuple

from tpugraphs_rank.synthesis.programs import operations


class Node(NamedTuple):
  """One operation.

  Attributes:
    operation: one of `operations.ALL`, or another opcode that a generator produced.
    type: element type of the result.
    bucket: floor(log2(elements of the result)).
    operands: indices of the distinct operands.
  """

  operation: str
  type: str
  bucket: int
  operands: tuple[int, ...]


def bucket_of(elements: int) -> int:
  """floor(log2(elements)); -1 for zero elements."""
  return int(elements).bit_length() - 1


def kind(nodes: Sequence[Node]) -> str:
  """The kind of a kernel, one of `operations.KINDS`; see `operations.kind_of`.

  The operation nearest to the result decides; among equally near ones the heaviest.
  """
  users_first = [len(nodes) - 1]
  seen = set(users_first)
  while users_first:
    kinds = {operations.kind_of(nodes[place].operation) for place in users_first}
    for name in operations.KINDS[:-1]:
      if name in kinds:
        return name
    below = [operand for place in users_first for operand in nodes[place].operands]
    users_first = [place for place in dict.fromkeys(below) if place not in seen]
    seen.update(users_first)
  return operations.KINDS[-1]


def operands_first(operands: Sequence[Sequence[int]]) -> list[int]:
  """A topological order, operands before users: depth first from the nodes without users."""
  used = {operand for of in operands for operand in of}
  order: list[int] = []
  done = set()
  for root in [node for node in range(len(operands)) if node not in used]:
    stack = [(root, False)]
    while stack:
      node, ready = stack.pop()
      if ready:
        order.append(node)
      elif node not in done:
        done.add(node)
        stack.append((node, True))
        stack += [(operand, False) for operand in reversed(operands[node])]
  return order
