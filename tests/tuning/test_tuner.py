"""The tuner, its surrogate, and the spaces of configurations."""

import math

import numpy as np
import pytest

from tests.candidates import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank import tuning
from tpugraphs_rank.tuning import spaces
from tpugraphs_rank.tuning import tuner as tuner_lib


def _pool(count: int = 40, seed: int = 0) -> tuple[tuning.PoolSpace, np.ndarray]:
  """Configurations whose times are a linear function of their features."""
  rng = np.random.default_rng(seed)
  features = rng.standard_normal((count, 4))
  return tuning.PoolSpace(features), np.exp(0.1 * features @ [1.0, -0.5, 0.2, 0.0])


def _search(tuner: tuning.Tuner, times: np.ndarray, count: int) -> list[int]:
  for _ in range(count):
    configuration = tuner.ask()
    assert configuration == tuner.ask()  # Asking changes nothing.
    tuner.tell(configuration, float(times[configuration]))
  return [one.configuration for one in tuner.history]


def test_the_default_comes_first_and_nothing_is_asked_twice() -> None:
  space, times = _pool(15)
  tuner = tuning.Tuner(space)
  order = _search(tuner, times, 15)
  assert order[0] == 0 and sorted(order) == list(range(15))
  with pytest.raises(errors.ConfigError, match="all 15"):
    tuner.ask()
  assert tuner.finished


def test_a_loop_until_the_search_has_finished_measures_all_of_a_small_pool() -> None:
  tuner = tuning.Tuner(_pool(6)[0])
  while not tuner.finished:
    tuner.tell(tuner.ask(), 1.0 + len(tuner.history))
  assert len(tuner.history) == 6


def test_what_is_told_before_the_default_does_no_harm() -> None:
  space, times = _pool()
  whole, early = tuning.Tuner(space), tuning.Tuner(space)
  early.tell(5, float(1e-3 * times[5]))
  early.tell(0, float(1e-3 * times[0]))
  whole.tell(0, float(times[0]))
  whole.tell(5, float(times[5]))
  for _ in range(10):
    assert early.ask() == whole.ask()
    for tuner, scale in ((early, 1e-3), (whole, 1.0)):
      configuration = tuner.ask()
      tuner.tell(configuration, float(scale * times[configuration]))


def test_without_a_time_of_the_default_the_scale_of_times_does_not_matter() -> None:
  space, times = _pool()
  orders = []
  for scale in (1e-6, 1.0):
    tuner = tuning.Tuner(space)
    for _ in range(12):
      configuration = tuner.ask()
      tuner.tell(configuration, math.inf if not configuration else scale * times[configuration])
    orders.append([one.configuration for one in tuner.history])
  assert orders[0] == orders[1]


class _Pairs:
  """A space whose configurations are pairs of numbers, which JSON stores as lists."""

  default = (0, 0)

  def check(self, configuration) -> None:
    if configuration not in self.draw(9, np.random.default_rng(0)):
      raise errors.ConfigError("no pair")

  def draw(self, count, rng):
    del rng
    return [(row, column) for row in range(3) for column in range(3)][:count]

  def neighbours(self, configuration, count, rng):
    del configuration, rng
    return self.draw(count, None)

  def features(self, configurations):
    return [np.array(configurations, float)]


def test_a_journal_keeps_pairs_and_numbers_of_numpy(tmp_path) -> None:
  path = tmp_path / "journal.jsonl"
  first = tuning.Tuner(_Pairs(), journal=path)
  for _ in range(4):
    first.tell(first.ask(), 1.0 + len(first.history))
  assert tuning.Tuner(_Pairs(), journal=path).history == first.history
  other = tmp_path / "numbers.jsonl"
  tuner = tuning.Tuner(_pool()[0], journal=other)
  tuner.tell(np.int64(3), np.float32(0.5))
  assert tuning.Tuner(_pool()[0], journal=other).history == tuner.history


@pytest.mark.parametrize("told", [
    ("1",), (None,), (1.0, "x"), (1.0, None, "abc"), (1.0, None, {"x": object()}),
    (1.0, None, {"x": math.nan})])
def test_what_is_no_measurement_is_refused_and_not_kept(tmp_path, told) -> None:
  path = tmp_path / "journal.jsonl"
  tuner = tuning.Tuner(_pool()[0], journal=path)
  with pytest.raises(errors.ConfigError, match="expected numbers|as an object"):
    tuner.tell(0, *told)
  assert not path.exists() and not tuner.history


def test_numbers_below_their_limits_are_refused() -> None:
  with pytest.raises(errors.ConfigError, match="seed -1"):
    tuning.Tuner(_pool()[0], seed=-1)
  with pytest.raises(errors.ConfigError, match="-1 configurations"):
    tuning.Tuner(_pool()[0]).ahead(-1)


