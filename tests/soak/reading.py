"""A reader of files with sound inputs, a mutator, and an independent check of what it accepts."""

from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any

from tests.soak import mutators


@dataclasses.dataclass(frozen=True)
class Reader:
  """A kind of input.

  Attributes:
    name: what is read.
    file: name of the input in its folder.
    sound: writes sound inputs into a folder, and returns the content of each.
    mutate: changes one.
    read: reads the file in the folder, as the commands do. Checks what it accepts.
    tensorflow: whether it needs TensorFlow.
    checked: whether `read` has independent checks of what it accepts.
  """

  name: str
  file: str
  sound: Callable[[pathlib.Path], list[bytes]]
  mutate: mutators.Mutator
  read: Callable[[pathlib.Path], Any]
  tensorflow: bool = False
  checked: bool = True


class WrongAcceptance(AssertionError):
  """A reader accepted what is not valid."""


def must(condition: Any, what: str) -> None:
  """Raises WrongAcceptance unless the condition holds."""
  if not condition:
    raise WrongAcceptance(what)
