"""The report and the comparison of runs, on small runs of a synthetic collection."""

from html import parser
import json
import pathlib
import re
import shutil
import subprocess

import matplotlib.image
import pandas as pd
import pytest

from tests import synthetic
from tests.helpers import commands
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import compare
from tpugraphs_rank.evaluation import charts
from tpugraphs_rank.training import trainer

_VOID = {"meta", "link", "input", "br", "hr", "img"}


class _Page(parser.HTMLParser):
  """Checks that elements are nested correctly, and collects what the page refers to."""

  def __init__(self):
    super().__init__()
    self.open, self.problems, self.links, self.identities = [], [], [], []

  def handle_starttag(self, tag, attrs):
    for name, value in attrs:
      if name in ("src", "href", "data", "action", "srcset"):
        self.links.append(value)
      if name == "id":
        self.identities.append(value)
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    del tag, attrs  # Closed at once, in SVG.

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      self.problems.append((tag, self.getpos()))


@pytest.fixture(name="runs", scope="module")
def _runs(tmp_path_factory) -> pathlib.Path:
  """Two runs of one collection: one for each model."""
  folder = tmp_path_factory.mktemp("runs")
  descriptor = synthetic.write_collection(folder / "collection", counts=(4, 2, 5))
  for name in ("residual_gnn", "attention_gnn"):
    trainer.Trainer(config_lib.override(run_config.RunConfig(), {
        "data.collection": str(descriptor), "model.model": name, "model.hidden_width": 8,
        "model.num_convolutions": 1,
        "model.opcode_width": 4, "model.head_widths": [8], "training.epochs": 3,
        "training.tensorboard": False, "batch.lists_per_graph": 1})).train(folder / name)
  return folder


@pytest.fixture(name="page", scope="module")
def _page(runs) -> pathlib.Path:
  output = runs / "page.html"
  done = commands.run("report", "--run_dir", runs / "residual_gnn", "--compare",
                      runs / "attention_gnn", "--baselines=random,size_heuristic",
                      "--output", output)
  assert done.returncode == 0, done.stderr
  assert done.stdout == f"report: {output}\n"
  return output


def test_the_page_is_well_formed_and_self_contained(page):
  text = page.read_text(encoding="utf-8")
  checked = _Page()
  checked.feed(text)
  assert checked.problems == [] and checked.open == []
  assert checked.links == [] and len(set(checked.identities)) == len(checked.identities)
  # The only address is the name of SVG's namespace, which is not loaded.
  assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}
  assert "@import" not in text and "url(" not in text


def test_the_page_has_all_sections_and_rankers(page):
  text = page.read_text(encoding="utf-8")
  for identity in ("metrics", "training", "families", "graphs", "worst", "settings",
                   "families-table", "graphs-table"):
    assert f'id="{identity}"' in text
  for name in ("residual_gnn", "attention_gnn", "random", "size_heuristic"):
    assert name in text
  assert text.count("<tr><td") >= 5 and "hidden_width" in text
  assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_the_graphs_table_has_one_row_per_graph_with_numbers_to_sort_by(page):
  table = re.search(r'id="graphs-table">.*?</table>', page.read_text(encoding="utf-8"), re.DOTALL)
  rows = re.findall(r"<tr>(<td.*?)</tr>", table[0])
  assert len(rows) == 5
  taus = [float(re.findall(r'data-value="([^"]*)"', row)[4]) for row in rows]
  assert taus == sorted(taus)  # The worst come first.


def test_the_best_epoch_is_marked(runs, page):
  text = page.read_text(encoding="utf-8")
  best = json.loads((runs / "residual_gnn" / "status.json").read_text())["best_epoch"]
  assert f"<title>residual_gnn, validation: {best}</title>" in text


def test_an_unknown_baseline_is_refused(runs, tmp_path):
  done = commands.run("report", "--run_dir", runs / "residual_gnn", "--baselines=best")
  assert done.returncode == 1 and "no baseline 'best'" in done.stderr
  done = commands.run("report", "--run_dir", tmp_path)
  assert done.returncode == 1 and "is not a run directory" in done.stderr


# ---- screenshots ---------------------------------------------------------------------------------

_BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome")
                 if (path := shutil.which(name))), None)


