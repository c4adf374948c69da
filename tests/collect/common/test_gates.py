"""The quality gates and the splits."""

import itertools

import numpy as np
import pytest
import scipy.stats

from tpugraphs_rank import errors
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import splits


@pytest.mark.parametrize("levels", [4, 1000])
def test_tau_b_equals_scipys(levels: int) -> None:
  rng = np.random.default_rng(levels)
  a, b = rng.integers(0, levels, (2, 40))
  expected = scipy.stats.kendalltau(a, b, variant="b").statistic
  assert gates.kendall_tau_b(a, b) == pytest.approx(expected)


def test_tau_b_is_0_if_one_side_has_only_ties() -> None:
  assert gates.kendall_tau_b(np.ones(5), np.arange(5)) == 0


def test_gates_in_order() -> None:
  rising = np.arange(100, 130)
  steep = 100 * np.arange(1, 31)
  shuffled = np.random.default_rng(0).permutation(steep)
  assert gates.assess(np.stack([steep, steep + 1]), gates.TILE).failed_gate == ""
  assert gates.assess(np.stack([steep, steep])[:, :20], gates.TILE).failed_gate == "configurations"
  assert gates.assess(np.stack([steep, shuffled]), gates.TILE).failed_gate == "tau"
  assert gates.assess(np.stack([rising, rising]), gates.TILE).failed_gate == "ratio"
  assert gates.assess(np.ones((2, 1)), gates.TILE).failed_gate == "configurations"


def test_layout_programs_need_more_configurations_and_no_ratio() -> None:
  rising = np.arange(1000, 1000 + gates.LAYOUT.configurations)
  assert gates.assess(np.stack([rising, rising]), gates.LAYOUT).failed_gate == ""
  assert gates.assess(
      np.stack([rising, rising])[:, 1:], gates.LAYOUT).failed_gate == "configurations"
  assert gates.assess(np.stack([rising, rising[::-1]]), gates.LAYOUT).failed_gate == "tau"


def test_ratio_is_that_of_the_means() -> None:
  quality = gates.assess(np.array([[100, 300], [300, 500]]), gates.TILE)
  assert quality.ratio == pytest.approx(400 / 200)
  assert quality.tau == 1


def test_kernels_are_counted_by_family() -> None:
  steep = 100 * np.arange(1, 31)
  good = gates.assess(np.stack([steep, steep]), gates.TILE)
  flat = gates.assess(np.full((2, 30), 5), gates.TILE)
  table = gates.count_by_family([("matmul", good), ("softmax", flat), ("matmul", good)])
  assert table["matmul"] == {"measured": 2, "lost_to_configurations": 0, "lost_to_tau": 0,
                             "lost_to_ratio": 0, "kept": 2}
  assert table["softmax"]["lost_to_tau"] == 1


def _hashes() -> dict[str, str]:
  return {kernel.stem: kernel.stem for kernel in catalogue.kernels()}


def test_no_shape_of_a_family_is_in_two_splits() -> None:
  assigned = splits.split(_hashes(), catalogue.UNSEEN_GROUPS, seed=0)
  homes: dict[object, set] = {}
  for stem, name in assigned.items():
    kernel = geometry.parse_stem(stem)
    homes.setdefault((kernel.family, kernel.shape), set()).add(name)
  assert all(len(names) == 1 for names in homes.values())
  assert set(assigned) == set(_hashes())


def test_unseen_groups_are_only_in_test_and_the_others_are_split() -> None:
  assigned = splits.split(_hashes(), catalogue.UNSEEN_GROUPS, seed=0)
  families: dict[str, set] = {}
  counts = {"train": 0, "valid": 0, "test": 0}
  for stem, name in assigned.items():
    definition = geometry.parse_stem(stem).definition
    if definition.group in catalogue.UNSEEN_GROUPS:
      assert name == "test"
    else:
      families.setdefault(definition.name, set()).add(name)
      counts[name] += 1
  assert all("train" in names for names in families.values())
  total = sum(counts.values())
  assert counts["valid"] / total == pytest.approx(splits.VALID_SHARE, abs=0.04)
  assert counts["test"] / total == pytest.approx(splits.TEST_SHARE, abs=0.04)


def test_splits_depend_only_on_the_seed() -> None:
  hashes = _hashes()
  backwards = dict(reversed(list(hashes.items())))
  first = splits.split(hashes, catalogue.UNSEEN_GROUPS, seed=0)
  assert splits.split(backwards, catalogue.UNSEEN_GROUPS, seed=0) == first
  assert splits.split(hashes, catalogue.UNSEEN_GROUPS, seed=1) != first


def test_one_graph_stays_in_one_split() -> None:
  hashes = _hashes()
  twins = [stem for stem in hashes if stem.startswith("matmul")]
  for one, other in itertools.combinations(twins[:8], 2):
    joined = {**hashes, one: "twin", other: "twin"}
    assigned = splits.split(joined, catalogue.UNSEEN_GROUPS, seed=0)
    assert assigned[one] == assigned[other]


def test_a_graph_in_a_seen_and_an_unseen_group_is_rejected() -> None:
  hashes = _hashes()
  hashes["matmul.256x256x256.f32"] = hashes["softmax.384x768.f32"]
  with pytest.raises(errors.DataError, match="same graph"):
    splits.split(hashes, catalogue.UNSEEN_GROUPS, seed=0)
