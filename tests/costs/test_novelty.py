"""How unlike the training programs a program is."""

import math

import numpy as np
import pytest

from tests.costs import kernels
from tpugraphs_rank import errors
from tpugraphs_rank.costs import novelty

_TILE = [kernels.tile((1,))]


def test_profile():
  graph = kernels.graph(kernels.SOFTMAX, _TILE)
  actual = novelty.profile(graph)
  # The reducers' roots are operands of their reductions.
  assert actual == {
      ("maximum", "parameter"): 2, ("add", "parameter"): 2, ("reduce", "maximum"): 1,
      ("reduce", "add"): 1, ("reduce", "parameter"): 1, ("reduce", "constant"): 2,
      ("reduce", "exponential"): 1, ("broadcast", "reduce"): 2, ("subtract", "parameter"): 1,
      ("subtract", "broadcast"): 1, ("exponential", "subtract"): 1, ("divide", "exponential"): 1,
      ("divide", "broadcast"): 1}


def test_novelty():
  seen = novelty.Novelty([{("a", "b"): 1, ("a", "c"): 3}, {("d", "b"): 1}])
  assert seen.of_profile({("a", "b"): 1, ("a", "c"): 3}) == pytest.approx(0)
  assert seen.of_profile({("e", "b"): 5}) == 1
  # log2(1 + count): (1, 2) and (1, 0, 1) for a pair that training never saw.
  assert seen.of_profile({("a", "b"): 1, ("x", "y"): 1}) == pytest.approx(
      1 - 1 / (math.sqrt(5) * math.sqrt(2)))
  assert seen.of_profile({}) == 1 and novelty.Novelty([{}]).of_profile({}) == 0


def test_shapes_do_not_matter():
  graph = kernels.graph(kernels.MATMUL, _TILE)
  other = kernels.graph(kernels.MATMUL.replace("96", "480"), _TILE)
  seen = novelty.Novelty([novelty.profile(graph)])
  assert seen.of(other) == pytest.approx(0)
  assert seen.of(kernels.graph(kernels.TRANSPOSE, _TILE)) == 1


def test_stored_profiles():
  graphs = [kernels.graph(text, _TILE) for text in (
      kernels.MATMUL, kernels.SOFTMAX, kernels.MATMUL)]
  seen = novelty.Novelty(map(novelty.profile, graphs))
  assert len(seen.profiles) == 2
  again = novelty.Novelty.from_json(seen.to_json())
  for text in (kernels.CONVOLUTION, kernels.SOFTMAX):
    graph = kernels.graph(text, _TILE)
    np.testing.assert_allclose(again.of(graph), seen.of(graph), atol=1e-12)
  for damaged in (None, [], [[["a", "b"]]], [[["a", "b", "c"]]], [[["a", "b", 0]]], 7):
    with pytest.raises(errors.DataError):
      novelty.Novelty.from_json(damaged)
