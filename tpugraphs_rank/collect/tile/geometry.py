"""The geometry of kernels: axes, tiles, and the blocks that a tile touches.

A kernel is a family (the computation), a shape and an element type. Its *output axes* are the
dimensions of its result, major to minor. Its *reduction axes* are the axes that it sums (or
maximizes) over, in the order of the first operand. A tile has one side for each output axis and
one for each reduction axis; each side divides its axis.

This module does not import JAX, so sampling, gates and splits run in any environment.
"""

from collections.abc import Callable
import dataclasses
import math
import re

from tpugraphs_rank import errors

Sides = tuple[int, ...]
Blocks = tuple[Sides, ...]

# Bytes of one element, by the short name of the element type in file stems.
ITEM_BYTES: dict[str, int] = {"f32": 4, "bf16": 2, "s32": 4}

_STEM = re.compile(r"^(?P<family>[a-z][a-z0-9_]*)\.(?P<shape>\d+(?:x\d+)*)\.(?P<dtype>[a-z0-9]+)$")


@dataclasses.dataclass(frozen=True)
class Tile:
  """One configuration: a side for each output axis and for each reduction axis."""

  output: Sides
  reduction: Sides

  @property
  def output_volume(self) -> int:
    """Elements of the output block."""
    return math.prod(self.output)


@dataclasses.dataclass(frozen=True)
class Family:
  """The geometry of one kind of kernel.

  Attributes:
    name: the name in file stems.
    group: related families have the same group; test groups are whole groups.
    parameters: names of the numbers in the shape, in order.
    output: shape -> sizes of the output axes.
    reduction: shape -> sizes of the reduction axes (empty: nothing is reduced).
    blocks: (shape, tile) -> the blocks that one step touches. The first belongs to the first
      operand and becomes `input_bounds`; the last is the output block.
  """

  name: str
  group: str
  parameters: tuple[str, ...]
  output: Callable[[Sides], Sides]
  reduction: Callable[[Sides], Sides]
  blocks: Callable[[Sides, Tile], Blocks]


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A family at one shape and element type."""

  family: str
  shape: Sides
  dtype: str

  def __post_init__(self) -> None:
    definition = FAMILIES.get(self.family)
    if definition is None:
      raise errors.UnknownNameError(
          f"unknown kernel family {self.family!r}; the families are {', '.join(sorted(FAMILIES))}")
    if len(self.shape) != len(definition.parameters):
      raise errors.ConfigError(
          f"{self.family}: shape {self.shape}; expected {len(definition.parameters)} numbers "
          f"({', '.join(definition.parameters)})")
    if self.dtype not in ITEM_BYTES:
      raise errors.ConfigError(
          f"{self.family}: unknown element type {self.dtype!r}; one of {', '.join(ITEM_BYTES)}")

  @property
  def definition(self) -> Family:
    return FAMILIES[self.family]

  @property
  def stem(self) -> str:
    """`<family>.<shape>.<dtype>`: the name of the kernel's file and of its HLO module."""
    return f"{self.family}.{'x'.join(map(str, self.shape))}.{self.dtype}"

  @property
  def output_axes(self) -> Sides:
    return self.definition.output(self.shape)

  @property
  def reduction_axes(self) -> Sides:
    return self.definition.reduction(self.shape)

  def iterations(self, tile: Tile) -> int:
    """Steps of the blocked loops (output blocks times reduction blocks)."""
    steps = 1
    for size, side in zip(self.output_axes + self.reduction_axes, tile.output + tile.reduction):
      steps *= size // side
    return steps

  def input_bounds(self, tile: Tile) -> Sides:
    """Block of the first operand, halo included."""
    return self.definition.blocks(self.shape, tile)[0]

  def working_set(self, tile: Tile) -> int:
    """Bytes of all blocks that one step touches."""
    blocks = self.definition.blocks(self.shape, tile)
    return ITEM_BYTES[self.dtype] * sum(math.prod(block) for block in blocks)


def parse_stem(stem: str) -> Kernel:
  """Inverse of `Kernel.stem`.

  Raises:
    DataError: the name is not of the form `<family>.<shape>.<dtype>`.
  """
  match = _STEM.match(stem)
  if match is None:
    raise errors.DataError(
        f"{stem!r} is not the name of a kernel; expected <family>.<n>x<n>....<dtype>, "
        "for instance matmul.256x256x256.f32")
  shape = tuple(int(number) for number in match["shape"].split("x"))
  return Kernel(match["family"], shape, match["dtype"])


