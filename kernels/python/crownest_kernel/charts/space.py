"""matplotlib: lines and points of three dimensions. Surfaces and solids are named as unknown."""

from mpl_toolkits.mplot3d import art3d

from . import values
from .axes import Axis
from .panel import Unreadable, color_scale, hex_color, points, series


def z_axis(ax, budget):
    """The third axis."""
    return Axis(ax.zaxis, budget)


def reader(z):
    """A reader of artists like artists.read, which knows the third axis."""

    def read(panel, artist):
        if issubclass(type(artist), art3d.Line3D):
            color = hex_color(artist.get_color())
            return _filled(panel, z, series("line", panel, artist, color), artist.get_data_3d())
        if issubclass(type(artist), (art3d.Path3DCollection, art3d.Patch3DCollection)):
            return _cloud(panel, z, artist)
        raise Unreadable

    return read


def _cloud(panel, z, collection):
    # What get_facecolor() gives is shaded by the distance.
    color = hex_color(getattr(collection, "_facecolor3d", None))
    columns = list(collection._offsets3d)
    shades = collection.get_array()
    if shades is not None and len(shades) == len(columns[0]):
        columns.append(shades)
    made = series("scatter", panel, collection, None if len(columns) == 4 else color)
    _filled(panel, z, made, columns)
    if len(columns) == 4:
        made["color_scale"] = color_scale(collection)
    return made


def _filled(panel, z, made, columns):
    kept, omitted = points(panel, *columns)
    for name, axis, column in zip("xyz", (panel.x, panel.y, z), kept):
        made[name] = axis.convert(column)
    if len(kept) == 4:
        made["values"] = values.numbers(kept[3])
    if omitted:
        made["omitted"] = omitted
    return made
