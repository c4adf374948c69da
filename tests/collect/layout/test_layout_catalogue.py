"""The layout collector's catalogue and its split by model family."""


import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.layout import catalogue


def test_names_encode_the_program() -> None:
  programs = catalogue.programs()
  assert len({program.stem for program in programs}) == len(programs) >= 100
  for program in programs:
    assert catalogue.parse_stem(program.stem) == program


@pytest.mark.parametrize("stem", [
    "resnet.1x24x16x2", "resnet.1x24x16.forward", "lenet.1x24x16x2.forward",
    "resnet.1x24x16x2.backward", "resnet.1xax16x2.forward", ""])
def test_other_names_are_refused(stem: str) -> None:
  with pytest.raises(errors.UnknownNameError, match="<family>.<numbers>.<mode>"):
    catalogue.parse_stem(stem)


def test_the_error_for_an_unknown_family_lists_the_known_ones() -> None:
  with pytest.raises(errors.UnknownNameError, match="'resnets'.*the families are.*resnet"):
    catalogue.programs(["unet", "resnets"])


def test_every_prefix_contains_all_families_equally() -> None:
  programs = catalogue.programs(seed=3)
  families = len(catalogue.FAMILIES)
  for count in range(1, len(programs) + 1):
    beginning = programs[:count]
    held = [sum(program.family == name for program in beginning) for name in catalogue.FAMILIES]
    assert max(held) - min(held) <= 1 or count > 4 * families
  assert [program.family for program in programs[:families]] != [
      program.family for program in catalogue.programs(seed=4)[:families]]


def test_every_kind_of_model_is_trained_on_and_held_out() -> None:
  splits: dict[str, set[str]] = {}
  for family in catalogue.FAMILIES.values():
    assert family.split in graph_files.SPLITS
    splits.setdefault(family.group, set()).add(family.split)
  for group, held in splits.items():
    assert "train" in held and len(held) > 1, group
  # Groups that were added later have no test families, so that test results remain comparable.
  tested = {group for group, held in splits.items() if "test" in held}
  assert tested == {"convolution", "attention", "dense", "recurrent", "graph"}


def test_every_family_has_both_modes() -> None:
  for name in catalogue.FAMILIES:
    assert {program.mode for program in catalogue.programs([name])} == set(catalogue.MODES)
