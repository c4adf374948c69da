"""Kernels for the tests of costs: graphs from HLO text, with tiles."""

from collections.abc import Sequence
import math

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.hlo import graph as graph_lib
from tpugraphs_rank.hlo import reading


def tile(output: Sequence[int], summed: Sequence[int] = (), inputs: Sequence[int] = ()
         ) -> np.ndarray:
  """(24,) a configuration."""
  row = np.zeros(24, np.float32)
  for first, sides in ((0, summed), (8, output), (16, inputs)):
    row[first:first + len(sides)] = sides
    row[first + 6:first + 8] = sum(sides), math.prod(sides) if sides else 0
  return row


def graph(text: str, tiles: Sequence[np.ndarray]) -> graphs.TileGraph:
  """A kernel with unmeasured tiles."""
  module = reading.parse_raw(f"HloModule m\n\n{text}".encode()).modules[0].module
  arrays = graph_lib.graph_arrays(module)
  zeros = np.zeros(len(tiles), np.int64)
  return graphs.graph_from_arrays("k", {
      **arrays, "config_feat": np.stack(tiles), "config_runtime": zeros,
      "config_runtime_normalizers": zeros})


MATMUL = """ENTRY e {
  a = f32[96,64] parameter(0)
  b = f32[64,32] parameter(1)
  ROOT d = f32[96,32] dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""

SOFTMAX = """largest {
  p = f32[] parameter(0)
  q = f32[] parameter(1)
  ROOT m = f32[] maximum(p, q)
}

sum {
  p = f32[] parameter(0)
  q = f32[] parameter(1)
  ROOT s = f32[] add(p, q)
}

ENTRY e {
  x = f32[128,512] parameter(0)
  low = f32[] constant(-inf)
  top = f32[128] reduce(x, low), dimensions={1}, to_apply=largest
  tops = f32[128,512] broadcast(top), dimensions={0}
  centred = f32[128,512] subtract(x, tops)
  powers = f32[128,512] exponential(centred)
  zero = f32[] constant(0)
  total = f32[128] reduce(powers, zero), dimensions={1}, to_apply=sum
  totals = f32[128,512] broadcast(total), dimensions={0}
  ROOT y = f32[128,512] divide(powers, totals)
}
"""

CONVOLUTION = """ENTRY e {
  x = f32[2,17,17,8] parameter(0)
  w = f32[3,3,8,16] parameter(1)
  ROOT y = f32[2,8,8,16] convolution(x, w), window={size=3x3 stride=2x2}, dim_labels=b01f_01io->b01f
}
"""

TRANSPOSE = """ENTRY e {
  x = f32[48,80] parameter(0)
  ROOT y = f32[80,48] transpose(x), dimensions={1,0}
}
"""
