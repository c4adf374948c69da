"""The programs that ship with the package."""

import pytest

from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank.hlo import examples
from tpugraphs_rank.hlo import reading


def test_each_can_be_read():
  assert {"matmul", "transformer_block"} <= set(examples.names())
  for name in examples.names():
    [data] = reading.read_raw(examples.path_of(f"bundled:{name}")).modules
    assert data.module.computations


def test_the_matrix_product_is_that_of_the_examples_folder():
  assert examples.path_of("bundled:matmul").read_bytes() == (
      commands.ROOT / "examples" / "matmul.hlo.pb").read_bytes()


def test_other_paths_stay():
  assert str(examples.path_of("folder/a.pb")) == "folder/a.pb"
  with pytest.raises(errors.UnknownNameError, match=r"no bundled program 'matmull' \(did you mean "
                     r"'matmul'\?\); expected one of: bundled:matmul, "):
    examples.path_of("bundled:matmull")
