"""Synthetic programs run: they compute the same as NumPy, and their HLO is the graph. Needs JAX."""

import numpy as np
import pytest

from tests.synthesis.programs import small_programs
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import configurations
from tpugraphs_rank.synthesis.programs import controls
from tpugraphs_rank.synthesis.programs import operations
from tpugraphs_rank.synthesis.programs import realization

jax = pytest.importorskip(
    "jax", reason="needs JAX: run in an environment with tpugraphs_rank/collect/requirements.txt")
from tpugraphs_rank.collect.tile.builders import synthetic  # pylint: disable=wrong-import-position


@pytest.mark.parametrize("program", small_programs.ALL, ids=lambda program: program.stem)
def test_reference_and_tiles_agree_with_numpy(program):
  kernel = blocks.SyntheticKernel(program)
  built = synthetic.build(kernel)
  operands = built.inputs(np.random.default_rng(0))
  expected = small_programs.by_numpy(program, operands)
  result = np.asarray(jax.jit(built.reference)(*operands))
  assert result.shape == program.result.shape
  tolerance = protocol.TOLERANCE[kernel.dtype] * max(1, np.abs(expected).max())
  np.testing.assert_allclose(result.astype(np.float64), expected, atol=tolerance, rtol=0)
  for tile in configurations.sample(kernel, 6, 0):
    result = np.asarray(jax.jit(built.tiled(tile))(*operands))
    np.testing.assert_allclose(result.astype(np.float64), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", operations.KINDS)
def test_random_programs_agree_with_themselves_in_blocks(kind):
  rng = np.random.default_rng(3)
  # Small arrays keep this fast. There is no bfloat16, because chains of it amplify rounding errors.
  tried = 0
  while tried < 4:
    nodes = [node._replace(bucket=min(node.bucket, 12), type="f32" if node.type == "bf16"
                           else node.type)
             for node in controls.typed_random(kind, int(rng.integers(2, 14)), rng)]
    program = realization.realize(nodes, "synthetic", tried, rng).program
    kernel = blocks.SyntheticKernel(program)
    built = synthetic.build(kernel)
    operands = built.inputs(np.random.default_rng(0))
    expected = np.asarray(jax.jit(built.reference)(*operands))
    is_finite = np.isfinite(expected.astype(np.float64)).all()
    if not is_finite or len(configurations.admissible(kernel)) < 3:
      continue
    tried += 1
    for tile in configurations.sample(kernel, 3, 0):
      assert protocol.agrees(
          np.asarray(jax.jit(built.tiled(tile))(*operands)), expected, kernel.dtype), (
              program, tile)
