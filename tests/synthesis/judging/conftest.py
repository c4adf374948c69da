"""Fixtures of the tests of judges."""

import pytest


@pytest.fixture(scope="module")
def small_forests():
  """Random forests with fewer trees, which take less time."""
  from tpugraphs_rank.synthesis.judging import forest
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(forest, "_TREES", 40)
    yield