@pytest.mark.parametrize("blocks,message", [
    (([*range(12)],), r"features 0 have the shape \(12,\)"),
    (([["a"]],), "features 0 are no array of numbers"),
    (([[1.0], [math.nan]],), "features 0 hold nan in row 1, column 0"),
    (([[1.0]], [[1.0], [2.0]]), "of the same configurations"), ((), "of the same configurations")])
def test_features_that_are_no_array_are_refused(blocks, message) -> None:
  with pytest.raises(errors.ConfigError, match=message):
    tuning.PoolSpace(*blocks)


def test_it_needs_fewer_measurements_than_random_search() -> None:
  found = []
  for seed in range(5):
    space, times = _pool(seed=seed)
    order = _search(tuning.Tuner(space, seed=seed), times, 12)
    found.append(order.index(int(times.argmin())) if int(times.argmin()) in order else 40)
  # Random search finds the best of 40 in the first 12 in 3 of 10 cases.
  assert np.median(found) < 12


def test_the_same_seed_asks_the_same_and_a_journal_resumes(tmp_path) -> None:
  space, times = _pool()
  path = tmp_path / "journal.jsonl"
  whole = _search(tuning.Tuner(space, seed=3), times, 10)
  first = tuning.Tuner(space, seed=3, journal=path)
  _search(first, times, 4)
  with path.open("a") as file:
    file.write('{"configuration": 3, "sec')  # The process was killed here.
  resumed = tuning.Tuner(space, seed=3, journal=path)
  assert resumed.history == first.history
  _search(resumed, times, 6)
  assert [one.configuration for one in resumed.history] == whole
  assert tuning.Tuner(space, seed=3, journal=path).history == resumed.history


def test_a_journal_of_another_program_is_refused(tmp_path) -> None:
  path = tmp_path / "journal.jsonl"
  path.write_text('{"configuration": 400, "seconds": 1.0}\n')
  with pytest.raises(errors.DataError, match="line 1: configuration 400"):
    tuning.Tuner(_pool()[0], journal=path)


def test_a_prior_decides_the_order_before_anything_is_known() -> None:
  features = np.zeros((6, 1))
  scores = np.array([0.0, 1.0, 5.0, 2.0, 3.0, 4.0])
  tuner = tuning.Tuner(tuning.PoolSpace(features), lambda listed: scores[list(listed)])
  tuner.tell(tuner.ask(), 1.0)
  assert tuner.ask() == 2
  wrong = tuning.Tuner(tuning.PoolSpace(features), lambda listed: np.zeros(1))
  wrong.tell(0, 1.0)
  with pytest.raises(errors.ConfigError, match="shape"):
    wrong.ask()


def test_failures_and_slow_phases_do_no_harm() -> None:
  space, times = _pool()
  tuner = tuning.Tuner(space)
  for number in range(10):
    configuration = tuner.ask()
    slow = 1.0 + (number % 3)  # All times of a phase are as much slower.
    seconds = math.nan if number == 4 else slow * times[configuration]
    tuner.tell(configuration, seconds, slow * times[0])
  best = tuner.best
  assert best is not None
  measured = [one.configuration for one in tuner.history if math.isfinite(one.seconds)]
  assert best.configuration == min(measured, key=lambda one: times[one])
  for seconds in (0.0, -1.0):
    with pytest.raises(errors.ConfigError, match="positive"):
      tuner.tell(0, seconds)
  with pytest.raises(errors.ConfigError, match="from 0 to 39"):
    tuner.tell(40, 1.0)


def test_it_ends_early_where_nothing_differs() -> None:
  space, _ = _pool(45)
  tuner = tuning.Tuner(space, surrogate=tuning.GaussianProcess())
  for count in range(45):
    configuration = tuner.ask()
    if tuner.finished:
      break
    tuner.tell(configuration, 1.0)
  assert tuner.finished and count < 44


def test_a_resumed_search_ends_when_an_uninterrupted_one_does(tmp_path) -> None:
  space, _ = _pool(45)
  ends = []
  for journal, interrupted in ((None, False), (tmp_path / "journal.jsonl", True)):
    tuner = tuning.Tuner(space, journal=journal)
    while True:
      if interrupted:
        tuner = tuning.Tuner(space, journal=journal)
      configuration = tuner.ask()
      if tuner.finished:
        break
      tuner.tell(configuration, 1.0, notes={"number": len(tuner.history)})
    ends.append(len(tuner.history))
  assert ends[0] == ends[1] < 44
  assert [one.notes for one in tuner.history] == [{"number": n} for n in range(ends[0])]


