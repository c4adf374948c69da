"""The report on synthetic graphs: its figures, its page and its plots."""

import json

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.dags import rules
from tpugraphs_rank.synthesis.judging import drawings
from tpugraphs_rank.synthesis.judging import forest
from tpugraphs_rank.synthesis.judging import measures
from tpugraphs_rank.synthesis.judging import report
from tpugraphs_rank.synthesis.judging import surrogate

pytestmark = pytest.mark.usefixtures("small_forests")

SMALL = surrogate.Options(members=1, layers=1, width=8, max_epochs=2)


def _real(**changes):
  return {name: small_dags.graphs(count, seed) for name, count, seed in (
      ("train", 40, 0), ("valid", 15, 1), ("test", 15, 2))} | changes


def test_figures_equal_those_of_the_measures():
  real = _real()
  samples = [small_dags.graphs(30, 3).with_provenance({"graphs_per_cpu_second": 40.0,
                                                       "critic_cpu_seconds": 0.75}),
             small_dags.graphs(30, 4, chance=0.2).with_provenance({"graphs_per_cpu_second": 20})]
  result = report.evaluate(real, samples, [0], options=SMALL)
  json.dumps(result, allow_nan=False)
  mean = lambda of: pytest.approx(np.mean([of(one) for one in samples]))
  assert result["wasserstein_layers"] == mean(
      lambda one: measures.distances(one, real["train"])["wasserstein_layers"])
  assert result["tv_opcode"] == mean(
      lambda one: measures.distances(one, real["train"])["tv_opcode"])
  assert result["arity_valid_graphs"] == mean(
      lambda one: measures.arity_valid(one, real["train"]).graphs.mean())
  assert result["copies_of_training"] == mean(
      lambda one: measures.copies(one, real["train"])["copies_of_training"])
  assert result["graphs_per_cpu_second"] == 30
  # 30 graphs in 0.75 s and as much for the critic; 30 in 1.5 s without a critic.
  assert result["graphs_per_cpu_second_with_critic"] == pytest.approx((20 + 20) / 2)
  for name, count in (("real", 1), ("synthetic", 2), ("shuffled", 2)):
    entries = result["surrogates"][name]
    assert result[f"pearson_{name}"]["n"] == len(entries) == count
    assert result[f"mae_{name}"]["mean"] == pytest.approx(
        np.mean([entry["mae"] for entry in entries]))
  assert result["label_correlation"] == pytest.approx(
      np.mean([entry["pearson"] for entry in result["surrogates"]["requested"]]))
  for name, count in (("real", 1), ("synthetic", 2), ("shuffled", 2)):
    entries = result["forests"][name]
    assert result[f"forest_spearman_{name}"]["n"] == len(entries) == count
    assert result[f"forest_spearman_{name}"]["mean"] == pytest.approx(
        np.mean([entry["spearman"] for entry in entries]))
  forests = [forest.train(real["train"], real["valid"], seed) for seed in (0,)]
  assert [entry["mae"] for entry in result["forests"]["real"]] == pytest.approx(
      [np.abs(one.predict(real["test"]) - real["test"].label()).mean() for one in forests])
  assert result["forest_pearson_ratio"] == pytest.approx(
      result["forest_pearson_synthetic"]["mean"] / result["forest_pearson_real"]["mean"])
  assert result["floor"]["test_to_training"] == measures.distances(real["test"], real["train"])
  assert result["samples"][1]["to_test"] == measures.distances(samples[1], real["test"])
  page = report.markdown(result)
  for text in ("30, 30 synthetic graphs. Real graphs: 40 for training",
               "| Wasserstein, layer size | ", "n = 2",
               "| total variation, opcode of consumer and operand | ", "and samples.",
               "| random forest | synthetic graphs, labels shuffled | "):
    assert text in page, text


def test_without_samples_and_without_labels():
  result = report.evaluate(_real(), [], [0], options=SMALL)
  assert result["pearson_real"]["n"] == 1 and result["pearson_synthetic"]["n"] == 0
  assert result["pearson_synthetic"]["mean"] is None and result["label_correlation"] is None
  assert result["forest_pearson_real"]["n"] == 1 and result["forest_pearson_ratio"] is None
  json.dumps(result, allow_nan=False)
  assert "No synthetic graphs" in report.markdown(result)
  sample = small_dags.graphs(20, 3)
  sample = sample.with_labels(np.zeros([20, 0]), ())
  result = report.evaluate(_real(), [sample], [0], options=SMALL)
  assert result["pearson_synthetic"] is None and result["surrogates"] == {}
  assert result["forest_pearson_synthetic"] is None and result["forests"] == {}
  assert result["graphs_per_cpu_second"] is None
  assert result["graphs_per_cpu_second_with_critic"] is None and result["wasserstein_layers"] > 0
  assert "Predictors" not in report.markdown(result)


def test_twins_and_the_rule_are_reported():
  family = [rules.balanced(20, 8, seed) for seed in range(4)]
  real = dict(zip(("train", "valid", "test"), family))
  real["test"] = dags_lib.concat([real["test"], real["train"].take([0, 0, 3])])
  result = report.evaluate(real, [family[3]], [0], options=SMALL)
  assert result["real"]["test_with_a_twin_in_training"] >= 3
  assert result["rule_obeyed"]["graphs"] == 1
  assert "| graphs that obey the rule | 1.000 |" in report.markdown(result)


def test_empty_splits_and_samples_are_refused():
  with pytest.raises(errors.DataError, match="sample 0 has no graphs"):
    report.evaluate(_real(), [small_dags.graphs(5).take([])], [0])
  with pytest.raises(errors.DataError, match="valid has no graphs"):
    report.evaluate(_real(valid=small_dags.graphs(5).take([])), [], [0])


def test_plots_are_written(tmp_path):
  real = dags_lib.canonical(
      [(np.array([[0, 1], [0, 2], [1, 3], [2, 3]]), np.array([[24, 1], [2, 1], [2, 2], [63, 1]])),
       (np.zeros([0, 2]), np.array([[63, 2]]))], ("opcode", "type"), y=np.array([1.0, 2.0]),
      provenance={"collection": "tile:a"})
  drawings.distributions(tmp_path / "a.png", {"real": real, "synthetic": real.take([0])})
  drawings.side_by_side(tmp_path / "b.png", {"real": real, "synthetic": real.take([0])})
  for name in ("a.png", "b.png"):
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
