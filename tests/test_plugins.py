"""Registries by name, and the modules that a user registers from."""

import subprocess
import sys
import textwrap

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import plugins
from tpugraphs_rank import registries

_SOURCE = """\
import builtins
builtins.plugin_runs = getattr(builtins, "plugin_runs", 0) + 1
"""


@pytest.fixture
def runs(monkeypatch):
  """How often the plugin of the test has run."""
  import builtins
  monkeypatch.setattr(builtins, "plugin_runs", 0, raising=False)
  return lambda: builtins.plugin_runs


def test_a_registry_returns_what_was_registered():
  registry = plugins.Registry("thing", {"join": "os.path:join"})
  first = object()
  assert registry.register("first", first) is first
  registry.register("first", first)  # The same object again.

  @registry.register("second")
  def second():
    pass

  assert registry.names() == ("join", "first", "second")
  assert registry.get("first") is first and registry.get("second") is second
  import os
  assert registry.get("join") is os.path.join
  assert "first" in registry and "third" not in registry
  registry.unregister("first")
  assert registry.names() == ("join", "second")


def test_an_unknown_name_lists_the_valid_ones_nearest_first():
  registry = plugins.Registry("thing", {"alpha": "os:a", "beta": "os:b", "gamma": "os:c"})
  with pytest.raises(errors.UnknownNameError, match="unknown thing 'gama'.*: gamma, alpha, beta"):
    registry.get("gama")


def test_a_registry_never_replaces_silently():
  registry = plugins.Registry("thing", {"join": "os.path:join"})
  for name in ("mine", "join"):
    registry.register(name, 1, replace=True)
    with pytest.raises(errors.ConfigError, match=f"{name!r} is already registered"):
      registry.register(name, 2)
    registry.register(name, 3, replace=True)
    assert registry.get(name) == 3
  registry.unregister("join")
  import os
  assert registry.get("join") is os.path.join


@pytest.mark.parametrize("name", ["", "two words", "a,b", 3])
def test_a_registry_refuses_names_that_a_flag_cannot_hold(name):
  with pytest.raises(errors.ConfigError, match="cannot name a thing"):
    plugins.Registry("thing").register(name, 1)


def test_a_file_is_loaded_once_and_from_any_folder(tmp_path, monkeypatch, runs):
  (tmp_path / "once.py").write_text(_SOURCE)
  monkeypatch.chdir(tmp_path)
  stored = plugins.load("once.py")
  assert stored == str(tmp_path / "once.py")
  assert plugins.load("once") == stored  # The module of that name in the current folder.
  monkeypatch.chdir("/")
  assert plugins.load_all([stored]) == (stored,)
  assert runs() == 1


def test_a_module_of_the_path_keeps_its_name(tmp_path, monkeypatch, runs):
  (tmp_path / "module_on_path.py").write_text(_SOURCE)
  monkeypatch.syspath_prepend(tmp_path)
  assert plugins.load("module_on_path") == "module_on_path"
  assert plugins.load(str(tmp_path / "module_on_path.py")) == str(tmp_path / "module_on_path.py")
  assert runs() == 1


def test_a_loaded_file_is_not_run_again_by_an_import(tmp_path, monkeypatch, runs):
  (tmp_path / "file_then_import.py").write_text(_SOURCE)
  monkeypatch.syspath_prepend(tmp_path)
  plugins.load(tmp_path / "file_then_import.py")
  import file_then_import  # noqa: F401
  assert runs() == 1


def test_a_package_may_import_its_own_modules(tmp_path, monkeypatch, runs):
  (tmp_path / "package").mkdir()
  (tmp_path / "package" / "__init__.py").write_text("from . import inner\n")
  (tmp_path / "package" / "inner.py").write_text(_SOURCE)
  assert plugins.load(tmp_path / "package") == str(tmp_path / "package")
  assert runs() == 1


@pytest.mark.parametrize("source, message", [
    ("1 / 0", r"ZeroDivisionError.*broken\.py:2"),
    ("def f(:", r"SyntaxError.*broken\.py:2"),
    ("import no_such_module_anywhere", r"no_such_module_anywhere.*broken\.py:2"),
    ("from tpugraphs_rank import registries; registries.LOSSES.register('mse', 1)",
     "'mse' is already registered"),
])
def test_a_plugin_that_fails_is_named_with_its_line(tmp_path, source, message):
  (tmp_path / "broken.py").write_text(f"\n{source}\n")
  for _ in range(2):  # A failed import leaves nothing behind.
    with pytest.raises(errors.ConfigError, match=message):
      plugins.load(tmp_path / "broken.py")


@pytest.mark.parametrize("plugin", ["no_such_plugin", "gone/plugin.py", "no such plugin"])
def test_a_missing_plugin_is_a_typed_error(tmp_path, monkeypatch, plugin):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.MissingDataError, match="plugin"):
    plugins.load(plugin)


def test_names_are_listed_without_tensorflow():
  code = textwrap.dedent("""
      import sys
      from tpugraphs_rank import registries, losses, metrics
      assert "list_mle" in registries.LOSSES.names()
      assert "residual_gnn" in registries.MODELS.names()
      metrics.register("own", len, higher_is_better=True)
      losses.register("own", len)
      assert "tensorflow" not in sys.modules""")
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("registry", [
    registries.MODELS, registries.LOSSES, registries.VALIDATION_METRICS, registries.POOLINGS,
    registries.CANDIDATES], ids=lambda registry: registry.names()[0])
def test_every_built_in_entry_exists(registry):
  for name in registry.names():
    assert registry.get(name) is not None
