"""Whether a program is from before or after the compiler's optimisation, as far as it shows.

HLO does not state its stage. Optimisation leaves instructions that no source program has: fusions,
bitcasts, asynchronous copies. A program without them that leaves several array operations in a row
unfused was not optimised to the end: the public programs under layouts, for instance, are from
before fusion. Small programs may show neither.
"""

from typing import NamedTuple

from tpugraphs_rank.hlo import hlo_pb2

BEFORE, AFTER = "before_optimization", "after_optimization"
# As sentences name them.
TEXT = {BEFORE: "before optimisation", AFTER: "after optimisation"}
# Only the compiler creates these; `-start` and `-done` end the names of asynchronous instructions.
_CREATED = ("fusion", "bitcast")
_ASYNCHRONOUS = ("-start", "-done")
# Optimisation would have fused these with their neighbours.
_FUSIBLE = frozenset("""
    abs add and broadcast compare convert cosine divide exponential log maximum minimum multiply
    negate or power rsqrt select sine sqrt subtract tanh
""".split())
_UNFUSED = 4


class Stage(NamedTuple):
  """The stage of a program.

  Attributes:
    name: `before_optimization` or `after_optimization`; "" if it does not show.
    why: what shows it, as the end of "the program ...": "has 12 fusions".
  """

  name: str
  why: str


def of(module: hlo_pb2.HloModuleProto) -> Stage:
  """The stage of a program, from its instructions."""
  counts: dict[str, int] = {}
  unfused = 0
  for computation in module.computations:
    for instruction in computation.instructions:
      opcode = instruction.opcode
      counts[opcode] = counts.get(opcode, 0) + 1
      # The computations that reductions call combine scalars.
      unfused += opcode in _FUSIBLE and len(instruction.shape.dimensions) > 0
  asynchronous = [opcode for opcode in counts if opcode.endswith(_ASYNCHRONOUS)]
  for opcode in (*_CREATED, *sorted(asynchronous)):
    if opcode in counts:
      return Stage(AFTER, f"has {counts[opcode]} {opcode} instruction{'s' * (counts[opcode] > 1)}")
  if unfused >= _UNFUSED:
    return Stage(BEFORE, f"has {unfused} elementwise instructions and no fusion")
  return Stage("", "")
