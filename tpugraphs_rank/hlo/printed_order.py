"""One order of computations, so that the protobuf and the text of a program give the same graph.

XLA prints a computation after those that it calls, depth first. In protobufs of newer versions, the
order of the computations depends on how the program was built instead. And XLA does not print the
computation of an asynchronous operation: here, it comes directly before the one that calls it. The
order of instructions in a computation is the same in both.
"""

from tpugraphs_rank.hlo import hlo_pb2


def sort_computations(module: hlo_pb2.HloModuleProto, as_printed: bool = False) -> None:
  """Puts the computations of a program into the order in which XLA prints them.

  Not for programs with measured layouts: these refer to the order of the file. A program whose
  computations lack ids of their own, or call each other in a circle, stays as it is.

  Args:
    module: the program; it is changed.
    as_printed: whether the order is that of a text, except for asynchronous computations.
  """
  computations = {computation.id: computation for computation in module.computations}
  if len(computations) < len(module.computations):
    return
  calls = {number: _calls(computation) for number, computation in computations.items()}
  called = {number for numbers in calls.values() for number in numbers}
  if not called <= computations.keys():
    return
  order = [computation.id for computation in module.computations]
  if not as_printed:
    # XLA starts at the computations that nothing calls, in the order in which they were added.
    order = _depth_first([number for number in sorted(computations) if number not in called], calls)
  order = _asynchronous_last(order, computations)
  if len(order) < len(computations) or order == [other.id for other in module.computations]:
    return
  # Copies: deleting the field's entries invalidates references to them.
  copies = []
  for number in order:
    copy = hlo_pb2.HloComputationProto()
    copy.CopyFrom(computations[number])
    copies.append(copy)
  del module.computations[:]
  module.computations.extend(copies)


def _asynchronous_last(
    order: list[int], computations: dict[int, hlo_pb2.HloComputationProto]) -> list[int]:
  """The order with the computation of each asynchronous operation directly before its caller."""
  callers: dict[int, list[int | None]] = {}  # None: called in another way.
  for number in order:
    for instruction in computations[number].instructions:
      for called in instruction.called_computation_ids:
        callers.setdefault(called, []).append(
            number if instruction.opcode == "async-start" else None)
  moved: dict[int, list[int]] = {}  # In the order of the calls.
  for number, (caller, *others) in callers.items():
    if caller is not None and not others and _is_one_operation(computations[number]):
      moved.setdefault(caller, []).append(number)
  hidden = {number for numbers in moved.values() for number in numbers}
  return [number for caller in order if caller not in hidden
          for number in (*moved.get(caller, ()), caller)]


def _is_one_operation(computation: hlo_pb2.HloComputationProto) -> bool:
  return all(instruction.opcode == "parameter" or instruction.id == computation.root_id
             for instruction in computation.instructions)


def _calls(computation: hlo_pb2.HloComputationProto) -> list[int]:
  """The computations that one calls, in the order in which its instructions were added."""
  callers = [instruction for instruction in computation.instructions
             if instruction.called_computation_ids]
  callers.sort(key=lambda instruction: instruction.id)
  return list(dict.fromkeys(
      number for instruction in callers for number in instruction.called_computation_ids))


def _depth_first(starts: list[int], calls: dict[int, list[int]]) -> list[int]:
  """All that can be reached, each after what it calls."""
  order = []
  seen: set[int] = set()
  for start in starts:
    seen.add(start)
    stack = [(start, iter(calls[start]))]
    while stack:
      number, rest = stack[-1]
      for needed in rest:
        if needed not in seen:
          seen.add(needed)
          stack.append((needed, iter(calls[needed])))
          break
      else:
        order.append(number)
        stack.pop()
  return order
