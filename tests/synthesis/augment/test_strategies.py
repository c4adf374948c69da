"""Distillation by chains of confident pairs, and the settings that each strategy returns."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.augment import distillation
from tpugraphs_rank.synthesis.augment import pretraining
from tpugraphs_rank.synthesis.augment import strategies
from tpugraphs_rank.training import trainer


@hypothesis.given(hnp.arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(1, 8)),
                             elements=st.integers(-20, 20).map(float)), st.floats(0.0, 2.0))
def test_every_remaining_pair_is_confident(scores, margin):
  kept, runtimes = distillation.confident(scores, margin)
  assert len(kept) == len(set(kept.tolist())) == len(runtimes)
  if not len(kept):
    return
  scaled = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
  for place, fast in enumerate(kept):
    for slow in kept[place + 1:]:
      difference = scaled[:, fast] - scaled[:, slow]
      assert difference.mean() > margin * difference.std()
      assert difference.mean() > 0
  assert (np.diff(runtimes) >= 0).all() and (runtimes > 0).all()


def test_teachers_that_agree_keep_all_configurations():
  scores = np.array([3.0, 1.0, 2.0, 0.0])
  kept, runtimes = distillation.confident(np.stack([scores, 10 * scores + 5]), 1.0)
  assert kept.tolist() == [0, 2, 1, 3]
  scaled = (scores - scores.mean()) / scores.std()
  np.testing.assert_array_equal(runtimes, np.round(1e6 * np.exp(-0.5 * scaled[kept])))


def test_teachers_that_disagree_keep_one_configuration():
  kept, _ = distillation.confident(np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]), 1.0)
  assert len(kept) == 1


@pytest.mark.parametrize("scores", [np.zeros([2, 5]), np.zeros([2, 1])])
def test_teachers_with_constant_scores(scores):
  assert distillation.confident(scores, 1.0)[0].size == 0


def test_a_labeled_collection_can_be_loaded(tmp_path):
  by_first_column = lambda graph: -graph.config_feat[:, 8].astype(float) - np.arange(
      len(graph.config_feat)) * 1e-3
  taught = distillation.teach("tile:xla_cpu:v1", [by_first_column, by_first_column], tmp_path)
  described = registry.get_collection(str(tmp_path / "collection.json"))
  actual = list(collections.load_collection(described, "train"))
  assert len(actual) == taught == 162 and described.target.startswith("xla_cpu:")
  for graph in actual[:5]:
    assert (np.diff(graph.config_runtime) >= 0).all()
    assert (np.diff(graph.config_feat[:, 8]) >= 0).all()


def test_labeled_layouts_are_those_of_the_program(tmp_path):
  # Programs with more requested layouts are slower.
  by_count = lambda graph: -(graph.layouts(np.arange(graph.num_configs)) >= 0).any(axis=2).sum(
      axis=1).astype(float)
  taught = distillation.teach("layout:xla_cpu:mixed:v1", [by_count, by_count], tmp_path)
  described = registry.get_collection(str(tmp_path / "collection.json"))
  actual = list(collections.load_collection(described, "train"))
  assert len(actual) == taught > 50 and described.kind == "layout"
  originals = {graph.name: graph for graph in collections.load_collection(
      "layout:xla_cpu:mixed:v1", "train")}
  for graph in actual[:5]:
    original = originals[graph.name]
    assert graph.config_runtime_passes is None
    np.testing.assert_array_equal(graph.node_config_ids, original.node_config_ids)
    np.testing.assert_array_equal(graph.edge_index, original.edge_index)
    assert (np.diff(graph.config_runtime) > 0).all() and (np.diff(by_count(graph)) < 0).all()
    known = {rows.tobytes() for rows in original.layouts(np.arange(original.num_configs))}
    assert {rows.tobytes() for rows in graph.layouts(np.arange(graph.num_configs))} <= known


@pytest.fixture(scope="module", name="config")
def _config(tmp_path_factory):
  """Settings with tiny real and synthetic programs."""
  folder = tmp_path_factory.mktemp("synthetic")
  score = lambda graph: np.arange(len(graph.config_feat), dtype=float)
  real = str(small_runs.collection(tmp_path_factory.mktemp("real")))
  distillation.teach(real, [score, score], folder)
  return config_lib.override(run_config.RunConfig(), {
      "data.collection": real, "data.max_graphs": 3, "batch.batch_size": 2, "batch.max_configs": 6,
      "batch.lists_per_graph": 1, "model.hidden_width": 8, "model.opcode_width": 4,
      "training.epochs": 4, "training.steps_per_epoch": 3, "training.patience": 4,
      "training.tensorboard": False, "augment.synthetic": str(folder / "collection.json"),
      "augment.synthetic_held_back": "content", "augment.synthetic_graphs": 2}, source="test")


def test_measured_changes_nothing(config, tmp_path):
  assert strategies.STRATEGIES["measured"]().prepare(config, tmp_path) == config


@pytest.mark.slow
def test_pretrained_takes_the_same_number_of_steps_in_total(config, tmp_path):
  prepared = strategies.Pretrained(share=0.5).prepare(config, tmp_path)
  before = config_lib.to_dict(prepared)["training"]
  assert strategies.done_before(tmp_path) == {"steps_before": 6}
  assert before["epochs"] == 2 and prepared.augment.synthetic is None
  assert prepared.training.initial_checkpoint == str(tmp_path / "before")
  training = trainer.Trainer(prepared)
  assert len(training.train_graphs) == 3
  assert training.train(tmp_path / "run").epochs == 2


@pytest.mark.slow
def test_teachers_train_on_the_real_programs_alone(config, tmp_path, monkeypatch):
  taught = {}

  def teach(collection, teachers, output, margin):
    graph = next(iter(collections.load_collection(config.data.collection, "train")))
    taught.update(collection=collection, margin=margin,
                  scores=[teacher(graph) for teacher in teachers])
    distillation_teach(collection, [lambda graph: np.arange(len(graph.config_feat), dtype=float)]
                       * 2, output)

  distillation_teach = distillation.teach
  monkeypatch.setattr(distillation, "teach", teach)
  prepared = strategies.Distilled(teachers=2, margin=0.5).prepare(config, tmp_path)
  assert taught["collection"] == config.augment.synthetic and taught["margin"] == 0.5
  # Teachers differ in their initial weights.
  assert not np.allclose(*taught["scores"])
  assert prepared.augment.synthetic == str(tmp_path / "taught" / "collection.json")
  assert dataclasses.replace(prepared, augment=config.augment) == config


@pytest.mark.parametrize("name, objectives", [
    ("auxiliary", ("label",)), ("selfsupervised", ("opcode", "element_type", "edges")),
    ("selfsupervised_measured", ("opcode", "element_type", "edges"))])
def test_pretraining_on_graphs_comes_before_the_configured_steps(
    name, objectives, config, tmp_path, monkeypatch):
  calls = []

  def pretrain(config, settings, folder):
    calls.append((config, settings.objectives))
    files.write_json(folder / "pretraining.json", {"steps": 7, "loss": 0.5})

  monkeypatch.setattr(pretraining, "pretrain", pretrain)
  assert strategies.done_before(tmp_path) == {"steps_before": 0}
  prepared = strategies.STRATEGIES[name]().prepare(config, tmp_path)
  assert calls == [(config, objectives)]
  if name == "selfsupervised_measured":
    assert prepared.augment == config.augment
  else:
    assert prepared.augment.synthetic is None
  initial = prepared.training.initial_checkpoint
  assert dataclasses.replace(
      prepared, augment=config.augment, training=config.training) == config
  assert dataclasses.replace(prepared.training, initial_checkpoint=None) == config.training
  assert strategies.done_before(tmp_path) == {
      "steps_before": 7, "pretraining": {"steps": 7, "loss": 0.5}}
  assert initial == str(tmp_path / "on_graphs")
