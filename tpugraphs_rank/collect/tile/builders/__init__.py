"""The computations in JAX: each family of kernels, untiled (`reference`) and tiled.

This package imports JAX, so only measuring processes may import it.
"""

from collections.abc import Callable

from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import attentions
from tpugraphs_rank.collect.tile.builders import butterflies
from tpugraphs_rank.collect.tile.builders import dense
from tpugraphs_rank.collect.tile.builders import engine
from tpugraphs_rank.collect.tile.builders import histograms
from tpugraphs_rank.collect.tile.builders import maps
from tpugraphs_rank.collect.tile.builders import quantised
from tpugraphs_rank.collect.tile.builders import rows
from tpugraphs_rank.collect.tile.builders import scans
from tpugraphs_rank.collect.tile.builders import scatters
from tpugraphs_rank.collect.tile.builders import sorts
from tpugraphs_rank.collect.tile.builders import stencils
from tpugraphs_rank.collect.tile.builders import synthetic
from tpugraphs_rank.collect.tile.builders import triangulars

BUILDERS: dict[str, Callable[[geometry.Kernel], engine.TiledProgram]] = {
    **dense.BUILDERS, **rows.BUILDERS, **maps.BUILDERS, **scans.BUILDERS, **attentions.BUILDERS,
    **triangulars.BUILDERS, **quantised.BUILDERS, **histograms.BUILDERS, **scatters.BUILDERS,
    **stencils.BUILDERS, **sorts.BUILDERS, **butterflies.BUILDERS}


def build(kernel: geometry.Kernel | blocks.SyntheticKernel) -> engine.TiledProgram:
  """The program of a kernel."""
  if isinstance(kernel, blocks.SyntheticKernel):
    return synthetic.build(kernel)
  return BUILDERS[kernel.family](kernel)
