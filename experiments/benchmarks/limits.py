"""What a machine reaches at best, so that each figure stands as a share of a limit.

A model's work is matrix products and the traffic of their results. Its least time is that of the
one that takes longer at the rate that this machine reaches for it alone, at the model's shapes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from experiments.benchmarks import timing

FEATURES = 140  # Of a made-up node: all of them vary.
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
    states: how many are computed before each convolution, and after the last.
    width: of the states.
    nodes: whose features are projected.
  """
  before, after = sum(states[:-1]), sum(states[1:])
  return Work(2 * width * (before * _KERNELS * width + nodes * FEATURES),
              4 * (2 * width * (before * _KERNELS + after) + nodes * FEATURES))


def exact_states(shares: Sequence[float], nodes: int, configs: int) -> Sequence[float]:
  """For each level the states that exact scoring computes, from the shares that depend."""
  return [nodes * (share * configs + 1 - share) for share in shares]


def ceilings(width: int, rows: int, repeats: int) -> dict[str, float]:
  """What this machine reaches: a convolution's widest matrix product, and a copy of states."""
  left = tf.random.normal([rows, width])
  right = tf.random.normal([width, 3 * width])
  source = np.ones([rows, width], np.float32)
  target = np.empty_like(source)
  product = tf.function(lambda: tf.matmul(left, right))
  times = timing.interleaved({
      "product": product, "copy": lambda: [np.copyto(target, source) for _ in range(10)]}, repeats)
  return {"matmul_gflops": 6 * rows * width ** 2 / times["product"]["cpu_s"] / 1e9,
          "copy_gb_per_s": 20 * source.nbytes / times["copy"]["cpu_s"] / 1e9}


def share(done: Work, seconds: float, ceiling: dict[str, float]) -> dict[str, Any]:
  """The least time over the time that was taken, and what binds: "matmul" or "copy"."""
  least = {"matmul": done.flops / ceiling["matmul_gflops"] / 1e9,
           "copy": done.nbytes / ceiling["copy_gb_per_s"] / 1e9}
  binds = max(least, key=least.get)
  return {"share": least[binds] / seconds, "binds": binds}
