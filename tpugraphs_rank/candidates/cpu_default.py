"""The default tile of a kernel on a CPU: the rule with which the bundled collection was measured.

Nobody tiles a kernel of one's own by default, so the collector compares with the tile that a
programmer would choose: the largest one whose blocks together fit the first-level cache. The
collector has formulas for its own kernels (`collect.tile.configurations.DEFAULT_RULE`); here the
blocks are those that `blocks` finds in the program.
"""

import dataclasses

import numpy as np

from tpugraphs_rank.candidates import blocks
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning

CACHE_BYTES = 32 * 1024
RULE = "the largest tile whose blocks fit a cache of 32 KiB"
_MOST_TILES = 1 << 20
_NOT_READ = ("constant", "iota")
_BYTES: dict[int, int] = {
    hlo_pb2.PRED: 1, hlo_pb2.S8: 1, hlo_pb2.U8: 1, hlo_pb2.S16: 2, hlo_pb2.U16: 2, hlo_pb2.F16: 2,
    hlo_pb2.BF16: 2, hlo_pb2.S64: 8, hlo_pb2.U64: 8, hlo_pb2.F64: 8, hlo_pb2.C64: 8,
    hlo_pb2.C128: 16}
_USUAL_BYTES = 4


def with_default(candidates: candidate_set.Candidates, module: hlo_pb2.HloModuleProto,
                 source: str, known: tuple[int, ...] = ()) -> candidate_set.Candidates:
  """Generated tiles of `xla_cpu` with their default marked.

  If it was not sampled, it replaces the last one, so that there are no more than before. Other
  candidates, and those of kernels with too many tiles, are returned as they are.

  Args:
    candidates: the candidates.
    module: the kernel.
    source: its name in error messages.
    known: the sides of the default, of the output axes and then of the summed ones, if they are
      known otherwise.
  """
  about = candidates.about
  if (candidates.kind != "tile" or candidates.default is not None or about.get("source") != "auto"
      or about.get("tiling") != tile_spaces.XLA_CPU):
    return candidates
  space = tile_spaces.tile_space(module, tile_spaces.XLA_CPU, source)
  fits = len(known) == len(space.sides) and all(
      side in options for side, options in zip(known, space.sides))
  sides = np.array([known]) if fits else _default(space, value_graph.Expanded(module, source))
  if sides is None:
    return candidates
  groups = [_entries(bounds, sides) for bounds in (space.kernel, space.output, space.inputs)]
  row = tiles.feature_rows(*groups)
  rows = candidates.arrays["config_feat"]
  equal = np.flatnonzero((rows == row).all(axis=1))
  about = {**about, "default": RULE}
  if len(equal):
    return dataclasses.replace(candidates, default=int(equal[0]), about=about)
  last = candidates.count - 1

  def profile_of(position: int) -> candidate_set.Profile:
    if position < last:
      return candidates.profile(position)
    profile = candidate_set.Profile()
    for name, entries in zip(tuning.TILE_BOUNDS, groups):
      getattr(profile.op_config.tile_size_config, name).extend(map(int, entries[0]))
    return profile

  return dataclasses.replace(
      candidates, arrays={**candidates.arrays, "config_feat": np.concatenate([rows[:-1], row])},
      profile=profile_of, default=last, about=about)


def _entries(bounds: tuple[tile_spaces.Bound, ...], sides: np.ndarray) -> np.ndarray:
  columns = [bound.of(sides) for bound in bounds]
  return np.stack(columns, axis=1) if columns else np.zeros([len(sides), 0], np.int64)


