"""Operations of convolutions of HLO: products with padding and zeros of dilation do not count."""

import math

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import hlo_pb2

# Positions of a kernel along one axis that are counted one by one.
_MAX_POSITIONS = 1 << 24


def flops(instruction: hlo_pb2.HloInstructionProto, lhs: hlo_pb2.ShapeProto, where: str) -> int:
  """Operations of a convolution: 2 x the products of input and kernel elements that exist.

  Args:
    instruction: the convolution.
    lhs: the shape of its input.
    where: names it in error messages.

  Raises:
    IndexError: its dimension numbers do not fit the shapes.
    LimitError: an axis is too long.
  """
  numbers = instruction.convolution_dimension_numbers
  shape = instruction.shape
  groups = max(instruction.feature_group_count, 1)
  batches = max(instruction.batch_group_count, 1)
  products = (lhs.dimensions[numbers.input_feature_dimension] // groups
              * shape.dimensions[numbers.output_feature_dimension]
              * (lhs.dimensions[numbers.input_batch_dimension] // batches))
  for place, axis in enumerate(numbers.input_spatial_dimensions):
    window = (instruction.window.dimensions[place]
              if place < len(instruction.window.dimensions) else hlo_pb2.WindowDimension(
                  size=1, stride=1, window_dilation=1, base_dilation=1))
    products *= _positions(lhs.dimensions[axis],
                           shape.dimensions[numbers.output_spatial_dimensions[place]], window,
                           where)
  return 2 * products


def _positions(inputs: int, outputs: int, window: hlo_pb2.WindowDimension, where: str) -> int:
  """How many pairs of an output and a kernel position along an axis meet an input element."""
  if min(window.size, outputs) > _MAX_POSITIONS:
    raise errors.LimitError(
        f"{where}: its window has {window.size:,} positions along an axis of {outputs:,} results; "
        f"the limit for the smaller one is {_MAX_POSITIONS:,}; check the shapes of the program")
  stride, base = max(window.stride, 1), max(window.base_dilation, 1)
  spread = max(window.window_dilation, 1)
  if max(inputs, outputs, window.size, stride, base, spread, abs(window.padding_low)) > 2 ** 30:
    raise errors.LimitError(f"{where}: an axis or its window is longer than 2^30; check the shapes "
                            "of the program")
  # The position in the dilated input is steps[i] * i + places * k: count the shorter one by one.
  few, many = sorted(((window.size, spread), (outputs, stride)))
  start = np.arange(few[0], dtype=np.int64) * few[1] - window.padding_low
  step = many[1]
  shared = math.gcd(step, base)
  # i with 0 <= start + step i <= (inputs - 1) base, and the sum a multiple of base.
  low = np.maximum(-(start // step), 0)
  high = np.minimum(((inputs - 1) * base - start) // step, many[0] - 1)
  period = base // shared
  inverse = pow(step // shared, -1, period) if period > 1 else 0
  first = (-start // shared) % period * inverse % period
  count = (high - first) // period - (low - 1 - first) // period
  return int(np.where((start % shared == 0) & (high >= low) & (inputs > 0), count, 0).sum())
