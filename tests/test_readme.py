"""The README is one page, and all tables of the documentation equal the files in results/."""

import json
import pathlib
import re
import shutil

import pytest

from experiments import tables
from tpugraphs_rank import errors

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in tables.pages()}


def test_the_readme_is_one_page():
  assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_tables_equal_the_results(path):
  rendered = tables.render(PAGES[path], ROOT / "results", path.name)
  assert rendered == PAGES[path], "run `./run tables`"


def test_every_table_is_on_a_page():
  tables.check_complete(PAGES.values())
  assert tables.table_names(README) == ["quality_summary"]


def test_a_missing_table_is_refused():
  with pytest.raises(errors.DataError, match="lack the tables.*quality_summary"):
    tables.check_complete(["no tables here"])


def test_a_changed_figure_changes_the_page(tmp_path: pathlib.Path):
  for path in (ROOT / "results").glob("*.json"):
    shutil.copy(path, tmp_path)
  results = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))
  results["tile:xla_cpu"]["ensemble"]["tau"]["mean"] -= 0.1
  (tmp_path / "quality.json").write_text(json.dumps(results), encoding="utf-8")
  assert tables.render(README, tmp_path) != README


def test_an_unknown_table_is_refused():
  text = README + "<!-- table nonsense -->\n<!-- end of table -->\n"
  with pytest.raises(errors.DataError, match="unknown table 'nonsense'.*quality_summary"):
    tables.render(text, ROOT / "results")


def test_links_of_the_readme_lead_somewhere():
  for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
    assert (ROOT / path).exists(), path
