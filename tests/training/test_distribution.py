"""Training on several devices gives what one device gives."""

import json
import pathlib
import signal
import socket
import subprocess
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import commands
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.training import distribution
from tpugraphs_rank.training import shared_steps
from tpugraphs_rank.training import trainer

# Everything random of a step, and weights and padding that differ between shares.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tile": ("tile", {
        "batch_segment_mode": "backprop", "batch_max_nodes": 4, "batch_edge_drop_rate": 0.2,
        "batch_config_skew": 1.0, "model_dropout": 0.3, "batch_feature_noise": 0.1,
        "loss_losses": ["list_mle", "approx_ndcg"], "loss_loss_weights": [1.0, 0.5],
        "loss_l2_regularization": 0.1}),
    "layout": ("layout", {"model_model": "attention_gnn", "batch_segment_mode": "drop",
                          "batch_max_nodes": 6, "model_dropout": 0.3}),
}


@pytest.mark.parametrize("case", [
    "tile", pytest.param("layout", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [4])
def test_the_shares_of_a_batch_add_up_to_its_gradient(case, count, tmp_path, monkeypatch):
  kind, changes = CASES[case]
  config = small_runs.settings(small_runs.collection(tmp_path, kind), **changes)
  training = trainer.Trainer(config)
  devices = distribution.Distribution()
  devices.count, devices.local = count, range(count)  # One more than there are lists.
  monkeypatch.setattr(training, "distribution", devices)
  divided = training._dataset(range(1))
  whole = pipeline.dataset(lambda: training._lists(0))
  stepper = shared_steps.SharedStepper(
      training._model, config, 10, whole.element_spec, divided.element_spec, devices)
  sums_of = tf.function(
      stepper.share_sums, input_signature=[dict(divided.element_spec[0])], autograph=False)
  for arrays, parts in zip(whole, divided):
    step = pipeline.labels(arrays)
    with tf.GradientTape() as tape:
      scores, loss = stepper._scores_and_loss(arrays, step, training=True)
      total = loss + tf.add_n(training._model.losses)
    expected = np.concatenate([np.ravel(tf.convert_to_tensor(gradient)) for gradient in
                               stepper._gradients(tape, total)])
    correct, pairs = shared_steps.steps.ordered_pairs(step, scores)
    actual = sum(sums_of(share).numpy() for share in parts)
    np.testing.assert_allclose(actual[:-3], expected, atol=2e-6, rtol=1e-4)
    np.testing.assert_allclose(actual[-3:], [loss, correct, pairs], rtol=1e-5)
    break  # The first batch has all of it; the others only take time.


def test_a_plain_model_drops_other_entries_on_each_device():
  model = models.RankingModel("tile", run_config.ModelConfig())
  model.required_inputs = lambda: ("nodes",)
  seeds = [model.select_inputs({"nodes": 0, **share}, True, tf.constant([3, 5]))["dropout_seed"]
           for share in ({}, *({"share": tf.constant(number)} for number in range(3)))]
  assert [int(seed[1]) for seed in seeds] == [5] * 4
  assert int(seeds[0][0]) == int(seeds[1][0]) == 3 and len({int(seed[0]) for seed in seeds}) == 3


@pytest.mark.parametrize("values, message", [
    ({"devices": 0}, "--devices=0"), ({"devices": 2, "workers": ("a:1",)}, "for one machine"),
    ({"workers": ("a",)}, "'a' is not an address"), ({"workers": ("a:99999",)}, "HOST:PORT"),
    ({"workers": ("a:1", "a:1")}, "twice"),
    ({"workers": ("a:1", "b:1"), "worker": 2}, "from 0 to 1"),
    ({"worker": 1}, "--worker=1")])
def test_choices_that_do_not_fit(values, message):
  with pytest.raises(errors.ConfigError, match=message):
    distribution.Choice(**values)


def test_the_choice_of_a_cluster_manager(monkeypatch):
  cluster = {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}
  for task, place in (({"type": "chief", "index": 0}, 0), ({"type": "worker", "index": 1}, 2)):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert distribution.from_environment() == distribution.Choice(
        workers=("a:1", "b:2", "[::1]:3"), worker=place)
  for text in ("", "{", "[]", "{}", '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps"}}',
               '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
               '{"cluster": {"worker": 7}, "task": {"type": "worker", "index": 0}}'):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(errors.ConfigError, match="TF_CONFIG"):
      distribution.from_environment()


def test_one_device_needs_no_strategy():
  assert distribution.start(distribution.Choice(devices=1)) is distribution.ALONE
  assert distribution.start(distribution.Choice(workers=("a:1",))) is distribution.ALONE
  alone = distribution.ALONE
  assert alone.is_chief and alone.count == 1 and alone.text == ""
  values = np.array([1, 2])
  assert alone.from_chief(values) is values
  alone.check_equal("settings", [1])
  alone.wait()
  with pytest.raises(tf.errors.UnavailableError), alone.together():
    raise tf.errors.UnavailableError(None, None, "not a matter of processes")


# ---- real devices and processes ------------------------------------------------------------------


def _settings_file(folder: pathlib.Path) -> pathlib.Path:
  kind, changes = CASES["tile"]
  values = {**small_runs.TINY, "training.epochs": 30, "optimizer.ema_decay": 0.8,
            "data.collection": str(small_runs.collection(folder / "data", kind)),
            **{name.replace("_", ".", 1): value for name, value in changes.items()}}
  sections: dict[str, dict[str, Any]] = {}
  for name, value in values.items():
    section, _, key = name.partition(".")
    sections.setdefault(section, {})[key] = value
  path = folder / "settings.json"
  path.write_text(json.dumps(sections))
  return path


def _assert_close(one: pathlib.Path, other: pathlib.Path) -> None:
  for row, twin in zip(small_runs.history(one), small_runs.history(other), strict=True):
    assert row["loss"] == pytest.approx(twin["loss"], rel=1e-3)
    assert row["train_opa"] == pytest.approx(twin["train_opa"], abs=0.05)
  ours, theirs = (small_runs.checkpoint(path / "checkpoints" / "latest.npz")
                  for path in (one, other))
  for key in ours:
    np.testing.assert_allclose(ours[key], theirs[key], atol=2e-3, err_msg=key)


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
  settings = _settings_file(tmp_path)
  for name, words in (("one", ()), ("two", ("--devices=2",))):
    done = commands.run_process("train", "--config", settings, "--run_dir", tmp_path / name,
                                "--epochs=3", *words)
    assert done.returncode == 0, done.stderr
  _assert_close(tmp_path / "one", tmp_path / "two")


class Workers:
  """Two processes that train together on this machine."""

  def __init__(self, settings: pathlib.Path, run_dir: pathlib.Path, seeds=(0, 0), more=()):
    ports = []
    for _ in range(2):
      with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports.append(free.getsockname()[1])
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    self.processes = [subprocess.Popen(
        commands.process("train", "--config", settings, "--run_dir", run_dir, "--epochs=30",
                         "--workers", addresses, "--worker", worker, "--seed", seeds[worker],
                         *more),
        cwd=commands.ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                      for worker in range(2)]

  def ends(self, expected: list[int]) -> list[str]:
    """Waits for both; returns what they wrote."""
    try:
      messages = [process.communicate(timeout=300)[1] for process in self.processes]
    finally:
      for process in self.processes:
        process.kill()
    assert [process.returncode for process in self.processes] == expected, messages
    return messages


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume_after_one_dies(tmp_path):
  settings = _settings_file(tmp_path)
  done = commands.run_process("train", "--config", settings, "--run_dir", tmp_path / "one")
  assert done.returncode == 0, done.stderr
  Workers(settings, tmp_path / "two").ends([0, 0])
  _assert_close(tmp_path / "one", tmp_path / "two")
  for victim in (1, 0):
    pair = Workers(settings, tmp_path / "killed")
    status = tmp_path / "killed" / "status.json"
    deadline, before = time.monotonic() + 200, _epoch(status)
    while _epoch(status) < before + 5:
      assert time.monotonic() < deadline and pair.processes[victim].poll() is None
      time.sleep(0.05)
    pair.processes[victim].kill()
    expected = [1, 1]
    expected[victim] = -signal.SIGKILL
    messages = pair.ends(expected)
    assert "another process of this training has ended" in messages[1 - victim]
  Workers(settings, tmp_path / "killed").ends([0, 0])
  small_runs.assert_same_run(tmp_path / "two", tmp_path / "killed")


@pytest.mark.slow
def test_two_processes_train_each_kind_together(tmp_path):
  settings = _settings_file(tmp_path)
  more = ("--epochs=3", '--kinds=[{"model": "attention_gnn"}]')
  done = commands.run_process(
      "train", "--config", settings, "--run_dir", tmp_path / "one", *more)
  assert done.returncode == 0, done.stderr
  Workers(settings, tmp_path / "two", more=more).ends([0, 0])
  for name in ("", "kinds/1"):
    _assert_close(tmp_path / "one" / name, tmp_path / "two" / name)
  stored = [json.loads((tmp_path / name / "kinds.json").read_text()) for name in ("one", "two")]
  np.testing.assert_allclose(*(one["deviations"] for one in stored), rtol=1e-2)
  before = [path.read_bytes() for path in sorted((tmp_path / "two").rglob("*.npz"))]
  Workers(settings, tmp_path / "two", more=more).ends([0, 0])  # All of it is trained.
  assert before == [path.read_bytes() for path in sorted((tmp_path / "two").rglob("*.npz"))]


@pytest.mark.slow
@pytest.mark.parametrize("victim, seconds", [(0, 1.5), (1, 1.5), (0, 0.2)])
def test_a_process_that_dies_before_the_first_epoch(victim, seconds, tmp_path):
  pair = Workers(_settings_file(tmp_path), tmp_path / "run")
  for line in pair.processes[0].stderr:
    if "process 2 of 2 has come" in line:
      break
  time.sleep(seconds)
  pair.processes[victim].kill()
  expected = [1, 1]
  expected[victim] = -signal.SIGKILL
  message = pair.ends(expected)[1 - victim]
  assert "Traceback" not in message
  assert "another process of this training has ended" in message or (
      "cannot reach one another, one of them has ended" in message)


@pytest.mark.slow
def test_sigterm_while_the_model_is_built(tmp_path):
  pair = Workers(_settings_file(tmp_path), tmp_path / "run")
  for line in pair.processes[0].stderr:
    if "process 2 of 2 has come" in line:
      break
  time.sleep(1.5)
  pair.processes[0].send_signal(signal.SIGTERM)
  messages = pair.ends([128 + signal.SIGTERM, 1])
  assert "interrupted; " in messages[0] and "Traceback" not in "".join(messages)


def _epoch(status: pathlib.Path) -> int:
  return json.loads(status.read_text())["epoch"] if status.exists() else 0


@pytest.mark.slow
def test_processes_with_different_settings_are_refused_on_both_sides(tmp_path):
  pair = Workers(_settings_file(tmp_path), tmp_path / "run", seeds=(0, 1))
  for message in pair.ends([1, 1]):
    assert "have different settings or training programs" in message
