"""The computations themselves, in JAX: each family untiled (`reference`) and tiled.

This package imports JAX, so only the measuring process may import it.
"""

from collections.abc import Callable
from typing import Dict, Union

from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.programs import dense
from tpugraphs_rank.collect.tile.programs import engine
from tpugraphs_rank.collect.tile.programs import generated
from tpugraphs_rank.collect.tile.programs import maps
from tpugraphs_rank.collect.tile.programs import rows

BUILDERS: dict[str, Callable[[geometry.Kernel], engine.Program]] = {
    **dense.BUILDERS, **rows.BUILDERS, **maps.BUILDERS}


def build(kernel: geometry.Kernel | blocks.GeneratedKernel) -> engine.Program:
  """The program of a kernel."""
  if isinstance(kernel, blocks.GeneratedKernel):
    return generated.build(kernel)
  return BUILDERS[kernel.family](kernel)
