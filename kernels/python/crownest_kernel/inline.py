"""The matplotlib backend of a context: Agg, with show() that sends the picture to the client.

matplotlib imports it by the name in figures.BACKEND.
"""

from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from . import figures


class FigureManager(FigureManagerBase):
    """Shows one figure at figure.show(), all of them at plt.show()."""

    def show(self):
        figures.show_figure(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block=None):
        figures.show_all()


class FigureCanvas(FigureCanvasAgg):
    """Agg canvas that pyplot gives the manager above."""

    manager_class = FigureManager
