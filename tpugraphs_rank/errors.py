"""Typed errors of the framework.

Every class also inherits the builtin that a caller would catch without knowing this package
(`ValueError`, `FileNotFoundError`, ...). A message says, in this order, what is wrong, where
(file, key, line), what was expected, and the command or change that mends it.
"""


class TpuGraphsRankError(Exception):
  """Base of all errors that the framework raises on purpose."""


class DataError(TpuGraphsRankError, ValueError):
  """A data file is damaged or breaks its format; the message names file and key."""


class MissingDataError(TpuGraphsRankError, FileNotFoundError):
  """Data that was asked for is not here; the message names the command that brings it."""


class UnknownNameError(TpuGraphsRankError, KeyError):
  """A name (collection, split, model, ...) that is not registered; the message lists the valid."""

  def __str__(self) -> str:  # KeyError would print the repr of the message, quotes and all.
    return str(self.args[0]) if self.args else ""


class ConfigError(TpuGraphsRankError, ValueError):
  """A configuration has an unknown key, a value of the wrong type or out of range."""


class RunDirectoryError(TpuGraphsRankError, RuntimeError):
  """A run directory belongs to another configuration, is incomplete or damaged."""


class OutputError(TpuGraphsRankError, OSError):
  """An output cannot be written."""


class TrainingError(TpuGraphsRankError, ArithmeticError):
  """Training cannot go on (a loss or gradient is not finite); the message names the step."""


class CompatibilityError(TpuGraphsRankError, ValueError):
  """A run cannot score a graph: another target, HLO stage, kind or unseen opcodes."""
