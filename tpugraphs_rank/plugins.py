"""Extensions by name: registries, and the modules of a user that add to them.

A registry maps names to implementations (models, losses, validation metrics, poolings, candidate
generators; see `tpugraphs_rank.registries`). A plugin is a Python module that registers its own:
`--plugin my_module` imports `my_module` from the current folder or PYTHONPATH, and `--plugin
my_file.py` runs that file. A run directory stores what `load` returns, so that the run can be
scored later from any folder.
"""

from collections.abc import Iterable, Iterator
import contextlib
import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import sysconfig
import traceback
import types
from typing import Any, Generic, TypeVar

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import plugin_trust

T = TypeVar("T")


class Registry(Generic[T]):
  """Implementations by name, in the order of registration.

  A built-in entry is a reference "module:attribute" that is imported on first use, so that listing
  names does not import TensorFlow.
  """

  def __init__(self, what: str, builtin: dict[str, str] | None = None):
    """Creates a registry.

    Args:
      what: what is registered, in the singular ("model"); used in messages.
      builtin: for each built-in name the reference "module:attribute".
    """
    self._what = what
    self._references = dict(builtin or {})
    self._values: dict[str, T] = {}

  def register(self, name: str, value: T | None = None, *, replace: bool = False) -> Any:
    """Adds an implementation. Without a value it is a decorator: `@register("my_name")`.

    Registering the same object again changes nothing.

    Args:
      name: the name that settings use.
      value: the implementation.
      replace: whether it may replace another implementation of that name.

    Returns:
      The implementation, or the decorator.

    Raises:
      ConfigError: the name is taken or is not a string that a flag can hold.
    """
    if value is None:
      return lambda decorated: self.register(name, decorated, replace=replace)
    if not isinstance(name, str) or not name or any(c.isspace() or c == "," for c in name):
      raise errors.ConfigError(
          f"{name!r} cannot name a {self._what}; expected a string without spaces and commas")
    if name in self and not replace and self._values.get(name) is not value:
      raise errors.ConfigError(
          f"the {self._what} {name!r} is already registered; choose another name, or pass "
          "replace=True")
    self._references.setdefault(name, "")
    self._values[name] = value
    return value

  def unregister(self, name: str) -> None:
    """Removes a registered implementation; a built-in one of that name is available again."""
    self._values.pop(name, None)
    if not self._references.get(name, ""):
      self._references.pop(name, None)

  def get(self, name: str) -> T:
    """The implementation of a name.

    Raises:
      UnknownNameError: nothing is registered under it; the message lists the valid names, the
        nearest first.
    """
    if name not in self:
      raise errors.UnknownNameError(
          f"unknown {self._what} {name!r}; expected one of: "
          f"{', '.join(nearest_first(str(name), self.names()))}. A {self._what} of your own is "
          "registered by a plugin (--plugin)")
    if name not in self._values:
      module, _, attribute = self._references[name].partition(":")
      self._values[name] = getattr(importlib.import_module(module), attribute)
    return self._values[name]

  def names(self) -> tuple[str, ...]:
    """All names, the built-in ones first."""
    return tuple(self._references)

  def __contains__(self, name: object) -> bool:
    return name in self._references

  def __iter__(self) -> Iterator[str]:
    return iter(self.names())

  def __repr__(self) -> str:
    return f"<registry of {self._what}s: {', '.join(self.names())}>"


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
  """The known names, those nearest to `name` first."""
  names = list(known)
  close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
  return [*close, *(other for other in names if other not in close)]


# The modules that `load` has imported, by the path of their file.
_loaded: dict[pathlib.Path, types.ModuleType] = {}


