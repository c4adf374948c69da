"""Synthetic programs under requested layouts: measured and rejected ones. Needs JAX."""

import dataclasses
import json

import numpy as np
import pytest

from tests.synthesis.programs import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import collect
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.collect.layout import measure
from tpugraphs_rank.synthesis.programs import programs

jax = pytest.importorskip(
    "jax", reason="needs JAX: run in an environment with tpugraphs_rank/collect/requirements.txt")
from tpugraphs_rank.collect.tile.builders import synthetic  # pylint: disable=wrong-import-position

Node = programs.Node
# Products with a reshape between them; every request changes the compiled program.
CHAIN = programs.RunnableProgram("hand_dot.20.f32", (
    Node("parameter", (), "f32", (24, 16)), Node("parameter", (), "f32", (16, 40)),
    Node("dot", (0, 1), "f32", (24, 40), "ak,kb->ab"), Node("tanh", (2,), "f32", (24, 40)),
    Node("reshape", (3,), "f32", (12, 80)), Node("parameter", (), "f32", (80, 32)),
    Node("dot", (4, 5), "f32", (12, 32), "ak,kb->ab"), Node("tanh", (6,), "f32", (12, 32)),
    Node("parameter", (), "f32", (48, 32)),
    Node("dot", (7, 8), "f32", (12, 48), "ak,bk->ab"), Node("tanh", (9,), "f32", (12, 48)),
    Node("reshape", (10,), "f32", (36, 16)), Node("parameter", (), "f32", (16, 20)),
    Node("dot", (11, 12), "f32", (36, 20), "ak,kb->ab"), Node("negate", (13,), "f32", (36, 20))))
CONSTANT = programs.RunnableProgram("hand_dot.21.f32", (
    *CHAIN.nodes[:-1], Node("constant", (), "f32", (), value=9.0),
    Node("minimum", (13, 14), "f32", (36, 20)), Node("maximum", (15, 14), "f32", (36, 20))))
QUICK = protocol.Protocol(sample_ns=1000, budget_ns=2000, min_rounds=1, max_rounds=1)


def test_sites_are_the_products_and_reshapes_and_layouts_change_no_number():
  bench = measure.Bench(CHAIN, 0)
  assert sorted(site.opcode for site in bench.sites) == ["dot"] * 4 + ["reshape"] * 2
  rng = configurations.program_rng(CHAIN.stem, 0, "arguments")
  arguments = synthetic.inputs(CHAIN, rng, averaging=True)
  result = np.asarray(jax.jit(synthetic.whole(CHAIN))(*arguments))
  np.testing.assert_allclose(result, small_programs.by_numpy(CHAIN, arguments), rtol=1e-5)
  assert bench.compile(configurations.default(bench.sites))[0]
  draws = np.random.default_rng(0)
  for _ in range(8):
    bench.compile(configurations.random(bench.sites, draws))
  assert {entry["status"] for entry in bench.entries} <= {"ok", "same_program"}
  assert sum(entry["status"] == "ok" for entry in bench.entries) > 2


def test_operands_of_products_are_scaled_to_averages():
  weights = synthetic.inputs(CHAIN, np.random.default_rng(3), averaging=True)
  plain = synthetic.inputs(CHAIN, np.random.default_rng(3))
  # The second operand of each product is divided by the length of its sum.
  for place, length in enumerate([1, 16, 80, 32, 16]):
    np.testing.assert_allclose(weights[place] * length, plain[place], rtol=1e-6)
  image, kernel = synthetic.inputs(
      small_programs.CONVOLUTION, np.random.default_rng(0), averaging=True)
  assert 0.25 <= image.min() and kernel.max() * 3 * 3 * 8 <= 1.2501


def test_both_passes_measure_the_same_configurations(monkeypatch):
  monkeypatch.setattr(gates, "SYNTHETIC_LAYOUT", dataclasses.replace(
      gates.SYNTHETIC_LAYOUT, configurations=4))
  first = measure.measure(CHAIN, 6, 6, 0, 1, QUICK)
  second = measure.measure(CHAIN, 6, 6, 0, 2, QUICK, first)
  counted = [entry["layouts"] for entry in first["configurations"] if entry["status"] == "ok"]
  assert len(counted) == 6 and counted == [entry["layouts"] for entry in second["configurations"]]
  assert json.loads(json.dumps(first))["sites"] == second["sites"]


@pytest.mark.parametrize("program, match", [
    (small_programs.BIAS, "few sites: layouts can be requested for 1 instructions"),
    (CONSTANT, "constant: the result is 9.0 everywhere"),
    (CHAIN, "few configurations: 5 of .* expected 24 or more")])
def test_rejected_programs(program, match):
  with pytest.raises(errors.DataError, match=match):
    measure.measure(program, 5, 5, 0, 1, QUICK)


def test_from_a_file_of_programs_to_raw_data(tmp_path):
  files.write_json(tmp_path / "programs.json", {
      "programs": [program.to_json() for program in (CHAIN, small_programs.BIAS)]})
  output = tmp_path / "measured"
  assert collect.main(
      ["--synthetic", str(tmp_path / "programs.json"), "--output", str(output), "--budget_ms=1",
       "--configurations=24", "--configurations_of_small_programs=24"]) == 0
  report = files.read_json(output / "report.json")
  assert list(report["programs"]) == [CHAIN.stem]
  assert report["failed"][small_programs.BIAS.stem].startswith("few sites:")
  assert (output / "pass1" / f"{CHAIN.stem}.pb").exists()
