"""Tile candidates of a kernel: all tiles that its space admits, or a seeded sample of them."""

from collections.abc import Sequence
import hashlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.data import distinct_rows
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import tuning

# Spaces of at most this many tiles are enumerated, so that the number of legal tiles is known.
_ENUMERATED = 1 << 20
_DRAWS = 1 << 16  # Tiles sampled at a time from larger spaces, or enumerated at a time.
_ROUNDS = 16


def rng_of(name: str, seed: int) -> np.random.Generator:
  """A generator that depends on the program's name and the seed, not on other programs."""
  digest = hashlib.sha256(f"{seed}/candidates/{name}".encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def enumerate_tiles(module: hlo_pb2.HloModuleProto, tiling: str, limit: int, seed: int,
                    source: str = "the module") -> candidate_set.Candidates:
  """The tiles that a kernel can be cut into.

  Args:
    module: the kernel.
    tiling: what bounds mean, see `tile_spaces`.
    limit: maximum number of tiles, of which at most `limits.CANDIDATES` are generated. If there are
      more, they are sampled uniformly.
    seed: of the sample.
    source: the kernel's name in error messages.

  Raises:
    DataError: there is nothing to tile, no tile is legal, or as `tile_spaces.tile_space`.
    ConfigError: `limit` is not positive.
  """
  if limit < 1:
    raise errors.ConfigError(f"the maximum number of candidates is {limit}; expected 1 or more")
  space = tile_spaces.tile_space(module, tiling, source)
  limit = min(limit, limits.CANDIDATES)
  sides, legal = _sides(space, limit, rng_of(module.name, seed))
  if not len(sides):
    assert space.steps is not None  # Without a limit on the steps, every tile is legal.
    tried = (f"the {space.combinations}" if legal is not None else
             f"{_ROUNDS * _DRAWS} random tiles of the {space.combinations}")
    raise errors.DataError(
        f"{source}: none of {tried} tiles takes {space.steps[0]} to "
        f"{space.steps[1]} steps; the kernel is too small or too large for the tiling {tiling!r}: "
        "choose another with --tiling, or supply configurations with --candidates FILE.npz")
  groups = [_entries(bounds, sides) for bounds in (space.kernel, space.output, space.inputs)]

  def profile_of(position: int) -> candidate_set.Profile:
    profile = candidate_set.Profile()
    for name, entries in zip(tuning.TILE_BOUNDS, groups):
      getattr(profile.op_config.tile_size_config, name).extend(map(int, entries[position]))
    return profile

  about: dict[str, object] = {"source": "auto", "tiling": tiling, "legal": legal, "seed": seed}
  return candidate_set.Candidates(
      "tile", {"config_feat": feature_rows(*groups)}, profile_of, about)


def _entries(bounds: tuple[tile_spaces.Bound, ...], sides: np.ndarray) -> np.ndarray:
  """(c, k) the entries of one bounds list."""
  columns = [bound.of(sides) for bound in bounds]
  return np.stack(columns, axis=1) if columns else np.zeros([len(sides), 0], np.int64)


def feature_rows(*groups: np.ndarray) -> np.ndarray:
  """(c, k) bounds, group by group, to (c, 8 * groups) float32: six bounds, sum, product each."""
  columns: list[np.ndarray] = []
  for entries in groups:
    first = entries[:, :tuning.BOUNDS_LENGTH]
    product = entries.prod(axis=1) if entries.shape[1] else np.zeros(len(entries), np.int64)
    columns += [np.pad(first, [(0, 0), (0, tuning.BOUNDS_LENGTH - first.shape[1])]),
                entries.sum(axis=1)[:, None], product[:, None]]
  return np.concatenate(columns, axis=1).astype(np.float32)


def _positions(numbers: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
  """(c, axes) positions in `sides` of the tiles with these numbers, in lexicographic order."""
  positions = np.empty([len(numbers), len(lengths)], np.int64)
  for axis in reversed(range(len(lengths))):  # `np.unravel_index` is limited to 32 axes.
    numbers, positions[:, axis] = np.divmod(numbers, lengths[axis])
  return positions


def _sides(space: tile_spaces.TileSpace, limit: int, rng: np.random.Generator
           ) -> tuple[np.ndarray, int | None]:
  """(c, axes) legal tiles in lexicographic order; and their total number, None if unknown."""
  lengths = [len(options) for options in space.sides]
  if space.combinations <= _ENUMERATED:
    # Only the numbers of legal tiles are kept first: a tile can have dozens of axes.
    numbers = np.concatenate([
        block[space.is_legal(space.tiles(_positions(block, lengths)))]
        for start in range(0, space.combinations, _DRAWS)
        for block in [np.arange(start, min(start + _DRAWS, space.combinations))]])
    legal = len(numbers)
    if legal > limit:
      numbers = numbers[np.sort(rng.choice(legal, limit, replace=False))]
    return space.tiles(_positions(numbers, lengths)), legal
  drawn = np.zeros([0, len(lengths)], np.int64)
  for _ in range(_ROUNDS):
    chosen = rng.integers(0, lengths, size=[_DRAWS, len(lengths)])
    sides = space.tiles(chosen)
    drawn = np.concatenate([drawn, sides[space.is_legal(sides)]])
    drawn = drawn[distinct_rows.find(drawn)[0]]
    if len(drawn) >= limit:
      break
  drawn = drawn[:limit]
  return drawn[np.lexsort(drawn.T[::-1])], None