FAMILIES: dict[str, Family] = {}


def _add(name: str, group: str, parameters: str, output: Callable[[Sides], Sides],
         reduction: Callable[[Sides], Sides], blocks: Callable[[Sides, Tile], Blocks]) -> None:
  FAMILIES[name] = Family(name, group, tuple(parameters.split()), output, reduction, blocks)


def _nothing(shape: Sides) -> Sides:
  del shape
  return ()


def _matmul_blocks(with_bias: bool) -> Callable[[Sides, Tile], Blocks]:
  def blocks(shape: Sides, tile: Tile) -> Blocks:
    del shape
    (m, n), (k,) = tile.output, tile.reduction
    bias = ((n,),) if with_bias else ()
    return ((m, k), (k, n)) + bias + ((m, n),)
  return blocks


for _name in ("matmul", "matmul_skinny"):
  _add(_name, "matmul", "m n k", lambda s: s[:2], lambda s: s[2:], _matmul_blocks(False))
for _name in ("matmul_bias_relu", "matmul_bias_gelu"):
  _add(_name, "matmul", "m n k", lambda s: s[:2], lambda s: s[2:], _matmul_blocks(True))
_add("matmul_batched", "matmul", "batch m n k", lambda s: s[:3], lambda s: s[3:],
     lambda s, t: ((t.output[0], t.output[1], t.reduction[0]),
                   (t.output[0], t.reduction[0], t.output[2]), t.output))
_add("attention_scores", "matmul", "heads queries keys depth", lambda s: s[:3], lambda s: s[3:],
     lambda s, t: ((t.output[0], t.output[1], t.reduction[0]),
                   (t.output[0], t.output[2], t.reduction[0]), t.output[1:], t.output))
_add("attention_values", "matmul", "heads queries depth keys", lambda s: s[:3], lambda s: s[3:],
     lambda s, t: ((t.output[0], t.output[1], t.reduction[0]),
                   (t.output[0], t.reduction[0], t.output[2]), t.output))


def _conv_blocks(kernel: int, stride: int, patches: bool) -> Callable[[Sides, Tile], Blocks]:
  def blocks(shape: Sides, tile: Tile) -> Blocks:
    del shape
    (n, h, w, co), (ci,) = tile.output, tile.reduction
    halo = (n, (h - 1) * stride + kernel, (w - 1) * stride + kernel, ci)
    patch = ((n, h, w, kernel * kernel * ci),) if patches else ()
    return (halo, (kernel, kernel, ci, co)) + patch + (tile.output,)
  return blocks


# The shape of a convolution has its *output* rows and columns, because these axes are tiled.
_CONV = "batch rows columns in_features out_features"
for _name, _args in {"conv_1x1": (1, 1, False), "conv_3x3": (3, 1, False),
                     "conv_strided": (3, 2, False), "conv_im2col": (3, 1, True)}.items():
  _add(_name, "convolution", _CONV, lambda s: s[:3] + s[4:], lambda s: s[3:4], _conv_blocks(*_args))
_add("conv_depthwise", "convolution", "batch rows columns features", lambda s: s, _nothing,
     lambda s, t: ((t.output[0], t.output[1] + 2, t.output[2] + 2, t.output[3]),
                   (3, 3, 1, t.output[3]), t.output))

for _name in ("pairwise_l2", "pairwise_l1", "pairwise_linf", "pairwise_rbf", "pairwise_hamming"):
  _add(_name, "pairwise", "rows columns depth", lambda s: s[:2], lambda s: s[2:],
       lambda s, t: ((t.output[0], t.reduction[0]), (t.output[1], t.reduction[0]), t.output))

for _name in ("softmax", "log_softmax", "layer_norm", "rms_norm"):
  _add(_name, "normalisation", "rows columns", lambda s: s, lambda s: s[1:],
       lambda s, t: ((t.output[0], t.reduction[0]), t.output, t.output))

for _name in ("reduce_sum_minor", "reduce_max_minor", "reduce_logsumexp_minor"):
  _add(_name, "reduction", "rows columns", lambda s: s[:1], lambda s: s[1:],
       lambda s, t: (t.output + t.reduction, t.output))
