"""matplotlib: figures as PNG and chart data in `display` events, at plt.show() or at the end of
the run.

Loads nothing itself: it acts on matplotlib once a cell or the zygote has imported it.
"""

import io
import sys
import weakref

BACKEND = "module://crownest_kernel.inline"

# Figures shown during this run, so that the end of the run does not show them a second time.
_shown = weakref.WeakSet()
_gcf = None


def configure(matplotlib):
    """Makes `inline` the backend, unless the environment asks for another one. Called when
    matplotlib has been imported."""
    import os

    if not os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = BACKEND


def remember_plots(axes):
    """Called when matplotlib.axes has been imported: keeps what hist() and others compute."""
    from .charts import records

    records.watch(axes.Axes)


def open_figures():
    """Whether pyplot holds figures of our backend."""
    global _gcf
    if _gcf is None:
        helpers = sys.modules.get("matplotlib._pylab_helpers")
        if helpers is None:
            return False
        _gcf = helpers.Gcf
    return bool(_gcf.figs) or len(_shown) > 0


def is_figure(value):
    """Whether `value` is a matplotlib figure."""
    module = sys.modules.get("matplotlib.figure")
    return module is not None and issubclass(type(value), module.Figure)


def render(figure):
    """PNG bytes of a figure that has something in it, cut to what is drawn."""
    if not figure.axes and not figure.lines and not figure.patches and not figure.images:
        if not figure.texts and not figure.artists:
            return None
    _shown.add(figure)
    buffer = io.BytesIO()
    if figure.canvas is None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(figure)
    figure.canvas.print_figure(
        buffer,
        format="png",
        dpi=figure.dpi,
        facecolor=figure.get_facecolor(),
        edgecolor=figure.get_edgecolor(),
        bbox_inches="tight",
    )
    return buffer.getvalue()


def add_chart(data, figure):
    """The chart data of a figure that has been drawn, into its bundle."""
    from . import charts

    document = charts.of_figure(figure)
    if document is not None:
        data[charts.MIME] = document


def show_figure(figure):
    """Publishes one figure."""
    from . import display

    data, metadata = display.bundle(figure)
    if len(data) > 1:
        display.publish(data, metadata)


def show_all():
    """plt.show(): publishes the open figures in the order of their numbers and closes them."""
    from matplotlib import pyplot

    for manager in pyplot._pylab_helpers.Gcf.get_all_fig_managers():
        show_figure(manager.canvas.figure)
    pyplot.close("all")


def end_of_run(interrupted):
    """Publishes what the cell left open, in the inline backend; closes it. After an interrupt
    the user waits for the prompt, not for a picture."""
    try:
        managers = [m for m in _gcf.get_all_fig_managers() if _is_inline(m)]
        if managers:
            if not interrupted:
                for manager in managers:
                    if manager.canvas.figure not in _shown:
                        show_figure(manager.canvas.figure)
            pyplot = sys.modules.get("matplotlib.pyplot")
            for manager in managers:
                if pyplot is not None:
                    pyplot.close(manager.canvas.figure)
                else:
                    _gcf.destroy(manager)
    finally:
        _shown.clear()


def _is_inline(manager):
    inline = sys.modules.get("crownest_kernel.inline")
    return inline is not None and isinstance(manager, inline.FigureManager)