def test_what_is_asked_next_is_known_ahead_at_first_and_often_later() -> None:
  space, times = _pool(60)
  tuner, other = tuning.Tuner(space, seed=2), tuning.Tuner(space, seed=2)
  hits, expected = [], None
  for number in range(16):
    configuration = tuner.ask()
    assert configuration == other.ask()  # Looking ahead changes nothing.
    if expected is not None:
      hits.append(configuration in expected)
      assert hits[-1] or number >= tuner_lib.STARTS  # The first questions do not depend on times.
    expected = tuner.ahead(3)
    assert len(expected) == 3 and configuration not in expected
    for one in (tuner, other):
      one.tell(configuration, float(times[configuration]))
  assert np.mean(hits) > 0.5


def test_a_failed_default_leaves_a_choice() -> None:
  tuner = tuning.Tuner(_pool(5)[0])
  for _ in range(4):
    tuner.tell(tuner.ask(), math.inf)
  assert tuner.best is None and tuner.ask() not in [one.configuration for one in tuner.history]


@pytest.mark.parametrize("line", [
    '{"configuration": 1, "seconds": -1.0}', '{"configuration": 1}', '[1]',
    '{"configuration": 1, "seconds": 1.0, "default_seconds": 0}'])
def test_a_damaged_journal_is_an_error_with_its_line(tmp_path, line) -> None:
  path = tmp_path / "journal.jsonl"
  path.write_text('{"configuration": 0, "seconds": 1.0}\n' + line + "}" * (line == "[1]") + "\n")
  with pytest.raises(errors.DataError, match="line 2"):
    tuning.Tuner(_pool()[0], journal=path)


def test_expected_improvement_is_the_mean_of_the_excess() -> None:
  rng = np.random.default_rng(0)
  mean, deviation = np.array([0.0, 1.0, -1.0]), np.array([1.0, 0.5, 0.1])
  drawn = mean + deviation * rng.standard_normal((200_000, 3))
  np.testing.assert_allclose(
      tuner_lib.expected_improvement(mean, deviation, 0.5),
      np.maximum(drawn - 0.5, 0).mean(axis=0), atol=3e-3)


def test_the_process_returns_to_what_it_knows_and_is_unsure_elsewhere() -> None:
  rng = np.random.default_rng(0)
  points = spaces.scaled([rng.standard_normal((30, 3))])
  values = 0.1 * points @ [0.5, -1.0, 0.3]
  model = tuning.GaussianProcess().fit(points[:20], np.zeros(20), values[:20])
  mean, deviation = model.predict(points, np.zeros(30))
  assert np.abs(mean[:20] - values[:20]).max() < 0.03
  assert np.corrcoef(mean[20:], values[20:])[0, 1] > 0.9
  _, far = model.predict(10 * points, np.zeros(30))
  assert (far > deviation).mean() > 0.9


def test_blocks_of_features_have_equal_weight() -> None:
  rng = np.random.default_rng(0)
  wide, narrow = rng.standard_normal((50, 30)), 7 * rng.standard_normal((50, 2)) + 3
  points = spaces.scaled([wide, narrow, np.ones((50, 4))])
  assert points.shape == (50, 32)
  assert (points[:, :30] ** 2).sum() == pytest.approx((points[:, 30:] ** 2).sum(), rel=0.05)
  assert spaces.scaled([np.ones((3, 2))]).shape == (3, 1)


def test_layouts_of_a_program(tmp_path) -> None:
  path = small_programs.write(tmp_path / "f.pb", small_programs.perceptron())
  space = tuning.layout_space(path)
  assert space.default == space.text(space.codes(space.default))
  rng = np.random.default_rng(0)
  drawn = space.draw(20, rng)
  assert len(set(drawn)) == len(drawn) and space.default in drawn
  for text in (*drawn, *space.neighbours(drawn[1], 10, rng)):
    assert space.text(space.codes(text)) == text
    changed = (space.codes(text) > 0).sum()
    assert (space.node_features([text]) >= 0).any() == bool(changed)
  blocks = space.features(drawn)
  assert [len(block) for block in blocks] == [len(drawn)] * 3
  for wrong in ("", "10", drawn[1] + " 01/01/01", drawn[1].replace("1", "7", 1) + "7"):
    with pytest.raises(errors.ConfigError, match="no configuration of this program"):
      space.check(wrong)


def test_features_of_large_programs_do_not_fill_the_memory(tmp_path, monkeypatch) -> None:
  monkeypatch.setattr(spaces, "_MOST_KEPT", 40)
  path = small_programs.write(tmp_path / "f.pb", small_programs.perceptron())
  space = tuning.layout_space(path)
  rng = np.random.default_rng(0)
  for _ in range(4):
    drawn = space.draw(30, rng)
    first = [block[3] for block in space.features(drawn)]
    for ours, expected in zip(first, space.features([drawn[3]])):
      np.testing.assert_array_equal(ours, expected[0])
  assert len(space._kept) <= 40


def test_loading_names_what_is_missing(tmp_path) -> None:
  with pytest.raises(errors.MissingDataError, match="tuned.mlir"):
    tuning.load(tmp_path)
