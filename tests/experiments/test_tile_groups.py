"""The study of left-out groups of kernels: its figures and its table."""

import numpy as np
import pytest

from experiments import tile_groups
from tests import synthetic
from tpugraphs_rank import metrics
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import prior_trees


@pytest.fixture(name="every")
def _every():
  return [tile_groups.Kernel(splits.ProgramView(synthetic.tile_graph(seed))) for seed in range(8)]


def test_summary(every):
  rng = np.random.default_rng(0)
  programs = every[:4]
  by_group = {group: {ranker: {one.name: rng.permutation(12).tolist() for one in members}
                      for ranker in tile_groups.RANKERS}
              for group, members in (("a", programs[:1]), ("b", programs[1:]))}
  results = tile_groups.summary(programs, by_group)
  taus = {ranker: [metrics.kendall_tau(one.graph.relative_runtime, np.array(
      by_group["a" if place == 0 else "b"][ranker][one.name]))
                   for place, one in enumerate(programs)] for ranker in tile_groups.RANKERS}
  for ranker, values in taus.items():
    assert results[ranker]["all"]["kernels"] == 4 and results[ranker]["b"]["kernels"] == 3
    assert results[ranker]["all"]["tau"]["mean"] == pytest.approx(np.mean(values), abs=1e-4)
    assert results[ranker]["all"]["tau_over_analytic"]["mean"] == pytest.approx(
        np.mean(np.subtract(values, taus["analytic"])), abs=1e-4)
  text = tile_groups.table(results)
  assert text.splitlines()[0].split("|")[-3:-1] == [" a ", " b "]
  assert len(text.splitlines()) == 2 + len(tile_groups.RANKERS)


def test_cases(every, tmp_path, monkeypatch):
  collection = registry.get_collection(synthetic.write_collection(tmp_path))
  for way in ("groups", "shapes"):
    cases = list(tile_groups.cases(way, collection, every))
    assert sorted(one.name for case in cases for one in case.out) == sorted(
        one.name for one in every)
    for case in cases:
      names = {one.name for one in case.out}
      assert len(case.rest) + len(names) == 8
      assert not names & {one.name for one in case.rest}
      if way == "groups":
        assert {collection.group(name) for name in names} == {case.name}
  monkeypatch.setattr(
      tile_groups, "_load", lambda path, split: every[:2 if "random" in path else 0])
  (case,) = tile_groups.cases("synthetic", collection, every)
  assert case.rest == every and case.out == every[:2]


def test_rank(every, tmp_path, monkeypatch):
  collection = registry.get_collection(synthetic.write_collection(tmp_path))
  few = trees.Settings(iterations=4)
  monkeypatch.setattr(tile_groups, "_USUAL", few)
  monkeypatch.setattr(prior_trees, "SETTINGS", few)
  scores = tile_groups.rank(collection, tile_groups.Case("a", every[:5], every[5:]), False)
  assert set(scores) == set(tile_groups.RANKERS) - {"gated"}
  for by_kernel in scores.values():
    assert [len(values) for values in by_kernel.values()] == [12] * 3


def test_steps(every):
  assert (every[0].steps() >= 1).all() and len(every[0].steps()) == 12
