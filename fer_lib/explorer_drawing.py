"""What the explorer shows besides faces, as plain HTML and SVG: at once, sharp at any width, in the colours of the
theme.

Every function takes data and returns text; numbers stand beside what is drawn, so that nothing is told by colour alone.
"""

import html

import numpy as np

from fer_lib.labels import EXPRESSIONS

BLUE, ORANGE = "#2f86d1", "#d9660a"  # both have a contrast of 3 or more on white and on near-black
WIDTH = 420  # of a drawing, in units that are pixels where it is shown at full size

CSS = ("""<style>
.fer-tile img, img.fer-tile {image-rendering: pixelated; height: auto;}
.fer .fer-wrap.fer-wrap, .fer .fer-wrap .widget-html-content {white-space: normal; height: auto; min-height: 0;"""
       """ line-height: 1.35;
  overflow: visible; overflow-wrap: anywhere;}
.fer-text .widget-html-content {line-height: 1.4;}
.fer-text p {margin: 4px 0;}
.fer-text pre {white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid; border-radius: 3px; padding: 6px;"""
       """ margin: 4px 0;
  color: inherit; background: none; user-select: all; line-height: 1.35;}
.fer-text table {width: 100%; max-width: 30em; border-collapse: collapse; color: inherit; font-size: 12px;"""
       """ border: none; table-layout: auto;}
.fer-text table tr, .fer-text table tr:nth-child(odd), .fer-text table tr:hover {background: none;}
.fer-text th, .fer-text td {padding: 3px 4px; text-align: right; color: inherit; white-space: nowrap; max-width: none;}
.fer-text th {font-weight: normal;}
.fer-text caption {caption-side: top; text-align: left; color: inherit; padding: 2px 0;}
.fer-text abbr {text-decoration: none;}
.fer-text summary {cursor: pointer;}
.fer-text ul {list-style: none; margin: 4px 0; padding: 0;}
.fer-text li {margin: 2px 0; padding: 1px 6px; border-radius: 3px;}
.fer button:focus-visible, .fer select:focus-visible, .fer input:focus-visible, .fer .noUi-handle:focus-visible,
.fer .lm-TabBar-tab:focus-visible {outline: 3px solid #2f86d1; outline-offset: 1px;}
</style>""")
"""Rules for the classes that the explorer's widgets carry; the theme's own colours are kept."""


def percent_list(values, *, title, strong=None):
    """Shares as a list with a bar behind each line: "happiness 83 %".

    values : dict name -> fraction. title : what they are. strong : the name that is set in bold, or None.
    """
    lines = []
    for name, value in values.items():
        share = f"{100 * value:.0f}"
        told = f"{html.escape(name)} {share} %"
        lines.append('<li style="background: linear-gradient(to right, '
                     f'{_tint(BLUE, 0.45)} {share}%, {_tint(BLUE, 0.08)} {share}%)">'
                     f"{f'<b>{told}</b>' if name == strong else told}</li>")
    return f'<p>{html.escape(title)}</p><ul aria-label="{html.escape(title)}">{"".join(lines)}</ul>'


def matrix_table(matrix, *, caption, signed=False, framed=None):
    """A confusion matrix as a table, in percent of the true expression.

    matrix : float [6, 6], fractions, rows the true expression; NaN in rows of absent expressions. signed : a change,
    in points. framed : bool [6, 6], cells that get a frame, or None.
    """
    matrix, limit = np.asarray(matrix), max(0.15, np.nanmax(np.abs(matrix), initial=0)) if signed else 1
    head = "".join(f'<th scope="col"><abbr title="predicted {name}">{name[:3]}</abbr></th>' for name in EXPRESSIONS)
    rows = []
    for row, name in enumerate(EXPRESSIONS):
        cells = [_cell(matrix[row, column], limit, signed, framed is not None and framed[row, column])
                 for column in range(len(EXPRESSIONS))]
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return (f"<table><caption>{html.escape(caption)}</caption><thead><tr><th>true ↓</th>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>")


def _cell(value, limit, signed, framed):
    if not np.isfinite(value):
        return "<td>–</td>"
    tint = _tint(BLUE if value >= 0 else ORANGE, 0.7 * min(1, abs(value) / limit))
    frame = "outline: 2px solid; outline-offset: -2px; font-weight: bold;" if framed else ""
    return f'<td style="background: {tint}; {frame}">{100 * value:{"+" if signed else ""}.0f}</td>'


