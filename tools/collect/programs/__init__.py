"""The computations themselves, in JAX: each family untiled (`reference`) and tiled.

This package imports JAX, so only the measuring process may import it.
"""

from typing import Callable, Dict

from tools.collect import geometry
from tools.collect.programs import dense
from tools.collect.programs import engine
from tools.collect.programs import maps
from tools.collect.programs import rows

BUILDERS: Dict[str, Callable[[geometry.Kernel], engine.Program]] = {
    **dense.BUILDERS, **rows.BUILDERS, **maps.BUILDERS}


def build(kernel: geometry.Kernel) -> engine.Program:
  """The program of a kernel."""
  return BUILDERS[kernel.family](kernel)
