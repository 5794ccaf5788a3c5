"""Figures of the report, as plotly draws them."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from knowundo.results import Results

_MARKS = {
    "base": "circle-open",
    "memorized": "square",
    "retain": "star",
    "unlearned": "circle",
    "given": "diamond",
}
_INK, _TARGET, _KNOWN = "#3b5b8c", "#2e7d4f", "#b0413e"
_COLOURS = {"base": "#888888", "memorized": _KNOWN, "retain": _TARGET}  # the rest: plotly's
_LAYOUT = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
}


def trade_off(results: Results) -> go.Figure:
    """Unlearn against Retention Success on val rows, with 95 % intervals."""
    figure = go.Figure()
    for variant in results.variants:
        x = results.find(variant.name, "unlearn_success", "unlearn", "val")
        y = results.find(variant.name, "retention_success", "retention", "val")
        if x is None or y is None or x.value is None or y.value is None:
            continue
        figure.add_scatter(
            x=[x.value],
            y=[y.value],
            error_x=_bars(x.value, x.low, x.high),
            error_y=_bars(y.value, y.low, y.high),
            mode="markers",
            name=f"{variant.name} (target)" if variant.role == "retain" else variant.name,
            marker={
                "symbol": _MARKS[variant.role],
                "size": 16 if variant.role == "retain" else 11,
                "color": _COLOURS.get(variant.role),
            },
        )
        if variant.role == "retain":
            line = {"color": _TARGET, "dash": "dot", "width": 1}
            figure.add_vline(x=x.value, line=line)
            figure.add_hline(y=y.value, line=line)
    figure.update_layout(
        **_LAYOUT,
        height=520,
        xaxis={"title": "Unlearn Success", "range": [-3, 103]},
        yaxis={"title": "Retention Success", "range": [-3, 103]},
    )
    return figure


def paths(results: Results) -> go.Figure | None:
    """Every learning rate tried, forgetting against keeping on train rows; None if none was."""
    figure = go.Figure()
    began = [
        row.value if row and row.value is not None else None
        for row in (
            results.find("memorized", "unlearn_success", "unlearn", "train"),
            results.find("memorized", "retention_success", "retention", "train"),
        )
    ]
    for variant in results.variants:
        tried = [a for a in variant.attempts if a["unlearn"] is not None]
        tried.sort(key=lambda attempt: attempt["lr"])
        if not tried:
            continue
        figure.add_scatter(
            x=[began[0], *(100 * (1 - attempt["unlearn"]) for attempt in tried)],
            y=[began[1], *(100 * attempt["retention"] for attempt in tried)],
            text=["memorized", *(f"lr {attempt['lr']:g}" for attempt in tried)],
            mode="lines+markers",
            line={"width": 1.5},
            marker={"size": [1, *(12 if a["lr"] == variant.lr else 6 for a in tried)]},
            name=variant.name,
        )
    target = results.find("retain", "unlearn_success", "unlearn", "train")
    if target is not None and target.value is not None:
        figure.add_vline(x=target.value, line={"color": _TARGET, "dash": "dot", "width": 1})
    figure.update_layout(
        **_LAYOUT,
        height=480,
        xaxis={"title": "forgotten: 100 − token accuracy, unlearn/train", "range": [-3, 103]},
        yaxis={"title": "kept: token accuracy, retention/train", "range": [-3, 103]},
    )
    return figure if figure.data else None


def _bars(value: float, low: float | None, high: float | None) -> dict[str, Any] | None:
    if low is None or high is None:
        return None
    # A percentile interval may leave the value itself outside by a hair.
    up, down = max(high - value, 0.0), max(value - low, 0.0)
    return {"type": "data", "array": [up], "arrayminus": [down], "thickness": 1, "width": 3}


def heat_map(tensors: list[dict[str, Any]], located: set[str]) -> go.Figure:
    """Cosine and magnitude of every tensor, layer × module; a dot marks the located region."""
    modules = list(dict.fromkeys(f"{t['module']} {_kind(t)}".strip() for t in tensors))
    layers = sorted({_layer(t) for t in tensors})
    titles = ("cos(unlearn, retention)", "mean |unlearn gradient|")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True)
    for column, (key, scale) in enumerate((("cosine", "RdBu"), ("magnitude", "Blues")), start=1):
        grid: list[list[float | None]] = [[None] * len(modules) for _ in layers]
        for tensor in tensors:
            y, x = _place(tensor, layers, modules)
            grid[y][x] = tensor[key]
        figure.add_heatmap(
            z=grid,
            x=modules,
            y=layers,
            colorscale=scale,
            colorbar={"x": 0.46 if column == 1 else 1.0, "thickness": 10},
            row=1,
            col=column,
        )
        places = [_place(t, layers, modules) for t in tensors if t["name"] in located]
        figure.add_scatter(
            x=[modules[x] for _, x in places],
            y=[layers[y] for y, _ in places],
            mode="markers",
            marker={"color": "black", "size": 6},
            name="located region",
            showlegend=column == 1,
            row=1,
            col=column,
        )
    figure.update_layout(
        **_LAYOUT, height=150 + 34 * len(layers), legend={"orientation": "h", "y": 1.3}
    )
    figure.update_xaxes(tickangle=60)
    return figure


def _kind(tensor: dict[str, Any]) -> str:
    return {"lora_A": "A", "lora_B": "B"}.get(tensor["tensor"], "")


def _layer(tensor: dict[str, Any]) -> str:
    return "outside" if tensor["layer"] is None else f"layer {tensor['layer']:02d}"


def _place(tensor: dict[str, Any], layers: list[str], modules: list[str]) -> tuple[int, int]:
    module = f"{tensor['module']} {_kind(tensor)}".strip()
    return layers.index(_layer(tensor)), modules.index(module)


def evaluation_steps(results: Results) -> go.Figure | None:
    """Token accuracy at every evaluation step, and the step that was kept.

    `None` if no model was evaluated during training.
    """
    seen = [variant for variant in results.variants if variant.trajectory]
    if not seen:
        return None
    figure = make_subplots(rows=1, cols=len(seen), subplot_titles=[v.name for v in seen])
    for column, variant in enumerate(seen, start=1):
        steps = [evaluation["step"] for evaluation in variant.trajectory]
        for scope, colour in (("unlearn", _INK), ("retention", _TARGET)):
            figure.add_scatter(
                x=steps,
                y=[100 * evaluation[scope] for evaluation in variant.trajectory],
                mode="lines+markers",
                marker={"size": 5},
                name=scope,
                legendgroup=scope,
                showlegend=column == 1,
                line={"color": colour},
                row=1,
                col=column,
            )
        figure.add_vline(x=variant.kept_step, line={"dash": "dot"}, row=1, col=column)
    figure.update_layout(**_LAYOUT, height=330, legend={"orientation": "h"})
    figure.update_yaxes(title_text="token accuracy, %", col=1)
    figure.update_xaxes(title_text="optimizer step")
    return figure


def training_curves(curves: dict[str, list[dict[str, Any]]]) -> go.Figure:
    """Every part of every loss over the steps; one small panel a variant."""
    names = list(curves)
    columns = 3
    rows = -(-len(names) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=names,
        vertical_spacing=0.3 / rows,
        horizontal_spacing=0.06,
    )
    colours = {"memorize": _KNOWN, "unlearn": _INK, "retention": _TARGET}
    shown: set[str] = set()
    for number, (_, curve) in enumerate(curves.items()):
        # One method after another may have other parts.
        for part in dict.fromkeys(part for row in curve for part in row["parts"]):
            having = [row for row in curve if part in row["parts"]]
            figure.add_scatter(
                x=[row["step"] for row in having],
                y=[row["parts"][part] for row in having],
                mode="lines",
                name=part,
                legendgroup=part,
                showlegend=part not in shown,
                line={"width": 1.4, "color": colours.get(part)},
                row=number // columns + 1,
                col=number % columns + 1,
            )
            shown.add(part)
    figure.update_layout(**_LAYOUT, height=60 + 190 * rows, legend={"orientation": "h"})
    figure.update_annotations(font_size=12)
    return figure
