"""The study of left-out groups of kernels: its figures and its table."""

import numpy as np
import pytest

from experiments import tile_groups
from tests import synthetic
from tpugraphs_rank import metrics
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits


@pytest.fixture(name="programs")
def _programs():
  return [splits.ProgramView(synthetic.tile_graph(seed)) for seed in range(4)]


def test_summary(programs, tmp_path):
  collection = registry.get_collection(synthetic.write_collection(tmp_path))
  rng = np.random.default_rng(0)
  by_group = {group: {ranker: {one.graph.name: rng.permutation(12).tolist() for one in members}
                      for ranker in tile_groups.RANKERS}
              for group, members in (("a", programs[:1]), ("b", programs[1:]))}
  results = tile_groups.summary(collection, programs, by_group)
  taus = {ranker: [metrics.kendall_tau(one.graph.relative_runtime, np.array(
      by_group["a" if place == 0 else "b"][ranker][one.graph.name]))
                   for place, one in enumerate(programs)] for ranker in tile_groups.RANKERS}
  for ranker, values in taus.items():
    assert results[ranker]["all"]["kernels"] == 4 and results[ranker]["b"]["kernels"] == 3
    assert results[ranker]["all"]["tau"]["mean"] == pytest.approx(np.mean(values), abs=1e-4)
    assert results[ranker]["all"]["tau_over_boosted_trees"]["mean"] == pytest.approx(
        np.mean(np.subtract(values, taus["boosted_trees"])), abs=1e-4)
  text = tile_groups.table(results)
  assert text.splitlines()[0].split("|")[-3:-1] == [" a ", " b "]
  assert len(text.splitlines()) == 2 + len(tile_groups.RANKERS)


def test_steps(programs):
  graph = programs[0].graph
  assert (tile_groups._steps(graph) >= 1).all()
