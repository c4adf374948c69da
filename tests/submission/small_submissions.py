"""Small submissions, and one corruption of a file at a time."""

from collections.abc import Sequence
import random
from typing import NamedTuple

from hypothesis import strategies as st

from tpugraphs_rank import submission
from tpugraphs_rank.submission import expectation as expectation_lib

# Names and numbers of configurations, in the order of the file.
GRAPHS: Sequence[tuple[str, str, dict[str, int]]] = (
    ("tile:xla", "tile", {"alexnet_1f": 9, "alexnet_2": 2, "bert_7c": 5, "mnasnet_3d": 14}),
    ("layout:xla:default", "layout", {"resnet50.4x4.fp32": 8, "unet_3d.4x4.bf16": 11}),
    ("layout:xla:random", "layout", {"resnet50.4x4.fp32": 7}),
    ("layout:nlp:default", "layout", {"albert_en": 10, "bert_pretraining": 12}),
    ("layout:nlp:random", "layout", {"albert_en": 11}),
)


def expectation() -> submission.Expectation:
  """What is expected of `GRAPHS`: tile rows of at most 5, layout rows whole."""
  rows = [
      submission.ExpectedRow(f"{collection}:{stem}", collection, kind,
                             min(5, count) if kind == "tile" else count, count)
      for collection, kind, graphs in GRAPHS for stem, count in graphs.items()]
  return expectation_lib.Expectation(tuple(rows), "the made-up graphs")


EXPECTATION = expectation()


@st.composite
def valid(draw: st.DrawFn) -> bytes:
  """A valid file for `EXPECTATION`."""
  # One number instead of a hundred draws: permutations drawn one by one take most of a test's time.
  rng = random.Random(draw(st.integers(0, 2**32)))
  return b"ID,TopConfigs\n" + b"".join(
      f"{row.id},{';'.join(map(str, rng.sample(range(row.num_configs), row.length)))}\n".encode()
      for row in EXPECTATION.rows)


def is_valid(data: bytes, expected: submission.Expectation = EXPECTATION, strict: bool = False
             ) -> bool:
  """The slow and obvious check: whether `data` is a file that a writer could have written.

  The rows may be in any order. Without `strict`, the writer may also be a program that writes a
  byte order mark, CR LF, quotes, empty lines, no last newline or more of the ranking of a tile.
  """
  if not strict:
    data = data.removeprefix(b"\xef\xbb\xbf")
    data += b"" if data.endswith(b"\n") else b"\n"
  header, *lines = data.split(b"\n")
  if lines[-1:] != [b""]:
    return False
  lines = lines[:-1]
  if not strict:
    header, *lines = map(_plain, [header, *lines])
    lines = [line for line in lines if line]
  fields = [line.split(b",") for line in lines]
  by_id = {row.id.encode(): row for row in expected.rows}
  if header != b"ID,TopConfigs" or any(len(row) != 2 for row in fields) or (
      sorted(by_id) != sorted(name for name, _ in fields)):
    return False
  for name, body in fields:
    row = by_id[name]
    names = {str(index).encode() for index in range(row.num_configs)}
    entries = body.split(b";")
    longest = row.num_configs if row.kind == "tile" and not strict else row.length
    if not set(entries) <= names or len(set(entries)) != len(entries) or not (
        row.length <= len(entries) <= longest):
      return False
  return True


def _plain(line: bytes) -> bytes:
  """A line without CR, and its two fields without quotes."""
  line = line.removesuffix(b"\r")
  fields = line.split(b",")
  inner = [field[1:-1] if len(field) > 1 and field[:1] == field[-1:] == b'"' else field
           for field in fields]
  return line if len(fields) != 2 or any(b'"' in field for field in inner) else b",".join(inner)


class Harmless(NamedTuple):
  """A file that is valid with warnings, and its canonical form."""

  data: bytes
  canonical: bytes


@st.composite
def harmless(draw: st.DrawFn) -> Harmless:
  """A valid file as other programs write it, in any order of its rows."""
  canonical = draw(valid())
  rng = random.Random(draw(st.integers(0, 2**32)))
  rows = _lines(canonical)[1:]
  if draw(st.booleans()):
    for place, expected in enumerate(EXPECTATION.rows):
      if expected.kind == "tile":
        rest = set(range(expected.num_configs)) - set(
            map(int, rows[place].partition(",")[2].split(";")))
        more = rng.sample(sorted(rest), rng.randint(0, len(rest)))
        rows[place] += "".join(f";{index}" for index in more)
  if draw(st.booleans()):
    rng.shuffle(rows)
  lines = ["ID,TopConfigs", *rows]
  if draw(st.booleans()):
    lines = [",".join(f'"{field}"' if rng.random() < 0.5 else field for field in line.split(","))
             for line in lines]
  if draw(st.booleans()):
    lines.insert(rng.randint(1, len(lines)), "")
  ends = draw(st.sampled_from([("\n",), ("\r\n",), ("\n", "\r\n")]))
  data = "".join(line + rng.choice(ends) for line in lines)
  if draw(st.booleans()):
    data = data.removesuffix("\n")
  return Harmless((draw(st.sampled_from(["", "\ufeff"])) + data).encode(), canonical)