def load(plugin: str | os.PathLike[str]) -> str:
  """Imports a plugin, which registers what it defines. Loading it again does nothing.

  Args:
    plugin: the name of a module in the current folder or on PYTHONPATH, or the path of a `.py`
      file or of a package's folder.

  Returns:
    What a later `load` takes from any folder: the name of an installed module, otherwise the
    absolute path of its file or folder.

  Raises:
    MissingDataError: there is no such module or file.
    ConfigError: importing it fails; the message names the line.
  """
  text = os.fspath(plugin)
  problem = files.why_no_path(text)
  if problem:
    raise errors.MissingDataError(f"the plugin {escaping.quoted(text)} {problem}")
  if _is_path(text):
    return str(_load_path(pathlib.Path(text)))
  if not all(part.isidentifier() for part in text.split(".")):
    raise errors.MissingDataError(
        f"the plugin {text!r} is neither a module's name nor the path of a .py file")
  try:
    spec = importlib.util.find_spec(text)
  except (ImportError, ValueError):
    spec = None
  if spec is None:
    # Console commands do not have the current folder on their path, unlike `python -m`.
    local = pathlib.Path(*text.split("."))
    for path in (local.with_suffix(".py"), local):
      if path.is_file() or (path / "__init__.py").is_file():
        return str(_load_path(path))
    raise errors.MissingDataError(
        f"no plugin {text!r} in {pathlib.Path.cwd()} or on PYTHONPATH; give the name of a module "
        "or the path of its .py file. If a run needs it, restore the file where it was, or make "
        "the module importable")
  with _ImportErrors(text):
    module = importlib.import_module(text)
  origin = _origin(module)
  if origin is None:
    return text
  _loaded.setdefault(origin, module)
  # In the current folder the name means something only as long as the process stays there.
  local = pathlib.Path.cwd().resolve()
  return str(_public(origin)) if "." not in text and _public(origin).parent == local else text


def load_all(plugins: Iterable[str], source: str | None = None) -> tuple[str, ...]:
  """Loads several plugins; returns what `load` returns for each.

  Args:
    plugins: as for `load`.
    source: the file that names them; None: the user named them, which is remembered.

  Raises:
    ConfigError: a file names a plugin that the user does not know; see `plugin_trust`.
  """
  loaded = []
  for plugin in plugins:
    runs = _runs(plugin)
    if runs is not None and source is not None and not _is_loaded(runs):
      plugin_trust.check(runs, source)
    loaded.append(load(plugin))
    if runs is not None and source is None:
      plugin_trust.remember(runs)
  return tuple(loaded)


def _runs(plugin: str) -> str | None:
  """What `load` would run: the path of a file, or the name of a module without one.

  Nothing is imported. None: there is no such plugin, which `load` reports.
  """
  if files.why_no_path(plugin):
    return None
  if _is_path(plugin):
    return _file_of(pathlib.Path(plugin))
  if not all(part.isidentifier() for part in plugin.split(".")):
    return None
  if plugin in sys.modules:
    origin = _origin(sys.modules[plugin])
    return plugin if origin is None else str(origin)
  folders = None
  spec = None
  parts = plugin.split(".")
  for count in range(1, len(parts) + 1):
    # Not `importlib.util.find_spec`, which imports the packages around a module.
    try:
      spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:count]), folders)
    except (ImportError, ValueError):
      spec = None
    if spec is None:
      break
    folders = spec.submodule_search_locations
    if folders is None and count < len(parts):
      spec = None
      break
  if spec is not None:
    return str(pathlib.Path(spec.origin).resolve()) if spec.has_location and spec.origin else plugin
  local = pathlib.Path(*parts)
  return _file_of(local.with_suffix(".py")) or _file_of(local) or plugin


def _is_loaded(runs: str) -> bool:
  """Whether this process has run a file or module already, so that loading it runs nothing."""
  return runs in sys.modules or pathlib.Path(runs) in _loaded or any(
      str(_origin(module)) == runs for module in list(sys.modules.values())
      if module.__name__ != "__main__")


def _is_path(plugin: str) -> bool:
  return plugin.endswith(".py") or os.sep in plugin or pathlib.Path(plugin, "__init__.py").is_file()


def _file_of(path: pathlib.Path) -> str | None:
  """The file that a path of a plugin runs; None if there is none."""
  path = files.expanded(path).resolve()
  file = path / "__init__.py" if path.is_dir() else path
  return str(file) if file.is_file() else None


