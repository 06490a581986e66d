"""The control socket: `u32 length (big endian) | JSON` in both directions.

Owns framing, strict JSON and the rule that only the driver process itself writes. Does not know
what the events mean.
"""

import fcntl
import json
import os
import re
import select
import struct
import threading

FRAME_BYTES_MAX = 12 * 1024 * 1024
READ_BYTES = 64 * 1024
# The kernel's own descriptors live above those that programs open and close in loops.
PRIVATE_FD_MIN = 900

# Bound once: a cell may replace any attribute of these modules.
_read, _write, _close, _set_blocking = os.read, os.write, os.close, os.set_blocking
_unpack = struct.Struct(">I").unpack_from
_pack = struct.Struct(">I").pack
_main_thread = threading.main_thread
_get_ident = threading.get_ident

# serde refuses NaN and lone surrogates, so does this encoder or its caller. Cycles cannot occur:
# every value has gone through display.json_safe or is built here.
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
# How many bytes wait; select() would touch five pages of stack for the same answer.
_FIONREAD, _NONE = 0x541B, bytes(4)
_quote = json.encoder.encode_basestring
_decode = json.JSONDecoder().decode
_SURROGATE = re.compile("[\ud800-\udfff]")


class PeerGone(Exception):
    """Init closed the control socket; there is nobody left to run for."""


def private_number():
    """From here on, programs do not reach descriptors by accident."""
    soft = os.sysconf("SC_OPEN_MAX")
    return max(3, min(PRIVATE_FD_MIN, soft - 32))


def private_fd(fd):
    """A close-on-exec duplicate of `fd` out of the way of programs."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, private_number())


def pack(body):
    """The frame of a body."""
    return _pack(len(body)) + body


def encode(event):
    """JSON bytes of one event. Lone surrogates become the text of their escape."""
    text = _encode(event)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(lambda m: "\\\\u%04x" % ord(m.group()), text).encode()


def encode_text_result(run, text, count):
    """The most frequent result, without a walk through dicts."""
    frame = '{"ev":"result","run":%d,"data":{"text/plain":%s},"metadata":{},"count":%d}'
    return (frame % (run, _quote(text), count)).encode()


def encode_done(run, status, count, cpu_us):
    """The end of every run."""
    frame = '{"ev":"done","run":%d,"status":"%s","count":%d,"cpu_us":%d}'
    return (frame % (run, status, count, cpu_us)).encode()


class Channel:
    """Frames over a stream socket. Any thread may send, the main thread alone receives."""

    def __init__(self, interrupts):
        self.fd = -1
        self.run = None
        self._interrupts = interrupts
        self._lock = threading.Lock()
        self._unread = b""
        self._queued = []

    def adopt(self, fd):
        """Takes over `fd` and moves it out of the way of programs."""
        self.fd = private_fd(fd)
        _close(fd)

    def abandon(self):
        """Runs in a child that user code forked: it must not speak for the driver."""
        fd, self.fd = self.fd, -1
        self._lock = threading.Lock()
        self._queued = []
        if fd >= 0:
            try:
                _close(fd)
            except OSError:
                pass

    def queue(self, event):
        """Sends `event` together with the next one that is sent."""
        self._queued.append(event)

    def send(self, event):
        """Writes everything queued, then `event`, in one piece."""
        if self.fd < 0:
            return
        main = _get_ident() == _main_thread().ident
        if main:
            self._interrupts.hold()
        try:
            with self._lock:
                parts = []
                for item in (*self._queued, event):
                    body = item if type(item) is bytes else encode(item)
                    parts.append(_pack(len(body)))
                    parts.append(body)
                self._queued.clear()
                self._write_all(b"".join(parts))
        finally:
            if main:
                self._interrupts.release()

    def _write_all(self, data):
        sent = self._call(_write, data)
        while sent < len(data):
            data = memoryview(data)[sent:]
            sent = self._call(_write, data)

    def _call(self, function, argument):
        """os.read or os.write on the socket, which blocks even if a cell has set it not to."""
        while True:
            try:
                return function(self.fd, argument)
            except OSError as error:
                if error.__traceback__.tb_next is not None:
                    # Not of the call: a signal handler of the user's has raised it here.
                    raise
                if not isinstance(error, BlockingIOError):
                    raise PeerGone(str(error)) from error
                _set_blocking(self.fd, True)

    def receive(self):
        """The next frame, as a dict. Blocks."""
        while True:
            frame = self._next_unread()
            if frame is not None:
                return frame
            data = self._call(_read, READ_BYTES)
            if not data:
                raise PeerGone("end of file")
            self._unread = self._unread + data if self._unread else data

    def has_unread(self):
        """Whether something has been read that no receive() has given yet."""
        return bool(self._unread)

    def receive_waiting(self):
        """The next frame, or None while it has not come whole. To be called when the socket is
        readable or something is unread: then it blocks for no longer than a frame takes."""
        frame = self._next_unread()
        if frame is None:
            data = self._call(_read, READ_BYTES)
            if not data:
                raise PeerGone("end of file")
            self._unread += data
            frame = self._next_unread()
        return frame

    def feed(self, frame):
        """Makes `frame` the next that is received, while nothing has come from the peer."""
        self._unread = frame

    def is_idle(self):
        """Whether nothing has come from the peer. Does not block."""
        return not self._unread and fcntl.ioctl(self.fd, _FIONREAD, _NONE) == _NONE

    def take_interrupt(self, run):
        """Whether an `interrupt` frame for `run` has come already. Does not block."""
        while select.select((self.fd,), (), (), 0)[0]:
            data = self._call(_read, READ_BYTES)
            if not data:
                break
            self._unread += data
        rest, found = self._unread, False
        while len(rest) >= 4 and len(rest) >= 4 + _unpack(rest)[0]:
            length = _unpack(rest)[0]
            frame = _decode(rest[4 : 4 + length].decode())
            found = found or (frame.get("op") == "interrupt" and frame.get("run") == run)
            rest = rest[4 + length :]
        return found

    def _next_unread(self):
        unread = self._unread
        if len(unread) < 4:
            return None
        length = _unpack(unread)[0]
        if length > FRAME_BYTES_MAX:
            raise PeerGone("frame of %d bytes" % length)
        if len(unread) < 4 + length:
            return self._read_large(length) if length > READ_BYTES else None
        self._unread = unread[4 + length :]
        return _decode(unread[4 : 4 + length].decode())

    def _read_large(self, length):
        """A frame longer than one read, without quadratic copying."""
        data = bytearray(self._unread)
        while len(data) < 4 + length:
            piece = self._call(_read, 1024 * 1024)
            if not piece:
                raise PeerGone("end of file in a frame")
            data += piece
        self._unread = bytes(data[4 + length :])
        return _decode(data[4 : 4 + length].decode())