for _name in ("reduce_sum_major", "reduce_norm_major"):
  _add(_name, "reduction", "rows columns", lambda s: s[1:], lambda s: s[:1],
       lambda s, t: (t.reduction + t.output, t.output))
_add("reduce_sum_middle", "reduction", "planes rows columns", lambda s: (s[0], s[2]),
     lambda s: (s[1],),
     lambda s, t: ((t.output[0], t.reduction[0], t.output[1]), t.output))
_add("reduce_sum_outer", "reduction", "planes rows columns", lambda s: (s[1],),
     lambda s: (s[0], s[2]),
     lambda s, t: ((t.reduction[0], t.output[0], t.reduction[1]), t.output))


def _transpose(permutation: Sides) -> None:
  inverse = tuple(permutation.index(axis) for axis in range(len(permutation)))
  digits = "".join(map(str, permutation))
  names = "rows columns" if len(permutation) == 2 else "planes rows columns"
  _add(f"transpose_{digits}", "transpose", names,
       lambda s: tuple(s[axis] for axis in permutation), _nothing,
       lambda s, t: (tuple(t.output[axis] for axis in inverse), t.output))


for _permutation in ((1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
  _transpose(_permutation)

_add("elementwise_chain", "elementwise", "rows columns", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output))
_add("elementwise_gate", "elementwise", "rows columns", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output, t.output))
_add("elementwise_select", "elementwise", "rows columns", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output, t.output))
_add("elementwise_broadcast", "elementwise", "planes rows columns", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output[2:], t.output[:2], t.output))

_add("gather_rows", "gather", "vocabulary depth tokens", lambda s: (s[2], s[1]), _nothing,
     lambda s, t: (t.output, t.output[:1], t.output))
_add("gather_position", "gather", "vocabulary depth tokens", lambda s: (s[2], s[1]), _nothing,
     lambda s, t: (t.output, t.output[:1], t.output, t.output))
_add("gather_columns", "gather", "rows vocabulary tokens", lambda s: (s[0], s[2]), _nothing,
     lambda s, t: (t.output, t.output[1:], t.output))
_add("gather_bag", "gather", "vocabulary depth bags length", lambda s: (s[2], s[1]),
     lambda s: s[3:],
     lambda s, t: ((t.output[0], t.reduction[0], t.output[1]),
                   (t.output[0], t.reduction[0]), t.output))

# Scans. A block also needs the last slice of the block before, which the loop carries.
for _name in ("scan_sum_minor", "scan_sum_major"):
  _add(_name, "scan", "rows columns", lambda s: s, _nothing, lambda s, t: (t.output, t.output))
_add("scan_max_middle", "scan", "planes rows columns", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output))
_add("scan_recurrence", "scan", "batch time features", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output, t.output))
_add("scan_decay", "scan", "time features", lambda s: s, _nothing,
     lambda s, t: (t.output, (t.output[0], t.output[0]), t.output))
_add("scan_table", "scan", "rows columns", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output))

# Fused attention. Queries and keys are read with their whole depth, whatever the tile of the
# values.
for _name in ("flash_attention", "masked_attention"):
  _add(_name, "attention", "heads queries keys depth", lambda s: (s[0], s[1], s[3]),
       lambda s: s[2:3],
       lambda s, t: ((*t.output[:2], s[3]), (t.output[0], t.reduction[0], s[3]),
                     (t.output[0], t.reduction[0], t.output[2]), t.output))
for _name, _names in {"alibi_attention": "heads length depth",
                      "window_attention": "heads length depth window"}.items():
  _add(_name, "attention", _names, lambda s: s[:3], lambda s: s[1:2],
       lambda s, t: ((*t.output[:2], s[2]), (t.output[0], t.reduction[0], s[2]),
                     (t.output[0], t.reduction[0], t.output[2]), t.output))
_add("grouped_attention", "attention", "heads group queries keys depth",
     lambda s: (*s[:3], s[4]), lambda s: s[3:4],
     lambda s, t: ((*t.output[:3], s[4]), (t.output[0], t.reduction[0], s[4]),
                   (t.output[0], t.reduction[0], t.output[3]), t.output))
