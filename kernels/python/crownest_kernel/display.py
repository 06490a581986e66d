"""Values to MIME bundles; `result`, `display` and `clear` events; display() and clear_output().

Consults IPython's formatters when IPython is loaded, so that what a library registers there
counts; otherwise the object's own `_repr_*_` methods. Everything in a bundle comes from tenant
code: type, size, depth and numbers are checked, since one invalid frame ends the context.
"""

import base64
import binascii
import builtins
import math
import sys

from . import figures, interactive, tracebacks
from .frames import FRAME_BYTES_MAX, encode, encode_text_result

ENTRY_BYTES_MAX = 8 * 1024 * 1024
# Below the frame's limit by what the envelope and metadata may take.
BUNDLE_BYTES_MAX = 11 * 1024 * 1024
ENTRIES_MAX = 64
MIME_CHARS_MAX = 200
METADATA_BYTES_MAX = 64 * 1024
# serde_json stops at 128 levels; the envelope and the bundle take some of them.
JSON_DEPTH_MAX = 64
DISPLAY_ID_CHARS_MAX = 200
SHORT_TEXT_CHARS_MAX = 64 * 1024
NOTICE_CHARS_MAX = 2_000

_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("application/pdf", "_repr_pdf_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
)
_repr = repr
_BINARY = frozenset(("application/pdf", "application/octet-stream"))
_PLAIN_TYPES = frozenset((int, float, bool, complex, bytes, type(None)))

# Figures in the words of a library, from which chart data is made.
_DESCRIBED = ("application/vnd.plotly.", "application/vnd.vegalite.")

_TABLE_LIBRARIES = ("pandas", "polars", "pyarrow")
# Past whatever a metaclass puts in their place.
_mro, _module_of = type.__dict__["__mro__"].__get__, type.__dict__["__module__"].__get__

_kernel = None
# Set by shell.py once IPython is there.
formatters = None
mimebundle_formatter = None
pretty = None


def bind(kernel):
    """`kernel` is where events go; display() becomes a builtin, as in a notebook."""
    global _kernel
    _kernel = kernel
    builtins.display = show


class Ready(dict):
    """An entry that is JSON already: the kernel made it, of plain types alone."""

    # Of a table: the file that the whole of it is in.
    export = None


class TooDeep(ValueError):
    """JSON nested beyond JSON_DEPTH_MAX, or in a cycle."""


# === values to bundles ===


def bundle(value):
    """(data, metadata) of a value. Raises what its __repr__ raises; what another
    representation raises goes to stderr and leaves that representation out."""
    kind = type(value)
    if kind is str:
        return {"text/plain": value}, {}
    if kind in _PLAIN_TYPES:
        return {"text/plain": _repr(value)}, {}
    if _displays_itself(value):
        return {}, {}
    data, metadata = _own_bundle(value)
    for mime, method in _METHODS:
        if mime in data and not _has_printer(mime, value):
            continue
        if mime == "image/jpeg" and "image/png" in data:
            continue
        _add(data, metadata, mime, _represent(value, mime, method))
    if len(data) and figures.is_figure(value):
        figures.add_chart(data, value)
    elif interactive.is_bokeh(value):
        interactive.add_bokeh_chart(data, value)
    elif _is_of_a_table_library(kind):
        _add_table(data, value)
    if "text/plain" not in data:
        data["text/plain"] = plain_text(value)
    return data, metadata


def _is_of_a_table_library(kind):
    """Whether a class, or one that it inherits from, is of a library of tables."""
    for base in _mro(kind)[:-1]:
        module = _module_of(base)
        if type(module) is str and module.startswith(_TABLE_LIBRARIES):
            return True
    return False


def _add_table(data, value):
    """The table as data, and as a file where the run asked for one."""
    from . import tables

    library = tables.library_of(value)
    document = tables.of(value, library) if library is not None else None
    if document is None:
        return
    data[tables.MIME] = document
    if _kernel.table_export is not None and _kernel.run is not None and not _kernel.forked:
        document.export = _export(value, library)


def _export(value, library):
    """Where the whole table was written, or None, after a notice."""
    from .tables import export

    form, run = _kernel.table_export, _kernel.run
    _kernel.exports += 1
    try:
        if form not in export.FORMATS:
            raise ValueError("there is no format %r" % form)
        if _kernel.exports > export.EXPORTS_MAX:
            raise ValueError("a run exports at most %d tables" % export.EXPORTS_MAX)
        return export.write(value, library, form, run, _kernel.exports)
    except Exception as error:
        message = "%s: %s" % (type(error).__name__, error)
        notice("table_not_exported", message)
        return None


