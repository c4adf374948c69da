"""Derives the shapes of an operation's operands from the shape of its result.

For every operation that is not elementwise: the shapes that its operands may have, as close as
possible to the requested sizes, subject to the operands whose shapes are already determined.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math

import numpy as np

from tpugraphs_rank.synthesis.programs import operations as ops
from tpugraphs_rank.synthesis.programs import shapes

Shape = tuple[int, ...]
_LABELS = "abcdefghij"
# Convolution windows are 3x3 or 1x1.
_WINDOW = 3
_LONGEST_SUM = 4096


@dataclasses.dataclass(frozen=True)
class Operand:
  """What is known about an operand.

  Attributes:
    bucket: the requested size, floor(log2(elements)).
    shape: its shape; None until a user determines it.
    least_rank: the smallest number of axes that the operation computing it needs.
  """

  bucket: int
  shape: Shape | None
  least_rank: int = 0


@dataclasses.dataclass(frozen=True)
class Relation:
  """Shapes of the operands, and further parameters of the operation; see `programs.Node`."""

  shapes: tuple[Shape, ...]
  equation: str = ""
  starts: Shape = ()
  axis: int = 0


def relate(operation: str, shape: Shape, operands: Sequence[Operand], rng: np.random.Generator
           ) -> Relation | None:
  """Shapes for all operands that keep the determined ones; None where no shapes fit.

  Args:
    operation: neither elementwise nor a leaf.
    shape: shape of the result.
    operands: in operand order: gathers take the table first, convolutions the image.
    rng: source of the random choices among valid shapes.
  """
  rule = _RULES.get(operation, _reduce if operation in ops.REDUCTIONS else None)
  return rule(shape, list(operands), rng) if rule else None


def _log(shape: Sequence[int]) -> float:
  return math.log2(math.prod(shape)) if shape else 0.0


def _nearest(candidates: Sequence[tuple[int, ...]], shape: Shape, bucket: int,
             rng: np.random.Generator) -> tuple[int, ...]:
  """The axes whose extent is nearest to a bucket; ties are broken at random."""
  distances = [abs(_log([shape[axis] for axis in axes]) - bucket - 0.5) + 0.3 * rng.random()
               for axes in candidates]
  return candidates[int(np.argmin(distances))]


def _broadcast(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  source = operands[0]
  names = _LABELS[:len(shape)]
  if source.shape is not None:
    axes = shapes.subsequence(source.shape, shape)
    if axes is None or len(axes) == len(shape):
      return None
  else:
    options = [axes for axes in shapes.subsets(len(shape))
               if len(axes) >= source.least_rank and bool(axes) == (source.bucket > 0)]
    options = options or [
        axes for axes in shapes.subsets(len(shape)) if len(axes) >= source.least_rank]
    if not options:
      return None
    axes = _nearest(options, shape, source.bucket, rng)
  return Relation((tuple(shape[axis] for axis in axes),),
                  f"{''.join(names[axis] for axis in axes)}->{names}")


def _reduce(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  source = operands[0]
  if source.shape is not None:
    axes = shapes.subsequence(shape, source.shape)
    if axes is None or len(axes) == len(source.shape):
      return None
    whole = source.shape
  else:
    # One axis is summed; two where one would be very long, or where more axes are needed.
    log = max(source.bucket + 0.5 - _log(shape), 3.0)
    count = max(1, source.least_rank - len(shape))
    if count == 1 and log > 7 and len(shape) < 3 and rng.random() < 0.15:
      count = 2
    sizes = [shapes.nice(min(2 ** (log / count), _LONGEST_SUM), rng) for _ in range(count)]
    rank = len(shape) + count
    # The minor-most axis is as likely as all others together.
    summed = (set(range(rank - count, rank)) if rng.random() < 0.5 else
              set(rng.permutation(rank)[:count].tolist()))
    left, new = iter(shape), iter(sizes)
    whole = tuple(next(new) if axis in summed else next(left) for axis in range(rank))
    axes = tuple(axis for axis in range(rank) if axis not in summed)
  names = _LABELS[:len(whole)]
  return Relation((whole,), f"{names}->{''.join(names[axis] for axis in axes)}")


def _transpose(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  source = operands[0]
  orders = [order for order in shapes.permutations(len(shape)) if source.shape is None
            or tuple(shape[axis] for axis in order) == source.shape]
  if not orders:
    return None
  order = orders[int(rng.integers(len(orders)))]
  names = _LABELS[:len(shape)]
  return Relation((tuple(shape[axis] for axis in order),),
                  f"{''.join(names[axis] for axis in order)}->{names}")


def _reshape(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  source = operands[0]
  if source.shape is not None:
    same = math.prod(source.shape) == math.prod(shape) and source.shape != shape
    return Relation((source.shape,)) if same else None
  options: list[Shape] = [shape[:axis] + (shape[axis] * shape[axis + 1],) + shape[axis + 2:]
                          for axis in range(len(shape) - 1)]
  options += [shape[:axis] + (half, size // half) + shape[axis + 1:]
              for axis, size in enumerate(shape) for half in (2, 4, 8)
              if size % half == 0 and size // half > 1 and len(shape) < 4]
  options = [option for option in options if len(option) >= source.least_rank]
  return Relation((options[int(rng.integers(len(options)))],)) if options else None


def _slice(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  source = operands[0]
  if not shape:
    return None
  if source.shape is None:
    axis = int(rng.integers(len(shape)))
    log = source.bucket + 0.5 - _log(shape)
    whole = list(shape)
    # Either the halo of a window, or a section of a larger array.
    whole[axis] = shape[axis] + 2 if log < 0.9 else shapes.nice(shape[axis] * 2 ** log, rng)
    whole[axis] = max(whole[axis], shape[axis] + 1)
    source_shape = tuple(whole)
  else:
    source_shape = source.shape
    if len(source_shape) != len(shape) or source_shape == shape or any(
        size < part for size, part in zip(source_shape, shape)):
      return None
  starts = tuple(int(rng.integers(size - part + 1)) for size, part in zip(source_shape, shape))
  return Relation((source_shape,), starts=starts)


def _concatenate(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  count = len(operands)
  options = []
  for axis in range(len(shape)):
    settled = [operand.shape for operand in operands if operand.shape is not None]
    if any(len(known) != len(shape) or known[:axis] + known[axis + 1:]
           != shape[:axis] + shape[axis + 1:] for known in settled):
      continue
    rest = shape[axis] - sum(known[axis] for known in settled)
    free = count - len(settled)
    if (rest == 0 and free == 0) or (free and rest >= free):
      options.append((axis, rest, free))
  if not options:
    return None
  axis, rest, free = max(options, key=lambda option: (
      option[2] > 0 and option[1] % option[2] == 0, option[0]))
  extents = iter([rest // free + (number < rest % free) for number in range(free)] if free else [])
  return Relation(tuple(
      operand.shape if operand.shape is not None
      else shape[:axis] + (next(extents),) + shape[axis + 1:] for operand in operands), axis=axis)


def _dot(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  """The first operand has the first axes of the result, the second the others.

  Both have the summed axis, first or last, and may share leading axes (a batch).
  """
  first, second = operands
  names = _LABELS[:len(shape)]
  summed = "k"
  options = []
  for batch in ((0, 1) if len(shape) >= 3 else (0,)):
    for split in range(batch, len(shape) + 1):
      left, right = names[:split], names[:batch] + names[split:]
      if (split == batch or split == len(shape)) and len(shape) >= 2:
        continue
      for one in (left + summed, left[:batch] + summed + left[batch:]):
        for other in (right[:batch] + summed + right[batch:], right + summed):
          options.append((one, other))
  sizes = dict(zip(names, shape))
  fitting = []
  for one, other in options:
    length = None
    for label, operand in ((one, first), (other, second)):
      if operand.shape is None:
        continue
      known = _matches(label, operand.shape, sizes)
      if known is None or (length is not None and known != length):
        length = -1
        break
      length = known
    if length == -1:
      continue
    logs = [_log([sizes[name] for name in label if name != summed]) for label in (one, other)]
    if length is None:
      requested = np.mean([operand.bucket + 0.5 - log for operand, log in
                       zip((first, second), logs)])
      length = shapes.nice(2 ** min(max(float(requested), 3.0), 11.0), rng)
    error = sum(abs(log + math.log2(length) - operand.bucket - 0.5)
                for operand, log in zip((first, second), logs) if operand.shape is None)
    # Prefer row-major operands, which are the most frequent in real programs.
    row_major = one.endswith(summed) + (other.index(summed) <= 1 and not other.endswith(summed))
    fitting.append((error - 0.5 * row_major + 0.5 * rng.random(), one, other, length))
  if not fitting:
    return None
  _, one, other, length = min(fitting)
  sizes[summed] = length
  return Relation((tuple(sizes[name] for name in one), tuple(sizes[name] for name in other)),
                  f"{one},{other}->{names}")


def _matches(names: str, shape: Shape, sizes: dict[str, int]) -> int | None:
  """The length of the summed axis if `shape` matches `names`; otherwise None."""
  if len(names) != len(shape):
    return None
  length = None
  for name, size in zip(names, shape):
    if name == "k":
      length = size
    elif sizes[name] != size:
      return None
  return length


def _gather(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  table, rows = operands
  if not shape or (rows.shape is not None and rows.shape != shape[:1]):
    return None
  if table.shape is not None:
    if table.shape[1:] != shape[1:] or not table.shape:
      return None
    whole = table.shape
  else:
    length = shapes.nice(2 ** max(table.bucket + 0.5 - _log(shape[1:]), 3.0), rng)
    whole = (length, *shape[1:])
  return Relation((whole, shape[:1]))


def _convolution(shape: Shape, operands: list[Operand], rng) -> Relation | None:
  if len(shape) != 4 or any(operand.shape is not None and len(operand.shape) != 4
                            for operand in operands):
    return None
  image, kernel = operands
  images, tall, wide, width = shape
  windows = [_WINDOW, 1]
  if kernel.shape is not None:
    windows = [kernel.shape[0]]
  fitting = []
  for window in windows:
    depths = {operand.shape[axis] for operand, axis in ((image, 3), (kernel, 2))
              if operand.shape is not None}
    if not depths:
      requested = np.mean([image.bucket + 0.5 - _log((images, tall, wide)),
                           kernel.bucket + 0.5 - _log((window, window, width))])
      depths = {shapes.nice(2 ** max(float(requested), 3.0), rng)}
    for depth in depths:
      candidate = ((images, tall + window - 1, wide + window - 1, depth),
                   (window, window, depth, width))
      if all(operand.shape in (None, known) for operand, known in zip(operands, candidate)):
        error = (abs(_log(candidate[1]) - kernel.bucket - 0.5)
                 + abs(_log(candidate[0]) - image.bucket - 0.5))
        fitting.append((error, candidate))
  return Relation(min(fitting)[1]) if fitting else None


_RULES: dict[str, Callable[..., Relation | None]] = {
    ops.BROADCAST: _broadcast, ops.TRANSPOSE: _transpose, ops.RESHAPE: _reshape,
    ops.SLICE: _slice, ops.CONCATENATE: _concatenate, ops.DOT: _dot, ops.GATHER: _gather,
    ops.CONVOLUTION: _convolution}
