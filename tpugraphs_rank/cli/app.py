"""What every application does: flags from a configuration, one clear line for a user's mistake."""

from collections.abc import Callable, Mapping
import logging
import os
import sys
import typing
from typing import Any, NamedTuple

from absl import app
from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import recipes

# Before any application imports TensorFlow, whose start-up notes would bury our own lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The flags defined here belong to the application that asks for them, whose --help lists them.
flags.disclaim_key_flags()


def define_config_flags(config_class: type, values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines `--config` and one flag for each setting of a configuration class."""
  flags.DEFINE_string("config", None, "JSON file with settings; flags win over it.",
                      flag_values=values)
  for name, field, value in config_lib.leaves(config_class):
    leaf = name.rpartition(".")[2]
    metadata = field.metadata
    text = f"{metadata['help']} [{name}; default {_shown(value)}]"
    if metadata["choices"]:
      text += " One of: " + ", ".join(map(str, metadata["choices"])) + "."
    kind = type(value)
    # None as default tells "not given" from "given as the default": a file's value stands then.
    if kind is bool:
      flags.DEFINE_boolean(leaf, None, text, flag_values=values)
    elif kind is int:
      flags.DEFINE_integer(leaf, None, text, flag_values=values)
    elif kind is float:
      flags.DEFINE_float(leaf, None, text, flag_values=values)
    elif kind is tuple:
      flags.DEFINE_list(leaf, None, text, flag_values=values)
    elif _is_optional_int(config_class, name):
      flags.DEFINE_integer(leaf, None, text, flag_values=values)
    else:
      flags.DEFINE_string(leaf, None, text, flag_values=values)


def _shown(value: Any) -> str:
  return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _is_optional_int(config_class: type, name: str) -> bool:
  *sections, leaf = name.split(".")
  for section in sections:
    config_class = config_lib.field_types(config_class)[section]
  return int in typing.get_args(config_lib.field_types(config_class)[leaf])


def config_from_flags(config_class: type, values: flags.FlagValues = flags.FLAGS) -> Any:
  """Defaults, then the file of `--config`, then the flags that were given.

  The file may be a run directory's config.json, or hold the settings alone.

  Raises:
    ConfigError: an unknown setting, or a value that is wrong; the file or the flag is named.
  """
  resolved = config_class()
  path = values.config
  if path:
    resolved = config_lib.from_dict(config_class, recipes.read(path), source=path)
  given: dict[str, Any] = {}
  for name, field, value in config_lib.leaves(config_class):
    flag = values[name.rpartition(".")[2]]
    if flag.present:
      given[name] = (_parsed(flag.name, flag.value, value) if isinstance(value, tuple)
                     else flag.value)
  return config_lib.override(resolved, given, source="flags")


def _parsed(flag: str, values: list[str], default: tuple) -> list[Any]:
  """The entries of a list flag as the type of its default's entries."""
  kind = type(default[0])
  try:
    return [kind(value) for value in values]
  except ValueError:
    raise errors.ConfigError(
        f"--{flag}={','.join(values)}: expected a comma-separated list like {_shown(default)}"
    ) from None


def _first_time() -> Callable[[logging.LogRecord], bool]:
  """A filter that lets each warning through once: several runs may have the same to say."""
  said = set()

  def passes(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if record.levelno < logging.WARNING or message not in said:
      said.add(message)
      return True
    return False

  return passes


class Command(NamedTuple):
  """One of the commands of an application, which is its first argument.

  Attributes:
    required: names of the flags that must be given.
    optional: names of the flags that may be given; others are refused, not ignored.
  """
  required: tuple[str, ...]
  optional: tuple[str, ...] = ()


def run(main: Callable[[list[str]], Any], commands: Mapping[str, Command] | None = None) -> None:
  """Runs an application: logs to the standard error, and a mistake of the user's is one line.

  Exit status: what `main` returns (None: 0), 1 a typed error of the framework, 2 wrong flags, 130
  interrupted.

  Args:
    main: gets the program's name and, where there are commands, the one that was given.
    commands: by name; None: the application takes flags only.
  """
  def guarded(argv: list[str]) -> int:
    mistake = _mistake(argv[1:], commands or {})
    if mistake:
      print(f"error: {mistake}", file=sys.stderr)
      return 2
    logging.getLogger("absl").setLevel(logging.WARNING)
    logger = logging.getLogger("tpugraphs_rank")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname).1s %(message)s"))
    handler.addFilter(_first_time())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
      return main(argv) or 0
    except errors.TpuGraphsRankError as error:
      print(f"error: {error}", file=sys.stderr)
      return 1
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      return 130

  app.run(guarded, flags_parser=_parse_flags)


def _mistake(arguments: list[str], commands: Mapping[str, Command],
             values: flags.FlagValues = flags.FLAGS) -> str:
  """What is wrong with the arguments that are no flags, and with the flags of a command."""
  stray = arguments[1:] if commands else arguments
  listed = ", ".join(commands)
  if commands and not arguments:
    return f"expected a command: {listed} (--help says what each does)"
  if commands and arguments[0] not in commands:
    return (f"unknown command {arguments[0]!r}{config_lib.nearest(arguments[0], commands)}; "
            f"expected one of: {listed} (--help says what each does)")
  if stray:
    return f"unexpected argument {stray[0]!r}; all options are flags (--help lists them)"
  if not commands:
    return ""
  name, command = arguments[0], commands[arguments[0]]
  missing = [flag for flag in command.required if values[flag].value in (None, [], "")]
  if missing:
    return f"{name} needs {' and '.join(f'--{flag}' for flag in missing)}"
  known = (*command.required, *command.optional)
  for other in {flag for entry in commands.values() for flag in (*entry.required, *entry.optional)}:
    if other not in known and values[other].present:
      return f"{name} takes no --{other}; it takes: {', '.join(f'--{flag}' for flag in known)}"
  return ""


def _parse_flags(argv: list[str]) -> list[str]:
  """The arguments that are no flags; wrong flags end the program."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    print(f"error: {error} (--help lists the flags)", file=sys.stderr)
    sys.exit(2)
