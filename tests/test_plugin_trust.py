"""Plugins that a file names run only if the user has named them, or consents."""

import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import pytest

from tests.helpers import commands
from tests.training import small_runs
from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import plugin_trust
from tpugraphs_rank import plugins
from tpugraphs_rank import run_config
from tpugraphs_rank.evaluation import run_tables
from tpugraphs_rank.training import run_directory


@pytest.fixture(autouse=True)
def settings_folder(tmp_path, monkeypatch):
  """An empty configuration folder, and no plugin of this process."""
  monkeypatch.setenv(plugin_trust.VARIABLE, str(tmp_path / "settings"))
  monkeypatch.setenv(plugin_trust._INHERITED, "")
  return tmp_path / "settings"


def _plugin(folder: pathlib.Path, name: str = "mine") -> pathlib.Path:
  """A plugin that leaves a file behind where it runs."""
  folder.mkdir(exist_ok=True)
  path = folder / f"{name}.py"
  path.write_text(f"import pathlib\npathlib.Path({str(folder / 'ran')!r}).write_text('')\n")
  return path


def _run(folder: pathlib.Path, *names: object) -> run_directory.RunDirectory:
  """A run directory whose configuration names plugins."""
  folder.mkdir()
  values = config.to_dict(run_config.RunConfig())
  values["training"]["plugin"] = list(map(str, names))
  (folder / "config.json").write_text(json.dumps(
      {"config": values, "about": {"collection": "tile:x"}}))
  return run_directory.RunDirectory(folder)


def test_a_plugin_of_a_strangers_run_is_not_loaded(tmp_path):
  path = _plugin(tmp_path / "stranger")
  directory = _run(tmp_path / "run", path)
  with pytest.raises(errors.ConfigError, match=re.escape(
      f"{tmp_path / 'run' / 'config.json'} names the plugin {path}, and loading it runs its code. "
      "You have not used this plugin before. Read it first; then load it with --trust_plugins")):
    directory.read_config()
  assert not (path.parent / "ran").exists()
  # A table of runs has the run, with the problem.
  table = run_tables.read_runs(tmp_path)
  assert "loading it runs its code" in table["problem"][0]
  assert not (path.parent / "ran").exists()


def test_with_consent_it_is_loaded_and_not_remembered(tmp_path, settings_folder):
  path = _plugin(tmp_path / "stranger")
  with plugin_trust.consenting():
    assert _run(tmp_path / "run", path).read_config().training.plugin == (str(path),)
  assert (path.parent / "ran").exists() and not settings_folder.exists()


def test_a_plugin_that_the_user_names_is_known_to_later_processes(tmp_path, settings_folder):
  path = _plugin(tmp_path / "own")
  config.override(run_config.RunConfig(), {"training.plugin": [str(path)]})
  stored = json.loads((settings_folder / plugin_trust.FILE).read_text())
  assert stored == {"plugins": [str(path)]}
  directory = _run(tmp_path / "run", path)
  code = ("import sys\nfrom tpugraphs_rank.training import run_directory\n"
          "run_directory.RunDirectory(sys.argv[1]).read_config()\n")
  variables = {name: value for name, value in os.environ.items()
               if name != plugin_trust._INHERITED}
  (path.parent / "ran").unlink()
  subprocess.run([sys.executable, "-c", code, directory.path], check=True, env=variables)
  assert (path.parent / "ran").exists()


@pytest.mark.parametrize("name", ["on_path", "package_on_path.inner"])
def test_modules_are_known_by_their_file(tmp_path, monkeypatch, name):
  folder = tmp_path / "path" / pathlib.Path(*name.split(".")[:-1])
  folder.mkdir(parents=True)
  if "." in name:
    (folder / "__init__.py").write_text("raise AssertionError('the package runs')\n")
  path = _plugin(folder, name.rpartition(".")[2])
  monkeypatch.syspath_prepend(tmp_path / "path")
  with pytest.raises(errors.ConfigError, match=f"names the plugin {path}"):
    _run(tmp_path / "run", name).read_config()
  plugin_trust.remember(str(tmp_path / "other" / path.name))  # Another file of this name.
  with pytest.raises(errors.ConfigError, match=f"names the plugin {path}"):
    _run(tmp_path / "again", name).read_config()
  if "." not in name:
    plugin_trust.remember(str(path))
    _run(tmp_path / "known", name).read_config()
    assert (folder / "ran").exists()


