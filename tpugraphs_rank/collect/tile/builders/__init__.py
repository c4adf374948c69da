"""The computations themselves, in JAX: each family untiled (`reference`) and tiled.

This package imports JAX, so only the measuring process may import it.
"""

from collections.abc import Callable
from typing import Dict, Union

from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import dense
from tpugraphs_rank.collect.tile.builders import engine
from tpugraphs_rank.collect.tile.builders import synthetic
from tpugraphs_rank.collect.tile.builders import maps
from tpugraphs_rank.collect.tile.builders import rows

BUILDERS: dict[str, Callable[[geometry.Kernel], engine.TiledProgram]] = {
    **dense.BUILDERS, **rows.BUILDERS, **maps.BUILDERS}


def build(kernel: geometry.Kernel | blocks.SyntheticKernel) -> engine.TiledProgram:
  """The program of a kernel."""
  if isinstance(kernel, blocks.SyntheticKernel):
    return synthetic.build(kernel)
  return BUILDERS[kernel.family](kernel)
