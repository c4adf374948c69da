"""What a file is, judged by its content: text, and the types that people pass by mistake."""

from collections.abc import Callable, Iterator
import io
import re
import zipfile

from tpugraphs_rank import commands

HOW_TO_EXPORT = (
    "export the program as HLO: in JAX with jax.jit(f).lower(x).as_text(dialect='hlo'), anywhere "
    "with XLA_FLAGS=--xla_dump_to=FOLDER; the documentation page \"Export your program\" has the "
    "steps for JAX, TensorFlow and PyTorch")

_BLANK = re.compile(r"(?:\s+|/\*.*?\*/|//[^\n]*)*", re.DOTALL)
# Bytes that no text contains. Nearly every protobuf does.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MLIR = re.compile(
    r"""(?:module\b(?!\s*=)|"?builtin\.module\b|func\.func\b|"?(?:stablehlo|mhlo|chlo)\."""
    r"""|[#!][A-Za-z_][\w.\-$]*\s*=|\{-\#)""")
_MODULE = re.compile(r"HloModule\b")
# Two lines of a computation, for texts without the line that names their module.
_COMPUTATION = re.compile(r"(?:ENTRY\s+)?%?[A-Za-z_][\w.\-]*\s*(?:\(|\{)", re.ASCII)
_INSTRUCTION = re.compile(
    r"(?:ROOT\s+)?%?[A-Za-z_][\w.\-]*\s*=\s*(?:[a-z]+[0-9a-z]*\[|\()", re.ASCII)
MLIR_BYTECODE = b"ML\xefR"


def decode(data: bytes) -> str | None:
  """The text of a text file without its byte order mark; None for binary content."""
  for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"),
                         (b"\xfe\xff", "utf-16-be")):
    if data.startswith(mark):
      return data[len(mark):].decode(encoding, "replace")
  return None if _BINARY.search(data, 0, 4096) else data.decode("utf-8", "replace")


def program_start(text: str) -> int:
  """The position of the first character after white space and comments."""
  match = _BLANK.match(text)
  return match.end() if match else 0


def is_hlo(text: str) -> bool:
  """Whether a text is HLO."""
  start = program_start(text)
  if _MODULE.match(text, start):
    return True
  end = text.find("\n", start)
  if end < 0 or not _COMPUTATION.match(text, start) or not text[start:end].rstrip().endswith("{"):
    return False
  blank = _BLANK.match(text, end)
  return blank is not None and _INSTRUCTION.match(text, blank.end()) is not None


def is_mlir(text: str) -> bool:
  """Whether a text is MLIR, for example StableHLO."""
  return _MLIR.match(text, program_start(text)) is not None


def describe(data: bytes, text: str | None) -> tuple[str, str] | None:
  """What a file is that holds no program that can be read.

  Args:
    data: its content.
    text: its text, if it is a text file.

  Returns:
    A phrase that continues "FILE is ...", and what to do instead; None if the type is unknown.
  """
  if text is not None:
    start = text[program_start(text):][:400]
    for pattern, what, remedy in _TEXTS:
      if pattern.match(start):
        return what, remedy
    return None
  if data.startswith(b"PK\x03\x04"):
    return _zip(data)
  for offset, magic, what, remedy in _MAGIC:
    if data.startswith(magic, offset):
      return what, remedy
  if MLIR_BYTECODE in data[:1 << 16]:
    return ("a file around MLIR bytecode (jax.export writes such files)",
            "write the program alone: open('f.mlir', 'w').write(exported.mlir_module())")
  for is_type, what, remedy in _MESSAGES:
    if is_type(data):
      return what, remedy
  return None


_PACKED = "unpack it, and pass the file that it contains"
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it: zstd -d FILE"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file", "unpack it: lz4 -d FILE"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _PACKED),
    (257, b"ustar", "a tar archive", _PACKED),
    (0, b"\x7fELF", "machine code (an ELF file)", HOW_TO_EXPORT),
    (0, b"BC\xc0\xde", "LLVM bitcode", HOW_TO_EXPORT),
    (0, b"\x89HDF", "an HDF5 file (as .h5 models are)", HOW_TO_EXPORT),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", HOW_TO_EXPORT),
    (4, b"TFL3", "a TensorFlow Lite model", HOW_TO_EXPORT),
    (0, b"\x80\x02", "a Python pickle", HOW_TO_EXPORT),
    (0, b"\x80\x03", "a Python pickle", HOW_TO_EXPORT),
    (0, b"\x80\x04", "a Python pickle (as .pkl and old .pt files are)", HOW_TO_EXPORT),
    (0, b"\x80\x05", "a Python pickle (as .pkl and old .pt files are)", HOW_TO_EXPORT),
    (0, b"\x00\x05\x16\x07", "a companion file of macOS (AppleDouble), not the file itself",
     "pass the file of the same name without ._"),
    (0, b"\x89PNG", "an image", HOW_TO_EXPORT),
    (0, b"%PDF", "a PDF document", HOW_TO_EXPORT),
)

