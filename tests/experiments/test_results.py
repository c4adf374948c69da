"""Every file in results/ has the same schema; no test depends on what a result says."""

import json
import math
import pathlib

import pytest

RESULTS = sorted((pathlib.Path(__file__).resolve().parents[2] / "results").glob("*.json"))
_FIGURE = {"mean", "sd", "n"}
_INTERVAL = {"mean", "low", "high", "n"}


def _read(path):
  def refuse(constant):
    raise ValueError(f"{path.name} contains {constant}, which is not JSON")
  return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def _objects(value):
  """All JSON objects within a value."""
  if isinstance(value, dict):
    yield value
    value = value.values()
  if not isinstance(value, str) and hasattr(value, "__iter__"):
    for entry in value:
      yield from _objects(entry)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_file_of_results_has_the_schema(path):
  results = _read(path)
  for key in ("command", "commit", "python", "platform", "processor"):
    assert isinstance(results[key], str) and results[key], key
  assert results["cores"] >= 1
  assert {"numpy", "tensorflow"} <= set(results["packages"])
  # Studies record their seeds (or splits), benchmarks the number of repeats.
  runs = next(results[key] for key in ("seeds", "divisions", "repeats") if key in results)
  assert len(set(runs)) == len(runs) > 0 if isinstance(runs, list) else runs >= 1
  for entry in _objects(results):
    if "mean" in entry and ("sd" in entry or "low" in entry):
      assert set(entry) in (_FIGURE, _INTERVAL)
      if entry["n"]:
        assert math.isfinite(entry["mean"])
        assert entry.get("sd", 0.0) >= 0
        assert entry.get("low", entry["mean"]) <= entry.get("high", entry["mean"])


def test_models_have_a_figure_for_each_metric():
  for path in RESULTS:
    results = _read(path)
    for part in ("models", "models_unseen_groups"):
      for name, figures in results.get(part, {}).items():
        assert all(set(figure) == _FIGURE for figure in figures.values()), (path.name, name)


@pytest.mark.parametrize(
    "path", [path for path in RESULTS if path.stem.startswith("augmentation")],
    ids=lambda path: path.stem)
def test_studies_compare_arms_that_have_means(path):
  results = _read(path)
  cells = {(one.get("task"), one["budget"], one["arm"]) for one in results["means"]}
  assert results["comparisons"]
  for one in results["comparisons"]:
    task = one["task"] if results["means"][0].get("task") else None
    assert (task, one["budget"], one["arm"]) in cells
    assert 0.95 <= one["level"] < 1 and one["n_seeds"] >= 1
