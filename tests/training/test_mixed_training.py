"""Training on real and synthetic programs: weights in the gradient, equal steps, resume."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import synthetic
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import steps
from tpugraphs_rank.training import trainer


def _synthetic(folder, kind="tile", count=3):
  """A synthetic collection; returns its descriptor's path."""
  make = synthetic.tile_graph if kind == "tile" else synthetic.layout_graph
  for index in range(count):
    graph = make(50 + index, num_nodes=14 + index, num_configs=8, name=f"made{index}")
    npz.save_graph(folder / "train" / f"{graph.name}.npz", graph)
  path = folder / "collection.json"
  path.write_text(json.dumps({"name": f"{kind}:made", "kind": kind, "target": "chip",
                              "splits": {"train": count}}))
  return str(path)


def test_the_weighted_mean_of_losses():
  losses, weights = [3.0, 5.0, 2.0], [1.0, 0.5, 0.25]
  actual = steps.weighted_mean(tf.constant(losses), tf.constant(weights))
  assert float(actual) == pytest.approx(
      sum(weight * loss for weight, loss in zip(weights, losses)) / sum(weights), rel=1e-6)
  assert float(steps.weighted_mean(tf.constant(losses), None)) == pytest.approx(10 / 3, rel=1e-6)


def test_weights_enter_the_gradient_list_by_list(tmp_path):
  """g = sum_i w_i g_i / sum_i w_i, where g_i is the gradient of the batch of list i alone."""
  config = small_runs.settings(
      small_runs.collection(tmp_path / "real"), augment_synthetic=_synthetic(tmp_path / "made"),
      augment_synthetic_weight=0.25, loss_l2_regularization=0.0)
  training = trainer.Trainer(config)
  members = [*training.train_graphs[:1], *training.synthetic_graphs[:2]]
  rng = np.random.default_rng(0)
  whole = batches.training_batch(members, config.batch, rng)
  weights = [1.0, 0.25, 0.25]
  variables = training.stepper.model.trainable_variables

  def gradient(weight):
    arrays = {**whole, batches.WEIGHT: np.array(weight, np.float32)}
    arranged = training._model.arrange(arrays)
    tensors = {key: tf.constant(value) for key, value in arranged.items()}
    with tf.GradientTape() as tape:
      _, loss = training.stepper._scores_and_loss(
          tensors, pipeline.labels(tensors), training=True)
    actual = tape.gradient(loss, variables, unconnected_gradients="zero")
    return [tf.convert_to_tensor(value).numpy() for value in actual]

  each = [gradient(np.eye(3)[place]) for place in range(3)]
  for place, actual in enumerate(gradient(weights)):
    expected = sum(w * one[place] for w, one in zip(weights, each)) / sum(weights)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
  assert any(np.abs(one[0]).max() > 0 for one in each)


@pytest.mark.slow
@pytest.mark.parametrize("kind, changes", [
    ("tile", {"augment_synthetic_share": 0.7, "augment_synthetic_weight": 0.5,
              "augment_synthetic_graphs": 2, "optimizer_ema_decay": 0.8}),
    ("layout", {"batch_segment_mode": "backprop", "batch_max_nodes": 6, "data_max_graphs": 2,
                "training_steps_per_epoch": 4, "augment_synthetic_shuffled": True})])
def test_a_resumed_mixed_run_is_bit_identical(tmp_path, kind, changes):
  config = small_runs.settings(
      small_runs.collection(tmp_path / "real", kind),
      augment_synthetic=_synthetic(tmp_path / "made", kind), training_epochs=3, **changes)
  training = trainer.Trainer(config)
  plan = training.plan()
  assert plan["synthetic_programs"] == changes.get("augment_synthetic_graphs", 3)
  assert plan["synthetic_lists_a_step"] == 2
  training.train(tmp_path / "whole")
  assert training.stepper.train.experimental_get_tracing_count() == 1
  assert training.stepper.validate.experimental_get_tracing_count() == 1
  trainer.Trainer(config).train(tmp_path / "parts", stop_after=1)
  training.train(tmp_path / "parts")  # Resumed from the checkpoint alone.
  small_runs.assert_same_run(tmp_path / "parts", tmp_path / "whole")
  log = (tmp_path / "whole" / "train.log").read_text()
  assert f"{kind}:made train: {plan['synthetic_programs']} programs" in log