def test_a_module_of_the_current_folder_is_a_file_of_a_stranger_too(tmp_path, monkeypatch):
  path = _plugin(tmp_path / "stranger", "some_module_here")
  monkeypatch.chdir(path.parent)
  for number, name in enumerate(("some_module_here", "some_module_here.py")):
    with pytest.raises(errors.ConfigError, match=f"names the plugin {path}"):
      _run(tmp_path / f"run{number}", name).read_config()
  assert not (path.parent / "ran").exists()


def test_loaded_plugins_run_nothing_and_need_no_consent(tmp_path, monkeypatch):
  path = _plugin(tmp_path / "own", "loaded_before")
  plugins.load(path)
  _run(tmp_path / "run", path).read_config()
  _run(tmp_path / "run2", "json").read_config()


def test_a_file_of_settings_is_not_trusted_either(tmp_path):
  path = _plugin(tmp_path / "stranger")
  (tmp_path / "settings.json").write_text(json.dumps({"training": {"plugin": [str(path)]}}))
  result = commands.run("train", "--run_dir", tmp_path / "run", "--config",
                        tmp_path / "settings.json", "--dry_run")
  assert result.returncode == 1 and "loading it runs its code" in result.stderr
  assert not (path.parent / "ran").exists()
  # Naming it as well is consent.
  from tpugraphs_rank import api
  resolved = api.configuration(tmp_path / "settings.json", {"plugin": path})
  assert resolved.training.plugin == (str(path),) and (path.parent / "ran").exists()


def test_a_damaged_file_is_ignored_with_a_warning(tmp_path, settings_folder, caplog):
  path = _plugin(tmp_path / "stranger")
  settings_folder.mkdir()
  for text in ("{", '{"plugins": [1]}', "[]"):
    (settings_folder / plugin_trust.FILE).write_text(text)
    caplog.clear()
    with pytest.raises(errors.ConfigError, match="loading it runs its code"):
      plugin_trust.check(str(path), "config.json")
    assert "it is ignored, and no plugin is known" in caplog.text
  plugin_trust.remember(str(path))
  assert json.loads((settings_folder / plugin_trust.FILE).read_text()) == {"plugins": [str(path)]}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv(plugin_trust.VARIABLE, str(tmp_path / "file" / "folder"))
  plugin_trust.remember("/some/plugin.py")
  plugin_trust.check("/some/plugin.py", "config.json")  # Known to this process.


def test_the_oldest_are_forgotten(monkeypatch, settings_folder):
  monkeypatch.setattr(plugin_trust, "_MOST", 2)
  for name in "abc":
    plugin_trust.remember(name)
  stored = json.loads((settings_folder / plugin_trust.FILE).read_text())
  assert stored == {"plugins": ["b", "c"]}
  assert stat.S_ISREG((settings_folder / plugin_trust.FILE).stat().st_mode)


@pytest.mark.parametrize("name", ["a" * 300 + ".py", "b/" * 2500 + "c.py", "d\0e.py", "f" * 300])
def test_names_that_no_file_has(tmp_path, name):
  with pytest.raises(errors.MissingDataError, match="the plugin '.* (too long|null character)"):
    _run(tmp_path / "run", name).read_config()


def test_load_run_takes_consent(tmp_path):
  import tpugraphs_rank as tgr
  descriptor = small_runs.collection(tmp_path / "data")
  small_runs.untrained_run(small_runs.settings(descriptor), tmp_path / "run")
  path = _plugin(tmp_path / "stranger")
  stored = json.loads((tmp_path / "run" / "config.json").read_text())
  stored["config"]["training"]["plugin"] = [str(path)]
  (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
  with pytest.raises(errors.ConfigError, match="trust_plugins=True"):
    tgr.load_run(tmp_path / "run")
  assert not (path.parent / "ran").exists()
  tgr.load_run(tmp_path / "run", trust_plugins=True)
  assert (path.parent / "ran").exists()
