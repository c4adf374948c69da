"""A local HTTP server of files, with the faults that real servers and connections have."""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import http.server
import sys
import threading
import time

_PIECE = 1 << 14


@dataclasses.dataclass(frozen=True)
class Fault:
  """The fault of one GET.

  Attributes:
    cut: bytes of the body after which the connection ends.
    status: status to send instead of the file.
    ignore_range: send the whole file, whatever part was requested.
    stall: seconds before the first byte of the body.
    headers: headers that replace or extend the normal ones.
  """

  cut: int | None = None
  status: int | None = None
  ignore_range: bool = False
  stall: float = 0.0
  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Request:
  method: str
  path: str
  headers: Mapping[str, str]


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, request, client_address):
    if not isinstance(sys.exc_info()[1], ConnectionError):  # A client that was killed.
      super().handle_error(request, client_address)


class FileServer:
  """Serves `files` at `address` inside a `with` block.

  Attributes:
    files: content by path, without a leading slash. May be changed at any time.
    faults: the faults of the next GETs of each path, in order.
    ranges: whether the server supports ranges.
    validator: "etag", "weak", "date" or "": how the server identifies the version of a file.
    lengths: whether the server sends the length; otherwise the body is chunked.
    head_status: status of HEAD requests.
    pace: seconds between two chunks of a body.
    requests: all requests.
    sent: total bytes of bodies sent.
    on_sent: called with `sent` after each chunk.
  """

  def __init__(self, files: dict[str, bytes]):
    self.files = dict(files)
    self.faults: dict[str, list[Fault]] = {}
    self.ranges = True
    self.validator = "etag"
    self.lengths = True
    self.head_status = 200
    self.pace = 0.0
    self.requests: list[Request] = []
    self.sent = 0
    self.on_sent: Callable[[int], None] = lambda sent: None
    self._lock = threading.Lock()
    self._server = _Server(("127.0.0.1", 0), self._handler())
    self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

  @property
  def address(self) -> str:
    return f"http://127.0.0.1:{self._server.server_address[1]}/"

  def gets(self) -> list[Request]:
    return [request for request in self.requests if request.method == "GET"]

  def __enter__(self) -> "FileServer":
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()

  def _validators(self, content: bytes) -> dict[str, str]:
    name = hashlib.sha256(content).hexdigest()
    return {
        "etag": {"ETag": f'"{name}"'},
        # Each version has its own second.
        "weak": {"ETag": f'W/"{name}"', "Last-Modified": _date(int(name[:6], 16))},
        "date": {"Last-Modified": _date(int(name[:6], 16))},
        "": {},
    }[self.validator]

  def answer(self, request: Request, fault: Fault) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body according to RFC 9110, except for the fault."""
    if fault.status is not None:
      return fault.status, dict(fault.headers), b"no"
    content = self.files.get(request.path.lstrip("/"))
    if content is None:
      return 404, {}, b"no such file"
    headers = self._validators(content)
    names = [headers.get("ETag"), headers.get("Last-Modified")]
    status = 200
    requested_range = request.headers.get("Range")
    # If-Range is true if it identifies the served version by a strong validator.
    condition = request.headers.get("If-Range")
    same = condition is None or condition in names and not condition.startswith("W/")
    if requested_range and self.ranges and same and not fault.ignore_range:
      start = int(requested_range.removeprefix("bytes=").rstrip("-"))
      if start >= len(content):
        return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
      status = 206
      headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
      content = content[start:]
    return status, {**headers, **fault.headers}, content

  def _handler(outer):  # pylint: disable=no-self-argument
    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"
      disable_nagle_algorithm = True  # Waits 40 ms between headers and body otherwise.

      def do_HEAD(self):
        request = Request("HEAD", self.path, dict(self.headers))
        outer.requests.append(request)
        status, headers, body = outer.answer(request, Fault())
        self._start(status if outer.head_status == 200 else outer.head_status, headers, len(body))

      def do_GET(self):
        request = Request("GET", self.path, dict(self.headers))
        with outer._lock:
          outer.requests.append(request)
          faults = outer.faults.get(self.path.lstrip("/"), [])
          fault = faults.pop(0) if faults else Fault()
        status, headers, body = outer.answer(request, fault)
        self._start(status, headers, len(body))
        time.sleep(fault.stall)
        end = len(body) if fault.cut is None else min(fault.cut, len(body))
        try:
          for begin in range(0, end, _PIECE):
            self._send(body[begin:min(begin + _PIECE, end)])
            time.sleep(outer.pace)
          if fault.cut is None and not outer.lengths:
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:  # The client was killed.
          self.close_connection = True
        if fault.cut is not None:
          self.close_connection = True

      def _start(self, status, headers, length):
        self.send_response(status)
        for name, value in headers.items():
          self.send_header(name, value)
        if outer.lengths:
          self.send_header("Content-Length", str(length))
        else:
          self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

      def _send(self, chunk):
        self.wfile.write(chunk if outer.lengths else b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.flush()
        with outer._lock:
          outer.sent += len(chunk)
        outer.on_sent(outer.sent)

      def log_message(self, *_):
        pass

    return Handler


def _date(second: int) -> str:
  return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