def test_steps_are_equal_with_and_without_synthetic_programs(tmp_path):
  real = small_runs.collection(tmp_path / "real")
  other = _synthetic(tmp_path / "made")

  def steps_of(**changes):
    config = small_runs.settings(real, **changes)
    return small_runs.data_of(config).steps_per_epoch(config)

  assert steps_of() == steps_of(augment_synthetic=other) == -(-4 * 2 // 3)
  assert steps_of(augment_synthetic=other, data_max_graphs=1, training_steps_per_epoch=5) == 5


def test_only_real_programs_validate_and_held_back_programs_do_not_train(tmp_path):
  real = small_runs.collection(tmp_path / "real")
  _synthetic(tmp_path / "made")
  for split in ("valid", "test"):
    for file in sorted((tmp_path / "real" / split).glob("*.npz")):
      npz.save_graph(tmp_path / "made" / "train" / f"copy.{file.stem}.npz", npz.load_graph(file))
  path = tmp_path / "made" / "collection.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "splits": {"train": None}}))
  data = small_runs.data_of(small_runs.settings(real, augment_synthetic=str(path)))
  held_back = {file.stem for split in ("valid", "test")
               for file in (tmp_path / "real" / split).glob("*.npz")}
  assert [member.name for member in data.synthetic] == ["made0", "made1", "made2"]
  assert {member.name for member in data.valid} == {
      file.stem for file in (tmp_path / "real" / "valid").glob("*.npz")}
  assert not held_back & {member.name for member in data.train}
  assert "left out 4 programs that are also in validation or test" in str(data.counts["synthetic"])


def test_without_real_programs_features_are_scaled_by_the_synthetic_ones(tmp_path):
  real, other = small_runs.collection(tmp_path / "real"), _synthetic(tmp_path / "made")
  alone, mixed, plain = (
      small_runs.data_of(small_runs.settings(real, **changes)).normalizer for changes in (
          {"augment_synthetic": other, "augment_synthetic_share": 1.0},
          {"augment_synthetic": other}, {}))
  assert not alone.is_same(mixed) and not mixed.is_same(plain) and not alone.is_same(plain)


def test_a_run_from_before_these_settings_resumes(tmp_path, monkeypatch):
  config = small_runs.settings(small_runs.collection(tmp_path / "real"))
  training = small_runs.reused_trainer(config)
  small_runs.Stub(training, monkeypatch, [0.5])
  training.train(tmp_path / "run", stop_after=1)
  path = tmp_path / "run" / "config.json"
  stored = json.loads(path.read_text())
  del stored["config"]["augment"], stored["config"]["training"]["steps_per_epoch"]
  path.write_text(json.dumps(stored))
  assert run_directory.RunDirectory(tmp_path / "run").read_config().augment == (
      run_config.AugmentConfig())
  small_runs.Stub(training, monkeypatch, [0.5] * 3)
  assert training.train(tmp_path / "run").epochs == 4


def test_other_synthetic_programs_are_other_settings(tmp_path, monkeypatch):
  real, other = small_runs.collection(tmp_path / "real"), _synthetic(tmp_path / "made")
  training = small_runs.reused_trainer(small_runs.settings(real))
  small_runs.Stub(training, monkeypatch, [0.5])
  training.train(tmp_path / "run", stop_after=1)
  with pytest.raises(errors.RunDirectoryError, match="augment.synthetic: stored None, requested"):
    trainer.Trainer(small_runs.settings(real, augment_synthetic=other)).train(tmp_path / "run")
