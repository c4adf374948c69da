"""The text of `--help`: usage, description, and the flags under their section headings."""

from collections.abc import Iterable, Sequence
import re
import shutil
import textwrap

from absl import flags

from tpugraphs_rank import commands

# The heading of flags that are not settings of a configuration.
COMMAND_SECTION = "Command"
_INDENT = 30
_BY_TYPE = {"int": "N", "float": "X", "comma separated list of strings": "A,B,..."}
# Texts that name files, folders or other things by name.
_BY_NAME = {
    "run_dir": "DIR", "data_root": "DIR", "npz": "DIR", "packed_root": "DIR", "work_folder": "DIR",
    "failures": "FILE", "runner": "NAME",
    "initial_checkpoint": "DIR", "hlo": "FILE", "graphs": "FILE", "real": "FILE", "train": "FILE",
    "valid": "FILE", "test": "FILE", "critic_graphs": "FILE", "labels_from": "FILE",
    "results": "FILE", "submission": "FILE", "sample": "FILE", "output": "PATH", "input": "PATH",
    "repeat": "PATH", "config": "NAME|FILE", "collection": "NAME|FILE", "synthetic": "NAME|FILE",
    "plugin": "MODULE|FILE", "module": "NAME", "name": "NAME", "model": "NAME", "base_url": "URL",
    "model_options": "JSON"}
_REPEATABLE = "; repeat this option to specify a list of values"
# Attributes that `describe` sets on a flag.
_SECTION, _COMMON, _SETTING = "help_section", "help_common", "help_setting"


def describe(flag: flags.Flag, section: str, common: bool, setting: str) -> None:
  """Notes where the help lists a flag.

  Args:
    flag: the flag of a setting.
    section: the heading above it; "": that of the command's own flags.
    common: whether the short help shows it.
    setting: dotted name of the setting, as files of settings and messages write it.
  """
  setattr(flag, _SECTION, section or COMMAND_SECTION)
  setattr(flag, _COMMON, common)
  setattr(flag, _SETTING, setting)


def render(name: str, docstring: str, arguments: str, defined: Sequence[flags.Flag], full: bool,
           program: str = "") -> str:
  """The help of a command.

  Args:
    name: of the command.
    docstring: its description.
    arguments: its positional arguments as the usage line shows them.
    defined: its flags, in the order in which they are defined.
    full: whether to show the settings that few users need.
    program: instead of the installed program and `name`.
  """
  program = program or f"{commands.NAME} {name}"
  required = [flag for flag in defined if _is_required(flag)]
  usage = " ".join(["usage:", program, *([arguments] if arguments else []),
                    *(f"--{flag.name}={_metavariable(flag)}" for flag in required), "[flags]"])
  sections: dict[str, list[flags.Flag]] = {COMMAND_SECTION: []}
  for flag in defined:
    if (flag.help or "").startswith("Alias for --"):
      continue  # The help of the other flag mentions it.
    sections.setdefault(getattr(flag, _SECTION, COMMAND_SECTION), []).append(flag)
  has_common = any(getattr(flag, _COMMON, False) for flag in defined)
  shown = lambda flag: full or not has_common or getattr(flag, _COMMON, True)
  lines = [usage, "", docstring.strip()]
  hidden = 0
  for title, members in sections.items():
    listed = [flag for flag in members if shown(flag)]
    hidden += len(members) - len(listed)
    if listed:
      # Required flags first; otherwise the order of definition.
      listed.sort(key=lambda flag: not _is_required(flag))
      lines += ["", title, *(line for flag in listed for line in _entry(flag, full))]
  if hidden:
    lines += ["", f"{hidden} more settings: {program} --helpfull"]
  return "\n".join(lines)


def _entry(flag: flags.Flag, full: bool) -> Iterable[str]:
  """The lines on one flag."""
  head = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}={_metavariable(flag)}"
  text = " ".join((flag.help or "").split())
  # What absl appends and prepends.
  if text.endswith(_REPEATABLE):
    text = text.removesuffix(_REPEATABLE).removesuffix(" Repeatable.") + " Repeatable."
  text = re.sub(r"^<[^>]*>: ", "", text).replace(" (a comma separated list)", "")
  if _is_required(flag):
    text += " Required."
  elif not hasattr(flag, _SETTING):
    text += _default(flag)
  elif full:
    text += f" [{getattr(flag, _SETTING)}]"
  width = max(min(shutil.get_terminal_size().columns, 100), 60)
  wrapped = textwrap.wrap(text, width - _INDENT, break_on_hyphens=False) or [""]
  if len(head) > _INDENT - 2:
    return [head, *(" " * _INDENT + line for line in wrapped)]
  return [f"{head:<{_INDENT}}{wrapped[0]}", *(" " * _INDENT + line for line in wrapped[1:])]


def _default(flag: flags.Flag) -> str:
  """The sentence on a flag's default, if it has one that the help text does not explain."""
  if flag.boolean or flag.default in (None, "", []):
    return ""
  value = flag.default
  return f" Default: {', '.join(map(str, value)) if isinstance(value, list) else value}."


def _is_required(flag: flags.Flag) -> bool:
  return flag.default is None and any(
      "must have a value other than None" in validator.message for validator in flag.validators)


def _metavariable(flag: flags.Flag) -> str:
  choices = getattr(flag.parser, "enum_values", None)
  if choices:
    return "|".join(map(str, choices))
  return _BY_TYPE.get(flag.flag_type()) or _BY_NAME.get(flag.name, "TEXT")
