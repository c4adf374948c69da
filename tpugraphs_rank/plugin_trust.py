"""Which plugins may run: those that the user named, and those to which the user consents.

A run directory, or a file of settings, names the plugins of its run, and loading a plugin runs its
code. Such a folder may come from a stranger. So a plugin that a file names is loaded only if the
user has named it before, on a command line or in Python, or consents to it (`--trust_plugins`).
Plugins that were named are remembered in the user's configuration folder, by path; modules that
have no file, by name.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import fcntl
import logging
import os
import pathlib

import platformdirs

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes

# Chooses another configuration folder.
VARIABLE = "TPUGRAPHS_RANK_CONFIG"
FILE = "trusted_plugins.json"
# The plugins of this process, one a line, for the processes that it starts.
_INHERITED = "_TPUGRAPHS_RANK_TRUSTED_PLUGINS"
_SHAPE = {"plugins": [str]}
_MOST = 1000  # The oldest are forgotten.

_logger = logging.getLogger(__name__)
_consent: contextvars.ContextVar[bool] = contextvars.ContextVar("trust_plugins", default=False)


@contextlib.contextmanager
def consenting(consent: bool = True) -> Iterator[None]:
  """Lets files name any plugin during the block, if `consent`; otherwise changes nothing."""
  token = _consent.set(consent or _consent.get())
  try:
    yield
  finally:
    _consent.reset(token)


def path() -> pathlib.Path:
  """The file that remembers plugins."""
  folder = os.environ.get(VARIABLE) or platformdirs.user_config_dir(
      "tpugraphs_rank", appauthor=False)
  return pathlib.Path(folder) / FILE


def check(plugin: str, source: str) -> None:
  """Checks that a plugin may be loaded which a file names.

  Args:
    plugin: the path of the file that would run, or the name of a module without one.
    source: the file that names it.

  Raises:
    ConfigError: the user has neither named the plugin nor consented.
  """
  if plugin in _inherited() or plugin in _remembered():
    return
  if _consent.get():
    _inherit(plugin)
    return
  shown = escaping.printable(plugin)
  raise errors.ConfigError(
      f"{escaping.printable(source)} names the plugin {shown}, and loading it runs its code. You "
      "have not used this plugin before. Read it first; then load it with --trust_plugins (in "
      "Python: tpugraphs_rank.load_run(..., trust_plugins=True)). If it is your own, naming it in "
      "a training, with --plugin, makes it known")


def remember(plugin: str) -> None:
  """Notes that the user has named a plugin. A folder that cannot be written is no error.

  Args:
    plugin: as for `check`.
  """
  if plugin in _inherited():
    return
  _inherit(plugin)
  if plugin in _remembered():
    return
  file = path()
  with contextlib.suppress(errors.OutputError, OSError):
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.open_to_append(file.with_suffix(".lock")) as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)  # Other processes may add plugins at the same time.
      files.write_json(file, {"plugins": [*_remembered(), plugin][-_MOST:]})


def _remembered() -> list[str]:
  """The plugins of the file. A damaged file counts as empty."""
  file = path()
  try:
    return json_shapes.read(file, _SHAPE, "remove it")["plugins"]
  except errors.MissingDataError:
    return []
  except errors.DataError as error:
    _logger.warning("%s; it is ignored, and no plugin is known", error)
    return []


def _inherited() -> list[str]:
  return os.environ.get(_INHERITED, "").split("\n")


def _inherit(plugin: str) -> None:
  if "\n" not in plugin:
    os.environ[_INHERITED] = "\n".join([*filter(None, _inherited()), plugin])
