"""matplotlib: grids of cells and what is drawn over a plane. Heatmaps, images, hexagons, contours."""

import matplotlib.colors as colors
import numpy as np

from . import values
from .budget import thinned
from .panel import ALWAYS, Unreadable, color_scale, points, series

LEVELS_MAX = 200
# Where cells are, for annotations; taken out again.
GRID = object()


def hexagons(panel, collection):
    """hexbin is cells around their centres; other polygons are drawings."""
    shades = collection.get_array()
    offsets = np.ma.asarray(collection.get_offsets(), dtype=float).filled(np.nan)
    if shades is None or len(offsets) < 2 or len(collection.get_paths()) != 1:
        raise Unreadable
    (xs, ys, counts), omitted = points(panel, offsets[:, 0], offsets[:, 1], shades)
    made = series("hexbin", panel, collection)
    made.update({"x": panel.x.convert(xs), "y": panel.y.convert(ys)})
    made.update({"values": values.numbers(counts), "color_scale": color_scale(collection)})
    if omitted:
        made["omitted"] = omitted
    return made


def mesh(panel, artist):
    """pcolormesh, hist2d, seaborn's heatmap."""
    corners = np.ma.asarray(artist.get_coordinates(), dtype=float).filled(np.nan)
    array = artist.get_array()
    rows, columns = corners.shape[0] - 1, corners.shape[1] - 1
    if array is None or array.ndim > 2:
        raise Unreadable
    cells = np.ma.asarray(array, dtype=float).filled(np.nan)
    smooth = cells.size == (rows + 1) * (columns + 1) != rows * columns
    cells = cells.reshape((rows + 1, columns + 1) if smooth else (rows, columns))
    xs, ys = corners[0, :, 0], corners[:, 0, 1]
    if not (np.allclose(corners[:, :, 0], xs) and np.allclose(corners[:, :, 1].T, ys)):
        raise Unreadable  # not a grid of rows and columns
    middle = (lambda edges: edges) if smooth else (lambda edges: (edges[:-1] + edges[1:]) / 2)
    return _heatmap(panel, artist, cells, middle(xs), middle(ys))


def picture(panel, artist):
    """imshow of numbers is a heatmap; of colours, a picture."""
    array = np.ma.asarray(artist.get_array())
    if panel.placed(artist) != (True, True):
        return None
    if array.ndim == 3:
        made = series("image", panel, artist)
        made.update({"width": int(array.shape[1]), "height": int(array.shape[0])})
        left, right, bottom, top = artist.get_extent()
        made.update({"x": panel.x.convert([left, right]), "y": panel.y.convert([bottom, top])})
        return made
    cells = array.astype(float).filled(np.nan)
    left, right, bottom, top = (float(end) for end in artist.get_extent())
    rows, columns = cells.shape
    first, last = (bottom, top) if artist.origin == "lower" else (top, bottom)
    xs = left + (np.arange(columns) + 0.5) * (right - left) / columns
    ys = first + (np.arange(rows) + 0.5) * (last - first) / rows
    return _heatmap(panel, artist, cells, xs, ys)


def _heatmap(panel, mappable, cells, xs, ys):
    """Rows of values: `values[i][j]` is at `y[i]`, `x[j]`."""
    made = series("heatmap", panel, mappable)
    rows, columns = cells.shape
    kept_rows, kept_columns = _grid_kept(panel.budget, rows, columns)
    row_indices, column_indices = thinned(rows, kept_rows), thinned(columns, kept_columns)
    if row_indices is not None:
        cells, ys = cells[row_indices], ys[row_indices]
    if column_indices is not None:
        cells, xs = cells[:, column_indices], xs[column_indices]
    made["x"], made["y"] = panel.x.names(xs), panel.y.names(ys)
    made["values"] = [values.numbers(row) for row in cells]
    made["color_scale"] = color_scale(mappable)
    omitted = rows * columns - kept_rows * kept_columns
    if omitted:
        made["omitted"] = omitted
    made[GRID] = (xs, ys)
    return made


def _grid_kept(budget, rows, columns):
    """The grid that fits, of the same shape as far as that goes."""
    while rows * columns + rows + columns > min(budget.values_left, 2 * budget.points_max):
        if rows >= columns and rows > 1:
            rows = (rows + 1) // 2
        elif columns > 1:
            columns = (columns + 1) // 2
        else:
            break
    budget.take(rows * columns + rows + columns)
    return rows, columns


def contours(panel, artist):
    """contour, contourf: levels, and the lines as far as they fit."""
    made = series("contour", panel, artist)
    levels = values.flat(artist.levels)[:LEVELS_MAX]
    made["levels"] = values.numbers(levels)
    made["filled"] = bool(artist.filled)
    made["color_scale"] = color_scale(artist)
    made["colors"] = [colors.to_hex(color) for color in artist.get_facecolor()[:LEVELS_MAX]] or None
    if not artist.filled:
        made["colors"] = [colors.to_hex(c) for c in artist.get_edgecolor()[:LEVELS_MAX]] or None
    found, omitted = [], 0
    for level, path in zip(made["levels"], artist.get_paths()):
        for polygon in path.to_polygons(closed_only=False):
            corners = np.asarray(polygon, dtype=float)
            kept, missing = points(panel, corners[:, 0], corners[:, 1])
            omitted += missing
            if len(kept[0]):
                found.append(
                    {"level": level, "x": panel.x.convert(kept[0]), "y": panel.y.convert(kept[1])}
                )
    made["paths"] = found
    if omitted:
        made["omitted"] = omitted
    return {name: value for name, value in made.items() if value is not None or name in ALWAYS}
