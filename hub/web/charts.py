"""Charts as plain plotly figures (data and layout). Colours are names of the style sheet's custom properties, which the
page's script resolves, so that one figure serves light and dark. Texts are escaped: plotly reads labels as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from html import escape
from typing import Any

from hub.web.texts import Texts, share

Figure = dict[str, Any]
Row = Mapping[str, Any]

DAYS_SHOWN, DAYS_AT_LEAST = 62, 14
_STAGES = ("done", "held", "failed", "pending", "received", "missing")


def days(rows: Sequence[Row], text: Texts) -> Figure | None:
    """Owed, delivered, answered pairs per day: three bars one inside the other."""
    rows = _every_day(rows)[-DAYS_SHOWN:]
    if not any(row["owed"] for row in rows):
        return None
    on = [row["day"][5:] for row in rows]  # month and day: the year stands in the hover text
    bars = (("col_owed", "owed", "--owed", 0.8), ("delivered", "delivered", "--delivered", 0.56),
            ("answered", "answered", "--answered", 0.3))  # fmt: skip
    data = [
        {
            "type": "bar",
            "name": text(label),
            "x": on,
            "y": [row[key] for row in rows],
            "width": width,
            "marker": {"color": colour, "line": {"color": "--edge" if key == "owed" else colour, "width": 1}},
            "customdata": [row["day"] for row in rows],
            "hovertemplate": f"%{{customdata}}<br>{text(label)} %{{y:,}}<extra></extra>",
        }
        for label, key, colour, width in bars
    ]
    return _figure(
        data,
        barmode="overlay",
        height=320,
        legend=True,
        xaxis={"type": "category", "showgrid": False, "nticks": 8, "tickangle": 0},
        yaxis={"tickformat": "~s", "rangemode": "tozero"},
        margin={"l": 48, "r": 8, "t": 8, "b": 36},
    )


def _every_day(rows: Sequence[Row]) -> list[Row]:
    """``rows`` with the days on which nothing happened between them, and before them up to a fortnight."""
    if not rows:
        return []
    by_day = {date.fromisoformat(row["day"]): row for row in rows}
    last = max(by_day)
    first = min(min(by_day), last - timedelta(days=DAYS_AT_LEAST - 1))
    first = max(first, last - timedelta(days=DAYS_SHOWN - 1))
    each = (first + timedelta(days=place) for place in range((last - first).days + 1))
    return [by_day.get(day) or {"day": day.isoformat(), "owed": 0, "delivered": 0, "answered": 0} for day in each]


def dispositions(rows: Sequence[Row], text: Texts) -> Figure | None:
    """One bar per disposition, coloured by how it counts."""
    shown = [row for row in rows if row["numbers"] is not None]
    if not shown:
        return None
    total = sum(row["numbers"] for row in shown)
    return _across(
        [text.of("disposition", row["disposition"]) for row in shown],
        [row["numbers"] for row in shown],
        [f"--{row['standing']}" for row in shown],
        [f"{row['numbers']:,} · {share(row['numbers'], total)}" for row in shown],
    )


def provinces(rows: Sequence[Row], text: Texts) -> Figure | None:
    shown = [row for row in rows if row["numbers"] is not None]
    if not shown:
        return None
    total = sum(row["numbers"] for row in shown)
    return _across(
        [text.of("province", row["province"]) or text("unknown") for row in shown],
        [row["numbers"] for row in shown],
        "--answered",
        [f"{row['numbers']:,} · {share(row['numbers'], total)}" for row in shown],
        step=24,
    )


def classes(rows: Sequence[Row], text: Texts) -> Figure | None:
    """Per app class how far the pairs that ask for an answer have come, in percent of them."""
    rows = [row for row in rows if row["asked"]]
    if not rows:
        return None
    names = [escape(text.of("class", row["app_class"])) for row in rows]
    reached = [stages(row) for row in rows]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": text(f"stage_{stage}"),
            "y": names,
            "x": [100 * at[stage] / row["asked"] for at, row in zip(reached, rows, strict=True)],
            "customdata": [at[stage] for at in reached],
            "marker": {
                "color": f"--{stage}",
                "line": {"color": "--edge", "width": 1 if stage == "missing" else 0},
            },
            "hovertemplate": f"%{{y}}<br>{text(f'stage_{stage}')} %{{customdata:,}} (%{{x:.1f}}%)<extra></extra>",
        }
        for stage in _STAGES
    ]
    return _figure(
        data, barmode="stack", height=90 + 30 * len(rows), legend=True, bargap=0.35,
        xaxis={"range": [0, 100], "ticksuffix": "%"}, yaxis=dict(_NAMES),
        margin={"l": 8, "r": 20, "t": 8, "b": 28},
    )  # fmt: skip


def stages(row: Row) -> dict[str, int]:
    """Where the pairs asked about stand; the parts add up to them. An answer may be there before its receipt."""
    figures = {name: row[name] or 0 for name in ("asked", "reached", "answered", "done", "held", "failed", "pending")}
    answered = min(figures["answered"], figures["asked"])
    reached = min(max(figures["reached"], answered), figures["asked"])
    return {
        **{name: figures[name] for name in ("done", "held", "failed", "pending")},
        "received": reached - answered,
        "missing": figures["asked"] - reached,
    }


_NAMES: Figure = {"autorange": "reversed", "automargin": True, "showgrid": False, "ticklabelstandoff": 6}


def _across(
    names: Sequence[str], values: Sequence[int], colour: str | Sequence[str], labels: Sequence[str], step: int = 30
) -> Figure:
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": [escape(name) for name in names],
        "x": list(values),
        "text": list(labels),
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": colour},
        "hovertemplate": "%{y}<br>%{text}<extra></extra>",
    }
    # the script widens the axis on narrow screens, so that the longest bar's label has room
    return _figure(
        [bar], height=40 + step * len(names), bargap=0.32,
        meta={"longest": max(values)},
        xaxis={"visible": False, "range": [0, 2.2 * max(values)]}, yaxis=dict(_NAMES),
        margin={"l": 8, "r": 4, "t": 4, "b": 4},
    )  # fmt: skip


def _figure(data: list[Figure], *, height: int, legend: bool = False, **layout: Any) -> Figure:
    for axis in ("xaxis", "yaxis"):
        layout[axis] = {"fixedrange": True, "zeroline": False, "gridcolor": "--line", **layout[axis]}
    fixed: Figure = {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "--ink-soft", "size": 12.5},
        "separators": ".,",
        "showlegend": legend,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--ink"}},
        "dragmode": False,
    }
    return {"data": data, "layout": fixed | layout}