def _tint(colour, alpha):
    red, green, blue = (int(colour[place:place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha:.2f})"


def interval_rows(values, *, label):
    """One line an expression: a value with its interval beside a zero line.

    values : dict name -> {estimate, low, high}, NaN where unknown. label : what the drawing says, for those who do not
    see it.
    """
    known = [abs(bound) for value in values.values() for bound in value.values() if np.isfinite(bound)]
    limit, left, right, step = min(100, max([5, *known])), 84, 250, 25

    def place(value):
        return (left + right) / 2 + max(-1, min(1, value / limit)) * (right - left) / 2

    height, parts = step * len(values) + 34, []
    for line, (name, value) in enumerate(values.items()):
        y = step * line + 16
        parts.append(_text(left - 8, y + 4, name, anchor="end") + _text(right + 8, y + 4, told(value)))
        if np.isfinite(value["estimate"]):
            parts.append(_bar(place(value["low"]), place(value["high"]), y, place(value["estimate"])))
    base = height - 26
    ticks = "".join(_text(place(value), base + 12, f"{value:+.0f}" if value else "0", anchor="middle")
                    for value in (-limit, 0, limit))
    zero = (f'<line x1="{place(0):.1f}" x2="{place(0):.1f}" y1="2" y2="{base - 2}" '
            'stroke="currentColor" stroke-opacity="0.6"/>')
    return _svg(height, zero + "".join(parts) + ticks, label)


def told(value):
    """A value with its interval, such as +1.4 (-3.0 to +5.8); without one where there is none.

    value : {estimate, low, high}, NaN where unknown.
    """
    if not np.isfinite(value["estimate"]):
        return "unknown"
    reach = f" ({_signed(value['low'])} to {_signed(value['high'])})" if np.isfinite(value["low"]) else ""
    return f"{_signed(value['estimate'])}{reach}"


def _signed(value):
    return f"{value:+.0f}" if abs(value) >= 100 else f"{value:+.1f}"


def _bar(low, high, y, middle):
    line = (f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{BLUE}" stroke-width="3"/>'
            if np.isfinite(low) else "")
    return line + f'<circle cx="{middle:.1f}" cy="{y}" r="5" fill="{BLUE}"/>'


def curve(points, *, baseline, chosen, label, origin):
    """Accuracy against ratio: the chosen arm in colour, the baseline as a line with a band, the others in grey.

    points : DataFrame with arm, ratio, accuracy, low, high (fractions; NaN where unknown), of one test set and one
    number of training images. baseline : name of its arm, or None. chosen : (arm, ratio), drawn larger.
    label : what the drawing says, for those who do not see it. origin : of the training images.
    """
    values = points[["accuracy", "low", "high"]].to_numpy(float).clip(0, 1)
    room, most = max(0.02, 0.08 * np.ptp(values[np.isfinite(values)])), max(1.0, points["ratio"].max())
    low, high = max(0, np.nanmin(values) - room), min(1, np.nanmax(values) + room)
    box = {"left": 46, "right": WIDTH - 10, "top": 10, "bottom": 214}

    def x(ratio):
        return box["left"] + 14 + (ratio / most) ** 0.5 * (box["right"] - box["left"] - 28)

    def y(value):
        share = (min(max(value, low), high) - low) / (high - low)
        return box["bottom"] - share * (box["bottom"] - box["top"])

    parts = [_axes(box, x, y, low, high, most, origin)]
    parts += [_band(row, box, y) for row in points[points["arm"] == baseline].itertuples()]
    others = [arm for arm in dict.fromkeys(points["arm"]) if arm not in (baseline, chosen[0])]
    for place, arm in enumerate(others, start=1):  # to the right and the left in turn, so that none hides another
        rows = points[points["arm"] == arm].sort_values("ratio")
        parts.append(_arm(rows, x, y, shift=4 * ((place + 1) // 2) * (-1) ** place, strong=False))
    if chosen[0] != baseline:
        parts.append(_arm(points[points["arm"] == chosen[0]].sort_values("ratio"), x, y, shift=0, strong=True))
    for row in points[(points["arm"] == chosen[0]) & (points["ratio"] == chosen[1])].itertuples():
        parts.append(f'<circle cx="{x(row.ratio):.1f}" cy="{y(row.accuracy):.1f}" r="9" fill="none" '
                     f'stroke="{ORANGE}" stroke-width="3"/>')
    return _svg(252, "".join(parts), label)


def _axes(box, x, y, low, high, most, origin):
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 6)
    ticks = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step + 0.0  # no -0
    parts = [f'<line x1="{box["left"]}" x2="{box["right"]}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
             'stroke="currentColor" stroke-opacity="0.15"/>'
             + _text(box["left"] - 5, y(tick) + 4, f"{tick:.2f}", anchor="end") for tick in ticks]
    parts += [_text(x(ratio), box["bottom"] + 16, f"{ratio:g}", anchor="middle")
              for ratio in (0, 1, 2, 3, 5, 7, 10) if ratio <= most]
    middle = (box["left"] + box["right"]) / 2
    return "".join(parts) + _text(middle, box["bottom"] + 33, f"ratio (generated ÷ {origin}), square-root scale",
                                  anchor="middle")


def _band(row, box, y):
    line = (f'<line x1="{box["left"]}" x2="{box["right"]}" y1="{y(row.accuracy):.1f}" y2="{y(row.accuracy):.1f}" '
            f'stroke="currentColor" stroke-width="1.5" stroke-dasharray="6 4"><title>{_point(row)}</title></line>')
    if not np.isfinite(row.low):
        return line
    top, height = y(row.high), y(row.low) - y(row.high)
    return (f'<rect x="{box["left"]}" width="{box["right"] - box["left"]}" y="{top:.1f}" height="{height:.1f}" '
            f'fill="currentColor" fill-opacity="0.1"/>{line}')


def _arm(rows, x, y, *, shift, strong):
    """One arm: points with intervals, and a line through them where there are several."""
    look = (f'stroke="{BLUE}" stroke-width="2.5"' if strong
            else 'stroke="currentColor" stroke-opacity="0.4" stroke-width="1.2"')
    fill = f'fill="{BLUE}"' if strong else 'fill="currentColor" fill-opacity="0.4"'
    places = [(x(row.ratio) + shift, row) for row in rows.itertuples()]
    path = " ".join(f"{place:.1f},{y(row.accuracy):.1f}" for place, row in places)
    parts = [f'<polyline points="{path}" fill="none" {look}/>'] if len(places) > 1 else []
    for place, row in places:
        if np.isfinite(row.low):
            parts.append(f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{y(row.low):.1f}" y2="{y(row.high):.1f}" '
                         f"{look}/>")
        parts.append(f'<circle cx="{place:.1f}" cy="{y(row.accuracy):.1f}" r="{5 if strong else 3.5}" {fill}>'
                     f"<title>{_point(row)}</title></circle>")
    return "".join(parts)


def _point(row):
    return html.escape(f"{row.arm}, ratio {row.ratio:g}: {row.accuracy:.3f}" + (
        f" ({row.low:.3f} to {row.high:.3f})" if np.isfinite(row.low) else ""))


def points_table(points, *, name_of):
    """The numbers of `curve`, folded away below it. name_of : function arm -> what it is called."""
    rows = "".join('<tr><th scope="row" style="text-align: left; white-space: normal">'
                   f"{html.escape(name_of(row.arm))}</th><td>{row.ratio:g}</td><td>{_fraction(row)}</td></tr>"
                   for row in points.itertuples())
    return ("<details><summary>The numbers</summary><table><thead><tr><th style=\"text-align: left\">trained on</th>"
            f"<th>ratio</th><th>accuracy</th></tr></thead><tbody>{rows}</tbody></table></details>")


def _fraction(row):
    return f"{row.accuracy:.3f}" + (f" ({row.low:.3f} to {row.high:.3f})" if np.isfinite(row.low) else "")


def _text(x, y, text, *, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(str(text))}</text>'


def _svg(height, inner, label):
    return (f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {WIDTH} {height}" font-size="13" '
            f'fill="currentColor" style="width: 100%; max-width: 560px; height: auto; display: block">{inner}</svg>')
