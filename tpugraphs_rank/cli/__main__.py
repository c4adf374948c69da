"""The command line: `tpugraphs-rank COMMAND`, the same as `python -m tpugraphs_rank.cli COMMAND`.

A command is a module of this package. The table below lists all of them, so that the list of
commands is printed without importing any. A command's module has

  a docstring           its first line is the summary in the table; the whole is printed by --help
  define_flags()        defines the command's absl flags; nothing is defined at import
  main(argv)            runs the command; argv holds the program's name and the positional
                        arguments, if the table names any; returns the exit status (None: 0)
  kept()                optional: states what an interrupted command keeps, if it resumes
"""

from collections.abc import Sequence
import contextlib
import select
import signal
import sys
from typing import NamedTuple

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import termination
from tpugraphs_rank.cli import streams


class Command(NamedTuple):
  """An entry of the table of commands.

  Attributes:
    summary: one line for the list of commands, without the full stop.
    tensorflow: whether the command needs TensorFlow.
    arguments: the positional arguments as the usage line shows them; "" if there are none.
    kept: for a command that resumes after an interruption, what it keeps, and the flag that names
      the folder; None: it starts again, or its module has a function `kept`.
  """

  summary: str
  tensorflow: bool = False
  arguments: str = ""
  kept: tuple[str, str] | None = None


_RUN = ("the run up to its last checkpoint is kept", "run_dir")
_MEASURED = ("the measurements so far are kept", "output")
_PARTS = ("the finished parts are kept", "output")

# The words of a command, joined by underscores, are the name of its module.
GROUPS: dict[str, dict[str, Command]] = {
    "Train and evaluate": {
        "train": Command("Train a ranker on a collection; run it again to resume", True, "", _RUN),
        "sweep": Command("Search the settings of a training with Optuna; run it again to resume",
                         True),
        "evaluate": Command("Evaluate a run on a split and compare it with baselines", True),
        "predict": Command("Rank every graph of a split and write a part of a submission", True),
        "compare": Command("Compare runs with each other, graph by graph", True, "RUN RUN ..."),
        "report": Command("Write an HTML report on a run and its worst graphs", True),
        "demo": Command("Train both rankers on measured kernels and compare with baselines", True,
                        "", _PARTS),
    },
    "Rank your own program": {
        "rank": Command("Rank the configurations of your own program with a trained run", True),
        "tune": Command("Tune any HLO program here: propose layouts, measure, adapt, repeat",
                        kept=_MEASURED),
        "featurize": Command("Convert raw measurements and HLO programs to .npz graphs"),
        "make-collection": Command("Describe a folder of .npz graphs as a collection"),
    },
    "Data and submissions": {
        "download": Command("Download the public data, verify it and unpack it"),
        "describe": Command("Describe a collection and check its files"),
        "draw": Command("Draw the graph of a program as SVG and PNG"),
        "pack": Command("Pack a collection into memory-mapped files for training"),
        "submission merge": Command("Merge parts into one submission"),
        "submission validate": Command("List every fault of a submission"),
        "submission fix": Command("Write the canonical form of a submission"),
        "submission score": Command("Compute the competition score of a submission"),
    },
    "Measure programs on this CPU": {
        "collect tile": Command("Measure kernels under many tile sizes; make a collection",
                                kept=_MEASURED),
        "collect layout": Command("Measure programs under many layouts; make a collection",
                                  kept=_MEASURED),
        "collect hlo": Command("Measure any HLO program under requested layouts", kept=_MEASURED),
        "collect remeasure": Command("Measure the configurations in a raw file", kept=_MEASURED),
    },
    "Generate graphs": {
        "layerdag graphs": Command("Write the graphs that LayerDAG trains on"),
        "layerdag train": Command("Train a LayerDAG on graphs; run it again to resume", True, "",
                                  _RUN),
        "layerdag sample": Command("Sample graphs from a trained LayerDAG", True),
        "layerdag evaluate": Command("Compare generated graphs with real ones", True),
        "layerdag demo": Command("Train, sample and evaluate a LayerDAG in one short run", True, "",
                                 _PARTS),
        "synthesize": Command("Generate programs like those of a collection; measure them", True,
                              "", _PARTS),
        "augment": Command("Test whether synthetic programs improve a ranker", True, "", _PARTS),
    },
    "Chakra traces": {
        "chakra import": Command("Turn Chakra traces into graphs for LayerDAG"),
        "chakra export": Command("Write graphs as Chakra traces for simulators, one for each rank"),
        "chakra convert": Command("Turn HLO programs into Chakra traces, one for each rank"),
        "chakra inspect": Command("Print what Chakra traces hold and what is wrong with them",
                                  False, "FILE ..."),
        "chakra synthesize": Command("Learn from Chakra traces and write synthetic ones", True, "",
                                     _PARTS),
        "chakra compare": Command("Compare synthetic traces with real ones"),
    },
}
COMMANDS: dict[str, Command] = {
    name: command for group in GROUPS.values() for name, command in group.items()}


def module_name(name: str) -> str:
  """The module of a command."""
  return f"tpugraphs_rank.cli.{name.replace(' ', '_').replace('-', '_')}"


