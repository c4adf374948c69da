"""The measuring protocol, with an artificial clock and artificial HLO."""


import numpy as np
import pytest

from tpugraphs_rank.collect.common import protocol


class Bench:
  """Calls that advance an artificial clock instead of working."""

  def __init__(self, costs: list[int]) -> None:
    self.now = 0
    self.log: list[int] = []
    self.slow = 0
    self.calls = [lambda index=index, cost=cost: self._run(index, cost)
                  for index, cost in enumerate(costs)]

  def _run(self, index: int, cost: int) -> None:
    self.log.append(index)
    self.now += cost * (3 if self.slow > 0 else 1)
    self.slow -= 1

  def clock(self) -> int:
    return self.now


def test_minimum_over_rounds_ignores_slow_phases() -> None:
  bench = Bench([100_000, 2_000_000, 9_000_000])
  bench.slow = 20  # The machine is three times slower at first.
  best = protocol.time_interleaved(bench.calls, protocol.Protocol(), np.random.default_rng(0),
                                   bench.clock)
  assert best == [100_000, 2_000_000, 9_000_000]


def test_rounds_are_interleaved_and_bounded() -> None:
  settings = protocol.Protocol(sample_ns=1, budget_ns=50, min_rounds=3, max_rounds=10)
  bench = Bench([1, 10, 100])
  protocol.time_interleaved(bench.calls, settings, np.random.default_rng(0), bench.clock)
  log = bench.log[6:]  # After two calls of each.
  for number in range(3):
    assert sorted(log[3 * number:3 * number + 3]) == [0, 1, 2]
  assert log.count(0) == 10  # The maximum.
  assert log.count(1) == 5   # Until its budget is used up.
  assert log.count(2) == 3   # Slow calls take part in the first rounds too.


def test_nothing_to_time() -> None:
  assert protocol.time_interleaved([], protocol.Protocol(), np.random.default_rng(0)) == []


_HLO = """HloModule jit_{name}, is_scheduled=true

FileNames
1 "{name}.py"

%body.{number} (p.1: f32[8]) -> f32[8] {{
  %p.{number} = f32[8]{{0}} parameter(0)
  ROOT %add.{number} = f32[{side}]{{0}} add(%p.{number}, %p.{number}), \
metadata={{op_name="{name}" source={{1}}}}
}}

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %while.{number} = (s32[], /*index=1*/f32[8]{{0}}) while(%x), body=%body.{number}
}}
"""


def test_equal_programs_have_equal_digests() -> None:
  def digest(**values: object) -> str:
    return protocol.digest(protocol.normalised_hlo(_HLO.format(**values)))

  first = digest(name="a", number=1, side=8)
  assert digest(name="b", number=27, side=8) == first
  assert digest(name="a", number=1, side=16) != first


def test_loops_are_found() -> None:
  text = _HLO.format(name="a", number=1, side=8)
  assert protocol.keeps_loop(text)
  assert not protocol.keeps_loop(text.replace(" while(", " call("))


@pytest.mark.parametrize("dtype, numpy_type, off", [("f32", np.float32, 1e-3),
                                                    ("bf16", np.float32, 0.1)])
def test_agreement_is_relative_to_the_largest_number(dtype: str, numpy_type: type,
                                                     off: float) -> None:
  expected = np.array([0.0, 10.0], numpy_type)
  within = expected + np.array([protocol.TOLERANCE[dtype] * 5, 0], numpy_type)
  assert protocol.agrees(within, expected, dtype)
  assert not protocol.agrees(expected + np.array([off * 10, 0], numpy_type), expected, dtype)
  assert not protocol.agrees(np.array([np.nan, 10], numpy_type), expected, dtype)
  assert not protocol.agrees(expected[:1], expected, dtype)


def test_integers_agree_exactly() -> None:
  expected = np.array([1, 2], np.int32)
  assert protocol.agrees(expected.copy(), expected, "s32")
  assert not protocol.agrees(expected + 1, expected, "s32")


def test_machine_names_the_processor_only() -> None:
  machine = protocol.machine()
  assert machine["cpu"]
  assert set(machine) == {"cpu", "cores", "architecture", "system", "python"}
