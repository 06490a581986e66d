"""plotly, altair and bokeh: libraries whose figures are drawn in a browser.

What they describe goes to the client, which draws it; their own choice would put megabytes of
JavaScript beside every figure. Chart data goes with it. Nothing is loaded here before a cell has
loaded the library.
"""

import os
import sys


def configure_plotly(renderers):
    """Figures as JSON that a client can draw."""
    if not os.environ.get("PLOTLY_RENDERER"):
        renderers.renderers.default = "plotly_mimetype"


def configure_altair(altair):
    """Figures as Vega-Lite, without the page around it."""
    altair.renderers.enable("mimetype")


def configure_bokeh(io):
    """show() displays in the cell, with or without output_notebook()."""
    from bokeh.io import notebook

    load = show_app = _nothing
    notebook.install_notebook_hook("jupyter", load, _show_bokeh, show_app, overwrite=True)
    io.state.curstate().output_notebook()


def _nothing(*_args, **_options):
    """bokeh's JavaScript is not loaded into this output, nor is a server started for it."""


def _show_bokeh(model, _state, _notebook_handle):
    from . import display

    display.show(model)


def is_bokeh(value):
    """Whether `value` is a figure or a layout of bokeh's."""
    module = sys.modules.get("bokeh.models.layouts")
    kind = getattr(module, "LayoutDOM", None)
    return issubclass(type(kind), type) and issubclass(type(value), kind)


def bokeh_page(model):
    """A page that takes bokeh's JavaScript from where it is published."""
    from bokeh.embed import file_html
    from bokeh.resources import CDN

    return file_html(model, CDN, title="bokeh")


def add_bokeh_chart(data, model):
    """The chart data of a figure or a layout, into its bundle."""
    from . import charts

    document = charts.of_bokeh(model)
    if document is not None:
        data[charts.MIME] = document


def add_described_chart(data):
    """The chart data of a figure that a bundle has in its library's own words."""
    from . import charts

    document = charts.of_bundle(data)
    if document is not None:
        data[charts.MIME] = document