def overview() -> str:
  """The commands in groups, one line each."""
  width = max(map(len, COMMANDS))
  lines = ["Learn to rank compiler configurations by runtime.", "",
           f"usage: {commands.NAME} COMMAND [flags]"]
  for title, group in GROUPS.items():
    lines += ["", title]
    lines += [f"  {name:<{width}}  {command.summary}" for name, command in group.items()]
  return "\n".join([
      *lines, "", f"`{commands.NAME} COMMAND --help` explains a command; "
      f"`{commands.NAME} --version` prints the version."])


def find(words: Sequence[str]) -> tuple[str, list[str]]:
  """The command that the words begin with, and the words after it.

  Raises:
    LookupError: there is no such command; the message says which one is meant.
  """
  for count in (2, 1):
    name = " ".join(words[:count])
    if len(words) >= count and name in COMMANDS:
      return name, list(words[count:])
  members = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
  if members:
    listed = ", ".join(f"`{commands.NAME} {name}`" for name in members)
    rest = [word for word in words[1:2] if not word.startswith("-")]
    if not rest:
      raise LookupError(f"{words[0]} is a group of commands; expected one of: {listed}")
    name = " ".join([words[0], *rest])
    raise LookupError(f"unknown command {name!r}{_nearest(name, members)}; expected one of: "
                      f"{listed}")
  raise LookupError(f"unknown command {words[0]!r}{_nearest(words[0], list(COMMANDS))}; "
                    f"`{commands.NAME}` lists the commands")


def _nearest(name: str, known: Sequence[str]) -> str:
  from tpugraphs_rank import config  # Only for a mistake: the list of commands needs no modules.
  # A user may write an underscore, or only the second word of a command.
  wanted = name.replace("_", "-")
  by_second_word = {known_name.rpartition(" ")[2]: known_name for known_name in known}
  close = "" if wanted in by_second_word else config.nearest(wanted, known)
  if close:
    return close
  close = config.nearest(wanted, by_second_word)
  for word, meant in by_second_word.items():
    close = close.replace(repr(word), repr(meant))
  return close


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command.

  Args:
    argv: the words after the program's name; None: those of this process.

  Returns:
    The exit status: 0, what the command returns (3 if it skipped some of its inputs), 1 after a
    typed error, 2 after wrong arguments, 130 after Ctrl-C, 143 after SIGTERM, 141 if the reader of
    the output has closed it, as `head` does.
  """
  if argv is None:
    streams.prepare()
  try:
    # A command handles signals itself once its modules are imported, which takes seconds.
    with termination.sigterm_raises() if argv is None else contextlib.nullcontext():
      status = _run(argv)
      sys.stdout.flush()
      return status
  except (KeyboardInterrupt, SystemExit) as error:
    terminated = isinstance(error, SystemExit) and error.code == termination.STATUS
    if argv is not None or isinstance(error, SystemExit) and not terminated:
      raise
    print(f"{'terminated' if terminated else 'interrupted'}; every file that was written is "
          "complete; run the command again", file=sys.stderr)
    return termination.STATUS if terminated else 128 + signal.SIGINT
  except BrokenPipeError:
    if not _output_is_closed():
      raise  # It was another pipe.
    streams.discard_output()  # Nobody reads the rest.
    return 141
  except errors.OutputError as error:  # The output of a command is typed; see `streams`.
    print(f"error: {error}", file=sys.stderr)
    streams.discard_output()
    return 1


def _output_is_closed() -> bool:
  poll = select.poll()
  try:
    poll.register(sys.stdout.fileno(), 0)
  except (OSError, ValueError):  # Not a file, as in a test or a notebook.
    return False
  return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _run(argv: Sequence[str] | None) -> int:
  """Runs a command, and leaves a closed output to the caller."""
  words = list(sys.argv[1:] if argv is None else argv)
  if not words or words[0] in ("help", "-h", "--help", "-help", "--helpfull"):
    print(overview())
    return 0
  if words[0] in ("--version", "-version", "version"):
    import tpugraphs_rank
    print(f"{commands.NAME} {tpugraphs_rank.__version__}")
    return 0
  if words[0].startswith("-"):
    print(f"error: expected a command before {words[0]}; `{commands.NAME}` lists the commands",
          file=sys.stderr)
    return 2
  if words[1:] and words[1] in ("-h", "--help") and words[0] not in COMMANDS:
    members = {name: command for name, command in COMMANDS.items()
               if name.startswith(f"{words[0]} ")}
    if members:
      width = max(map(len, members))
      print("\n".join([f"usage: {commands.NAME} {words[0]} COMMAND [flags]", "", *(
          f"  {name:<{width}}  {command.summary}" for name, command in members.items())]))
      return 0
  try:
    name, rest = find(words)
  except LookupError as error:
    print(f"error: {error.args[0]}", file=sys.stderr)
    return 2
  from tpugraphs_rank.cli import app
  return app.run_command(name, module_name(name), rest, COMMANDS[name].arguments,
                         COMMANDS[name].tensorflow, COMMANDS[name].kept)


if __name__ == "__main__":
  sys.exit(main())
