"""What all commands share: flags from a configuration, logs, and one clear line for a mistake."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import importlib
import importlib.util
import json
import logging
import os
import re
import sys
import typing
from typing import Any

from absl import flags
import tqdm

from tpugraphs_rank import commands
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import folder_locks
from tpugraphs_rank import memory
from tpugraphs_rank import partials
from tpugraphs_rank import plugin_trust
from tpugraphs_rank import recipes
from tpugraphs_rank import termination
from tpugraphs_rank.cli import help_text
from tpugraphs_rank.cli import interruption
from tpugraphs_rank.cli import runs
from tpugraphs_rank.cli import streams

# Before any command imports TensorFlow, whose start-up messages would hide the command's own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The flags defined here belong to the command that asks for them.
flags.disclaim_key_flags()

Main = Callable[[list[str]], Any]

# The exit status of a command that skipped some of its inputs and worked on the others.
SOME_SKIPPED = 3

# The setting that imports a user's modules.
_PLUGIN = "training.plugin"


# ---- flags of a configuration --------------------------------------------------------------------


def define_config_flags(config_class: type, values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines `--config` and one flag for each setting of a configuration class."""
  listed = [name for name in recipes.names()
            if name.startswith("layerdag") == ("LayerDag" in config_class.__name__)]
  flags.DEFINE_string(
      "config", None, "Recipe (by name) or JSON file with settings. Flags override it. Recipes: "
      + ", ".join(listed) + ".", flag_values=values)
  titles = config_lib.section_titles(config_class)
  for name, field, value in config_lib.leaves(config_class):
    leaf = name.rpartition(".")[2]
    text = field.metadata["help"]
    if "Default:" not in text:
      text += f" Default: {_shown(value)}."
    choices = config_lib.choices_of(field)
    if choices:
      text += " One of: " + ", ".join(map(str, choices)) + "."
    kind = type(value)
    # The default None distinguishes an absent flag from one that repeats the default: a value
    # from the file must survive the first and not the second.
    if kind is bool:
      flags.DEFINE_boolean(leaf, None, text, flag_values=values)
    elif kind is int:
      flags.DEFINE_integer(leaf, None, text, flag_values=values)
    elif kind is float:
      flags.DEFINE_float(leaf, None, text, flag_values=values)
    elif kind is dict or field.metadata.get("objects"):
      flags.DEFINE_string(leaf, None, text, flag_values=values)
    elif kind is tuple and not value:
      # Without a default there is nothing to replace, so that the flag may be repeated.
      flags.DEFINE_multi_string(leaf, None, text, flag_values=values)
    elif kind is tuple:
      flags.DEFINE_list(leaf, None, text, flag_values=values)
    elif _is_optional_int(config_class, name):
      flags.DEFINE_integer(leaf, None, text, flag_values=values)
    else:
      flags.DEFINE_string(leaf, None, text, flag_values=values)
    if name == _PLUGIN:
      runs.define_trust_flag(values)
    section = name.partition(".")[0] if "." in name else ""
    help_text.describe(values[leaf], titles.get(section, section.capitalize()),
                       field.metadata.get("common", False), name)


def _shown(value: Any) -> str:
  if isinstance(value, tuple):
    return ",".join(map(str, value)) or "none"
  if isinstance(value, dict):
    return json.dumps(value)
  return "none" if value in (None, "") else str(value)


def _is_optional_int(config_class: type, name: str) -> bool:
  *sections, leaf = name.split(".")
  for section in sections:
    config_class = config_lib.field_types(config_class)[section]
  return int in typing.get_args(config_lib.field_types(config_class)[leaf])


def config_from_flags(config_class: type, values: flags.FlagValues = flags.FLAGS) -> Any:
  """The defaults, overridden by the file of `--config`, overridden by the flags.

  The file may be a recipe's name, a run directory's config.json, or a file of settings alone.

  Raises:
    ConfigError: an unknown setting or a wrong value; the message names the file or the flag.
  """
  changes = _settings_from_flags(config_class, values)
  resolved = config_class()
  if values.config:
    # Plugins first: the file may name models and losses that only they register.
    if _PLUGIN in changes:
      config_lib.override(config_class(), {_PLUGIN: changes[_PLUGIN]}, source="flags")
    resolved = config_lib.from_dict(config_class, recipes.read(values.config),
                                    source=values.config)
  return config_lib.override(resolved, changes, source="flags")


def _settings_from_flags(config_class: type, values: flags.FlagValues) -> dict[str, Any]:
  """The settings that the command line has, by dotted name."""
  changes: dict[str, Any] = {}
  for name, field, value in config_lib.leaves(config_class):
    flag = values[name.rpartition(".")[2]]
    if flag.present:
      if field.metadata.get("objects"):
        changes[name] = _parsed_json(flag.name, str(flag.value),
                                     'list of objects, such as \'[{"name": 1}]\'')
      elif isinstance(value, tuple):
        changes[name] = _parsed_list(flag.name, typing.cast(list[str], flag.value), value)
      elif isinstance(value, dict):
        changes[name] = _parsed_json(flag.name, str(flag.value),
                                     'object, such as \'{"name": 1}\'')
      else:
        changes[name] = flag.value
  return changes


