"""What a trainer stores and when it stops, with a stub instead of all computation."""

import csv
import json
import shutil

import numpy as np
import pytest

from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank.data import npz
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import extras
from tpugraphs_rank.training import trainer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  return small_runs.collection(tmp_path_factory.mktemp("tiny"))


def _train(monkeypatch, config, run_dir, values, stop_after=None, fail_at=0):
  training = small_runs.reused_trainer(config)
  stub = small_runs.Stub(training, monkeypatch, values, fail_at)
  return training.train(run_dir, stop_after), stub, training


def _status(run_dir):
  return json.loads((run_dir / "status.json").read_text())


# metric, values, patience: epochs trained, best epoch.
STOPPING = [
    ("kendall_tau", [0.1, 0.5, 0.4, 0.3, 0.9, 0.9], 2, 4, 2),
    ("kendall_tau", [0.1, 0.2, 0.2, 0.3, 0.2, 0.2], 3, 6, 4),  # The last epoch: finished.
    ("opa", [0.5, 0.5, 0.5, 0.6, 0.7, 0.8], 2, 3, 1),  # Equal is not better.
    ("top1_slowdown", [0.5, 0.1, 0.2, 0.3, 0.0, 0.0], 2, 4, 2),  # Lower is better.
    ("top5_slowdown", [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 1, 6, 6),
    ("kendall_tau", [-0.5, -0.7, -0.6, 0.0, 0.0, 0.0], 2, 3, 1),
]


@pytest.mark.parametrize("metric, values, patience, epochs, best", STOPPING)
def test_early_stopping_keeps_the_best_epoch_by_the_chosen_metric(
    tiny, tmp_path, monkeypatch, metric, values, patience, epochs, best):
  config = small_runs.settings(tiny, training_validation_metric=metric, training_patience=patience,
                         training_epochs=6)
  result, _, training = _train(monkeypatch, config, tmp_path, values)
  assert (result.epochs, result.best_epoch) == (epochs, best)
  assert result.state == ("finished" if epochs == 6 else "stopped_early")
  assert result.metrics[metric] == values[best - 1]
  # The stub's weights are the epoch's number.
  for name, epoch in (("best", best), ("latest", epochs)):
    weights = small_runs.checkpoint(tmp_path / "checkpoints" / f"{name}.npz")
    assert all((array == epoch).all() for key, array in weights.items() if key.startswith("model/"))
  assert _status(tmp_path) == {
      "state": result.state, "epoch": epochs, "step": epochs * training.steps_per_epoch,
      "best_epoch": best, "validation_metric": metric, "best_value": values[best - 1]}
  assert json.loads((tmp_path / "metrics.json").read_text()) == {
      "split": "valid", "epoch": best, "metrics": result.metrics}


def test_the_history_that_users_read(tiny, tmp_path, monkeypatch):
  config = small_runs.settings(tiny, training_epochs=2)
  _, _, training = _train(monkeypatch, config, tmp_path, [0.25, 0.5])
  with open(tmp_path / "history.csv", newline="", encoding="utf-8") as file:
    header, *rows = csv.reader(file)
  assert header == [
      "epoch", "step", "loss", "train_opa", "gradient_norm", "learning_rate", "valid_loss",
      "valid_kendall_tau", "valid_opa", "valid_top1_slowdown", "valid_top5_slowdown",
      "valid_top10_slowdown", "seconds"]
  assert training.steps_per_epoch == -(-4 * 2 // 3)
  assert [row[:-1] for row in rows] == [
      [str(epoch), str(epoch * 3), "1.0", "0.75", "2.0", "0.5", "0.5", *[value] * 5]
      for epoch, value in ((1, "0.25"), (2, "0.5"))]
  assert all(float(row[-1]) >= 0 for row in rows)


def test_epochs_between_validations_have_no_validation(tiny, tmp_path, monkeypatch):
  config = small_runs.settings(tiny, training_validate_every=2, training_epochs=5)
  result, _, _ = _train(monkeypatch, config, tmp_path, [9.0, 0.1, 9.0, 0.2, 0.15])
  rows = small_runs.history(tmp_path)
  assert [row["valid_kendall_tau"] for row in rows] == [None, 0.1, None, 0.2, 0.15]
  assert [row["valid_loss"] is None for row in rows] == [True, False, True, False, False]
  assert result.best_epoch == 4


def test_a_finished_run_is_not_changed(tiny, tmp_path, monkeypatch):
  config = small_runs.settings(tiny, training_epochs=2)
  first, _, _ = _train(monkeypatch, config, tmp_path, [0.1, 0.2])
  before = {path: path.read_bytes() for path in tmp_path.rglob("*")
            if path.is_file() and path.name != "train.log"}
  again, stub, training = _train(monkeypatch, config, tmp_path, [])
  assert stub.steps == 0
  assert (again.state, again.epochs, again.best_epoch, again.metrics) == (
      first.state, first.epochs, first.best_epoch, first.metrics)
  assert before == {path: path.read_bytes() for path in before}
  for variable in training.stepper.model.trainable_variables:
    assert (variable.numpy() == 2).all()  # The latest weights were restored.


@pytest.mark.parametrize("error, state", [(KeyboardInterrupt, "interrupted"),
                                          (MemoryError, "training")])
def test_a_run_is_finished_once_its_trees_and_prior_are_fitted(
    tiny, tmp_path, monkeypatch, error, state):
  config = small_runs.settings(tiny, training_epochs=2)
  fitted = []

  def fails(*_):
    raise error

  monkeypatch.setattr(extras, "fit", fails)
  with pytest.raises(error):
    _train(monkeypatch, config, tmp_path / "one", [0.1, 0.2])
  assert _status(tmp_path / "one")["state"] == state

  def fits(*_):
    fitted.append(_status(tmp_path / "one")["state"])
    return {}

  monkeypatch.setattr(extras, "fit", fits)
  result, stub, _ = _train(monkeypatch, config, tmp_path / "one", [])
  assert stub.steps == 0 and fitted == [state]
  assert result.state == _status(tmp_path / "one")["state"] == "finished"


def test_patience_counts_over_interruptions(tiny, tmp_path, monkeypatch):
  config = small_runs.settings(tiny, training_patience=3, training_epochs=9)
  first, _, _ = _train(monkeypatch, config, tmp_path, [0.5, 0.1], stop_after=2)
  assert first.state == "interrupted" and _status(tmp_path)["state"] == "interrupted"
  assert not (tmp_path / "metrics.json").exists()
  second, _, _ = _train(monkeypatch, config, tmp_path, [0.1] * 9)
  assert (second.state, second.epochs, second.best_epoch) == ("stopped_early", 4, 1)


# ---- what is not finite --------------------------------------------------------------------------


def test_a_non_finite_loss_stops_training_and_names_the_step(tiny, tmp_path, monkeypatch):
  config = small_runs.settings(tiny)
  _train(monkeypatch, config, tmp_path, [0.1, 0.2], stop_after=2)
  before = {name: (tmp_path / "checkpoints" / name).read_bytes()
            for name in ("best.npz", "latest.npz")}
  with pytest.raises(errors.TrainingError) as caught:
    _train(monkeypatch, config, tmp_path, [0.3, 0.4], fail_at=2)
  # Three steps per epoch: the second of the third epoch.
  assert str(caught.value).startswith("step 8 (epoch 3): loss nan, gradient norm 2.0; ")
  assert "the checkpoint after epoch 2 is kept. Lower --learning_rate" in str(caught.value)
  assert before == {name: (tmp_path / "checkpoints" / name).read_bytes() for name in before}
  assert _status(tmp_path)["state"] == "failed" and _status(tmp_path)["epoch"] == 2
  # Training can resume from there.
  result, _, _ = _train(monkeypatch, config, tmp_path, [0.3, 0.4])
  assert (result.state, result.epochs) == ("finished", 4)


def test_a_non_finite_loss_in_the_first_epoch(tiny, tmp_path, monkeypatch):
  with pytest.raises(errors.TrainingError, match=r"^step 1 \(epoch 1\): loss nan"):
    _train(monkeypatch, small_runs.settings(tiny), tmp_path, [], fail_at=1)
  assert not (tmp_path / "checkpoints").exists()


# ---- what training starts from, and what it refuses ----------------------------------------------


def test_initial_weights_depend_on_the_seed_only(tiny):
  weights = lambda seed: [variable.numpy() for variable in trainer.Trainer(
      small_runs.settings(tiny, training_seed=seed)).stepper.model.trainable_variables]
  one, same, other = weights(1), weights(1), weights(2)
  for ours, theirs in zip(one, same):
    np.testing.assert_array_equal(ours, theirs)
  assert any(not np.array_equal(ours, theirs) for ours, theirs in zip(one, other))


def test_an_initial_checkpoint_is_used_until_the_run_has_its_own(
    tiny, tmp_path, monkeypatch):
  first = tmp_path / "first"
  _train(monkeypatch, small_runs.settings(tiny, training_epochs=2), first, [0.5, 0.1])
  # Other programs, so that a normalizer of their own would differ.
  other = small_runs.collection(tmp_path / "other")
  for path in (tmp_path / "other" / "train").glob("*.npz"):
    graph = npz.load_graph(path)
    npz.save_graph(path, small_runs.synthetic.tile_graph(
        77, num_nodes=graph.num_nodes, num_configs=graph.num_configs, name=graph.name))
  config = small_runs.settings(other, training_initial_checkpoint=str(first), training_epochs=3,
                         optimizer_ema_decay=0.9)
  fresh = trainer.Trainer(small_runs.settings(other))
  training = trainer.Trainer(config)
  assert training.normalizer.is_same(trainer.normalize.Normalizer.load(first / "normalizer.npz"))
  assert not training.normalizer.is_same(fresh.normalizer)
  for variables in (training.stepper.model.trainable_variables,
                    training.stepper.average.variables):
    assert all((variable.numpy() == 1).all() for variable in variables)  # The best epoch's.
  # A checkpoint of the run itself wins over it.
  second = tmp_path / "second"
  _train(monkeypatch, config, second, [0.5, 0.6, 0.7], stop_after=2)
  _, stub, training = _train(monkeypatch, config, second, [0.7] * 3)
  assert stub.steps == training.steps_per_epoch  # One epoch was left.
  # Without this check, training would continue with other features.
  with pytest.raises(errors.RunDirectoryError, match="normalizer.npz is not the feature scaling"):
    _train(monkeypatch, small_runs.settings(
        other, training_epochs=3, optimizer_ema_decay=0.9), second, [0.7] * 3)


def test_an_initial_checkpoint_of_another_shape(tiny, tmp_path, monkeypatch):
  _train(monkeypatch, small_runs.settings(tiny, training_epochs=1), tmp_path, [0.5])
  with pytest.raises(errors.RunDirectoryError, match="checkpoint of another model"):
    trainer.Trainer(small_runs.settings(
        tiny, training_initial_checkpoint=str(tmp_path), model_hidden_width=6))
  with pytest.raises(errors.RunDirectoryError, match="normalizer.npz cannot be read"):
    trainer.Trainer(small_runs.settings(tiny, training_initial_checkpoint=str(tmp_path / "gone")))


def test_other_settings_are_refused_and_change_nothing(tiny, tmp_path, monkeypatch):
  _train(monkeypatch, small_runs.settings(tiny, training_epochs=1), tmp_path, [0.5])
  before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
  with pytest.raises(errors.RunDirectoryError, match="training.seed: stored 0, requested 3"):
    _train(monkeypatch, small_runs.settings(tiny, training_epochs=1, training_seed=3), tmp_path,
           [0.5])
  assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage, message", [
    (lambda path: path.write_bytes(path.read_bytes()[:900]), "latest.npz cannot be read"),
    (lambda path: checkpoints.save(path, {"model": []}, {}), "holds 0 variables of the model"),
])
def test_a_damaged_checkpoint_is_not_resumed(tiny, tmp_path, monkeypatch, damage, message):
  config = small_runs.settings(tiny)
  _train(monkeypatch, config, tmp_path, [0.5], stop_after=1)
  damage(tmp_path / "checkpoints" / "latest.npz")
  with pytest.raises(errors.RunDirectoryError, match=message):
    _train(monkeypatch, config, tmp_path, [0.5] * 4)