def plain_text(value):
    """text/plain: a string is itself, everything else its (pretty) repr."""
    # By its type: what it says of its class may be a lie, as that of a mock is.
    if issubclass(type(value), str):
        return str.__str__(value)
    if pretty is not None:
        return pretty(value)
    return _repr(value)


def _displays_itself(value):
    method = _method(value, "_ipython_display_")
    if method is None:
        return False
    try:
        method()
    except NotImplementedError:
        return False
    except Exception as error:
        _report(error)
        return False
    return True


def _own_bundle(value):
    """What `_repr_mimebundle_` gives, or a formatter registered in its place."""
    try:
        printer = None
        if mimebundle_formatter is not None:
            printer = _printer(mimebundle_formatter, value)
        if printer is not None:
            answer = printer(value)
        else:
            method = _method(value, "_repr_mimebundle_")
            if method is None:
                return {}, {}
            answer = method(include=None, exclude=None)
    except Exception as error:
        _report(error)
        return {}, {}
    data, metadata = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
    if not isinstance(data, dict):
        if data is not None:
            sys.stderr.write("_repr_mimebundle_ gave a %s, not a dict\n" % type(data).__name__)
        return {}, {}
    data = dict(data)
    return data, dict(metadata) if isinstance(metadata, dict) else {}


def _represent(value, mime, name):
    """One representation, or None. Registered printers come before the object's own method."""
    try:
        formatter = formatters.get(mime) if formatters is not None else None
        printer = _printer(formatter, value) if formatter is not None else None
        if printer is not None:
            return printer(value)
        if mime == "image/png" and figures.is_figure(value) and not _has_own_format(value):
            return figures.render(value)
        if mime == "text/html" and interactive.is_bokeh(value):
            return interactive.bokeh_page(value)
        method = _method(value, name)
        return method() if method is not None else None
    except NotImplementedError:
        return None
    except Exception as error:
        _report(error)
        return None


def _add(data, metadata, mime, answer):
    if isinstance(answer, tuple) and len(answer) == 2:
        answer, extra = answer
        if isinstance(extra, dict) and extra:
            metadata[mime] = extra
    if answer is not None:
        data[mime] = answer


def _method(value, name):
    """The method `name`, looked up on the type: a proxy or mock that answers to every name is
    not asked, nor is a class for what its instances do."""
    kind = type(value)
    if issubclass(kind, type) or not callable(getattr(kind, name, None)):
        return None
    return getattr(value, name)


def _printer(formatter, value):
    try:
        return formatter.lookup_by_type(type(value))
    except KeyError:
        return None


def _has_printer(mime, value):
    formatter = formatters.get(mime) if formatters is not None else None
    return formatter is not None and _printer(formatter, value) is not None


def _has_own_format(figure):
    """Whether the user has asked for another format of figures, as set_matplotlib_formats does."""
    return any(_has_printer(mime, figure) for mime in ("image/svg+xml", "image/jpeg", "application/pdf"))


def _report(error):
    """A representation failed: the user sees why, the run goes on."""
    try:
        tracebacks.print_foreign(error, sys.stderr)
    except Exception:
        pass


# === bundles to events ===


def result_event(run, data, metadata, count):
    """A `result` event, ready for the channel."""
    if len(data) == 1 and not metadata:
        text = data.get("text/plain")
        if type(text) is str and len(text) <= SHORT_TEXT_CHARS_MAX:
            try:
                return encode_text_result(run, text, count)
            except UnicodeEncodeError:
                pass
    return _fit({"ev": "result", "run": run, "count": count}, data, metadata)


def publish(data, metadata=None, display_id=None, update=False):
    """Sends a `display` event. Output printed before it is flushed before it."""
    if _kernel.run is None or _kernel.forked:
        return
    event = {"ev": "display", "run": _kernel.run}
    if display_id is not None:
        event["display_id"] = str(display_id)[:DISPLAY_ID_CHARS_MAX]
    if update:
        event["update"] = True
    body = _fit(event, data, metadata or {})
    _kernel.streams.flush()
    _kernel.channel.send(body)


def notice(code, message):
    """Says something about the run that is not an error."""
    if _kernel.run is None or _kernel.forked:
        return
    message = str.__str__(message)[:NOTICE_CHARS_MAX]
    event = {"ev": "notice", "run": _kernel.run, "code": code, "message": message}
    _kernel.channel.send(event)


def clear_output(wait=False):
    """Sends a `clear` event."""
    if _kernel.run is None or _kernel.forked:
        return
    _kernel.streams.flush()
    _kernel.channel.send({"ev": "clear", "run": _kernel.run, "wait": bool(wait)})