class Corrupted(NamedTuple):
  """A file with one corruption.

  Attributes:
    what: the corruption, for a failure's message.
    data: the file.
    where: faults (line, ID) of which one at least must be named; "" for what is about no row.
  """
  what: str
  data: bytes
  where: list[tuple[int, str]]


_WRONG_ENTRIES = ("-1", "+1", " 1", "1 ", "\t1", "01", "00", "1.0", "1e0", "", "x", "١", "½",
                  "0x1", "1_0", "nan", "None", "1\u00a0", "9" * 30, "'1'", "1,1", "#1")


def _lines(data: bytes) -> list[str]:
  return data.decode().splitlines()


def _joined(lines: Sequence[str], end: str = "\n") -> bytes:
  return "".join(line + end for line in lines).encode()


@st.composite
def corrupted(draw: st.DrawFn) -> Corrupted:
  """A valid file with one corruption, such as a person, an editor or a full disk makes."""
  data = draw(valid())
  return draw(st.sampled_from(_KINDS))(draw, data)


def _pick(draw: st.DrawFn, lines: Sequence[str]) -> tuple[int, str]:
  """A row: its place in the lines, and its ID. Its line is one more."""
  place = draw(st.integers(1, len(lines) - 1))
  return place, lines[place].partition(",")[0]


def _row_deleted(draw, data):
  lines = _lines(data)
  place, name = _pick(draw, lines)
  del lines[place]
  return Corrupted("row deleted", _joined(lines), [(place + 1, name)])


def _row_repeated(draw, data):
  lines = _lines(data)
  place, name = _pick(draw, lines)
  to = draw(st.integers(1, len(lines)))
  lines.insert(to, lines[place])
  # The later one is the extra one.
  return Corrupted("row repeated", _joined(lines), [(max(to, place + (to <= place)) + 1, name)])


def _id_changed(draw, data):
  lines = _lines(data)
  place, name = _pick(draw, lines)
  at = draw(st.integers(0, len(name) - 1))
  other = draw(st.sampled_from([name[:at] + name[at + 1:], name[:at] + "Z" + name[at + 1:],
                                name[:at] + "Z" + name[at:], name.upper(), name + ".npz",
                                name.rpartition(":")[2], name.replace(":", "/"), ""]))
  lines[place] = other + lines[place][len(name):]
  return Corrupted(f"ID is {other!r}", _joined(lines), [(place + 1, name)])


def _header_changed(draw, data):
  header = draw(st.sampled_from([
      "id,topconfigs", "ID;TopConfigs", "ID,TopConfigs,", "ID, TopConfigs", " ID,TopConfigs",
      '"ID,TopConfigs"', '"ID",TopConfigs"', "ID,TopConfig", "ID\tTopConfigs", "", ",", "ID",
      "\ufeff\ufeffID,TopConfigs", "ID,TopConfigs\0", "ID,TopConfigs "]))
  return Corrupted(f"header {header!r}", _joined([header, *_lines(data)[1:]]), [(1, "")])


def _header_deleted(draw, data):
  del draw
  return Corrupted("header deleted", _joined(_lines(data)[1:]), [(1, "")])


def _header_again(draw, data):
  lines = _lines(data)
  to = draw(st.integers(1, len(lines)))
  lines.insert(to, lines[0])
  return Corrupted("header again", _joined(lines), [(to + 1, "")])


def _entry_changed(draw, data):
  lines = _lines(data)
  place, name = _pick(draw, lines)
  entries = lines[place].partition(",")[2].split(";")
  expected = EXPECTATION.rows[place - 1]
  at = draw(st.integers(0, len(entries) - 1))
  kind = draw(st.sampled_from(["wrong", "beyond", "repeated", "dropped", "inserted", "padded"]))
  if kind == "wrong":
    entries[at] = draw(st.sampled_from(_WRONG_ENTRIES))
  elif kind == "beyond":
    entries[at] = str(draw(st.integers(expected.num_configs, 10**20)))
  elif kind == "repeated":
    entries[at] = entries[at - 1]  # Every row has at least two.
  elif kind == "dropped":
    del entries[at]
  elif kind == "inserted":
    entries.insert(at, draw(st.sampled_from(entries)))
  else:
    entries += entries[-1:] * draw(st.integers(1, 5))
  lines[place] = f"{name},{';'.join(entries)}"
  return Corrupted(f"entry {kind}: {lines[place]!r}", _joined(lines), [(place + 1, name)])


