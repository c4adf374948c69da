"""Ctrl-C and SIGTERM: a command ends its children, and states what it keeps and how to resume."""

import pathlib
import signal

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import termination

# Exit statuses, as shells use them.
CTRL_C = 128 + signal.SIGINT
TERMINATED = termination.STATUS


class Terminated(KeyboardInterrupt):
  """The process got SIGTERM. Whatever handles Ctrl-C handles it in the same way."""


def message(terminated: bool, kept: str | None) -> str:
  """What an interrupted command prints.

  Args:
    terminated: whether it was SIGTERM.
    kept: what the command keeps and resumes from; "": nothing yet; None: it has not stated that it
      resumes.
  """
  what = "terminated" if terminated else "interrupted"
  if kept:
    return f"{what}; {kept}; `{commands.running()}` resumes"
  state = "every file that was written is complete" if kept is None else "nothing was written yet"
  return f"{what}; {state}; run `{commands.running()}` again"


def kept(what: str, flag: str) -> str:
  """States that the folder in a flag keeps something; "" if the folder does not exist.

  Args:
    what: for instance "the measurements so far are kept".
    flag: name of the flag.
  """
  value = flags.FLAGS[flag].value
  return f"{what} in {value}" if value and pathlib.Path(value).exists() else ""