def test_changed_training_programs_are_noticed(tmp_path, monkeypatch):
  collection = small_runs.collection(tmp_path / "data")
  config = small_runs.settings(collection)
  _train(monkeypatch, config, tmp_path / "run", [0.5], stop_after=1)
  shutil.copy(*sorted((tmp_path / "data" / "train").glob("*.npz"))[:2])
  small_runs._TRAINERS.clear()  # A new one reads the changed programs.
  with pytest.raises(errors.RunDirectoryError, match="training programs have changed"):
    _train(monkeypatch, config, tmp_path / "run", [0.5] * 4)


def test_graphs_without_runtimes_do_not_train(tmp_path):
  collection = small_runs.collection(tmp_path)
  path = sorted((tmp_path / "train").glob("*.npz"))[1]
  npz.save_graph(path, small_runs.synthetic.tile_graph(
      0, config_runtime=np.zeros(12), config_runtime_normalizers=np.zeros(12)))
  with pytest.raises(errors.DataError, match=f"{path.name}: config_runtime is all zero"):
    trainer.Trainer(small_runs.settings(collection))


@pytest.mark.parametrize("changes, message", [
    ({"loss_losses": ["list_mle", "mse"]}, "names 2 losses, loss.loss_weights gives 1 weights"),
    ({"loss_losses": [], "loss_loss_weights": []}, "loss.losses is empty"),
    ({"model_pooling": []}, "model.pooling is empty"),
    ({"data_train_fraction": 0.6, "data_valid_fraction": 0.4}, "leave no configurations to test"),
    ({"model_model": "attention_gnn", "model_join": "late"}, "model.join = 'late'"),
])
def test_settings_that_exclude_one_another(tiny, changes, message):
  with pytest.raises(errors.ConfigError, match=message):
    trainer.Trainer(small_runs.settings(tiny, **changes))


