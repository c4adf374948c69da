"""The order of instructions in a computation."""

from collections.abc import Sequence

_NEW, _OPEN, _DONE = range(3)


def post_order(
    operands: Sequence[Sequence[int]], predecessors: Sequence[Sequence[int]]) -> list[int]:
  """The order in which XLA serialises instructions: each after its operands, the first one first.

  The text of a scheduled program lists the instructions in the order of the schedule, but its
  protobuf has this order. It is that of `HloComputation::MakeInstructionPostOrder`.

  Args:
    operands: for each instruction, the positions of its operands.
    predecessors: for each instruction, the positions of its control predecessors.

  Returns:
    The positions in order. Instructions of a cycle that nothing outside of it needs are missing.
  """
  has_users = [False] * len(operands)
  for needed in operands:
    for position in needed:
      has_users[position] = True
  state = [_NEW] * len(operands)
  order = []
  for root, is_used in enumerate(has_users):
    if is_used:
      continue
    stack = [root]
    while stack:
      current = stack[-1]
      if state[current] != _NEW:
        stack.pop()
        if state[current] == _OPEN:
          state[current] = _DONE
          order.append(current)
        continue
      state[current] = _OPEN
      stack.extend(reversed(operands[current]))
      stack.extend(predecessors[current])
  return order
