"""The label study: the data of each arm, and the script at a small size."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from experiments import label_study
from tests.experiments import scripts
from tests.synthesis import small_dags
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib


def _study(conditioned=None):
  parts = {name: small_dags.graphs(count, seed) for name, count, seed in (
      ("train", 30, 0), ("valid", 12, 1), ("test", 12, 2))}
  graphs = small_dags.graphs(25, 3)
  bare = graphs.with_labels(np.zeros([25, 0]), [])
  return label_study.Study(parts, bare, conditioned, "runtime", surrogate_lib.Options(
      layers=1, width=8, batch_size=8, max_epochs=2, steps_per_epoch=2, patience=2))


def _pairs(graphs):
  return set(zip(graphs.hashes().tolist(), graphs.y[:, 0].tolist()))


def test_the_data_of_each_arm():
  study = _study()
  guess = lambda graphs: 100.0 + np.arange(len(graphs))
  actual = {name: (graphs, size) for name, graphs, size in label_study.arms(study, 6, 1, guess)}
  assert list(actual) == ["real", "real_oversampled", "layerdag_taught",
                         "layerdag_taught_shuffled", "layerdag_taught_only", "real_taught"]
  known = _pairs(actual["real"][0])
  assert len(known) == 6 and known < _pairs(study.parts["train"])
  # All arms take the same number of steps per round.
  assert {len(graphs) / size for graphs, size in actual.values()} == {30 / 4}
  for name, (graphs, _) in actual.items():
    pairs = _pairs(graphs)
    true = {pair for pair in pairs if pair[1] < 100}
    assert true == (set() if name == "layerdag_taught_only" else known), name
    hashes = {value for value, _ in pairs - true}
    if name.startswith("layerdag"):
      assert hashes <= set(study.generated.hashes().tolist()), name
    elif name == "real_taught":
      assert hashes <= set(study.parts["train"].hashes().tolist())
  taught, shuffled = (actual[name][0] for name in ("layerdag_taught", "layerdag_taught_shuffled"))
  assert set(taught.y[:, 0].tolist()) == set(shuffled.y[:, 0].tolist())
  assert (taught.hashes() == shuffled.hashes()).all() and (taught.y != shuffled.y).any()
  # Another seed selects other graphs.
  (_, other, _), *_ = label_study.arms(study, 6, 2, guess)
  assert _pairs(other) != known


def test_all_labels():
  conditioned = small_dags.graphs(20, 4)
  names = [name for name, _, _ in label_study.arms(
      _study(conditioned), None, 0, lambda graphs: np.zeros(len(graphs)))]
  assert names[-1] == "layerdag_conditioned" and "real_taught" not in names


def test_a_budget_is_trained_once_with_labels_from_the_real_arms(tmp_path, monkeypatch):
  trained = []

  class Fixed:
    valid_pearson, epoch = 0.5, 1

    def __init__(self, value):
      self.value = value

    def predict(self, graphs):
      return np.full(len(graphs), self.value)

  def train(training, valid, seed, label, options):
    del valid, seed, label
    trained.append((training, options.batch_size))
    return Fixed(100.0 * len(trained))

  monkeypatch.setattr(surrogate_lib, "train", train)
  study = _study()
  label_study.run(study, 6, 0, tmp_path)
  label_study.run(study, 6, 0, tmp_path)
  assert [size for _, size in trained] == [4, 8, 8, 8, 8, 8]
  # Generated graphs get the mean prediction of the first two surrogates.
  assert set(trained[4][0].y[:, 0].tolist()) == {150.0}
  assert json.loads((tmp_path / "real.json").read_text())["predictions"] == [100.0] * 12


def test_the_report():
  truth, families = np.arange(6.0), list("aabbcc")
  actual = {20: {arm: {seed: {"predictions": (truth + shift + seed).tolist(), "cpu_seconds": 2.0}
                      for seed in (0, 1)}
                for arm, shift in (("real", 3.0), ("real_oversampled", 2.0),
                                   ("layerdag_taught", 1.0))}}
  result = label_study.report(truth, families, actual)
  json.dumps(result, allow_nan=False)
  (one,) = result["comparisons"]
  assert one["arm"] == "layerdag_taught" and one["level"] == pytest.approx(1 - 0.05 / 2)
  assert set(one["gains"]) == {"real", "real_oversampled"}
  assert one["gains"]["real"]["mae"]["mean"] == pytest.approx(2.0)
  assert result["means"][0]["mae"]["mean"] == pytest.approx(3.5)
  assert "| 20 | layerdag taught | 1.000 ± 0.000 |" in label_study.markdown(result)
  assert label_study.readme_table(result).splitlines()[2] == (
      "| 20 | 1.000 ± 0.000 | +0.000 [+0.000, +0.000] | +1.000 [+1.000, +1.000] | - | - |")


def test_generated_graphs_with_held_out_structures_are_dropped(tmp_path):
  parts = {"valid": small_dags.graphs(3, 5), "test": small_dags.graphs(2, 6)}
  drawn = dags_lib.concat([parts["test"], small_dags.graphs(4, 7)])
  dags_lib.save(tmp_path / "synthetic.npz", drawn)
  actual = label_study.generated(tmp_path, parts, ["size"], "unused", 1.0)
  assert len(actual) == 4


@pytest.mark.slow
def test_the_script(tmp_path):
  dags_lib.save(tmp_path / "graphs.npz", small_dags.graphs(40, 0))
  # The samples of a generator that is already trained.
  dags_lib.save(tmp_path / "study" / "structures" / "synthetic.npz", small_dags.graphs(15, 9))
  arguments = ["--graphs", tmp_path / "graphs.npz", "--output", tmp_path / "study", "--budgets=8",
               "--seeds=1", "--epochs=1", "--steps_per_epoch=1", "--width=8", "--results",
               tmp_path / "results.json"]
  done = scripts.run("label_study", *arguments)
  assert done.returncode == 0, done.stderr[-3000:]
  results = json.loads((tmp_path / "results.json").read_text())
  assert {one["arm"] for one in results["means"]} == set(label_study.ARMS) - {
      "layerdag_conditioned"}
  assert results["made_graphs"] <= 15 and results["surrogate"]["steps"] == 1
  assert (tmp_path / "study" / "study.md").stat().st_size
  failed = scripts.run("label_study", *arguments, "--budgets=900")
  assert failed.returncode == 1 and "training has" in failed.stderr
