"""The limits of a machine, so that measurements can be expressed as a share of them.

A model's work consists of matrix products and the memory traffic of their results. Its least time
is the longer of the two at the rate that this machine reaches for each alone, at the model's
shapes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from experiments.benchmarks import timing

FEATURES = 140  # Of a synthetic node, all non-constant.
_KERNELS = 4  # Of a convolution: the MLP's, the node's own, and one for each direction.


class Work(NamedTuple):
  """Floating-point operations, and bytes that are written and read."""

  flops: float
  nbytes: float

  def __mul__(self, factor):
    return Work(self.flops * factor, self.nbytes * factor)


def work(states: Sequence[float], width: int, nodes: int = 0) -> Work:
  """The work of scoring: each result of a product or a sum is written once and read once.

  Args:
    states: number of states before each convolution, and after the last one.
    width: width of the states.
    nodes: number of nodes whose features are projected.
  """
  before, after = sum(states[:-1]), sum(states[1:])
  return Work(2 * width * (before * _KERNELS * width + nodes * FEATURES),
              4 * (2 * width * (before * _KERNELS + after) + nodes * FEATURES))


def exact_states(shares: Sequence[float], nodes: int, configs: int) -> Sequence[float]:
  """The number of states of exact scoring at each level, from the shares of dependent nodes."""
  return [nodes * (share * configs + 1 - share) for share in shares]


def ceilings(width: int, rows: int, repeats: int) -> dict[str, float]:
  """This machine's rates for a convolution's widest matrix product, and for copying states."""
  left = tf.random.normal([rows, width])
  right = tf.random.normal([width, 3 * width])
  source = np.ones([rows, width], np.float32)
  target = np.empty_like(source)
  product = tf.function(lambda: tf.matmul(left, right))

  def copy() -> None:
    for _ in range(10):
      np.copyto(target, source)

  times = timing.interleaved({"product": product, "copy": copy}, repeats)
  return {"matmul_gflops": 6 * rows * width ** 2 / times["product"]["cpu_s"] / 1e9,
          "copy_gb_per_s": 20 * source.nbytes / times["copy"]["cpu_s"] / 1e9}


def share(done: Work, seconds: float, ceiling: dict[str, float]) -> dict[str, Any]:
  """The least possible time as a share of `seconds`, and the limit: "matmul" or "copy"."""
  least = {"matmul": done.flops / ceiling["matmul_gflops"] / 1e9,
           "copy": done.nbytes / ceiling["copy_gb_per_s"] / 1e9}
  binds = max(least, key=least.__getitem__)
  return {"share": least[binds] / seconds, "binds": binds}
