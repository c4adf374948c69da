"""The public names change on purpose or not at all."""

import importlib

from tests.house import public_names
import tpugraphs_rank


def test_the_public_names_are_those_of_the_golden_file():
  golden = set(public_names.GOLDEN.read_text(encoding="utf-8").split())
  actual = set(public_names.public_names())
  assert actual == golden, (
      f"new: {sorted(actual - golden)}; removed: {sorted(golden - actual)}. If this is intended, "
      "update the golden file with `./run python -m tests.house.public_names` and mention it in "
      "CHANGELOG.md")


def test_every_public_name_exists():
  for name in public_names.public_names():
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is not None, name


def test_the_packages_directory_lists_its_public_names():
  assert set(tpugraphs_rank.__all__) <= set(dir(tpugraphs_rank))
  assert not hasattr(tpugraphs_rank, "no_such_name")
