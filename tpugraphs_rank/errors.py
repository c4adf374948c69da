"""Typed errors of the framework.

Every class also derives from the builtin exception that a caller would expect (`ValueError`,
`FileNotFoundError`, ...). A message states, in this order, what is wrong, where (file, key, line),
what was expected, and the command or change that fixes it.
"""


class TpuGraphsRankError(Exception):
  """Base of all errors that the framework raises."""


class DataError(TpuGraphsRankError, ValueError):
  """A data file is damaged or violates its format; the message names the file and the key."""


class LimitError(DataError):
  """Reading an input would take more memory or time than a limit allows; the message names it."""


class OutOfMemoryError(TpuGraphsRankError, MemoryError):
  """Memory ran out, or would; that says nothing about the input, which may be sound."""


class MissingDataError(TpuGraphsRankError, FileNotFoundError):
  """Requested data is missing; the message names the command that provides it."""


class UnknownNameError(TpuGraphsRankError, KeyError):
  """An unknown name of a collection, split, model, ...; the message lists the valid names."""

  def __str__(self) -> str:  # KeyError would print the message in quotes.
    return str(self.args[0]) if self.args else ""


class ConfigError(TpuGraphsRankError, ValueError):
  """A configuration has an unknown key, a value of the wrong type or out of range."""


class RunDirectoryError(TpuGraphsRankError, RuntimeError):
  """A run directory belongs to other settings, or is incomplete or damaged."""


class OutputError(TpuGraphsRankError, OSError):
  """An output cannot be written."""


class TrainingError(TpuGraphsRankError, ArithmeticError):
  """Training cannot continue (a loss or gradient is not finite); the message names the step."""


class CompatibilityError(TpuGraphsRankError, ValueError):
  """A run cannot score a graph: it has another target, HLO stage or kind, or unseen opcodes."""


class PipelineError(TpuGraphsRankError, RuntimeError):
  """An Apache Beam pipeline, or a part of it, failed for another reason than its input."""