def _parsed_list(flag: str, values: list[str], default: tuple) -> list[Any]:
  """The entries of a list flag as the type of its default's entries."""
  kind = type(default[0]) if default else str
  if not default:
    values = [entry for value in values for entry in value.split(",") if entry]
  try:
    return [kind(value) for value in values]
  except ValueError:
    raise errors.ConfigError(
        f"--{flag}={','.join(values)}: expected a comma-separated list like {_shown(default)}"
    ) from None


def _parsed_json(flag: str, value: str, expected: str) -> Any:
  try:
    return files.parse_json(value, f"--{flag}")
  except errors.DataError as error:
    raise errors.ConfigError(f"{error}; expected a JSON {expected}") from None


# ---- running a command ---------------------------------------------------------------------------


def run_command(name: str, module_name: str, arguments: Sequence[str], positional: str = "",
                tensorflow: bool = False, kept: tuple[str, str] | None = None) -> int:
  """Runs a command in this process and returns its exit status.

  The command's flags exist only while it runs, so that commands can follow one another.

  Args:
    name: of the command, as a user writes it.
    module_name: module with `define_flags` and `main`.
    arguments: the words after the command's name.
    positional: the positional arguments as the usage line shows them; "" if there are none.
    tensorflow: whether the command needs TensorFlow.
    kept: for a command that resumes after an interruption, what it keeps, and the flag that names
      the folder. A command's module may have a function `kept` instead, which returns a clause,
      and a function `locks`, which returns the folder in which no other process may work.
  """
  module = importlib.import_module(module_name)
  with defined(functools.partial(_define_flags, module.define_flags, kept is not None)) as own:
    if _asks_for_help(arguments):
      print(help_text.render(name, module.__doc__ or "", positional, own,
                             full=not {"-h", "-help", "--help"} & set(arguments)))
      return 0
    return _run(module.main, f"{commands.NAME} {name}", arguments, bool(positional),
                [*name.split(), *arguments], "TensorFlow" if tensorflow else "",
                getattr(module, "kept", None) or (
                    functools.partial(interruption.kept, *kept) if kept else None),
                # Training locks its run directory itself, also when it is called from Python.
                getattr(module, "locks", None) or (
                    (lambda: flags.FLAGS[kept[1]].value) if kept and kept[1] != "run_dir"
                    else None))


def _define_flags(of_command: Callable[[], None], resumes: bool) -> None:
  of_command()
  if resumes:
    flags.DEFINE_bool("wait", False, "If another process works in the same folder, wait until it "
                      "ends. Otherwise the command is refused.")


def run(main: Main, define_flags: Callable[[], None] | None = None) -> None:
  """Runs a script that is not an installed command, and exits with its status.

  Args:
    main: as that of a command.
    define_flags: defines the script's flags, if they are not defined yet.
  """
  streams.prepare()
  script = sys.modules["__main__"]
  known = set(flags.FLAGS)
  if define_flags is not None:
    define_flags()
  program = f"python -m {script.__spec__.name}" if script.__spec__ else sys.argv[0]
  if _asks_for_help(sys.argv[1:]):
    own = [flags.FLAGS[name] for name in flags.FLAGS if name not in known] or [
        flag for module, members in flags.FLAGS.flags_by_module_dict().items()
        if not module.startswith("absl") for flag in members]
    print(help_text.render("", script.__doc__ or "", "", own, full=True, program=program))
    sys.exit(0)
  sys.exit(_run(main, program, sys.argv[1:], False, None, ""))


def _asks_for_help(arguments: Sequence[str]) -> bool:
  return bool({"-h", "-help", "--help", "--helpfull", "--help_all"} & set(arguments))


@contextlib.contextmanager
def defined(define_flags: Callable[[], None]) -> Iterator[list[flags.Flag]]:
  """Defines flags for the time of a command; yields them in their order of definition."""
  values = flags.FLAGS
  before = set(values)
  try:
    define_flags()
    yield [values[name] for name in values if name not in before]
  finally:
    for name in [name for name in values if name not in before]:
      delattr(values, name)
    values.unparse_flags()