_add("linear_attention", "attention", "heads length depth features", lambda s: s[:3], _nothing,
     lambda s, t: ((*t.output[:2], s[3]), (*t.output[:2], s[3]), t.output,
                   (t.output[0], s[3], t.output[2]), t.output))

# Triangular matrices. `triangular_solve` multiplies blocks left of the diagonal with rows that are
# already solved.
for _name in ("triangular_solve", "triangular_matmul"):
  _add(_name, "triangular", "rows columns", lambda s: s, lambda s: s[:1],
       lambda s, t: ((t.output[0], t.reduction[0]), (t.reduction[0], t.output[1]), t.output))
_add("syrk_lower", "triangular", "rows depth", lambda s: (s[0], s[0]), lambda s: s[1:],
     lambda s, t: ((t.output[0], t.reduction[0]), (t.output[1], t.reduction[0]), t.output))
_add("ldl_update", "triangular", "rows depth", lambda s: (s[0], s[0]), lambda s: s[1:],
     lambda s, t: (t.output, (t.output[0], t.reduction[0]), (t.output[1], t.reduction[0]),
                   t.reduction, t.output))
_add("causal_product", "triangular", "heads length depth features", lambda s: s[:3],
     lambda s: s[1:2],
     lambda s, t: ((*t.output[:2], s[3]), (t.output[0], t.reduction[0], s[3]),
                   (t.output[0], t.reduction[0], t.output[2]), t.output))

# Small integers. Blocks have the elements of the arrays as they are stored: two values of four bits
# share a byte.
for _name in ("int8_matmul", "dynamic_matmul", "group_matmul"):
  _add(_name, "quantised", "m n k", lambda s: s[:2], lambda s: s[2:], _matmul_blocks(True))
_add("int4_matmul", "quantised", "m n pairs", lambda s: s[:2], lambda s: s[2:],
     lambda s, t: ((t.output[0], 2 * t.reduction[0]), (t.reduction[0], t.output[1]),
                   t.output[1:], t.output))
_add("fake_quantise", "quantised", "rows columns", lambda s: s, lambda s: s[1:],
     lambda s, t: ((t.output[0], t.reduction[0]), t.output, t.output))
_add("requantise_add", "quantised", "rows columns", lambda s: s, _nothing,
     lambda s, t: (t.output, t.output, t.output[:1], t.output[1:], t.output))

# Counts. Values are read in blocks and compared with all bins of the output block.
_add("row_histogram", "histogram", "rows values bins", lambda s: (s[0], s[2]), lambda s: s[1:2],
     lambda s, t: ((t.output[0], t.reduction[0]), t.output))
_add("weighted_histogram", "histogram", "values channels bins", lambda s: (s[2], s[1]),
     lambda s: s[:1],
     lambda s, t: (t.reduction, (t.reduction[0], t.output[1]), t.output))
_add("histogram_2d", "histogram", "values rows columns", lambda s: s[1:], lambda s: s[:1],
     lambda s, t: (t.reduction, t.reduction, t.output))
_add("joint_counts", "histogram", "values features categories labels", lambda s: s[1:],
     lambda s: s[:1],
     lambda s, t: ((t.reduction[0], t.output[0]), t.reduction, t.output))
_add("cumulative_counts", "histogram", "values columns edges", lambda s: (s[2], s[1]),
     lambda s: s[:1],
     lambda s, t: ((t.reduction[0], t.output[1]), t.output[:1], t.output))
_add("digitise", "histogram", "rows columns edges", lambda s: s[:2], lambda s: s[2:],
     lambda s, t: (t.output, t.reduction, t.output))

# Writing where an index says. Updates are read in blocks; what falls outside the output block is
# dropped.
for _name in ("segment_sum", "segment_sum_sorted", "onehot_sum"):
  _add(_name, "scatter", "updates depth segments", lambda s: (s[2], s[1]), lambda s: s[:1],
       lambda s, t: ((t.reduction[0], t.output[1]), t.reduction, t.output))
for _name in ("scatter_max", "scatter_rows"):
  _add(_name, "scatter", "rows depth updates", lambda s: s[:2], lambda s: s[2:],
       lambda s, t: (t.output, t.reduction, (t.reduction[0], t.output[1]), t.output))
_add("scatter_columns", "scatter", "rows updates segments", lambda s: (s[0], s[2]),
     lambda s: s[1:2],
     lambda s, t: ((t.output[0], t.reduction[0]), t.reduction, t.output))

