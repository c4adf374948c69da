"""Typed errors: one base class, and a built-in one for callers that do not know this package."""

import inspect

import pytest

from tpugraphs_rank import errors

BUILTINS = {
    "DataError": ValueError,
    "LimitError": ValueError,
    "OutOfMemoryError": MemoryError,
    "MissingDataError": FileNotFoundError,
    "UnknownNameError": KeyError,
    "ConfigError": ValueError,
    "RunDirectoryError": RuntimeError,
    "OutputError": OSError,
    "TrainingError": ArithmeticError,
    "CompatibilityError": ValueError,
    "PipelineError": RuntimeError,
}


def test_the_list_of_errors_is_complete():
  actual = {name for name, value in vars(errors).items() if inspect.isclass(value)}
  assert actual == {"TpuGraphsRankError", *BUILTINS}


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_errors_are_also_builtins_and_keep_their_message(name):
  cls = getattr(errors, name)
  message = "it's \"wrong\": file.npz, key 'x'"
  for caught in (errors.TpuGraphsRankError, BUILTINS[name]):
    with pytest.raises(caught) as info:
      raise cls(message)
    assert str(info.value) == message
  assert cls.__doc__