def test_equal_configurations_are_merged_for_training_only(tiny):
  kept, merged = (small_runs.data_of(small_runs.settings(tiny, data_duplicates=how))
                  for how in ("keep", "mean"))
  repeated = 0
  for before, after in zip(kept.train, merged.train):
    keys = before.graph.config_keys()
    assert sorted(keys[after.choice]) == sorted(set(keys))
    for index in after.choice:
      assert after.runtimes[index] == pytest.approx(before.runtimes[keys == keys[index]].mean())
    repeated += len(before.choice) - len(after.choice)
  assert repeated == merged.counts["train"].repeats > 0
  assert sum(len(member.choice) for member in merged.train) == 12 + 6 + 9 + 4 - repeated
  for before, after in zip(kept.valid, merged.valid):
    np.testing.assert_array_equal(before.choice, after.choice)
    np.testing.assert_array_equal(before.runtimes, after.runtimes)


def test_the_plan(tiny):
  plan = trainer.Trainer(small_runs.settings(tiny)).plan()
  parameters = plan.pop("parameters")
  assert parameters > 128 * 2  # The opcode embedding alone.
  assert len(plan.pop("config_hash")) == 16
  assert plan == {
      "collection": "tile:tiny", "kind": "tile", "target": "chip",
      "hlo_stage": "after_optimization", "train_programs": 4, "valid_programs": 2,
      "train_configurations": 12 + 6 + 9 + 4, "valid_configurations": 8 + 11,
      "steps_per_epoch": 3, "epochs_at_most": 4}
