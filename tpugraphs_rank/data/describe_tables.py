"""Formats the description of a collection as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from tpugraphs_rank import escaping
from tpugraphs_rank import tables
from tpugraphs_rank.data import describe

# Maximum lines of the lists below the table. The JSON has all entries.
_SHOWN = 10

_NONE = "-"


def text(description: describe.Description) -> str:
  """The table by split, followed by dtypes, opcodes, twins and problems."""
  summary = description.summary()
  splits = summary["splits"]
  parts = [
      f"{summary['collection']} ({summary['kind']}, {summary['target']}) in {summary['folder']}",
      tables.text(["", *splits], _rows(splits), rule=False).rstrip(),
      "Ranges are minimum / median / maximum over graphs, followed by the total.",
      _dtypes(splits), _opcodes(summary), _twins(summary["twins"]),
      _damaged(splits),
      f"Missing: {'; '.join(description.missing)}." if description.partial and description.missing
      else ""]
  return "\n\n".join(part for part in parts if part) + "\n"


def _rows(splits: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
  """One row per fact and one column per split, without empty rows."""
  rows: list[tuple[str, Any]] = [
      ("graph files", lambda s: f"{s['files']}" + (
          "" if s["expected"] is None else f" of {s['expected']}")),
      ("damaged", lambda s: _count(len(s["damaged"]))),
      ("not read", lambda s: _count(len(s["not_read"]))),
      ("nodes", lambda s: _span(s["nodes"])),
      ("edges", lambda s: _span(s["edges"])),
      ("configurations", lambda s: _span(s["configurations"])),
      ("distinct configurations", lambda s: _span(s["distinct_configurations"])),
      ("configurable nodes", lambda s: _span(s["configurable_nodes"])),
      ("runtimes", _runtimes),
      ("slowest / fastest", lambda s: _span(s["runtimes"]["spread"], ".3g", total=False)),
      ("default's runtime", _normalizers),
      ("repeated configurations", _repeats),
      ("most frequent configuration", lambda s: _most(s["duplicates"])),
      ("relative sd of repeats", lambda s: _percent(s["duplicates"]["relative_sd"])),
      ("one distinct configuration", lambda s: _graphs(s["one_distinct_configuration"])),
      ("equal runtimes, nothing to rank", lambda s: _graphs(s["equal_runtimes"])),
      (f"fewer than {describe.TOP} configurations",
       lambda s: _graphs(s[f"fewer_than_{describe.TOP}_configurations"])),
      (f"fewer than {_list_size(splits)} configurations",
       lambda s: _graphs(s["fewer_configurations_than_a_list"]["graphs"])),
      ("nodes without an edge", lambda s: _in_graphs(
          s["isolated_nodes"]["nodes"], s["isolated_nodes"]["graphs"])),
      ("feature padding declared",
       lambda s: _counts(s["feature_padding"]["declared"], "not declared")),
      ("feature padding observed",
       lambda s: _counts(s["feature_padding"]["observed"], "unclear")),
      ("distinct structures", lambda s: _count(s["structures"])),
      ("on disk", lambda s: size(s["bytes"]["stored"])),
      ("unpacked", lambda s: size(s["bytes"]["unpacked"])),
      ("largest graph unpacked", lambda s: size(s["bytes"]["largest_unpacked"])),
  ]
  cells = [[title, *(cell(split) for split in splits.values())] for title, cell in rows]
  return [row for row in cells if any(cell != _NONE for cell in row[1:])]


def _list_size(splits: Mapping[str, Mapping[str, Any]]) -> int:
  return next(iter(splits.values()))["fewer_configurations_than_a_list"]["list_size"]


def _count(number: int) -> str:
  return f"{number:,}" if number else _NONE


def _graphs(names: Sequence[str]) -> str:
  return tables.counted(len(names), "graph") if names else _NONE


def _in_graphs(number: int, graphs: int) -> str:
  return f"{number:,} in {tables.counted(graphs, 'graph')}" if number else _NONE


def _span(values: Mapping[str, float] | None, form: str = ",.10g", total: bool = True) -> str:
  if values is None:
    return _NONE
  least, median, greatest = (format(values[key], form) for key in ("least", "median", "greatest"))
  span = f"{least} each" if least == greatest else f"{least} / {median} / {greatest}"
  return span + (f"; {values['total']:,}" if total else "")


def _runtimes(split: Mapping[str, Any]) -> str:
  runtimes, graphs = split["runtimes"], split["graphs"]
  if not graphs:
    return _NONE
  if not runtimes["graphs"]:
    return "none (zeros)"
  among = "" if runtimes["graphs"] == graphs else (
      f" in {runtimes['graphs']} of {tables.counted(graphs, 'graph')}")
  return f"{duration(runtimes['least_ns'])} to {duration(runtimes['greatest_ns'])}{among}"


def _normalizers(split: Mapping[str, Any]) -> str:
  normalizers = split["runtimes"]["normalizers"]
  if normalizers is None:
    return _NONE
  several = normalizers["graphs_with_several"]
  return (f"{duration(normalizers['least_ns'])} to {duration(normalizers['greatest_ns'])}"
          + (f" (varies in {tables.counted(several, 'graph')})" if several else ""))


def _repeats(split: Mapping[str, Any]) -> str:
  return _in_graphs(split["duplicates"]["rows"], split["duplicates"]["graphs"])


def _most(duplicates: Mapping[str, Any]) -> str:
  return f"{duplicates['largest']:,} times" if duplicates["largest"] else _NONE


def _percent(share: float | None) -> str:
  return _NONE if share is None else f"{100 * share:.2g} %"


def _counts(counts: Mapping[str, int], otherwise: str) -> str:
  if len(counts) == 1:
    return next(iter(counts)).replace("None", otherwise)
  return ", ".join(f"{otherwise if value == 'None' else value}: {number:,}"
                   for value, number in sorted(counts.items())) or _NONE


def duration(nanoseconds: float) -> str:
  """Nanoseconds in a suitable unit, with three digits."""
  for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
    if nanoseconds >= scale:
      return f"{nanoseconds / scale:.3g} {unit}"
  return f"{nanoseconds:.3g} ns"


def size(number: float) -> str:
  """Bytes in a suitable decimal unit, with three digits."""
  for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
    if number >= scale:
      return f"{number / scale:.3g} {unit}"
  return f"{number:.3g} B"


def _dtypes(splits: Mapping[str, Mapping[str, Any]]) -> str:
  """The dtypes of all splits together."""
  joined: dict[str, dict[str, int]] = {}
  for split in splits.values():
    for key, counts in split["stored_dtypes"].items():
      totals = joined.setdefault(key, {})
      for dtype, number in counts.items():
        totals[dtype] = totals.get(dtype, 0) + number
  if not joined:
    return ""
  entries = [f"{key} " + " or ".join(
      dtype if len(counts) == 1 else f"{dtype} ({tables.counted(number, 'graph')})"
      for dtype, number in counts.items()) for key, counts in joined.items()]
  return "Stored as: " + ", ".join(entries)


def _opcodes(summary: Mapping[str, Any]) -> str:
  listed = summary["opcodes"]
  if not listed:
    return ""
  rows = [[entry["name"], f"{entry['nodes']:,}", f"{100 * entry['share']:.3g} %"]
          for entry in listed[:_SHOWN]]
  if len(listed) > _SHOWN:
    rest = listed[_SHOWN:]
    rows.append([f"{len(rest)} others", f"{sum(entry['nodes'] for entry in rest):,}",
                 f"{100 * sum(entry['share'] for entry in rest):.3g} %"])
  header = [f"opcode ({len(listed)})", "nodes", "share"]
  table = tables.text(header, rows, rule=False).rstrip()
  unseen = [f"Opcodes of {split} that do not occur in train: " + ", ".join(
      f"{name} ({tables.counted(number, 'node')})" for name, number in counts.items())
            for split, counts in (summary["opcodes_not_in_train"] or {}).items() if counts]
  return "\n".join([table, *unseen])


def _twins(pairs: Sequence[Mapping[str, Any]]) -> str:
  lines = []
  for entry in pairs:
    if entry["graphs"]:
      name, twin = entry["examples"][0]
      lines.append(
          f"structural twins (equal opcodes and edges) of graphs in {entry['in']}: "
          f"{tables.counted(entry['graphs'], 'graph')} of {entry['of']}, "
          f"{entry['with_equal_features']:,} of them with equal node features; for example, {name} "
          f"is a twin of {twin}")
  return "\n".join(lines)


def _damaged(splits: Mapping[str, Mapping[str, Any]]) -> str:
  return "\n".join(escaping.message(f"{title}: {error}") for title, key in (
      ("damaged", "damaged"), ("not read", "not_read"))
                   for split in splits.values() for error in split[key].values())
