"""The scale study: its simulated runtimes, its collection and its tables."""

import numpy as np
import pytest

from experiments import scale_study
from experiments.scale import labels
from tests import synthetic
from tests.experiments import scripts
from tests.hlo import modules
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.costs import layout_orders
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import output
from tpugraphs_rank.hlo import reading

_PRODUCT = b"""HloModule product

ENTRY main {
  a = f32[4096,2000]{1,0} parameter(0)
  b = f32[2000,1000]{1,0} parameter(1)
  ROOT c = f32[4096,1000]{1,0} dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


@pytest.fixture(name="product")
def _product():
  return reading.parse_raw(_PRODUCT).modules[0].module


@pytest.mark.parametrize("lengths, order, expected", [
    ((100, 1000), layout_orders.NONE, 104 * 1024 / (100 * 1000)),
    ((100, 1000), layout_orders.number_of([0, 1]), 128 * 1000 / (100 * 1000)),
    ((128, 8, 1), layout_orders.NONE, 16.0),
    ((5,), layout_orders.NONE, 128 / 5),
    ((), layout_orders.NONE, 1.0),
])
def test_padding_is_to_whole_register_tiles(lengths, order, expected):
  assert labels.padding_ratio(lengths, order) == pytest.approx(expected)


def test_runtimes_follow_the_formula(product, monkeypatch):
  monkeypatch.setattr(labels, "NOISE", 0.0)
  arrays = labels.arrays_of(product, 20, 0, "product")
  graph = graphs.LayoutGraph(name="product", **arrays)
  effects = layout_assignment.Assignment(graph, targets.TPU).effects(
      graph.layouts(np.arange(20))).sum(axis=(1, 2))
  compute = 2 * 4096 * 1000 * 2000 / labels.PEAK
  memory = 4 * (4096 * 1000 + 4096 * 2000 + 2000 * 1000) / labels.BANDWIDTH
  shapes = [(4096, 1000), (4096, 2000), (2000, 1000)]
  for config in range(20):
    ratios = []
    for number, (rows, columns) in enumerate(shapes):
      layout = graph.layouts([config])[0, 0, 6 * number:6 * number + 2].tolist()
      minor, other = (rows, columns) if layout == [0, 1] else (columns, rows)
      ratios.append(-(-minor // 128) * 128 / minor * -(-other // 8) * 8 / other)
    moved = sum(labels.MOVED.get(name, 0.0) * effects[config, column]
                for column, name in enumerate(layout_assignment.EFFECTS))
    expected = max(compute * max(ratios), memory) + labels.ITEM * moved / labels.BANDWIDTH
    assert graph.config_runtime[config] == pytest.approx(1e9 * expected, abs=1)
  assert len(np.unique(graph.config_runtime)) > 2


def test_a_program_without_layouts_is_refused():
  module = modules.tiny()
  with pytest.raises(errors.DataError, match="tiny has no dot, convolution or reshape"):
    labels.arrays_of(module, 5, 0, "tiny")


def test_families_are_split_and_balanced(product, tmp_path):
  hlo = tmp_path / "hlo"
  hlo.mkdir()
  for name in ("resnet.0", "resnet.1", "resnet.2", "gru.0", "mixer.0"):
    (hlo / f"{name}_forward.pb").write_bytes(product.SerializeToString())
  descriptor = labels.write(hlo, tmp_path / "made", 12, 1, 10, 4, seed=0)
  collection = registry.get_collection(descriptor)
  assert collection.splits == {"train": 2, "valid": 1, "test": 1}
  assert collection.family("resnet.1_forward") == "resnet"
  assert collection.facts == targets.TPU
  with pytest.raises(errors.MissingDataError, match="no program of 11 to 20 nodes"):
    labels.write(hlo, tmp_path / "made", 12, 11, 20, 4, seed=0)
  with pytest.raises(errors.UnknownNameError, match="unknown model family 'rezzo'"):
    labels.split_of("rezzo")


def _run(taus):
  return {"steps_per_second": 2.0, "curve": [
      {"seconds": second, "steps": 2 * second, "loss": 1.0, "train_tau": 0.5, "tau": tau,
       "top1_slowdown": 0.1, "top5_slowdown": 0.05, "top10_slowdown": 0.02}
      for second, tau in zip((6, 20, 60), taus)]}


def test_summary_and_table():
  results = scale_study.summary({
      "before": [_run([0.1, 0.2]), _run([0.3, 0.4])], "public": [_run([0.0, 0.1, 0.2])]})
  assert results["before"]["curve"][1]["tau"] == {
      "mean": 0.3, "sd": pytest.approx(0.1414, abs=1e-4), "n": 2}
  lines = scale_study.table({"rules": results}).splitlines()
  assert lines[0] == ("| rule | steps a second | tau, 6 s | tau, 20 s | tau, 60 s | "
                      "tau in training | top-1 | top-10 |")
  assert lines[2] == (
      "| before | 2.0 | 0.200 ± 0.141 | 0.300 ± 0.141 |  | 0.500 ± 0.000 | 10.0 % | 2.0 % |")
  assert lines[3] == "| public | 2.0 | 0.000 | 0.100 | 0.200 | 0.500 | 10.0 % | 2.0 % |"


def test_a_case_of_other_settings_is_refused(tmp_path):
  path = tmp_path / "case.json"
  config = run_config.RunConfig()
  files.write_json(path, {"result": {"curve": []}, "settings": {
      "hash": config_lib.stable_hash(config), "seconds": [1.0]}})
  assert scale_study.case(path, config, [1.0]) == {"curve": []}
  with pytest.raises(errors.RunDirectoryError, match="case.json was written with other settings"):
    scale_study.case(path, config, [2.0])


def test_a_measured_program_is_a_collection(tmp_path):
  source = tmp_path / "measured.npz"
  output.write_graph(source, synthetic.layout_graph(0).arrays())
  collection = registry.get_collection(scale_study.one_program(source, tmp_path / "one"))
  (path,) = (collection.location() / name for name in collection.files["all"])
  assert path.read_bytes() == source.read_bytes()


def test_every_rule_is_a_configuration():
  pytest.importorskip("tensorflow")
  from experiments.scale import public_rule  # noqa: F401  Registers the model.
  for rule in scale_study.RULES.values():
    config = scale_study.config_of("layout:xla_cpu:mixed", rule, 3)
    assert config.training.seed == 3 and config.optimizer.schedule == "constant"


@pytest.mark.slow
def test_the_study_end_to_end(product, tmp_path, monkeypatch):
  def export(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("resnet.0", "unet.0", "gru.0"):
      (folder / f"{name}_forward.pb").write_bytes(product.SerializeToString())

  monkeypatch.setattr(scale_study, "export", export)
  measured = tmp_path / "measured.npz"
  output.write_graph(measured, synthetic.layout_graph(0, num_configs=40).arrays())
  results = tmp_path / "results.json"
  arguments = ("--output", tmp_path / "build", "--rules", "extents,public_norm", "--seconds", "0.1",
               "--public_seconds", "0.1,0.2", "--programs", "3", "--configurations", "12",
               "--nodes", "1,10", "--graph", measured, "--graph_rules", "before",
               "--results", results)
  first = scripts.run("scale_study", *arguments)
  assert first.returncode == 0, first.stderr
  stored = files.read_json(results)
  assert set(stored["rules"]) == {"extents", "public_norm"}
  assert [len(rule["curve"]) for rule in stored["rules"].values()] == [1, 2]
  for rule in (*stored["rules"].values(), *stored["one_program"]["rules"].values()):
    assert all(-1 <= point["tau"]["mean"] <= 1 for point in rule["curve"])
  table = first.stdout[first.stdout.index("| rule |"):]
  assert scripts.run("scale_study", *arguments).stdout == table  # From the stored cases.
