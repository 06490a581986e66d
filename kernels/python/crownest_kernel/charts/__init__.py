"""Chart data: what a figure shows, as numbers and names, beside its picture.

One document per figure, `application/vnd.crownest.chart+json`, whichever library has drawn it;
docs/charts.md is its definition. Loaded when the first figure is shown.

    budget     how much of a figure is kept, and the count of what is not
    values     numbers, dates, texts and colours as JSON
    document   charts and series put together; what kind of chart it is
    records    what matplotlib's hist, boxplot and others were told, which their artists forget
    axes       matplotlib: labels, scales, ticks, categories, dates of an axis
    panel      matplotlib: what the readers of artists share
    artists    matplotlib: lines, points, areas, segments
    grids      matplotlib: heatmaps, images, contours
    space      matplotlib: lines and points of three dimensions
    bars       matplotlib: bars, histograms, error bars
    summaries  matplotlib: boxes, violins, pies
    figure     matplotlib: subplots, twins, colour bars, legends, annotations
    plotly, vega, bokeh   the same from what those libraries describe, with `traces` of plotly,
               `units` of Vega-Lite, and `described`, what the three share

Everything that is read belongs to the tenant: an artist may raise, lie or be endless. What cannot
be read is named in `unknown`, what does not fit is counted in `omitted`, and a figure that cannot
be read at all has no chart data. Nothing here changes a figure or ends a run.
"""

from ..display import Ready

MIME = "application/vnd.crownest.chart+json"
PLOTLY_MIME = "application/vnd.plotly.v1+json"


def of_figure(figure):
    """The document of a matplotlib figure, or None when it shows no data."""
    from .figure import read

    return _made(read, figure)


def of_bundle(data):
    """The document of a figure that a bundle describes in a library's own words, or None."""
    for mime, value in data.items():
        if mime == PLOTLY_MIME:
            from .plotly import read
        elif mime.startswith("application/vnd.vegalite.v") and mime.endswith("json"):
            from .vega import read
        else:
            continue
        return _made(read, value)
    return None


def of_bokeh(model):
    """The document of a bokeh figure or layout, or None."""
    from .bokeh import read

    return _made(read, model)


def _made(read, source):
    try:
        document = read(source)
    except Exception:
        return None
    return Ready(document) if document is not None else None
