"""Text tables (aligned columns for a terminal, Markdown) and counts in sentences."""

from collections.abc import Sequence

from tpugraphs_rank import escaping

LEFT, RIGHT = "l", "r"


def text(header: Sequence[str], rows: Sequence[Sequence[str]], align: str | None = None,
         rule: bool = True) -> str:
  """Formats a table for a terminal.

  Args:
    header: titles of the columns.
    rows: the cells, one list per row. Characters that are not printable are escaped.
    align: one letter per column, "l" or "r". By default, the first column is aligned to the left
      and all others to the right.
    rule: whether a line of dashes separates the header from the rows.

  Returns:
    The lines of the table, each ending with a newline.
  """
  align = align or LEFT + RIGHT * (len(header) - 1)
  # Names of graphs and programs come from files.
  rows = [[escaping.printable(cell) for cell in row] for row in rows]
  widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
  lines = [[cell.ljust(width) if side == LEFT else cell.rjust(width)
            for cell, width, side in zip(line, widths, align)] for line in (header, *rows)]
  if rule:
    lines.insert(1, ["-" * width for width in widths])
  return "".join("  ".join(line).rstrip() + "\n" for line in lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Formats a Markdown table. All columns but the first are aligned to the right."""
  lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def counted(count: int, noun: str) -> str:
  """A number with its noun, such as "1 graph" or "2,000 graphs"."""
  return f"{count:,} {noun}{'' if count == 1 else 's'}"