def _fit(event, data, metadata):
    """The encoded event with everything in it that may and can be sent."""
    checked, omitted = {}, []
    described, own = False, {}
    for mime, value in list(data.items())[:ENTRIES_MAX]:
        if not isinstance(mime, str) or not 0 < len(mime) <= MIME_CHARS_MAX:
            continue
        value = _checked_entry(mime, value)
        if value is None:
            continue
        if type(value) is Ready and value.export is not None:
            own["export"] = value.export
        described = described or mime.startswith(_DESCRIBED)
        # What the kernel made is bounded already; to find out again would be to encode it twice.
        size = 0 if type(value) is Ready else _size(value)
        if size > ENTRY_BYTES_MAX:
            omitted.append({"mime": mime, "bytes": size})
        else:
            checked[mime] = value
    if described:
        interactive.add_described_chart(checked)
    clean = _checked_metadata(metadata)
    while True:
        if omitted:
            own["omitted"] = omitted
        if own:
            clean["crownest"] = own
        event["data"] = checked
        event["metadata"] = clean
        body = encode(event)
        if len(body) <= min(BUNDLE_BYTES_MAX, FRAME_BYTES_MAX) or not checked:
            return body
        largest = max(checked, key=lambda mime: len(encode(checked[mime])))
        omitted.append({"mime": largest, "bytes": _size(checked.pop(largest))})


def _checked_entry(mime, value):
    """The entry as the protocol wants it, or None when it is no such thing."""
    try:
        if type(value) is Ready:
            return value
        if mime.endswith("json"):
            return json_safe(value, JSON_DEPTH_MAX)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _text_of_bytes(mime, bytes(value))
        if isinstance(value, str):
            text = str.__str__(value)
            if is_binary(mime):
                text = "".join(text.split())
                binascii.a2b_base64(text, strict_mode=True)
            return text
    except (TooDeep, binascii.Error, ValueError, RecursionError) as error:
        sys.stderr.write("%s was left out of an output: %s\n" % (mime, error))
        return None
    sys.stderr.write(
        "%s was left out of an output: it is of type %s\n" % (mime, type(value).__name__)
    )
    return None


def _text_of_bytes(mime, value):
    """Raw bytes become base64, unless a library has done that already, or text."""
    if not is_binary(mime):
        return value.decode("utf-8", "replace")
    if value[:1] not in (b"\x89", b"\xff", b"%", b"G", b"R", b"I", b"M", b"\x00"):
        try:
            binascii.a2b_base64(value, strict_mode=True)
            return value.decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            pass
    return base64.b64encode(value).decode("ascii")


def is_binary(mime):
    """Whether the entry travels as base64."""
    if mime in _BINARY:
        return True
    return mime.startswith(("image/", "audio/", "video/")) and mime != "image/svg+xml"


def _size(value):
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    return len(encode(value))


def _checked_metadata(metadata):
    if not metadata:
        return {}
    try:
        clean = json_safe(metadata, JSON_DEPTH_MAX)
        if isinstance(clean, dict) and len(encode(clean)) <= METADATA_BYTES_MAX:
            clean.pop("crownest", None)
            return clean
    except (TooDeep, ValueError, TypeError, RecursionError):
        pass
    return {}


def json_safe(value, depth):
    """A copy that every JSON reader accepts: no NaN, no integer beyond 64 bits, string keys,
    bounded depth. Other objects become their text."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < (1 << 64) else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str.__str__(value)
    if depth == 0:
        raise TooDeep("it is nested more than %d levels deep" % JSON_DEPTH_MAX)
    if isinstance(value, dict):
        return {
            key if type(key) is str else str(key): json_safe(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_safe(item, depth - 1) for item in value]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return json_safe(item(), depth - 1)
    return str(value)


# === what cells call ===


class Handle:
    """An output that can be replaced; what display(..., display_id=True) returns."""

    def __init__(self, display_id):
        self.display_id = display_id

    def __repr__(self):
        return "<display %s>" % self.display_id

    def display(self, value, **options):
        show(value, display_id=self.display_id, **options)

    def update(self, value, **options):
        show(value, display_id=self.display_id, update=True, **options)


def show(*values, display_id=None, update=False, raw=False, metadata=None, **_options):
    """display(): shows values at once, as rich as they can be. With IPython loaded, its own
    display() takes this one's place and arrives at the same publish()."""
    made = display_id is True
    if made:
        import uuid

        display_id = uuid.uuid4().hex
    for value in values:
        data, extra = (dict(value), {}) if raw else bundle(value)
        if data:
            publish(data, {**extra, **(metadata or {})}, display_id, update)
    return Handle(display_id) if display_id is not None else None


def update_display(value, *, display_id, **options):
    """Replaces the output shown with that id."""
    show(value, display_id=display_id, update=True, **options)