@pytest.mark.skipif(_BROWSER is None, reason="no Chromium on the PATH")
@pytest.mark.parametrize("dark, width", [(False, 1200), (True, 390)])
def test_chromium_shows_the_page(page, tmp_path, dark, width):
  picture = tmp_path / "page.png"
  subprocess.run(
      [_BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
       "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
       f"--screenshot={picture}", f"--window-size={max(width, 500)},2400",
       *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
       page.as_uri()], check=True, capture_output=True, timeout=180)
  pixels = matplotlib.image.imread(picture)[:, :, :3]
  assert pixels.shape[0] == 2400
  ground = pixels[5, 5]
  assert (ground.mean() < 0.3) == dark
  # The page is not empty: much of it differs from the ground.
  different = (abs(pixels - ground).max(axis=2) > 0.02).mean()
  assert different > 0.2


# ---- charts --------------------------------------------------------------------------------------


def test_lines_without_defined_values_are_left_out():
  nan = float("nan")
  svg = charts.line_chart(
      [charts.Series("a", [1, 2, 3], [nan, 2.0, 3.0]), charts.Series("b", [1], [nan])],
      charts.Axis("x"), charts.Axis("y"))
  assert svg.count("<polyline") == 1 and "nan" not in svg and ">b<" not in svg
  assert "Nothing to draw" in charts.line_chart([], charts.Axis("x"), charts.Axis("y"))


def test_constant_and_logarithmic_values_have_finite_positions():
  for axis in (charts.Axis("y"), charts.Axis("y", log=True, floor=1e-4, percent=True)):
    svg = charts.line_chart([charts.Series("<a>", [1, 1], [0.5, 0.5])], charts.Axis("x"), axis)
    assert "nan" not in svg and "inf" not in svg and "&lt;a&gt;" in svg
  assert "circle" in charts.interval_chart(["a"], [0.5], [0.4], [0.6], charts.Axis("tau"))


# ---- compare -------------------------------------------------------------------------------------


def test_compare_prints_paired_differences_and_writes_them(runs, tmp_path):
  done = commands.run("compare", runs / "residual_gnn", runs / "attention_gnn",
                      "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("tile:synthetic test (5 programs)\n")
  assert "gain of residual_gnn over" in done.stdout
  results = json.loads((tmp_path / "a.json").read_text())
  assert results["model"] == "residual_gnn" and list(results["differences"]) == ["attention_gnn"]
  interval = results["differences"]["attention_gnn"]["kendall_tau"]
  means = {name: each["tau"]["mean"] for name, each in results["means"].items()}
  assert interval["mean"] == pytest.approx(means["residual_gnn"] - means["attention_gnn"])
  assert interval["low"] <= interval["mean"] <= interval["high"] and interval["n"] == 5
  rows = pd.read_csv(tmp_path / "a.csv").set_index("metric")
  assert rows.loc["kendall_tau", "mean"] == pytest.approx(interval["mean"])
  assert set(rows["compared_with"]) == {"attention_gnn"}


def test_reports_state_that_graphs_are_missing(runs, tmp_path):
  shutil.copytree(runs, tmp_path / "copy")
  descriptor = tmp_path / "copy" / "collection" / "collection.json"
  names = sorted((descriptor.parent / "npz" / "test").iterdir())
  for path in names[:2]:
    path.unlink()
  run_dir = tmp_path / "copy" / "residual_gnn"
  config = run_dir / "config.json"
  stored = json.loads(config.read_text())
  stored["config"]["data"]["collection"] = str(descriptor)
  config.write_text(json.dumps(stored))
  done = commands.run("report", "--run_dir", run_dir, "--baselines=", "--partial", "--output",
                      tmp_path / "page.html")
  assert done.returncode == 0, done.stderr
  assert ("partial: 2 graphs are missing in tile:synthetic test, so these are not the figures of "
          "the whole split.") in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_runs_that_differ_in_the_seed_are_one_model(runs, tmp_path):
  again = tmp_path / "again"
  shutil.copytree(runs / "residual_gnn", again)
  stored = json.loads((again / "config.json").read_text())
  stored["config"]["training"]["seed"] = 1
  (again / "config.json").write_text(json.dumps(stored))
  models = compare.label_runs([runs / "residual_gnn", again, runs / "attention_gnn"])
  assert models == {"residual_gnn": [str(runs / "residual_gnn"), str(again)],
                    "attention_gnn": [str(runs / "attention_gnn")]}
  with pytest.raises(errors.ConfigError, match="at least two runs with different settings, not 1"):
    compare.compare([runs / "residual_gnn", again])


def test_runs_of_one_kind_are_named_after_their_folders(runs, tmp_path):
  other = tmp_path / "wide"
  shutil.copytree(runs / "residual_gnn", other)
  stored = json.loads((other / "config.json").read_text())
  stored["config"]["training"]["epochs"] = 4
  (other / "config.json").write_text(json.dumps(stored))
  assert list(compare.label_runs([runs / "residual_gnn", other])) == ["residual_gnn", "wide"]
