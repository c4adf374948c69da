"""The analytic prior of a run: its gate, its scores, its file, and how it is fitted."""

import dataclasses
import itertools
import json
import logging

import numpy as np
import pytest

from tests import synthetic
from tests.costs import kernels
import tpugraphs_rank as tgr
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.costs import novelty
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import fit_cache
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import prior_fitting
from tpugraphs_rank.training import prior_trees
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior

_TILES = [kernels.tile(sides, (side,)) for sides in ((8, 8), (32, 8), (96, 32)) for side in (8, 64)]


def _prior(gate, **changes):
  seen = kernels.graph(kernels.SOFTMAX, [kernels.tile((1,))])
  return dataclasses.replace(tile_prior.Prior(
      tile_cost.PRESET, gate, novelty.Novelty([novelty.profile(seen)]), 2.0, 0.5, targets.CPU),
                             **changes)


def test_gate():
  gate = tile_prior.Gate(0.2, 0.6, 0.8)
  assert [gate.weight(value) for value in (0, 0.2, 0.3, 0.6, 1)] == pytest.approx(
      [0, 0, 0.2, 0.8, 0.8])
  step = tile_prior.Gate(0.3, 0.3, 0.5)
  assert [step.weight(value) for value in (0.3, 0.31)] == [0, 0.5]


def test_scores():
  graph = kernels.graph(kernels.MATMUL, _TILES)
  learned = np.random.default_rng(0).normal(size=[2, len(_TILES)]).astype(np.float32)
  prior = _prior(tile_prior.Gate(0.0, 0.1, 0.25))
  assert prior.weight(graph) == 0.25
  expected = 0.75 * learned + 0.25 * 2.0 / 0.5 * -tile_cost.log_cost(graph)
  np.testing.assert_allclose(prior.scores(graph, learned), expected, rtol=1e-5)
  rows = np.array([4, 1])
  np.testing.assert_allclose(
      prior.scores(graph, learned[:, rows], rows), expected[:, rows], rtol=1e-5)
  assert prior.scores(graph, learned).dtype == np.float32
  # Known programs keep the network's scores, bit by bit.
  known = kernels.graph(kernels.SOFTMAX, [kernels.tile((8, 8), (8,))] * len(_TILES))
  assert prior.weight(known) == 0 and prior.scores(known, learned) is learned
  layout = synthetic.layout_graph(0)
  assert prior.scores(layout, learned) is learned


def test_stored(tmp_path):
  prior = _prior(tile_prior.Gate(0.1, 0.4, 0.7), figures={"held_out_groups": {"gated": 0.5}})
  directory = run_directory.RunDirectory(tmp_path)
  assert tile_prior.read(directory) is None
  tile_prior.write(directory, prior)
  again = tile_prior.read(directory)
  assert again.to_json() == prior.to_json()
  graph = kernels.graph(kernels.MATMUL, _TILES)
  np.testing.assert_array_equal(again.cost(graph), prior.cost(graph))


def _trees(value=-0.5):
  """One tree: a configuration that is not the cheapest (column 26) has a lower score."""
  arrays = tree_arrays.TreeArrays(
      np.array([26]), 67, np.array([0]), np.zeros(3, int), np.array([0.1, 0, 0]),
      np.array([[1, 2], [1, 1], [2, 2]]), np.array([0, 0, value]), 1.0)
  return tile_prior.FittedTrees(arrays, 0.75, 2.0)


def test_trees_of_a_prior(tmp_path):
  prior = _prior(tile_prior.Gate(0, 0.1, 1))
  both = dataclasses.replace(prior, trees=_trees())
  graph = kernels.graph(kernels.MATMUL, _TILES)
  own = np.full(len(_TILES), 0.5)
  own[np.argmin(tile_cost.log_cost(graph))] = 1.0
  np.testing.assert_allclose(both.cost(graph), 0.25 * prior.cost(graph) + 0.75 * own / 2.0)
  # Rows are those of the whole kernel.
  learned = np.zeros(len(_TILES), np.float32)
  np.testing.assert_array_equal(both.scores(graph, learned[:2], np.array([4, 1])),
                                both.scores(graph, learned)[[4, 1]])
  directory = run_directory.RunDirectory(tmp_path)
  tile_prior.write(directory, both)
  again = tile_prior.read(directory)
  assert again.to_json() == both.to_json()
  np.testing.assert_array_equal(again.cost(graph), both.cost(graph))
  other = _trees().arrays._replace(width=66)
  for damage in (lambda path: tree_arrays.write(path, other),
                 lambda path: path.write_bytes(b"no arrays"), lambda path: path.unlink()):
    damage(tmp_path / "prior.npz")
    with pytest.raises(errors.RunDirectoryError, match="prior.npz is damaged.*restore both"):
      tile_prior.read(directory)