def _default(space: tile_spaces.TileSpace, program: value_graph.Expanded) -> np.ndarray | None:
  """(1, axes) the sides of the default; None if there are too many tiles, or none."""
  if space.combinations > _MOST_TILES:
    return None
  lengths = [len(options) for options in space.sides]
  sides = space.tiles(np.stack(
      np.unravel_index(np.arange(space.combinations), lengths), axis=1))
  sides = sides[space.is_legal(sides)]
  if not len(sides):
    return None
  size = _working_set(space, program, sides)
  axes = len(program.values[program.root].shape)
  if (size > CACHE_BYTES).all():
    fitting = size == size.min()
    keys = [*sides.T[::-1]]  # Of the smallest working sets, the lexicographically first tile.
    order = np.lexsort([*keys, ~fitting])
    return sides[order[:1]]
  volume = sides.astype(np.float64).prod(axis=1)
  # The last key counts most.
  order = np.lexsort([*sides.T[::-1], sides[:, axes - 1], volume, size <= CACHE_BYTES])
  return sides[order[-1:]]


def _working_set(space: tile_spaces.TileSpace, program: value_graph.Expanded, sides: np.ndarray
                 ) -> np.ndarray:
  """(c,) bytes of the result's block and of the blocks of everything that one step reads."""
  output = tuple(blocks.Side(extent, axis)
                 for axis, extent in enumerate(program.values[program.root].shape))
  needed = blocks.blocks(program, program.root, output)
  reached = dict(needed)
  main = _main(program, needed)
  if main is not None:
    for position, block in enumerate(_operand_blocks(space, program, main, needed[main.number])):
      if block is not None:
        # Replaces what a whole reduction would need.
        reached.update(blocks.blocks(
            program, program.values[main.number].operands[position], block))
  total = _bytes(program, program.root, output, sides)
  for number, block in blocks.leaves(program, reached):
    value = program.values[number]
    if block and number != program.root and value.opcode not in _NOT_READ:
      total = total + _bytes(program, number, block, sides)
  return total


def _bytes(program: value_graph.Expanded, number: int, block: blocks.Sides, sides: np.ndarray
           ) -> np.ndarray:
  item = _BYTES.get(program.values[number].element_type, _USUAL_BYTES)
  volume = np.full(len(sides), float(item))
  for side in block:
    volume *= side.of(sides)
  return volume


def _main(program: value_graph.Expanded, needed: dict[int, blocks.Sides]
          ) -> blocks.Contraction | None:
  """The contraction whose summed axes are tiled: the one with the most work."""
  contractions = [
      contraction for number in sorted(needed)
      if program.values[number].opcode in ("dot", "convolution", "reduce")
      for contraction in [blocks.contraction(program, number)] if contraction]
  return max(contractions, key=lambda contraction: contraction.work, default=None)


def _operand_blocks(space: tile_spaces.TileSpace, program: value_graph.Expanded,
                    main: blocks.Contraction, needed: blocks.Sides) -> list[blocks.Sides | None]:
  """The block of each operand of a contraction, with the tiles of its summed axes."""
  value = program.values[main.number]
  shapes = [program.values[operand].shape for operand in value.operands]
  first = len(program.values[program.root].shape)
  tiled = {axis: blocks.Side(shapes[0][axis], first + place) for place, axis in enumerate(
      axis for axis in main.axes if shapes[0][axis] > 1)}
  if first + len(tiled) != len(space.axes):
    return []  # Another contraction's axes are tiled.
  partners: dict[int, int] = {}  # Axes of the second operand by those of the first.
  if value.opcode == "dot":
    axes = blocks.dot_axes(value, shapes)
    assert axes is not None  # Otherwise the dot is not a contraction.
    partners = dict(zip(*axes.contracting))
  elif value.opcode == "convolution":
    numbers = value.instruction.convolution_dimension_numbers
    partners = {numbers.input_feature_dimension: numbers.kernel_input_feature_dimension}
  result: list[blocks.Sides | None] = []
  for position, shape in enumerate(shapes[:2]):
    block = blocks.operand_block(program, main.number, position, needed)
    sides = blocks.whole(shape) if block is None else list(block)
    if position and value.opcode == "convolution":
      numbers = value.instruction.convolution_dimension_numbers
      sides[numbers.kernel_output_feature_dimension] = needed[numbers.output_feature_dimension]
    for axis, side in tiled.items():
      own = axis if position == 0 else partners.get(axis, -1)
      if 0 <= own < len(sides) and sides[own].extent == side.extent:
        sides[own] = side
    result.append(tuple(sides))
  return result
