"""Tables of `tpu_layouts`."""

from collections.abc import Mapping
from typing import Any

from tpugraphs_rank import tables
from tpugraphs_rank.evaluation import result_tables

_SHOWN = ("opa_apart", "tau", "top1_slowdown", "top5_slowdown", "top10_slowdown")
_TITLES = {"opa_apart": "OPA > 0.1 %"}
_Rows = tuple[list[str], list[list[str]]]


def graph_rows(results: Mapping[str, Any]) -> _Rows:
  """One row per graph: its sizes, its default, and what repeats allow."""
  header = ["graph", "nodes", "configurable", "configurations", "distinct", "slowest over fastest",
            "usual configuration's slowdown", "pairs > 0.1 % apart", "sd of repeats",
            "tau of repeats", "ceiling of tau"]
  rows = []
  for name, facts in results["graphs"].items():
    ceiling = facts["noise_ceiling"]
    rows.append([
        name, str(facts["nodes"]), str(facts["configurable_nodes"]), str(facts["configurations"]),
        str(facts["distinct"]), f"{facts['slowest_over_fastest']:.3f}",
        f"{100 * facts['usual_slowdown']:.2f} %", f"{100 * facts['pairs_apart']:.0f} %",
        _optional(ceiling["repeat_sd_relative"], lambda value: f"{100 * value:.4f} %"),
        _optional(ceiling["repeat_kendall_tau"], lambda value: f"{value:.3f}"),
        _optional(ceiling["kendall_tau"], lambda value: f"{value:.3f}")])
  return header, rows


def known_rows(results: Mapping[str, Any], figure: str = "tau") -> _Rows:
  """One row per graph and ranker: a figure for each share that the ranker learns from.

  Args:
    results: of the study.
    figure: the name of a figure, see `result_tables.FIGURES`.
  """
  shares = [str(share) for share in results["shares"]]
  header = ["graph", "ranker", *(f"{share} %" for share in shares)]
  rows = []
  for graph, by_share in results["known"].items():
    # The largest share has all rankers.
    for ranker in by_share[max(shares, key=int)]["rankers"]:
      cells = [by_share[share]["rankers"].get(ranker, {}).get(figure) for share in shares]
      rows.append([graph, ranker, *(result_tables.cell(figure, cell) for cell in cells)])
  return header, rows


def detail_rows(results: Mapping[str, Any]) -> _Rows:
  """One row per graph and ranker: all figures at the largest share."""
  share = str(max(results["shares"]))
  return _figure_rows({graph: by_share[share] for graph, by_share in results["known"].items()})


def across_rows(results: Mapping[str, Any]) -> _Rows:
  """One row per graph and ranker: all figures on the program that training never saw."""
  return _figure_rows(results["across"])


def _figure_rows(places: Mapping[str, Mapping[str, Any]]) -> _Rows:
  header = ["graph", "ranker", *(_TITLES.get(name) or result_tables.TITLES[name]
                                 for name in _SHOWN)]
  return header, [
      [graph, ranker, *(result_tables.cell(name, figures.get(name)) for name in _SHOWN)]
      for graph, place in places.items() for ranker, figures in place["rankers"].items()]


def _optional(value: float | None, text: Any) -> str:
  return "-" if value is None else text(value)


def graphs(results: Mapping[str, Any]) -> str:
  """The graphs as Markdown."""
  return tables.markdown(*graph_rows(results))


def tau(results: Mapping[str, Any]) -> str:
  """Tau over the share of the configurations as Markdown."""
  return tables.markdown(*known_rows(results))


def apart(results: Mapping[str, Any]) -> str:
  """OPA over pairs that differ by more than noise, over the share of the configurations."""
  return tables.markdown(*known_rows(results, "opa_apart"))


def details(results: Mapping[str, Any]) -> str:
  """All figures at the largest share as Markdown."""
  return tables.markdown(*detail_rows(results))


def across(results: Mapping[str, Any]) -> str:
  """All figures on another program as Markdown."""
  return tables.markdown(*across_rows(results))