@pytest.mark.parametrize("change, expected", [
    ({"trees": {"share": 2, "deviation": 1}}, "a share from 0 to 1"),
    ({"trees": {"share": 1, "deviation": 0}}, "trees.deviation is 0; expected a number from 1e-06"),
    ({"trees": {"share": 1}}, "trees.deviation is None"),
    ({"gate": {"start": 0.5, "full": 0.1, "top": 0.5}}, "start <= full"),
    ({"gate": {"start": 0.5, "full": 0.6, "top": 2}}, "top from 0 to 1"),
    ({"gate": {"start": 0.5}}, "gate.full is None"),
    ({"weights": []}, "weights.blocks is None"),
    ({"weights": dict.fromkeys(tile_cost.TERMS, 0)}, "one of them positive"),
    ({"weights": dict.fromkeys(tile_cost.TERMS, 1e31)}, "weights of at most 1e+30"),
    ({"learned_deviation": 0}, "learned_deviation is 0; expected a number from 1e-06"),
    ({"learned_deviation": 1e299}, "1e+299; expected a number from 1e-06 to 1e+09"),
    ({"cost_deviation": True}, "cost_deviation is True"),
    ({"profiles": "x"}, "profiles"),
    ({"profiles": []}, "no profiles"),
    ({"target_facts": {"cache_bytes": -1}}, "cache_bytes"),
    ({"target_facts": None}, "target_facts"),
])
def test_damaged_files_are_refused(tmp_path, change, expected):
  stored = {**_prior(tile_prior.Gate(0, 0, 1)).to_json(), **change}
  (tmp_path / tile_prior.FILE).write_text(json.dumps(stored), encoding="utf-8")
  with pytest.raises(errors.RunDirectoryError, match="prior.json or prior.npz is damaged") as error:
    tile_prior.read(run_directory.RunDirectory(tmp_path))
  assert expected in str(error.value) and "delete them" in str(error.value)


def test_choice_of_a_gate():
  rng = np.random.default_rng(0)
  falling, rising = np.linspace(0.8, 0.6, 11), np.linspace(0.5, 0.7, 11)
  held = lambda values, taus: [prior_fitting.HeldOut(value, taus + rng.normal(0, 1e-6, 11))
                               for value in values]
  new = held(rng.uniform(0.32, 1, 30), rising)
  known = held(rng.uniform(0, 0.3, 50), falling)
  gate = prior_fitting.choose_gate(new, known)
  assert gate.top == 1 and gate.start == gate.full == 0.3
  # The cost has no weight where it never helps; among equal gates it has the least.
  assert prior_fitting.choose_gate(held([0.9], falling), known).top == 0
  best = max(prior_fitting.mean_tau(gate, new) for gate in itertools.starmap(
      tile_prior.Gate, [(0, 0, 1), (0.3, 0.3, 1), (0.5, 1, 0.7)]))
  assert prior_fitting.mean_tau(gate, new) == pytest.approx(best, abs=1e-4)


@pytest.fixture(scope="module", name="collection")
def _collection(tmp_path_factory):
  """27 training programs of three families."""
  return synthetic.write_collection(
      tmp_path_factory.mktemp("collection"), counts=(27, 3, 3), num_configs=8)


_SETTINGS = {"epochs": 1, "hidden_width": 4, "num_convolutions": 1, "opcode_width": 2,
             "head_widths": (4,),
             "tensorboard": False}


