"""What every application does: flags from a configuration, one clear line for a user's mistake."""

import logging
import os
import sys
import typing
from typing import Any, Callable, Dict, List

from absl import app
from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files

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
    resolved = config_lib.from_dict(config_class, read_settings(path), source=path)
  given: Dict[str, Any] = {}
  for name, field, value in config_lib.leaves(config_class):
    flag = values[name.rpartition(".")[2]]
    if flag.present:
      given[name] = (_parsed(flag.name, flag.value, value) if isinstance(value, tuple)
                     else flag.value)
  return config_lib.override(resolved, given, source="flags")


def read_settings(path: files.PathLike) -> Any:
  """The settings in a JSON file: a run directory's config.json, or settings alone.

  A top-level "comment" is left out; JSON has no other place for one.
  """
  stored = files.read_json(path)
  if not isinstance(stored, dict):
    return stored
  if set(stored) == {"config", "hash", "about"}:
    return stored["config"]
  return {key: value for key, value in stored.items() if key != "comment"}


def _parsed(flag: str, values: List[str], default: tuple) -> List[Any]:
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


def run(main: Callable[[List[str]], Any]) -> None:
  """Runs an application: logs to the standard error, and a mistake of the user's is one line.

  Exit status: 0 done, 1 a typed error of the framework, 2 wrong flags, 130 interrupted.
  """
  def guarded(argv: List[str]) -> int:
    if len(argv) > 1:
      print(f"error: unexpected argument {argv[1]!r}; all options are flags (--help lists them)",
            file=sys.stderr)
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


def _parse_flags(argv: List[str]) -> List[str]:
  """The arguments that are no flags; wrong flags end the program."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    print(f"error: {error} (--help lists the flags)", file=sys.stderr)
    sys.exit(2)
