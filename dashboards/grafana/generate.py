"""Writes splitmask.json beside this file; `--check` only compares. Standard library only.

Grafana's JSON repeats data source, grid and legend in every panel; here each panel is its title, description, unit and queries.
`$S` in a query stands for the selector of the chosen job, run and instances, `$I` for the rate interval.
"""

import json
import pathlib
import sys

from panels import ANNOTATIONS, ROWS

TARGET = pathlib.Path(__file__).parent / "splitmask.json"
SELECTOR = 'job="$job",run=~"$run",instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def promql(text: str) -> str:
    return text.replace("$S", SELECTOR).replace("$I", "$__rate_interval")


def targets(panel: dict) -> list[dict]:
    made = []
    for letter, (expr, legend) in zip("ABCDEFGH", panel["queries"], strict=False):
        target = {"datasource": SOURCE, "editorMode": "code", "expr": promql(expr), "legendFormat": legend, "refId": letter}
        if panel["kind"] in ("stat", "bargauge", "table"):
            target |= {"instant": True, "range": False}
        else:
            target |= {"instant": False, "range": True}
        if panel["kind"] == "heatmap":
            target["format"] = "heatmap"
        if panel["kind"] == "table":
            target["format"] = "table"
        made.append(target)
    return made


def thresholds(panel: dict) -> dict:
    steps = [{"color": color, "value": value} for value, color in panel.get("steps", [(None, "green")])]
    return {"mode": "absolute", "steps": steps}


def field_config(panel: dict) -> dict:
    defaults = {"unit": panel["unit"], "thresholds": thresholds(panel), "color": {"mode": "palette-classic"}}
    for key in ("min", "max", "decimals"):
        if key in panel:
            defaults[key] = panel[key]
    if panel["kind"] in ("stat", "bargauge"):
        defaults["color"] = {"mode": "thresholds"}
    if "mappings" in panel:
        options = {value: {"text": text, "color": color, "index": i} for i, (value, text, color) in enumerate(panel["mappings"])}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel["kind"] == "timeseries":
        stacked = panel.get("stack", False)
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.get("log") else {"type": "linear"},
        }
    return {"defaults": defaults, "overrides": []}


def options(panel: dict) -> dict:
    kind = panel["kind"]
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if kind == "stat":
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": "auto", "orientation": "auto", "justifyMode": "auto"}
    if kind == "bargauge":
        return {"reduceOptions": reduce, "displayMode": "gradient", "orientation": "horizontal", "showUnfilled": True}
    if kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
            "yAxis": {"unit": panel["unit"], "axisPlacement": "left"},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"show": True, "yHistogram": True},
            "legend": {"show": True},
        }
    return {"showHeader": True, "cellHeight": "sm"}


def panels() -> list[dict]:
    made, top, number = [], 0, 1
    for title, row in ROWS:
        made.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}})
        number, top, left, tallest = number + 1, top + 1, 0, 0
        for panel in row:
            width, height = panel["size"]
            if left + width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            made.append(
                {
                    "id": number,
                    "type": panel["kind"],
                    "title": panel["title"],
                    "description": panel["text"],
                    "datasource": SOURCE,
                    "gridPos": {"x": left, "y": top, "w": width, "h": height},
                    "fieldConfig": field_config(panel),
                    "options": options(panel),
                    "targets": targets(panel),
                }
            )
            if panel["kind"] == "table":
                # The labels are the content: time and the constant 1 say nothing.
                made[-1]["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True}}}]
            number, left, tallest = number + 1, left + width, max(tallest, height)
        top += tallest
    return made


def variable(name: str, label: str, query: str, *, multi: bool, every: bool) -> dict:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": every,
        # `.*` also matches a label that is not there, such as `run` where the scrape config sets none.
        **({"allValue": ".*", "current": {"selected": True, "text": ["All"] if multi else "All", "value": ["$__all"] if multi else "$__all"}} if every else {}),
        "hide": 0,
    }


def annotations() -> list[dict]:
    builtin = {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    # The value of such a series is the time of the event: Grafana draws it there, so nothing has to be pushed.
    from_series = [
        {
            "datasource": SOURCE,
            "enable": True,
            "iconColor": color,
            "name": name,
            "expr": promql(f"({series}{{$S}} > 0) * 1000"),
            "step": "10s",
            "titleFormat": name,
            "tagKeys": "instance",
            "textFormat": "{{instance}}",
            "useValueForTime": "on",
        }
        for name, series, color in ANNOTATIONS
    ]
    return [builtin, *from_series]


def dashboard() -> dict:
    info = "label_values(splitmask_build_info"
    return {
        "uid": "splitmask",
        "title": "splitmask: pre-training",
        "description": "Is it training, is it learning, and what limits it.",
        "tags": ["splitmask"],
        "timezone": "browser",
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": annotations()},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "multi": False, "includeAll": False},
                variable("job", "Job", f"{info}, job)", multi=False, every=False),
                variable("run", "Run", f'{info}{{job="$job"}}, run)', multi=False, every=True),
                variable("instance", "Instance", f'{info}{{job="$job",run=~"$run"}}, instance)', multi=True, every=True),
            ]
        },
        "links": [],
        "panels": panels(),
    }


def main() -> None:
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        if TARGET.read_text() != text:
            sys.exit(f"{TARGET.name} is not what generate.py makes; run: python3 dashboards/grafana/generate.py")
        return
    TARGET.write_text(text)


main()