# Stencils; rows and columns are those of the result.
_add("stencil_laplacian", "stencil", "rows columns", lambda s: s, _nothing,
     lambda s, t: (tuple(side + 2 for side in t.output), t.output, t.output))
_add("stencil_blur", "stencil", "rows columns channels", lambda s: s, _nothing,
     lambda s, t: ((t.output[0] + 2, t.output[1] + 2, t.output[2]), t.output))
_add("stencil_heat", "stencil", "planes rows columns", lambda s: s, _nothing,
     lambda s, t: (tuple(side + 2 for side in t.output), t.output))
_add("stencil_two_steps", "stencil", "rows columns", lambda s: s, _nothing,
     lambda s, t: (tuple(side + 4 for side in t.output), tuple(side + 2 for side in t.output),
                   t.output))
_add("stencil_filter", "stencil", "rows columns taps", lambda s: s[:2], lambda s: s[2:],
     lambda s, t: ((t.output[0] + t.reduction[0] - 1, t.output[1]), t.reduction, t.output))
_add("stencil_upwind", "stencil", "rows columns", lambda s: s, _nothing,
     lambda s, t: (tuple(side + 2 for side in t.output), t.output, t.output, t.output))


def _pool_blocks(stride: int) -> Callable[[Sides, Tile], Blocks]:
  def blocks(shape: Sides, tile: Tile) -> Blocks:
    del shape
    n, h, w, c = tile.output
    return (n, (h - 1) * stride + 3, (w - 1) * stride + 3, c), tile.output
  return blocks


for _name, _stride in {"stencil_pool": 1, "stencil_pool_strided": 2}.items():
  _add(_name, "stencil", "batch rows columns features", lambda s: s, _nothing,
       _pool_blocks(_stride))

# Order.
_add("sort_top", "sort", "rows columns count", lambda s: (s[0], s[2]), lambda s: s[1:2],
     lambda s, t: ((t.output[0], t.reduction[0]), (t.output[0], s[2]), t.output))
_add("sort_median", "sort", "workers rows columns", lambda s: s[1:], _nothing,
     lambda s, t: (s[:1] + t.output, t.output))
_add("sort_window", "sort", "rows columns", lambda s: s, _nothing,
     lambda s, t: ((t.output[0] + 4, t.output[1]), t.output))
_add("sort_rank", "sort", "rows columns", lambda s: s, lambda s: s[1:],
     lambda s, t: ((t.output[0], t.reduction[0]), t.output, t.output))
_add("sort_argmax", "sort", "planes rows columns", lambda s: (s[0], s[2]), lambda s: s[1:2],
     lambda s, t: ((t.output[0], t.reduction[0], t.output[1]), t.output, t.output))
_add("sort_merge_step", "sort", "rows columns", lambda s: (s[0], 2, s[1]), _nothing,
     lambda s, t: ((t.output[0], 2, t.output[2]), t.output))

# Butterflies. Hadamard: any part of the transformed axis depends on all of it.
_add("butterfly_hadamard", "butterfly", "batch size columns", lambda s: s, _nothing,
     lambda s, t: ((t.output[0], s[1], t.output[2]), t.output))
_add("butterfly_hadamard_minor", "butterfly", "rows size", lambda s: s, _nothing,
     lambda s, t: ((t.output[0], s[1]), t.output))
_add("butterfly_fft", "butterfly", "batch size", lambda s: (2, 2) + s, _nothing,
     lambda s, t: ((2, 2) + t.output[2:], (2, t.output[3]), t.output))
_add("butterfly_rotary", "butterfly", "tokens heads half", lambda s: s[:2] + (2,) + s[2:],
     _nothing, lambda s, t: ((t.output[0], t.output[1], 2, t.output[3]),
                             (t.output[0], t.output[3]), t.output))
_add("butterfly_haar", "butterfly", "rows columns", lambda s: (4,) + s, _nothing,
     lambda s, t: ((2 * t.output[1], 2 * t.output[2]), t.output))


def groups() -> dict[str, tuple[str, ...]]:
  """Group -> its families, both in order of definition."""
  result: dict[str, tuple[str, ...]] = {}
  for family in FAMILIES.values():
    result[family.group] = result.get(family.group, ()) + (family.name,)
  return result
