"""The default tile of kernels on a CPU: against the collector's formulas, and by hand."""

import numpy as np
import pytest

from tests.candidates import small_programs
from tpugraphs_rank import collect
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import cpu_default
from tpugraphs_rank.candidates import ranking
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.hlo import reading

# Families whose formulas count blocks that the program does not show: patches, tables of gathers,
# and results of a normalisation's steps.
_OTHER_BLOCKS = ("conv_im2col", "gather_", "layer_norm", "rms_norm", "softmax", "log_softmax")


def _default(module, limit=100_000, known=()):
  found = cpu_default.with_default(
      tiles.enumerate_tiles(module, "xla_cpu", limit, 0), module, "m", known)
  if found.default is None:
    return found, None
  bounds = ranking.configuration(found.profile(found.default))
  return found, (*bounds["output_bounds"], *bounds["kernel_bounds"])


def test_the_rule_finds_the_collectors_default():
  checked = 0
  for data in reading.read_raw(small_programs.KERNELS).modules:
    expected = collect.default_tile(data.module.name)
    assert expected
    _, found = _default(data.module, known=expected)
    assert found == expected
    if not data.module.name.startswith(_OTHER_BLOCKS):
      _, found = _default(data.module)
      assert found == expected, data.module.name
      checked += 1
  assert checked > 25


def test_by_hand():
  # Blocks of [m, k], [k, n] and [m, n] elements of 4 bytes: 64 * 64 * 3 * 4 = 48 KiB is too large.
  found, sides = _default(small_programs.matmul(64, 64, 64))
  assert found.about["default"] == cpu_default.RULE
  best = max(((m, n, k) for m in (8, 16, 32, 64) for n in (8, 16, 32, 64) for k in (8, 16, 32, 64)
              if 4 * (m * k + k * n + m * n) <= 32 * 1024 and (m, n, k) != (64, 64, 64)),
             key=lambda tile: (tile[0] * tile[1] * tile[2], tile[1], tile))
  assert sides == best


def test_a_default_that_was_not_sampled_replaces_another():
  module = small_programs.matmul(96, 96, 96)
  sampled = tiles.enumerate_tiles(module, "xla_cpu", 5, 0)
  found, sides = _default(module, 5)
  _, expected = _default(module)
  assert sides == expected and found.count == 5 and found.default == 4
  np.testing.assert_array_equal(
      found.arrays["config_feat"][:4], sampled.arrays["config_feat"][:4])
  for position in range(4):
    assert found.profile(position) == sampled.profile(position)
  # The features are those of the profile.
  row = found.arrays["config_feat"][4]
  assert row[8:10].tolist() == list(sides[:2]) and row[0] == sides[2]


def test_where_no_tile_fits_the_smallest_is_chosen():
  module = small_programs.matmul(8, 15, 40_000)
  module.computations[0].instructions[0].shape.dimensions[:] = [8, 40_009]  # A prime.
  module.computations[0].instructions[1].shape.dimensions[:] = [40_009, 15]
  _, sides = _default(module)
  assert sides == (1, 1, 40_009)


@pytest.mark.parametrize("known", [(7, 8, 8), (8, 8)])
def test_sides_that_do_not_fit_are_not_used(known):
  module = small_programs.matmul(64, 64, 64)
  assert _default(module, known=known)[1] == _default(module)[1]


def test_other_candidates_stay_as_they_are():
  module = small_programs.matmul(64, 64, 64)
  elements = tiles.enumerate_tiles(module, "elements", 10, 0)
  assert cpu_default.with_default(elements, module, "m") is elements
  layouts = candidate_set.Candidates("layout", {}, lambda _: None, {"source": "auto"})
  assert cpu_default.with_default(layouts, module, "m") is layouts


def test_a_name_in_no_catalogue():
  assert collect.default_tile("matmul.64x64.f32") == () == collect.default_tile("mine")