def test_training_fits_a_prior(collection, tmp_path, caplog):
  caplog.set_level(logging.INFO, "tpugraphs_rank")
  run = tgr.train(collection, run_dir=tmp_path / "run", **_SETTINGS)
  prior = run.prior
  assert prior is not None and "analytic prior: weight" in caplog.text
  assert set(prior.figures) == {"held_out_groups", "validation"}
  assert prior.figures["held_out_groups"]["programs"] <= 27
  valid = list(collections.load_collection(collection, "valid"))
  tau = lambda scores: pytest.approx(np.mean([
      metrics.kendall_tau(graph.config_runtime, scores(graph)) for graph in valid]), abs=tolerance)
  for which, scores, tolerance in (
      ("learned", tgr.load_run(tmp_path / "run", prior="none").score, 1e-6),
      ("analytic", prior.cost, 1e-6), ("gated", run.score, 0.02)):  # Weights are interpolated.
    assert prior.figures["validation"][which] == tau(scores), which
  # A new program leans on the cost if the gate is open; every way to score agrees.
  tile_prior.write(run.directory, dataclasses.replace(prior, gate=tile_prior.Gate(0, 0.01, 1)))
  graph = kernels.graph(kernels.MATMUL, _TILES)
  opened = tgr.load_run(tmp_path / "run")
  alone = tgr.load_run(tmp_path / "run", prior="none")
  assert opened.prior_weight(graph) == 1 and alone.prior_weight(graph) == 0
  np.testing.assert_allclose(
      opened.score(graph), prior.learned_deviation * opened.prior.cost(graph), rtol=1e-5)
  np.testing.assert_array_equal(opened.rank(graph), metrics.ranking(opened.prior.cost(graph)))
  np.testing.assert_array_equal(
      [scored.scores for scored in opened.score_each_with_members([graph])][0],
      opened.score(graph))
  np.testing.assert_array_equal(
      [scores for _, scores in opened.score_each([graph])][0], opened.score(graph))
  assert not np.allclose(alone.score(graph), opened.score(graph))
  # Resuming a finished run keeps the prior, or fits a missing one again.
  (tmp_path / "run" / tile_prior.FILE).unlink()
  again = tgr.train(collection, run_dir=tmp_path / "run", **_SETTINGS)
  assert again.prior.to_json() == prior.to_json()
  with pytest.raises(errors.ConfigError, match="prior is 'both'"):
    tgr.load_run(tmp_path / "run", prior="both")


def test_unchanged_programs_are_held_out_once(collection, monkeypatch, tmp_path, caplog):
  monkeypatch.setenv(fit_cache.VARIABLE, str(tmp_path))
  learner = trees.Settings(iterations=2)
  monkeypatch.setattr(prior_fitting, "_LEARNER", learner)
  monkeypatch.setattr(prior_trees, "SETTINGS", trees.Settings(iterations=3))
  fits, fit_table = [], trees.fit_table

  def recorded(table, settings, *others):
    if settings == learner:
      fits.append(table)
    return fit_table(table, settings, *others)

  monkeypatch.setattr(trees, "fit_table", recorded)
  split = collections.load_collection(collection, "train")
  programs = [splits.ProgramView(graph) for graph in split]

  def fit(count=27, seed=0):
    score = lambda chosen: [program.runtimes for program in chosen]
    return prior_fitting.fit(split.collection, programs[:count], score, seed=seed).to_json()

  first = fit()
  folds = len(fits)
  assert folds == 3 and fit() == first and len(fits) == folds
  path, own = (next((tmp_path / "analytic_prior").glob(f"*.{kind}")) for kind in ("json", "npz"))
  own.write_bytes(own.read_bytes()[:100])
  assert fit() == first and len(fits) == folds
  assert "damaged file of the cache" in caplog.text
  caplog.clear()
  for damaged in ("{", '{"held_out": [[0.5]]}', '{"held_out": 3}'):
    path.write_text(damaged, encoding="utf-8")
    fits.clear()
    assert fit() == first and len(fits) == folds
    assert "damaged file of the cache" in caplog.text
    caplog.clear()
  for changed in ({"count": 26}, {"seed": 1}):
    fits.clear()
    fit(**changed)
    assert len(fits) == folds


@pytest.mark.parametrize("change, expected", [
    ({"target": "tpu_v3"}, "count registers"), ({"kind": "layout"}, "layouts"),
    ({"family_regex": "(?P<family>.)"}, "1 groups of kernels are too few")])
def test_why_there_is_no_prior(collection, change, expected):
  split = collections.load_collection(collection, "train")
  programs = [splits.ProgramView(graph) for graph in split]
  changed = dataclasses.replace(split.collection, **change)
  assert expected in prior_fitting.reason_without(changed, programs)
  assert prior_fitting.reason_without(split.collection, programs) == ""
  assert "5 training programs are too few" in prior_fitting.reason_without(
      split.collection, programs[:5])
