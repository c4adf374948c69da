"""Limits on what a program may ask for, so that no small file takes much time or memory.

A few bytes can describe an array with 2^60 elements, or calls that double the program at each
level. Everything that grows faster than its file is checked against a limit of this module before
it is computed. The limits are far above real programs: the largest public kernel has a few hundred
instructions, and the arrays of public programs have at most 8 axes.
"""

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import hlo_pb2

# Instructions of a program: several times those of the largest public program.
INSTRUCTIONS = 1 << 18
# Instructions and operands of a kernel once its fusions and calls are replaced by what they
# compute.
EXPANDED_VALUES = 1 << 16
# Instructions of all kernels into which a program is cut, each with the computations that it calls.
KERNEL_INSTRUCTIONS = 1 << 17
# Length of one axis, and of all axes multiplied, of an array that is cut into tiles.
EXTENT = (1 << 32) - 1
ELEMENTS = (1 << 48) - 1
# Axes of an array that is cut into tiles.
RANK = 32
# Axes of the operands of a dot whose contracted axes the file does not name.
INFERRED_RANK = 8
# Tiles that one call generates, whatever limit its caller sets.
CANDIDATES = 1 << 20
# Bytes of the layout features of all candidates of one program.
LAYOUT_BYTES = 1 << 29


def check(value: int, limit: int, what: str, remedy: str) -> None:
  """Checks a number before something of this size is computed.

  Args:
    value: the number.
    limit: its limit, one of this module.
    what: where and what it is, for instance "k.pb: the number of axes of 'dot.3'".
    remedy: what the user can do.

  Raises:
    LimitError: the number is above the limit.
  """
  if value > limit:
    raise errors.LimitError(f"{what} is {value:,}; the limit is {limit:,}; {remedy}")


def check_instructions(module: hlo_pb2.HloModuleProto, source: str = "the module") -> None:
  """Checks the number of instructions of a program.

  Raises:
    LimitError: it has more than `INSTRUCTIONS`.
  """
  check(sum(len(computation.instructions) for computation in module.computations), INSTRUCTIONS,
        f"{source}: the number of instructions", "use a smaller part of the program")
