"""The run directory: which settings it belongs to, and the content of its files."""

import json
import logging

import pytest

from tests.helpers import commands
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.training import run_directory

CONFIG = run_config.RunConfig()
ABOUT = {"collection": "tile:x", "kind": "tile", "target": "t", "hlo_stage": "after_optimization"}


def _changed(**changes):
  return config_lib.override(CONFIG, {
      name.replace("_", ".", 1): value for name, value in changes.items()})


@pytest.fixture
def opened(tmp_path):
  directory = run_directory.RunDirectory(tmp_path / "run")
  assert directory.open(CONFIG, ABOUT) is False
  return directory


def test_a_new_directory_stores_its_configuration(opened):
  stored = files.read_json(opened / "config.json")
  assert stored == {"config": config_lib.to_dict(CONFIG), "hash": config_lib.stable_hash(CONFIG),
                    "about": ABOUT}
  assert opened.read_config() == CONFIG and opened.read_about() == ABOUT
  assert set(files.read_json(opened / "environment.json")) == {
      "python", "packages", "platform", "processor", "cores", "command", "commit"}
  assert opened.read_status() == {}


def test_the_environment_lists_the_relevant_versions(opened):
  packages = files.read_json(opened / "environment.json")["packages"]
  assert packages["tensorflow-gnn"] == "1.0.3" and packages["tensorflow-ranking"] == "0.5.5"
  assert packages["tensorflow"].startswith("2.15.")


def test_the_same_run_is_resumed(opened):
  assert opened.open(CONFIG, ABOUT) is True
  # What is not hashed may differ: it does not change what is computed.
  assert opened.open(_changed(training_threads=2, data_data_root="/elsewhere"), ABOUT) is True
  assert opened.read_config() == CONFIG


def test_a_run_from_before_a_setting_existed_is_resumed_with_its_default(opened):
  stored = files.read_json(opened / "config.json")
  assert stored["config"]["data"].pop("duplicates") == "keep"
  files.write_json(opened / "config.json", {**stored, "hash": "0123456789abcdef"})
  assert opened.read_config() == CONFIG and opened.open(CONFIG, ABOUT) is True
  with pytest.raises(errors.RunDirectoryError, 
                     match="data.duplicates: stored 'keep', requested 'mean'"):
    opened.open(_changed(data_duplicates="mean"), ABOUT)


def test_other_settings_are_listed_one_by_one(opened):
  with pytest.raises(errors.RunDirectoryError) as caught:
    opened.open(_changed(training_seed=7, model_hidden_width=8, training_threads=3), ABOUT)
  first, *lines, last = str(caught.value).splitlines()
  assert first == f"{opened.path} was written with other settings:"
  assert [line.strip() for line in lines] == [
      f"model.hidden_width: stored {CONFIG.model.hidden_width}, requested 8",
      "training.seed: stored 0, requested 7"]
  assert "Choose another --run_dir" in last and str(opened / "config.json") in last


def test_a_foreign_directory_is_refused_and_unchanged(tmp_path):
  (tmp_path / "letter.txt").write_text("dear")
  with pytest.raises(errors.RunDirectoryError, match="is not empty and holds no config.json"):
    run_directory.RunDirectory(tmp_path).open(CONFIG, ABOUT)
  assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_empty_directory_is_fine(tmp_path):
  assert run_directory.RunDirectory(tmp_path).open(CONFIG, ABOUT) is False


def test_a_run_killed_during_setup_starts_again(tmp_path, monkeypatch):
  directory = run_directory.RunDirectory(tmp_path / "run")
  write = files.write_json

  def killed(path, value):
    if path.name == "config.json":
      raise KeyboardInterrupt
    write(path, value)

  monkeypatch.setattr(files, "write_json", killed)
  with pytest.raises(KeyboardInterrupt):
    directory.open(CONFIG, ABOUT)
  monkeypatch.setattr(files, "write_json", write)
  assert directory.open(CONFIG, ABOUT) is False


def test_a_directory_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("in the way")
  for path in (tmp_path / "file", tmp_path / "file" / "run"):
    with pytest.raises(errors.OutputError, match="cannot write .*choose another output folder"):
      run_directory.RunDirectory(path).open(CONFIG, ABOUT)


@pytest.mark.parametrize("content, error, message", [
    (None, errors.RunDirectoryError, "is not a run directory: it has no config.json"),
    ("{", errors.RunDirectoryError, "config.json is not valid JSON"),
    ("[]", errors.RunDirectoryError, "lacks the key 'config'"),
    ('{"config": 3}', errors.RunDirectoryError, "lacks the key 'config'"),
    ('{"config": {"modle": {}}}', errors.ConfigError, "unknown setting 'modle' .*'model'"),
    ('{"config": {"model": {"hidden_width": "wide"}}}', errors.ConfigError,
     "config.json: model.hidden_width = 'wide' is not a whole number"),
])
def test_a_damaged_configuration(tmp_path, content, error, message):
  if content is not None:
    (tmp_path / "config.json").write_text(content)
  with pytest.raises(error, match=message) as caught:
    run_directory.RunDirectory(tmp_path).read_config()
  assert str(tmp_path) in str(caught.value)


def test_status(opened):
  opened.write_status(state="training", epoch=3)
  assert opened.read_status() == {"state": "training", "epoch": 3}
  (opened / "status.json").write_text("{")
  with pytest.raises(errors.RunDirectoryError, match="status.json is not valid JSON"):
    opened.read_status()


