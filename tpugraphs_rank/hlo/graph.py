"""An HLO program as a graph: nodes are instructions, edges point from consumers to operands."""

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.hlo import order
from tpugraphs_rank.hlo import shapes

# A computation whose name contains one of these words ends a segment of `node_splits`. The small
# computations that fusions and reductions call do not.
_MAJOR_COMPUTATIONS = ("cluster", "while", "cond")


def graph_arrays(
    module: hlo_pb2.HloModuleProto, padding: int = 0, source: str = "the module",
) -> dict[str, np.ndarray]:
  """Converts a program to the arrays of a graph file.

  Args:
    module: the program, before or after optimisation.
    padding: 0 or -1, see `features.node_features`.
    source: name of the program in error messages, for instance its file.

  Returns:
    `node_feat` (n, 140) float32, `node_opcode` (n,) uint8, `edge_index` (m, 2) int64,
    `node_splits` (1, S) int64 and the scalar `feature_padding`, int64.

  Raises:
    DataError: there are no instructions, a dimension has no known size, or as `edge_index`.
    LimitError: there are too many instructions.
  """
  if not any(computation.instructions for computation in module.computations):
    raise errors.DataError(
        f"{source} has no instructions; expected a HloModuleProto with at least one computation; "
        "dump the program again")
  limits.check_instructions(module, source)
  shapes.check(module, source)
  return {
      "node_feat": features.node_features(module, padding),
      "node_opcode": node_opcodes(module),
      "edge_index": edge_index(module, source),
      "node_splits": node_splits(module),
      "feature_padding": np.array(padding, np.int64),
  }


def node_opcodes(module: hlo_pb2.HloModuleProto) -> np.ndarray:
  """The opcode id of each instruction: (n,) uint8, 0 for opcodes that are not in the table."""
  return np.array(
      [opcodes.opcode_id(instruction.opcode)
       for computation in module.computations for instruction in computation.instructions],
      np.uint8)


def unknown_opcodes(module: hlo_pb2.HloModuleProto) -> dict[str, int]:
  """The number of instructions per opcode that is not in the table, by name."""
  counts: dict[str, int] = {}
  for computation in module.computations:
    for instruction in computation.instructions:
      if instruction.opcode not in opcodes.OPCODE_IDS:
        counts[instruction.opcode] = counts.get(instruction.opcode, 0) + 1
  return counts


def edge_index(
    module: hlo_pb2.HloModuleProto, source: str = "the module") -> np.ndarray:
  """Rows `[u, v]`, u consumes the output of v: (m, 2) int64, distinct, sorted lexicographically.

  A node has an edge to each distinct operand and to the root of each distinct called computation.

  Raises:
    DataError: an operand, a root or a called computation does not exist, an id occurs twice, an
      instruction consumes its own output, or a computation calls itself.
  """
  # Look up ids in the instruction's own computation first: some versions of XLA restart the
  # numbering in each computation.
  order.callees_first(module, source)  # Refuses recursion.
  computations = order.computation_positions(module, source)
  starts = np.cumsum([0] + [len(c.instructions) for c in module.computations]).tolist()
  all_positions = [order.instruction_positions(c, source) for c in module.computations]
  everywhere = {key: start + position for start, local in zip(starts, all_positions)
                for key, position in local.items()}
  roots = [local.get(computation.root_id)
           for computation, local in zip(module.computations, all_positions)]

  consumers: list[int] = []
  producers: list[int] = []
  for computation, start, local in zip(module.computations, starts, all_positions):
    is_ordered = True
    for position, instruction in enumerate(computation.instructions):
      for operand in instruction.operand_ids:
        inside = local.get(operand)
        producer = everywhere.get(operand) if inside is None else start + inside
        if producer is None:
          raise _dangling(source, instruction, f"operand id {operand}", "instruction")
        is_ordered &= inside is None or inside < position
        consumers.append(start + position)
        producers.append(producer)
      for called in instruction.called_computation_ids:
        where = computations.get(called)
        root = None if where is None else roots[where]
        if where is None or root is None:
          raise _dangling(source, instruction, f"called computation id {called}",
                          "computation that has a root instruction")
        consumers.append(start + position)
        producers.append(starts[where] + root)
    if not is_ordered:  # Only then, the computation can have a cycle.
      order.operands_first(computation, local, source)

  node = starts[-1]
  u, v = np.asarray(consumers, np.int64), np.asarray(producers, np.int64)
  # Sorting and deduplicating is much faster with one number per edge.
  keys = np.unique(u * node + v)
  return np.stack([keys // node, keys % node], axis=1) if len(keys) else np.empty((0, 2), np.int64)


def node_splits(module: hlo_pb2.HloModuleProto) -> np.ndarray:
  """0, the node count after each major computation, and the total: (1, S) int64."""
  splits, count = [0], 0
  for computation in module.computations:
    count += len(computation.instructions)
    if any(word in computation.name for word in _MAJOR_COMPUTATIONS):
      splits.append(count)
  if splits[-1] < count:
    splits.append(count)
  return np.array([splits], np.int64)


def _dangling(
    source: str, instruction: hlo_pb2.HloInstructionProto, what: str, expected: str,
) -> errors.DataError:
  return errors.DataError(
      f"{source}: instruction {escaping.quoted(instruction.name or str(instruction.id))} has "
      f"{what}, but the module has no such {expected}; the file is truncated or damaged: dump or "
      "download it again")
