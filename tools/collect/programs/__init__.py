"""The computations themselves, in JAX: each family untiled (`reference`) and tiled.

This package imports JAX, so only the measuring process may import it.
"""

from typing import Callable, Dict, Union

from tools.collect import blocks
from tools.collect import geometry
from tools.collect.programs import dense
from tools.collect.programs import engine
from tools.collect.programs import generated
from tools.collect.programs import maps
from tools.collect.programs import rows

BUILDERS: Dict[str, Callable[[geometry.Kernel], engine.Program]] = {
    **dense.BUILDERS, **rows.BUILDERS, **maps.BUILDERS}


def build(kernel: Union[geometry.Kernel, blocks.GeneratedKernel]) -> engine.Program:
  """The program of a kernel."""
  if isinstance(kernel, blocks.GeneratedKernel):
    return generated.build(kernel)
  return BUILDERS[kernel.family](kernel)