def test_history(opened):
  opened.write_history([])
  assert (opened / "history.csv").read_text() == ""
  opened.write_history([{"epoch": 1, "loss": 0.1, "valid_loss": None}, {
      "epoch": 2, "loss": 1 / 3, "valid_loss": 2.5}])
  assert (opened / "history.csv").read_text() == (
      "epoch,loss,valid_loss\n1,0.1,\n2,0.3333333333333333,2.5\n")


def test_log_messages_are_appended_to_the_log(opened):
  logger = logging.getLogger("tpugraphs_rank.somewhere")
  for number in (1, 2):
    with opened.logging():
      logger.info("line %d", number)
  logger.info("afterwards")
  lines = (opened / "train.log").read_text().splitlines()
  assert [line.split(" ", 2)[2] for line in lines] == ["INFO line 1", "INFO line 2"]


@pytest.mark.parametrize("name", ["predictions", "tensorboard", "checkpoints"])
def test_links_in_a_run_directory_are_not_followed(tmp_path, name):
  descriptor = small_runs.collection(tmp_path / "data")
  settings = small_runs.settings(descriptor, training_epochs=1, training_tensorboard=True)
  if name == "predictions":
    small_runs.untrained_run(settings, tmp_path / "run")
  (tmp_path / "outside").mkdir()
  (tmp_path / "run").mkdir(exist_ok=True)
  if name != "predictions":
    run_directory.RunDirectory(tmp_path / "run").open(settings, ABOUT)
  (tmp_path / "run" / name).symlink_to(tmp_path / "outside")
  words = ["predict"] if name == "predictions" else [
      "train", "--config", tmp_path / "run" / "config.json"]
  result = commands.run(*words, "--run_dir", tmp_path / "run")
  assert result.returncode == 1
  assert f"cannot write {tmp_path / 'run' / name}: it is a symbolic link; remove" in result.stderr
  assert not list((tmp_path / "outside").iterdir())


def test_a_log_that_is_a_link_is_refused_and_a_full_disk_loses_messages_only(
    opened, tmp_path, monkeypatch, capsys):
  log = opened / "train.log"
  log.unlink(missing_ok=True)
  log.symlink_to(tmp_path / "elsewhere.log")
  with pytest.raises(errors.OutputError, match="train.log: it is a symbolic link"):
    with opened.logging():
      pass
  assert not (tmp_path / "elsewhere.log").exists()
  monkeypatch.setattr(files, "open_to_append", lambda _: open("/dev/full", "wb"))
  with opened.logging():
    logging.getLogger("tpugraphs_rank").info("nobody reads this")
  assert capsys.readouterr().err == ""


def test_the_recorded_command_contains_no_folder(monkeypatch):
  monkeypatch.setattr("sys.argv", ["/home/me/bin/tool", "--x", "1"])
  assert not run_directory.environment()["command"].startswith("/")


def test_the_commit_of_the_checkout_or_unknown(monkeypatch):
  assert run_directory.commit()
  monkeypatch.setenv("PATH", "")
  assert run_directory.commit() == "unknown"


@pytest.mark.parametrize("content, message", [
    ("[]", "status.json holds list; expected an object"),
    ('{"epoch": "3"}', "status.json: epoch is '3'"),
    ('{"step": -1}', "status.json: step is -1"),
    ('{"best_epoch": 1.5}', "status.json: best_epoch is 1.5"),
    ('{"state": 3}', "status.json: state is 3"),
    ('{"state": ["training"]}', "status.json: state is "),
    ('{"state": "done"}', "status.json: state is 'done'; expected one of finished, "),
    ('{"state": NaN}', "status.json is not valid JSON"),
])
def test_a_damaged_status(opened, content, message):
  (opened / "status.json").write_text(content)
  with pytest.raises(errors.RunDirectoryError, match=message):
    opened.read_status()


@pytest.mark.parametrize("key, value", [
    ("target", 3), ("collection", None), ("hlo_stage", ["x"]), ("element_types", "f32"),
    ("element_types", [["f32"]]), ("element_types", ["\x1b"]), ("hlo_stage", "a" * 256),
    ("target", "\x1b[31mred\nerror: forged")])
def test_what_a_run_states_about_itself_has_the_right_types(opened, key, value):
  path = opened / "config.json"
  stored = json.loads(path.read_text())
  stored["about"][key] = value
  path.write_text(json.dumps(stored))
  with pytest.raises(errors.RunDirectoryError, match=f"config.json: about.{key} is .*damaged"):
    opened.read_about()


def test_one_process_trains_in_a_directory(opened):
  with opened.locked():
    assert opened.open(run_config.RunConfig(), {})  # The lock file does not matter.
    with pytest.raises(errors.RunDirectoryError, match="is in use by process .* with --wait"):
      with opened.locked():
        pass
  with opened.locked(wait=True):
    pass


def test_a_locked_new_directory_counts_as_empty(tmp_path):
  directory = run_directory.RunDirectory(tmp_path / "run")
  with directory.locked():
    assert not directory.open(run_config.RunConfig(), {})


def test_paths_that_no_folder_has():
  for path in ("a" * 300, "b/" * 3000, "c\0"):
    with pytest.raises(errors.RunDirectoryError, match="no run directory .* it (is|has|holds)"):
      run_directory.RunDirectory(path)
