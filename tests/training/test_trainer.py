"""Training of tiny models: it learns, is reproducible, resumes bit-identically, and scores."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import gpu_kernels
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import splits
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import run
from tpugraphs_rank.training import trainer

# Together these cover both models and kinds, both segment modes, and all randomness of a step.
CASES = {
    "everything": ("tile", {
        "batch_segment_mode": "backprop", "batch_max_nodes": 4, "batch_edge_drop_rate": 0.2,
        "batch_config_skew": 1.0, "model_dropout": 0.2, "optimizer_ema_decay": 0.8,
        "batch_feature_noise": 0.1, "loss_losses": ["list_mle", "approx_ndcg"],
        "loss_loss_weights": [1.0, 0.5], "training_tensorboard": True}),
    "plain": ("layout", {"model_model": "attention_gnn", "batch_segment_mode": "drop",
                         "batch_max_nodes": 6}),
}


class Trained:
  """A run without interruption, and its trainer."""

  def __init__(self, folder, kind, changes):
    self.collection = small_runs.collection(folder / "data", kind)
    self.config = small_runs.settings(self.collection, **changes)
    self.path = folder / "run"
    self.trainer = trainer.Trainer(self.config)
    self.result = self.trainer.train(self.path)


@pytest.fixture(scope="module", params=CASES)
def trained(request, tmp_path_factory):
  kind, changes = CASES[request.param]
  return Trained(tmp_path_factory.mktemp(request.param), kind, changes)


# ---- the run directory ---------------------------------------------------------------------------


def test_the_run_directory_is_complete(trained):
  names = {path.relative_to(trained.path).as_posix() for path in trained.path.rglob("*")
           if path.is_file()}
  events = {name for name in names if name.startswith("tensorboard/")}
  assert names - events == {
      "config.json", "environment.json", "status.json", "normalizer.npz", "history.csv",
      "metrics.json", "calibration.json", "train.log", "checkpoints/best.npz",
      "checkpoints/latest.npz"}
  assert len(events) == int(trained.config.training.tensorboard)
  log = (trained.path / "train.log").read_text()
  assert "plan: " in log
  for counts in ("train: 4 programs with 31 configurations", "valid: 2 programs with 19 config"):
    assert log.count(f":tiny {counts}") == 1
  assert trained.result.state == "finished" and trained.result.epochs == 4
  rows = small_runs.history(trained.path)
  values = [row["valid_kendall_tau"] for row in rows]
  assert values[trained.result.best_epoch - 1] == max(values)
  assert all(np.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in rows)


def test_tensorboard_shows_the_history(trained):
  if not trained.config.training.tensorboard:
    assert not (trained.path / "tensorboard").exists()
    return
  (events,) = (trained.path / "tensorboard").iterdir()
  actual = {}
  for record in tf.data.TFRecordDataset(str(events)):
    event = tf.compat.v1.Event.FromString(record.numpy())
    for value in event.summary.value:
      actual.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
  rows = small_runs.history(trained.path)
  for name in ("loss", "valid_kendall_tau"):
    assert actual[name] == [(row["epoch"], pytest.approx(row[name], abs=1e-6)) for row in rows]


def test_functions_are_traced_once_for_all_shapes(trained):
  stepper = trained.trainer.stepper
  for function in (stepper.train, stepper.validate, trained.trainer.scorer._forward):
    assert function.experimental_get_tracing_count() == 1


def test_every_operation_has_a_gpu_kernel(trained):
  if not gpu_kernels.has_gpu_kernels():
    pytest.skip("this TensorFlow was built without GPU kernels")
  stepper = trained.trainer.stepper
  for function in (stepper.train, stepper.validate, trained.trainer.scorer._forward):
    concrete = function.get_concrete_function()
    assert gpu_kernels.ops_without_gpu_kernels(concrete) == set()


@pytest.mark.parametrize(
    "trained", [pytest.param("plain", marks=pytest.mark.slow), "everything"], indirect=True)
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(trained, tmp_path):
  interrupted = trainer.Trainer(trained.config).train(tmp_path, stop_after=1)
  assert interrupted.state == "interrupted" and interrupted.epochs == 1
  # Killed between the two checkpoints of an epoch.
  training = trainer.Trainer(trained.config)
  checkpoint, save = tmp_path / "checkpoints" / "latest.npz", checkpoints.save

  def killed(path, variables, state):
    if path == checkpoint and state["epoch"] == 3:
      raise KeyboardInterrupt
    save(path, variables, state)

  checkpoints.save = killed
  try:
    with pytest.raises(KeyboardInterrupt):
      training.train(tmp_path)
  finally:
    checkpoints.save = save
  assert [row["epoch"] for row in small_runs.history(tmp_path)] == [1, 2]
  # The same trainer may be used again: everything that matters is in the checkpoint.
  result = training.train(tmp_path)
  assert (result.state, result.metrics) == ("finished", trained.result.metrics)
  small_runs.assert_same_run(tmp_path, trained.path)


# ---- scoring with it -----------------------------------------------------------------------------


def _validation(config):
  return splits.load_programs(config.data, "valid", config.training.seed)


def test_scores_reproduce_the_validation_of_the_best_checkpoint(trained):
  opened = run.load_run(trained.path)
  programs = _validation(trained.config)
  scores = opened.score_programs(programs)
  taus = [metrics.kendall_tau(program.graph.relative_runtime, values)
          for program, values in zip(programs, scores)]
  status = json.loads((trained.path / "status.json").read_text())
  assert np.mean(taus) == status["best_value"] == trained.result.metrics["kendall_tau"]
  for program, values in zip(programs, scores):
    np.testing.assert_allclose(opened.score(program.graph), values, rtol=1e-5, atol=1e-6)
    assert values.shape == (program.graph.num_configs,) and values.dtype == np.float32


def test_scoring_without_runtimes_and_of_selected_configurations(trained):
  opened = run.load_run(trained.path)
  program = _validation(trained.config)[0]
  expected = opened.score(program.graph)
  arrays = program.graph.arrays()
  for key in ("config_runtime", "config_runtime_normalizers"):
    if key in arrays:
      arrays[key] = np.zeros_like(arrays[key])
  bare = small_runs.npz.graphs.graph_from_arrays("bare", arrays)
  np.testing.assert_allclose(opened.score(bare), expected, rtol=1e-5, atol=1e-6)
  (chosen,) = opened.score_programs([splits.ProgramView(program.graph, np.array([3, 1]))])
  assert chosen.shape == (2,)
  if opened.config.model.model == "residual_gnn":
    np.testing.assert_allclose(chosen, expected[[3, 1]], rtol=1e-5, atol=1e-6)


def test_scoring_nothing(trained):
  program = _validation(trained.config)[0]
  empty = splits.ProgramView(program.graph, np.zeros([0], np.int64))
  opened = run.load_run(trained.path)
  assert opened.score_programs([]) == []
  (nothing,) = opened.score_programs([empty])
  assert nothing.shape == (0,)
  nothing, scores = opened.score_programs([empty, program])
  assert nothing.shape == (0,) and scores.shape == (program.graph.num_configs,)


def test_graphs_that_do_not_fit_a_run(trained, caplog):
  tile = trained.trainer.collection.kind == "tile"
  make = small_runs.synthetic.tile_graph if tile else small_runs.synthetic.layout_graph
  other = small_runs.synthetic.layout_graph if tile else small_runs.synthetic.tile_graph
  strict, lenient = run.load_run(trained.path, strict=True), run.load_run(trained.path)
  for opened in (strict, lenient):
    with pytest.raises(errors.CompatibilityError, match=r"is a \w+ graph with 12 configurations; "):
      opened.score(other(0))
    with pytest.raises(errors.CompatibilityError, match="featurize it with --padding=0"):
      opened.score(make(0, feature_padding=np.int64(-1)))
    arrays = make(0).arrays()
    bare = small_runs.npz.graphs.graph_from_arrays("bare", {
        key: arrays[key] for key in ("node_feat", "node_opcode", "edge_index")})
    with pytest.raises(errors.CompatibilityError, match="bare is a bare graph with 0 config"):
      opened.score(bare)
  unseen = make(0, num_nodes=3, node_opcode=np.array([2, 24, 26]), name="new")
  with pytest.raises(errors.CompatibilityError, match=(
      r"new has opcodes that training never saw: convolution; its ranking")):
    strict.score(unseen)
  assert lenient.score(unseen).shape == (12,)
  assert "new has opcodes that training never saw: convolution" in caplog.text


def test_a_collection_of_another_target_or_stage(trained, caplog, tmp_path):
  kind = trained.trainer.collection.kind
  opened = run.load_run(trained.path)
  opened.check_collection(trained.trainer.collection)
  assert not caplog.records
  elsewhere = collections.registry.read_descriptor(small_runs.collection(
      tmp_path, kind, target="other_chip", hlo_stage="before_optimization"))
  opened.check_collection(elsewhere)
  assert f"collection {kind}:tiny has target 'other_chip'; the run" in caplog.text
  assert "has hlo_stage 'before_optimization'" in caplog.text
  with pytest.raises(errors.CompatibilityError, match="has target 'other_chip'"):
    run.load_run(trained.path, strict=True).check_collection(elsewhere)


# ---- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, model, split_by", [
    pytest.param("tile", "residual_gnn", "configuration", marks=pytest.mark.slow),
    ("layout", "attention_gnn", "program")])
def test_training_learns_the_order_of_the_training_configurations(tmp_path, kind, model, split_by):
  path = small_runs.synthetic.write_collection(
      tmp_path / "data", kind, counts=(2, 1, 1), num_configs=24 if kind == "tile" else 16)
  config = small_runs.settings(
      path, model_model=model, data_split_by=split_by, model_hidden_width=24,
      model_num_convolutions=2, model_head_widths=[16], batch_max_configs=16, batch_batch_size=2,
      batch_lists_per_graph=8, optimizer_learning_rate=0.01, training_epochs=40,
      training_patience=40, training_validate_every=10, batch_eval_batch_configs=32)
  trainer.Trainer(config).train(tmp_path / "run")
  rows = small_runs.history(tmp_path / "run")
  # The pairs of the training lists, as the steps count them.
  assert 2 * rows[-1]["train_opa"] - 1 > 0.95 > 2 * rows[0]["train_opa"] - 1
  assert rows[-1]["loss"] < rows[0]["loss"]
  programs = splits.load_programs(config.data, "train", config.training.seed)
  if split_by == "configuration":
    assert all(0 < len(program.choice) < program.graph.num_configs for program in programs)


def test_divergence_stops_training(tmp_path):
  config = small_runs.settings(small_runs.collection(tmp_path / "data"),
                               optimizer_learning_rate=1e3, optimizer_warmup_steps=0,
                               model_num_convolutions=4)
  with pytest.raises(errors.TrainingError, match=r"^step 2 \(epoch 1\): loss .*learning_rate"):
    trainer.Trainer(config).train(tmp_path / "run")
