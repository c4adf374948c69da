"""What happens around the epochs of every training."""

import logging

import pytest
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank.training import epochs
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import trainer


def test_an_interrupted_run_says_so_and_keeps_the_figures_of_its_checkpoint(tmp_path, caplog):
  directory = run_directory.RunDirectory(tmp_path)
  loop = epochs.EpochLoop(
      directory, {"model": [tf.Variable(1.0)]}, epochs.Progress(), 5, 3, tensorboard=False)

  def epoch(on_step):
    on_step()
    loop.progress.epoch += 1
    if loop.progress.epoch == 2:
      raise KeyboardInterrupt
    loop.save(run_directory.TRAINING, best_epoch=1)
    return {}

  with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
    loop.run(epoch, lambda: None)
  assert directory.read_status() == {
      "state": "interrupted", "epoch": 1, "step": 0, "best_epoch": 1}
  assert "the same command resumes training after epoch 1" in caplog.text


def test_a_row_of_history_that_a_killed_process_did_not_write_is_there_after_resuming(
    tmp_path, monkeypatch):
  directory = run_directory.RunDirectory(tmp_path)
  begin = lambda: epochs.EpochLoop(
      directory, {"model": [tf.Variable(1.0)]}, epochs.Progress(), 5, 3, tensorboard=False)
  loop = begin()
  loop.progress.epoch = 1
  loop.progress.history = [{"epoch": 1, "loss": 0.5}]

  def killed(rows):
    raise SystemExit

  with monkeypatch.context() as patched, pytest.raises(SystemExit):
    patched.setattr(directory, "write_history", killed)
    loop.save(run_directory.TRAINING)
  assert not (tmp_path / "history.csv").exists()
  begin().resume()
  assert (tmp_path / "history.csv").read_text() == "epoch,loss\n1,0.5\n"


@pytest.mark.parametrize("stop_after", [0, -1, 1.5, "1"])
def test_training_stops_after_a_whole_number_of_epochs(tmp_path, stop_after):
  untrained = trainer.Trainer.__new__(trainer.Trainer)
  with pytest.raises(errors.ConfigError, match="stop_after is .*expected a whole number from 1"):
    untrained.train(tmp_path / "run", stop_after)
  assert not (tmp_path / "run").exists()
