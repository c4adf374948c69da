"""The layouts that a program is measured under."""

import collections
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tpugraphs_rank.collect.layout import configurations

SHAPES = st.lists(st.integers(1, 4), max_size=7).map(tuple)
SITES = st.lists(
    st.builds(configurations.Site, node=st.integers(0, 99), opcode=st.just("dot"),
              shapes=st.lists(SHAPES, min_size=2, max_size=3).map(tuple)),
    min_size=1, max_size=6).filter(configurations.slots)
SEEDS = st.integers(0, 2 ** 32 - 1)


def _site(*shapes: tuple[int, ...]) -> configurations.Site:
  return configurations.Site(0, "dot", shapes)


MANY = [_site((8, 6), (8, 5), (5, 6)) for _ in range(30)]


def _check(configuration: configurations.Configuration, sites: list[configurations.Site]) -> None:
  assert len(configuration) == len(sites)
  for layouts, site in zip(configuration, sites):
    assert len(layouts) == len(site.shapes)
    for tensor, layout in enumerate(layouts):
      if layout:
        assert tensor in site.slots
        assert sorted(layout) == list(range(len(site.shapes[tensor])))


def _differences(one: configurations.Configuration, other: configurations.Configuration) -> int:
  return sum(a != b for first, second in zip(one, other) for a, b in zip(first, second))


def test_only_tensors_with_two_layouts_or_more_are_slots() -> None:
  site = _site((3, 1), (2, 3), (4,), (), (2, 1, 2), (1, 1, 1), (2,) * 6, (2,) * 7)
  assert site.slots == (1, 4, 6)


@hypothesis.given(SITES, SEEDS)
def test_configurations_are_permutations_of_slots(
    sites: list[configurations.Site], seed: int) -> None:
  rng = np.random.default_rng(seed)
  start = configurations.random(sites, rng)
  _check(start, sites)
  near = configurations.mutate(start, sites, rng)
  _check(near, sites)
  assert _differences(start, near) <= max(4, len(configurations.slots(sites)) // 8)
  assert configurations.constraints(configurations.default(sites)) == 0
  assert configurations.constraints(near) == _differences(near, configurations.default(sites))


@hypothesis.given(SITES, SEEDS)
def test_text_round_trip(sites: list[configurations.Site], seed: int) -> None:
  drawn = configurations.random(sites, np.random.default_rng(seed))
  assert configurations.from_text(configurations.to_text(drawn)) == drawn


def test_text_is_as_documented() -> None:
  assert configurations.to_text((((3, 2, 1, 0), (), (1, 0)), ((), ()))) == "3210//10 /"


def test_random_configurations_constrain_different_shares() -> None:
  rng = np.random.default_rng(0)
  count = len(configurations.slots(MANY))
  shares = [configurations.constraints(configurations.random(MANY, rng)) / count
            for _ in range(400)]
  low, high = configurations.RANDOM_SHARE
  assert np.mean(shares) == pytest.approx((low + high) / 2, abs=0.05)
  # Much wider than with a fixed share: sqrt(p (1 - p) / slots), about 0.05.
  assert np.std(shares) > 0.8 * (high - low) / math.sqrt(12)


def test_mutations_are_mostly_small_and_clear_requests_too() -> None:
  rng = np.random.default_rng(1)
  full = configurations.replace(configurations.default(MANY),
                          [(slot, (1, 0)) for slot in configurations.slots(MANY)])
  sizes, cleared = [], 0
  for _ in range(400):
    near = configurations.mutate(full, MANY, rng)
    sizes.append(_differences(full, near))
    cleared += configurations.constraints(near) < configurations.constraints(full)
  assert np.median(sizes) <= 2 and max(sizes) > 4
  assert 0.4 < cleared / 400 < 0.95


class Bench:
  """Artificial timings: more constraints are slower, except for one layout."""

  def __init__(self, programs: int = 10 ** 9) -> None:
    self.programs = programs
    self.seen: set = set()
    self.requested: list[configurations.Configuration] = []

  def __call__(self, configuration: configurations.Configuration) -> tuple[bool, float]:
    assert configuration not in self.requested
    self.requested.append(configuration)
    digest = hash(configuration) % self.programs
    if digest in self.seen:
      return False, math.inf
    self.seen.add(digest)
    return True, self.time(configuration)

  @staticmethod
  def time(configuration: configurations.Configuration) -> float:
    good = sum(layouts[0] == (0, 1) for layouts in configuration)
    return 1000 + 10 * configurations.constraints(configuration) - 30 * good


def test_a_search_uses_each_method_for_its_share() -> None:
  bench = Bench()
  search = configurations.Search(MANY, 101, np.random.default_rng(0), bench)
  search.run()
  assert bench.requested[0] == configurations.default(MANY)
  assert collections.Counter(search.kinds) == {
      "default": 1, **{kind: 100 * share for kind, share in configurations.SHARES.items()}}
  assert list(dict.fromkeys(search.kinds)) == ["default", *configurations.SHARES]


def test_a_search_climbs() -> None:
  bench = Bench()
  search = configurations.Search(MANY, 401, np.random.default_rng(0), bench)
  search.run()
  times = {kind: [Bench.time(configuration)
                  for configuration, drawn in zip(bench.requested, search.kinds) if drawn == kind]
           for kind in configurations.SHARES}
  assert min(times["climb"]) < min(times["near"]) - 30
  assert np.mean(times["descent"][-20:]) < np.mean(times["descent"][:20]) - 30


@pytest.mark.parametrize("programs", [1, 5, 40])
def test_a_search_ends_when_most_samples_are_the_same_program(programs: int) -> None:
  bench = Bench(programs)
  search = configurations.Search(MANY, 60, np.random.default_rng(0), bench)
  search.run()
  assert len(search.kinds) == len(bench.seen) <= programs
  assert len(bench.requested) <= 180


def test_a_search_ends_when_all_configurations_are_tried() -> None:
  sites = [_site((2, 3), (2,), (3,))]
  bench = Bench()
  search = configurations.Search(sites, 50, np.random.default_rng(0), bench)
  search.run()
  assert len(bench.requested) == len(search.kinds) == 3  # No request, (0, 1), (1, 0).


def test_without_a_usable_default_nothing_is_sampled() -> None:
  search = configurations.Search(MANY, 50, np.random.default_rng(0), lambda _: (False, math.inf))
  search.run()
  assert not search.kinds


def test_samples_depend_on_program_seed_and_purpose() -> None:
  draws = {tuple(configurations.program_rng(*key).integers(1 << 30, size=4))
           for key in (("a", 0, "x"), ("a", 0, "y"), ("a", 1, "x"), ("b", 0, "x"))}
  assert len(draws) == 4
  again = configurations.program_rng("a", 0, "x").integers(1 << 30, size=4)
  assert tuple(again) in draws
