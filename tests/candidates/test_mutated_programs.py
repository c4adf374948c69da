"""Thousands of changed programs: the right tiles or a typed error, always soon."""

import os
import random

import numpy as np
import pytest

from tests.candidates import program_mutations
from tests.candidates import tile_oracle
from tests.helpers import timing
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2

_SECONDS = 2.0  # Of the processor, because machines are shared.
_PARTS = 20  # The slow test checks 5,000 programs: 250 in each part.


def _tiles(module, tiling):
  """The bounds of all generated tiles, or the error."""
  with timing.takes_at_most(_SECONDS):
    try:
      return tiles.enumerate_tiles(module, tiling, 1 << 20, 0, "k.pb")
    except errors.DataError as error:
      return error


def _bounds(candidates, step=1):
  profiles = [candidates.profile(position) for position in range(0, candidates.count, step)]
  return {tuple(tuple(getattr(profile.op_config.tile_size_config, name)) for name in (
      "output_bounds", "kernel_bounds", "input_bounds")) for profile in profiles}


def _check_right(seed):
  """A changed program that computes the same has the tiles that the rules give."""
  rng = random.Random(seed)
  kernel = rng.choice(tile_oracle.KERNELS)(rng)
  module = program_mutations.program(kernel, rng)
  for change in program_mutations.KEEPING:
    if rng.random() < 0.5:
      change(module, rng)
  tiling = rng.choice(tile_spaces.TILINGS)
  expected = tile_oracle.tiles(kernel, tiling)
  actual = _tiles(module, tiling)
  if not expected:  # One step at most, which the collector does not measure.
    assert isinstance(actual, errors.DataError) and "takes 2 to 4096 steps" in str(actual)
  else:
    assert not isinstance(actual, errors.DataError), actual
    assert _bounds(actual) == expected


def _check_damaged(seed):
  """A damaged program is refused, by a message on one line that names the file."""
  rng = random.Random(seed)
  module = program_mutations.program(rng.choice(tile_oracle.KERNELS)(rng), rng)
  if not rng.choice(program_mutations.DAMAGING)(module, rng):
    return
  for change in program_mutations.KEEPING[1:3]:  # Other orders do not repair it.
    change(module, rng)
  error = _tiles(module, rng.choice(tile_spaces.TILINGS))
  assert isinstance(error, errors.DataError)
  assert str(error).startswith("k.pb: ") and str(error).isprintable() and len(str(error)) < 1000


def _check_scrambled(seed):
  """Whatever a file says: valid candidates or a typed error."""
  rng = random.Random(seed)
  module = program_mutations.program(rng.choice(tile_oracle.KERNELS)(rng), rng)
  for _ in range(rng.randint(1, 3)):
    program_mutations.scramble(module, rng)
  for tiling in tile_spaces.TILINGS:
    actual = _tiles(module, tiling)
    if not isinstance(actual, errors.DataError):
      features = actual.arrays["config_feat"]
      assert np.isfinite(features).all() and (features[:, :6] >= 0).all()
      some = [actual.profile(position) for position in range(0, actual.count, 97)]
      np.testing.assert_array_equal(tuning.tile_features(some), features[::97])
      assert min(min(part, default=1) for entry in _bounds(actual, 97) for part in entry) >= 1
  with timing.takes_at_most(_SECONDS):
    for compute in (lambda: graph.graph_arrays(module, 0, "k.pb"),
                    lambda: layouts.draw_layouts(
                        tuning_pb2.ModuleTuningData(module=module), "elements", 64, 0, "k.pb")):
      try:
        compute()
      except errors.DataError:
        pass


_CHECKS = (_check_right, _check_right, _check_damaged, _check_scrambled)


def _check(seeds):
  for seed in seeds:
    _CHECKS[seed % len(_CHECKS)](seed)


@pytest.mark.parametrize("part", range(3))
def test_changed_programs(part):
  _check(range(100 * part, 100 * (part + 1)))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
def test_five_thousand_changed_programs(part):
  first = int(os.environ.get("TPUGRAPHS_RANK_FUZZ_SEED", "1000")) + 250 * part
  _check(range(first, first + 250))
