"""IPython: magics, `!command`, `object?`, and its display formatters.

Cells never run through IPython's run_cell: that costs ten times a plain cell. A cell that only
IPython understands is rewritten by its input transformer and then run like any other. The shell
object exists so that magics, `from IPython.display import display` and libraries that look for
get_ipython() find what they expect. It writes no history and no profile, and starts no thread.

IPython is optional: everything here answers "not there" when it cannot be imported.
"""

import builtins
import io
import sys

from . import display, figures

_shell = None


def current():
    """IPython's shell, or None while IPython is not loaded."""
    return _shell


def transform(kernel, source):
    """`source` as plain Python, or None when IPython is missing or changes nothing."""
    if _shell is None:
        try:
            import IPython.core.interactiveshell  # noqa: F401  the import hook calls install()
        except ImportError:
            return None
    if _shell is None:
        install(kernel)
    # Where %cd keeps its history; there only for contexts that use magics.
    kernel.namespace.setdefault("_dh", _shell.history_manager.dir_hist)
    _shell.user_ns_hidden.setdefault("_dh", None)
    changed = _shell.transform_cell(source)
    return None if changed == source else changed


def install(kernel):
    """Builds the shell. Called as soon as IPython.core.interactiveshell has been imported."""
    global _shell
    if _shell is None:
        _shell = _build(kernel)
        _use_formatters(_shell)
        # IPython's own display() now works, arrives at publish() and knows more options.
        from IPython.display import display as ipython_display

        builtins.display = ipython_display
        builtins.get_ipython = _shell.get_ipython


def forget_namespace(namespace):
    """The namespace was emptied; the shell must not refer to what was in it."""
    if _shell is not None:
        _shell.user_ns = namespace
        _shell.init_user_ns()


def _use_formatters(shell):
    formatter = shell.display_formatter
    display.formatters = formatter.formatters
    display.mimebundle_formatter = formatter.mimebundle_formatter
    plain = formatter.formatters["text/plain"]
    from IPython.lib.pretty import RepresentationPrinter

    def pretty(value):
        stream = io.StringIO()
        printer = RepresentationPrinter(
            stream,
            plain.verbose,
            plain.max_width,
            plain.newline,
            max_seq_length=plain.max_seq_length,
            singleton_pprinters=plain.singleton_printers,
            type_pprinters=plain.type_printers,
            deferred_pprinters=plain.deferred_printers,
        )
        printer.pretty(value)
        printer.flush()
        return stream.getvalue()

    display.pretty = pretty


def _build(kernel):
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Formatter(DisplayFormatter):
        """Same bundles for display(x) as for x at the end of a cell."""

        def format(self, obj, include=None, exclude=None):
            data, metadata = display.bundle(obj)
            for mime in list(data):
                if (include and mime not in include) or (exclude and mime in exclude):
                    del data[mime]
            return data, metadata

    class Publisher(DisplayPublisher):
        def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **_):
            display_id = (transient or {}).get("display_id")
            display.publish(data, metadata, display_id, update)

        def clear_output(self, wait=False):
            display.clear_output(wait)

    class Hook(DisplayHook):
        """For code that magics run through IPython itself."""

        def __call__(self, result=None):
            if result is not None and not self.quiet():
                data, metadata = display.bundle(result)
                display.publish(data, metadata)

    class Shell(InteractiveShell):
        def init_ipython_dir(self, ipython_dir):
            """No directory: nothing is read from one or written to one."""

        def init_profile_dir(self, profile_dir):
            """No profile either."""

        def init_virtualenv(self):
            """sys.path is the kernel's business."""

        def init_user_ns(self):
            """A context's namespace holds what the user put there, and nothing else."""

        def init_sys_modules(self):
            """`__main__` is the kernel's module already."""

        def enable_gui(self, gui=None):
            """No windows."""

        def enable_matplotlib(self, gui=None):
            """`%matplotlib inline` is how it is anyway."""
            if gui not in (None, "auto", "inline", "agg"):
                print("matplotlib shows figures inline in this context.", file=sys.stderr)
            return "inline", figures.BACKEND

        def _showtraceback(self, etype, evalue, stb):
            print("\n".join(stb), file=sys.stderr)

        def ask_exit(self):
            raise SystemExit

        system = InteractiveShell.system_raw

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.autoindent = False
    config.InteractiveShell.display_page = False
    Shell.display_pub_class.default_value = Publisher
    Shell.displayhook_class.default_value = Hook
    shell = _instance(Shell, config, kernel)
    shell.display_formatter = Formatter(parent=shell)
    # Magics may remember something (%cd, %alias, %store) for as long as the context lives.
    shell.db = {}
    return shell


def _instance(shell_class, config, kernel):
    """The singleton, with what IPython changes in the process put back."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr", "displayhook", "excepthook")}
    open_before = builtins.__dict__.get("open")
    shell = shell_class.instance(
        config=config, user_module=kernel.module, user_ns=kernel.namespace
    )
    for name, value in before.items():
        setattr(sys, name, value)
    builtins.open = open_before
    return shell