def _separator_changed(draw, data):
  lines = _lines(data)
  place, name = _pick(draw, lines)
  old, new = draw(st.sampled_from([
      *((";", new) for new in (",", " ", ":", "|", "\t", ";;", "; ", " ;", "", "-", ".", "；")),
      *((",", new) for new in (";", "\t", "", " ", ",,", ", ", " ,", ":", "，", ",;"))]))
  at = draw(st.sampled_from([i for i, char in enumerate(lines[place]) if char == old]))
  lines[place] = lines[place][:at] + new + lines[place][at + 1:]
  return Corrupted(f"{old!r} to {new!r}: {lines[place]!r}", _joined(lines), [(place + 1, name)])


def _row_wrapped(draw, data):
  lines = _lines(data)
  place, name = _pick(draw, lines)
  body = lines[place].partition(",")[2]
  lines[place] = draw(st.sampled_from([
      f" {name},{body}", f"{name},{body} ", f"{name} ,{body}", f"{name}, {body}", f"{name},{body};",
      f"{name},;{body}", f'"{name},{body}', f'{name},{body}"', f'"{name}" ,"{body}"',
      f'"{name},{body}"', f"'{name}','{body}'", f"{name},{body},", f"{name},[{body}]", f"{name},",
      name, f",{body}", f'"""{name}""",{body}', f"\ufeff{name},{body}", f"0,{name},{body}",
      f"{name},{body},{body}", f"{name}\u200b,{body}", f"#{name},{body}"]))
  return Corrupted(f"row is {lines[place]!r}", _joined(lines), [(place + 1, name)])


def _byte_inserted(draw, data):
  lines = data.splitlines()
  place = draw(st.integers(1, len(lines) - 1))
  name = lines[place].partition(b",")[0].decode()
  at = draw(st.integers(0, len(lines[place])))
  byte = draw(st.sampled_from([b"\0", b"\xff", b"\xe9", b"\xef\xbb\xbf", b"\xc3", b"\x1a", b"\x7f",
                               b"\x0b", b"\xe2\x80\xa8", b"\x85", b"\x1b[2J"]))
  lines[place] = lines[place][:at] + byte + lines[place][at:]
  return Corrupted(f"{byte!r} in {lines[place]!r}", b"\n".join(lines) + b"\n", [(place + 1, name)])


def _line_end_changed(draw, data):
  lines = data.split(b"\n")[:-1]
  kind = draw(st.sampled_from(["CR", "CR CR LF", "none", "all CR"]))
  place = draw(st.integers(0, len(lines) - 2))
  name = lines[place].partition(b",")[0].decode() if place else ""
  if kind == "all CR":
    return Corrupted(kind, data.replace(b"\n", b"\r"), [(1, "")])
  end = {"CR": b"\r", "CR CR LF": b"\r\r\n", "none": b""}[kind]
  before, after = b"\n".join(lines[:place + 1]), b"\n".join(lines[place + 1:])
  return Corrupted(f"{kind} after line {place + 1}", before + end + after + b"\n",
                   [(place + 1, name)])


def _blank_line(draw, data):
  lines = _lines(data)
  to = draw(st.integers(0, len(lines)))
  lines.insert(to, draw(st.sampled_from([" ", "\t", "\u00a0", ";", ","])))
  return Corrupted(f"blank line {to + 1}", _joined(lines), [(to + 1, "")])


def _cut_short(draw, data):
  size = draw(st.integers(0, len(data) - 2))
  line = data[:size].count(b"\n") + 1
  # The line that is cut, or the first that is gone.
  name = "" if line == 1 else _lines(data)[line - 1].partition(",")[0]
  return Corrupted(f"cut to {size} bytes", data[:size], [(line, name)])


def _encoded(draw, data):
  encoding = draw(st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32"]))
  return Corrupted(encoding, data.decode().encode(encoding), [(1, "")])


def _twice(draw, data):
  del draw
  first = EXPECTATION.rows[0]
  return Corrupted("the file twice", data + data, [(len(_lines(data)) + 1, ""),
                                                   (len(_lines(data)) + 2, first.id)])


_KINDS = (_row_deleted, _row_repeated, _id_changed, _header_changed, _header_deleted,
          _header_again, _entry_changed, _separator_changed, _row_wrapped, _byte_inserted,
          _line_end_changed, _blank_line, _cut_short, _encoded, _twice)
