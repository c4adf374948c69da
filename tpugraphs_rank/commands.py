"""The name of the installed command, for messages that tell a user what to run."""

NAME = "tpugraphs-rank"


def command(*words: str) -> str:
  """A command line as a message quotes it: `tpugraphs-rank train --run_dir runs/a`."""
  return "`" + " ".join((NAME, *words)) + "`"