def _load_path(path: pathlib.Path) -> pathlib.Path:
  """Runs a file or package unless it was loaded before. Returns its absolute path."""
  path = files.expanded(path).resolve()
  file = path / "__init__.py" if path.is_dir() else path
  if not file.is_file():
    raise errors.MissingDataError(
        f"no plugin {path}; it was moved or deleted, or its path is wrong. Restore it there")
  if file in _loaded:
    return path
  for module in list(sys.modules.values()):  # Imported by the user's own script.
    if _origin(module) == file and module.__name__ != "__main__":
      _loaded[file] = module
      return path
  digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]
  stem = "".join(c if c.isalnum() else "_" for c in path.stem)
  name = f"tpugraphs_rank_plugin_{stem}_{digest}"
  spec = importlib.util.spec_from_file_location(
      name, file, submodule_search_locations=[str(path)] if path.is_dir() else None)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  try:
    with _ImportErrors(str(path)):
      spec.loader.exec_module(module)
  except BaseException:
    del sys.modules[name]
    raise
  _loaded[file] = module
  _alias(path.stem, file, module)
  return path


def _alias(name: str, file: pathlib.Path, module: types.ModuleType) -> None:
  """Makes `import name` return this module, if it would otherwise run the same file again."""
  if not name.isidentifier() or name in sys.modules:
    return
  spec = importlib.util.find_spec(name)
  if spec is not None and spec.origin is not None and pathlib.Path(spec.origin).resolve() == file:
    sys.modules[name] = module


def _origin(module: types.ModuleType) -> pathlib.Path | None:
  """The file of a module; None where it has none."""
  file = getattr(module, "__file__", None)
  return pathlib.Path(file).resolve() if isinstance(file, str) else None


def _public(origin: pathlib.Path) -> pathlib.Path:
  """The path that a user names: the folder of a package, otherwise the file."""
  return origin.parent if origin.name == "__init__.py" else origin


class _ImportErrors:
  """Turns what a plugin raises while it is imported into a ConfigError."""

  def __init__(self, plugin: str):
    self._plugin = plugin

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
    if not isinstance(error, Exception):
      return
    if isinstance(error, errors.TpuGraphsRankError):
      raise errors.ConfigError(f"the plugin {self._plugin} fails: {error}") from error
    if isinstance(error, SyntaxError):
      where = f"{error.filename}:{error.lineno}"
    else:
      last = traceback.extract_tb(trace)[-1]
      where = f"{last.filename}:{last.lineno}"
    raise errors.ConfigError(
        f"the plugin {self._plugin} cannot be imported: {type(error).__name__}: {error} "
        f"({where})") from error


# Code under these folders is not the user's.
_LIBRARIES = (pathlib.Path(__file__).resolve().parent,
              *(pathlib.Path(sysconfig.get_path(name)).resolve()
                for name in ("stdlib", "purelib", "platlib")))


@contextlib.contextmanager
def calling(what: str) -> Iterator[None]:
  """Turns what a user's code raises during the block into a ConfigError.

  Other exceptions are raised as they are, because they are faults of this package.

  Args:
    what: the code that is called, such as "the model 'my_gnn'". The message begins with it and
      names the line of the user's file.
  """
  try:
    yield
  except errors.TpuGraphsRankError:
    raise
  except Exception as error:
    every = traceback.extract_tb(error.__traceback__)
    if isinstance(error, TypeError) and len(every) == 2:  # The call did not get into a function.
      raise errors.ConfigError(f"{what} cannot be called: {error}") from error
    frames = [frame for frame in every if _is_user_code(frame.filename)]
    if not frames:
      raise
    raise errors.ConfigError(
        f"{what} fails: {type(error).__name__}: {_text_of(error)} "
        f"({frames[-1].filename}:{frames[-1].lineno})") from error


def _is_user_code(filename: str) -> bool:
  path = pathlib.Path(filename).resolve()
  return path.is_file() and not any(path.is_relative_to(folder) for folder in _LIBRARIES)


def _text_of(error: BaseException) -> str:
  """The message of an exception, without what Keras adds to it."""
  text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
  parts = text.split("\n\n")
  if parts[0].startswith("Exception encountered when calling layer") and len(parts) > 1:
    return parts[1].strip()
  return text.strip()