def _run(main: Main, program: str, arguments: Sequence[str], takes_arguments: bool,
         recorded: Sequence[str] | None, needed: str,
         kept: Callable[[], str] | None = None,
         locks: Callable[[], files.PathLike | None] | None = None) -> int:
  """Parses flags, sets up logs, runs `main`; turns errors into a line and an exit status.

  Meanwhile, no other process may work in the folder that `locks` returns.
  """
  try:
    argv = flags.FLAGS([program, *arguments])
  except flags.Error as error:
    text = re.sub(r"^flag --(\w+)=None: Flag --\1 must have a value other than None\.$",
                  r"--\1 is required", str(error))
    print(f"error: {text} (`{program} --help` lists the flags)", file=sys.stderr)
    return 2
  if argv[1:] and not takes_arguments:
    print(f"error: unexpected argument {argv[1]!r}; all options are flags (`{program} --help` "
          "lists them)", file=sys.stderr)
    return 2
  previous = commands.set_running(recorded)
  partials.look_again()
  with _logs(), termination.sigterm_raises(interruption.Terminated):
    try:
      if needed:
        require_tensorflow(program)
      folder = locks() if locks else None
      trusts = "trust_plugins" in flags.FLAGS and flags.FLAGS.trust_plugins
      with (folder_locks.hold(folder, flags.FLAGS.wait) if folder else contextlib.nullcontext(),
            plugin_trust.consenting(trusts)):
        return main(argv) or 0
    except Exception as error:
      text = str(error)
      if memory.ran_out(error):
        if not isinstance(error, errors.OutOfMemoryError):
          text = "memory ran out"
        text += f"; {memory_remedy()}"
      elif not isinstance(error, errors.TpuGraphsRankError):
        raise
      print(f"error: {escaping.message(text)}", file=sys.stderr)
      return 1
    except (KeyboardInterrupt, SystemExit) as error:
      # Parts of the library turn SIGTERM into SystemExit, to end the processes that they started.
      terminated = isinstance(error, interruption.Terminated) or (
          isinstance(error, SystemExit) and error.code == interruption.TERMINATED)
      if isinstance(error, SystemExit) and not terminated:
        raise
      print(interruption.message(terminated, kept() if kept else None), file=sys.stderr)
      return interruption.TERMINATED if terminated else interruption.CTRL_C
    finally:
      commands.set_running(previous)


# Flags that reduce the memory of a command, the most effective ones first.
_MEMORY_FLAGS = ("scoring_megabytes", "batch_size", "max_configs", "eval_batch_configs",
                 "max_nodes", "hidden_width", "members", "batch_graphs", "width", "jobs", "count",
                 "limit", "max_candidates", "top_k")


def memory_remedy() -> str:
  """What to do if the memory of the running command ran out."""
  # A command that reads programs one by one, with --runner, needs a whole program in memory.
  names = [] if "runner" in flags.FLAGS and "max_candidates" not in flags.FLAGS else [
      f"--{name}" for name in _MEMORY_FLAGS if name in flags.FLAGS][:4]
  steps = [f"lower {' or '.join(names)}"] if names else []
  if "runner" in flags.FLAGS and flags.FLAGS.runner:
    steps.append("use fewer workers (--direct_num_workers in --beam_args), or none (omit --runner)"
                 if flags.FLAGS.runner == "DirectRunner" else
                 "use workers with more memory, or fewer of them on a machine")
  if memory.is_limited():
    steps.append("raise the limit of `ulimit -v`")
  return ", ".join([*steps, "end other programs", "or use a machine with more memory"])


def require_tensorflow(what: str) -> None:
  """Checks, without importing it, that TensorFlow is installed.

  Raises:
    CompatibilityError: it is not; the message says how to get it.
  """
  if importlib.util.find_spec("tensorflow") is not None:
    return
  version = ".".join(map(str, sys.version_info[:2]))
  remedy = ("install the package in an environment with Python 3.10 or 3.11: `uv venv --python "
            "3.11`, or `python3.11 -m venv ENVIRONMENT`, then `pip install tpugraphs_rank`"
            if sys.version_info >= (3, 12) else "`pip install tensorflow==2.15.1 "
            "tensorflow-gnn==1.0.3 tensorflow-ranking==0.5.5` installs it")
  raise errors.CompatibilityError(
      f"{what} needs TensorFlow 2.15, which is not installed in this environment (Python "
      f"{version}); {remedy}")


# ---- logs ----------------------------------------------------------------------------------------


class _ProgressHandler(logging.Handler):
  """Writes log lines to the standard error without breaking the progress bars there."""

  def emit(self, record: logging.LogRecord) -> None:
    try:
      tqdm.tqdm.write(self.format(record), file=sys.stderr)
    except Exception:  # Never let a log line end a training.
      self.handleError(record)


class _Format(escaping.LogFormatter):
  """Marks warnings, and leaves what a command reports about its progress as it is."""

  def format(self, record: logging.LogRecord) -> str:
    text = super().format(record)
    return f"warning: {text}" if record.levelno >= logging.WARNING else text


def _first_time() -> Callable[[logging.LogRecord], bool]:
  """A filter that passes each warning once: several runs may log the same one."""
  seen = set()

  def passes(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if record.levelno < logging.WARNING or message not in seen:
      seen.add(message)
      return True
    return False

  return passes


@contextlib.contextmanager
def _logs() -> Iterator[None]:
  """Sends the framework's logs to the standard error for the time of a command."""
  logging.getLogger("absl").setLevel(logging.WARNING)
  logger = logging.getLogger("tpugraphs_rank")
  before = logger.level, logger.propagate
  handler = _ProgressHandler()
  handler.setFormatter(_Format())
  handler.addFilter(_first_time())
  logger.addHandler(handler)
  logger.setLevel(logging.INFO)
  logger.propagate = False
  try:
    yield
  finally:
    logger.removeHandler(handler)
    logger.setLevel(before[0])
    logger.propagate = before[1]
