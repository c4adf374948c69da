"""The terms of the cost of a tile against values computed by hand."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from tests.costs import kernels
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import collections

FACTS = targets.TargetFacts(cache_bytes=(8192, 16384), vector_bytes=64, register_tile=(1, 1))


def _terms(text, tile, facts=FACTS):
  return dict(zip(tile_cost.TERMS, tile_cost.terms(kernels.graph(text, [tile]), facts)[0]))


def test_a_matrix_product():
  # a[96, 64] b[64, 32] in blocks of 32 x 8 and sums of 16: 3, 4 and 4 iterations.
  terms = _terms(kernels.MATMUL, kernels.tile((32, 8), (16,)))
  steps = 3 * 4 * 4
  assert terms["blocks"] == 12 and terms["steps"] == terms["calls"] == steps
  # A row of a block of `a` has 16 elements; every row of a block of `b` has 8.
  assert terms["read_runs"] == steps * (32 + 16)
  assert terms["written_runs"] == 12 * 32
  assert terms["accumulator"] == steps * 2 * 4 * 32 * 8
  assert terms["copied"] == steps * 4 * (32 * 16 + 16 * 8)
  # Rows of 8 elements fill half of a vector of 16.
  assert terms["arithmetic"] == steps * 32 * 16 * 16
  assert terms["elementwise"] == terms["functions"] == terms["horizontal"] == 0


def test_bytes_from_beyond_a_cache():
  # Blocks of 32 x 16 and the whole sum: a block of `a` has 8 KiB, one of `b` 4 KiB, the partial
  # sums 2 KiB. A row of `b` is a cache line.
  terms = _terms(kernels.MATMUL, kernels.tile((32, 16), (64,)))
  # The first cache does not even hold one step.
  assert terms["beyond_0"] == 3 * 2 * (8192 + 4096)
  # The second holds a step, but not both column blocks; the block of `a` stays for the second.
  assert terms["beyond_1"] == 3 * 8192 + 3 * 2 * 4096
  # A cache for everything: each operand once.
  large = targets.TargetFacts((1 << 20,), 64, (1, 1))
  terms = _terms(kernels.MATMUL, kernels.tile((32, 16), (64,)), large)
  assert terms["beyond_0"] == terms["beyond_1"] == 4 * (96 * 64 + 64 * 32)


def test_a_softmax_reads_its_operand_twice():
  tile = kernels.tile((8, 64), (128,))
  terms = _terms(kernels.SOFTMAX, tile, targets.TargetFacts((8192, 33000), 64, (1, 1)))
  # 16 row blocks; in each 4 steps of the sums, and then 8 blocks of the result.
  assert terms["blocks"] == 16 * 8 and terms["steps"] == 16 * 4
  assert terms["read_runs"] == 64 * 8 + 128 * 8
  # exp in both passes, and the division.
  assert terms["functions"] == 128 * 512 * (1 + 2)
  # 8 rows of 2 KiB and as many of the result fit into the second cache, not into the first.
  assert terms["beyond_1"] == 4 * 128 * 512
  assert terms["beyond_0"] == 2 * 4 * 128 * 512
  assert terms["horizontal"] == 64 * 8 * 2


def test_a_transpose_touches_whole_cache_lines():
  # x[48, 80]: a row has 5 cache lines. y[80, 48] in blocks of 80 x 1 reads a row of x.
  terms = _terms(kernels.TRANSPOSE, kernels.tile((80, 1)))
  assert terms["blocks"] == 48 and terms["read_runs"] == 48  # Rows of x are columns of y.
  assert terms["written_runs"] == 48 * 80
  assert terms["beyond_0"] == 4 * 80 * 48
  terms = _terms(kernels.TRANSPOSE, kernels.tile((1, 48)))
  assert terms["read_runs"] == 80 * 48 and terms["written_runs"] == 80
  # A step reads a column: 48 lines. Neither all columns nor the next block fit into 8 KiB.
  assert terms["beyond_0"] == 80 * 48 * 64
  # Blocks of 16 columns read the same lines 16 times while they are in the cache.
  terms = _terms(kernels.TRANSPOSE, kernels.tile((16, 48)))
  assert terms["beyond_0"] == 4 * 80 * 48


def test_columns_of_rows_of_a_power_of_two_fall_into_few_sets():
  text = kernels.TRANSPOSE.replace("80", "1024")
  # Rows of 4 KiB. A cache of 8 KiB with 8 ways has 16 sets; all lines of a column are in one.
  small = _terms(text, kernels.tile((64, 4)))
  assert small["beyond_0"] == 4 * 48 * 1024
  large = _terms(text, kernels.tile((64, 16)))
  assert large["beyond_0"] == 64 * 48 * 1024  # A line for each element.


def test_rows_do_not_depend_on_each_other():
  graph = collections.load_collection("tile:xla_cpu", "valid")[3]
  every = tile_cost.terms(graph)
  for rows in ([0], [5, 2], list(range(7))):
    part = dataclasses.replace(
        graph, config_feat=graph.config_feat[rows], config_runtime=graph.config_runtime[rows],
        config_runtime_normalizers=graph.config_runtime_normalizers[rows],
        config_runtime_passes=None)
    np.testing.assert_array_equal(tile_cost.terms(part), every[rows])


def test_log_cost():
  graph = kernels.graph(
      kernels.MATMUL, [kernels.tile((32, 8), (16,)), kernels.tile((96, 32), (8,))])
  weights = np.arange(1.0, 14.0)
  np.testing.assert_allclose(
      tile_cost.log_cost(graph, weights), np.log(tile_cost.terms(graph) @ weights))


def test_fit():
  rng = np.random.default_rng(0)
  true = tile_cost.PRESET * rng.uniform(0.3, 3, len(tile_cost.PRESET))
  values = [rng.lognormal(3, 2, [40, len(true)]) for _ in range(30)]
  known = [(terms, terms @ true) for terms in values]
  np.testing.assert_allclose(tile_cost.fit(known, strength=1e-12), true, rtol=0.01)
  # Without evidence the weights are the preset in the unit of the runtimes.
  strong = tile_cost.fit([(terms, 7 * (terms @ tile_cost.PRESET)) for terms in values], 1e6)
  np.testing.assert_allclose(strong, 7 * tile_cost.PRESET, rtol=1e-3)
  # A term that only ever hurts has no weight, never a negative one.
  hurtful = [(terms, np.exp(-terms[:, 0] / terms[:, 0].max())) for terms in values]
  assert (tile_cost.fit(hurtful, strength=1e-9) >= 0).all()


@pytest.mark.parametrize("group", ["matmul", "pairwise"])
def test_the_cost_orders_real_kernels(group):
  split = collections.load_collection("tile:xla_cpu", "valid")
  taus = [stats.kendalltau(tile_cost.log_cost(graph), graph.config_runtime).statistic
          for graph in split if graph.name.startswith(group)]
  assert len(taus) > 1 and np.mean(taus) > 0.2