_TEXTS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), what, remedy) for pattern, what, remedy in (
        (r"version https://git-lfs", "a Git LFS pointer instead of the file",
         "download the file itself: git lfs pull"),
        (r"<(!doctype|html|\?xml|svg)\b", "a web page or XML, not the file that was to be "
         "downloaded", "download the file again"),
        (r"BufferAssignment:", "a buffer assignment of XLA", "pass the .txt or .hlo.pb file of "
         "the same module from the dump folder, without -buffer-assignment in its name"),
        (r"(total bytes used|allocation \d+:|memory usage)", "a memory report of XLA",
         "pass the .txt or .hlo.pb file of the same module from the dump folder"),
        (r"ThunkSequence|0*\d+: k[A-Z]\w+\s", "a thunk sequence of XLA",
         "pass the .txt or .hlo.pb file of the same module from the dump folder"),
        (r";\s*ModuleID|target (triple|datalayout)|source_filename\s*=|define\s[^\n]*@",
         "LLVM IR", HOW_TO_EXPORT),
        (r"\.version\s+\d+\.\d+", "PTX assembly", HOW_TO_EXPORT),
        (r"\{ ?lambda\b|let\b[^\n]*\bin\b", "a jaxpr", "export the program instead: "
         "jax.jit(f).lower(x).as_text(dialect='hlo')"),
        (r"ExportedProgram:|graph\(\):|class GraphModule", "a PyTorch graph (torch.fx)",
         HOW_TO_EXPORT),
        (r"(hlo_module|computations|modules)\s*\{|name:\s*\"",
         "a protobuf in text format", "write the binary form: message.SerializeToString()"),
        (r"(strict )?digraph\b", "a drawing of a graph (DOT)",
         "pass the .txt or .hlo.pb file of the same module"),
        (r"[\[{]\s*(\"|\]|\}|\d|\{|\[)", "JSON", HOW_TO_EXPORT),
        (r"(#!|import |from \w[\w.]* import |def |@|class )", "Python or shell source",
         HOW_TO_EXPORT),
    ))


def _zip(data: bytes) -> tuple[str, str]:
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      names = archive.namelist()[:1000]
  except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
    return "a damaged zip archive", "copy or download it again"
  if any(name.endswith(".npy") for name in names):
    return ("a graph or another NumPy archive (.npz)",
            "pass the raw .pb file that it comes from, or put graphs into a collection with "
            + commands.command("make-collection"))
  if any(name.endswith(("data.pkl", "archive_format", "models/model.json",
                        "serialized_exported_program.json")) for name in names):
    return "a PyTorch model (.pt or .pt2)", HOW_TO_EXPORT
  if "model.weights.h5" in names:
    return "a Keras model (.keras)", HOW_TO_EXPORT
  return "a zip archive", _PACKED


def _fields(data: bytes, most: int = 200) -> Iterator[tuple[int, int | bytes]]:
  """The first fields of a protobuf message: number, and value or content. Ends where it is damaged.
  """
  position = 0
  for _ in range(most):
    tag, position = _varint(data, position)
    number, kind = tag >> 3, tag & 7
    if not number or position >= len(data):
      return
    if kind == 0:
      value, position = _varint(data, position)
      yield number, value
    elif kind in (1, 5):
      position += 8 if kind == 1 else 4
    elif kind == 2:
      size, position = _varint(data, position)
      yield number, data[position:position + size]
      position += size
    else:
      return


def _varint(data: bytes, position: int) -> tuple[int, int]:
  """A number and the position after it; 0 at the end of the data."""
  value = 0
  for shift in range(0, 70, 7):
    if position >= len(data):
      return 0, position
    byte = data[position]
    position += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, position
  return 0, len(data)


def _first(data: bytes) -> dict[int, int | bytes]:
  """The first value of each field."""
  first: dict[int, int | bytes] = {}
  for number, value in _fields(data):
    first.setdefault(number, value)
  return first


def _bytes(value: int | bytes | None) -> bytes:
  return value if isinstance(value, bytes) else b""


def _is_graph_def(data: bytes) -> bool:
  # GraphDef.node = 1 with name = 1 and op = 2.
  node = _first(_bytes(_first(data).get(1)))
  return (re.fullmatch(rb"[\w.\-/^>:]+", _bytes(node.get(1))) is not None
          and re.fullmatch(rb"_?[A-Z]\w*", _bytes(node.get(2))) is not None)


def _is_saved_model(data: bytes) -> bool:
  # SavedModel.saved_model_schema_version = 1, meta_graphs = 2 with graph_def = 2.
  first = _first(data)
  return first.get(1) == 1 and _is_meta_graph(_bytes(first.get(2)))


def _is_meta_graph(data: bytes) -> bool:
  # MetaGraphDef.meta_info_def = 1, graph_def = 2.
  first = _first(data)
  return 1 in first and _is_graph_def(_bytes(first.get(2)))


def _is_profile(data: bytes) -> bool:
  # XSpace.planes = 1 with name = 2.
  for number, value in _fields(data):
    if number == 1 and re.match(
        rb"/(host|device):|#?Task Environment|/host$", _bytes(_first(_bytes(value)).get(2))):
      return True
  return False


def _is_onnx(data: bytes) -> bool:
  # ModelProto.ir_version = 1, graph = 7, opset_import = 8.
  first = _first(data)
  version = first.get(1)
  return isinstance(version, int) and 0 < version < 100 and bool(_bytes(first.get(7))) and (
      isinstance(first.get(8), bytes) or isinstance(first.get(2), bytes))


_MESSAGES: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (_is_saved_model, "a TensorFlow SavedModel", HOW_TO_EXPORT),
    (_is_graph_def, "a TensorFlow GraphDef", HOW_TO_EXPORT),
    (_is_meta_graph, "a TensorFlow MetaGraphDef", HOW_TO_EXPORT),
    (_is_profile, "a profile of TensorFlow or JAX (xplane)",
     "a profile has no whole program; " + HOW_TO_EXPORT),
    (_is_onnx, "an ONNX model", HOW_TO_EXPORT),
)
