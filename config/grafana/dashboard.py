"""Writes dashboards/camserve.json, the dashboard: `make dashboard`.

Change the dashboard here and not in the file. What each panel shows, and what to do about it, stands in
docs/operations.md; a panel's description is its first sentence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    FieldColor,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions
from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as Graph
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TableAutoCellOptions,
    TableCellBackgroundDisplayMode,
    TableCellHeight,
    TableColoredBackgroundCellOptions,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).parent / "dashboards" / "camserve.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, GREY = "green", "yellow", "red", "text"

# Model and version are chosen above the dashboard. A version may be several, hence the regular expression.
OF = 'model="$model", version=~"$version"'
OF_GROUP = f'{OF}, group=~"$group"'
VERSIONS = 'label_values(camserve_model_info{model="$model"}, version)'
EXPLAINED, PLAIN = f'{OF}, explained="true"', f'{OF}, explained="false"'


class Query(NamedTuple):
    """A query and the name of its lines."""

    expr: str
    legend: str


def asking(panel: Graph | Stat, queries: Sequence[Query]) -> None:
    """Give a panel its queries."""
    for query, letter in zip(queries, "ABCDEFGH", strict=False):
        panel.with_target(
            Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend).range().datasource(SOURCE)
        )


def snapshot(expr: str, letter: str = "A") -> Dataquery:
    """A query for what is true now, as rows."""
    query = Dataquery().ref_id(letter).expr(expr).format(PromQueryFormat.TABLE).instant().legend_format("")
    return query.datasource(SOURCE)


def graph(title: str, about: str, *queries: Query, unit: str = "short", span: int = 8) -> Graph:
    """Lines over time, from zero."""
    panel = (
        Graph()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(span)
        .height(8)
        .line_width(1.5)
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    asking(panel, queries)
    return panel


def stacked(panel: Graph, mode: StackingMode = StackingMode.NORMAL) -> Graph:
    """The lines on top of each other."""
    return panel.stacking(StackingConfig().mode(mode)).fill_opacity(60).line_width(0)


def limited(panel: Graph, *limits: tuple[float, str]) -> Graph:
    """Dashed lines at the values where an alert looks."""
    steps = [Threshold(None, "transparent"), *(Threshold(value, colour) for value, colour in limits)]
    return panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)).thresholds_style(
        GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
    )


def stat(
    title: str, about: str, *queries: Query, unit: str = "short", steps: Sequence[Threshold] = (), span: int = 3
) -> Stat:
    """The latest value, large."""
    panel = (
        Stat()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(5)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(steps) or [Threshold(None, GREY)]))
    )
    asking(panel, queries)
    return panel


def table(title: str, about: str, *exprs: str, span: int, height: int, hidden: Sequence[str] = ("Time",)) -> Table:
    """What is true now, a row for each series."""
    panel = (
        Table()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .span(span)
        .height(height)
        .cell_height(TableCellHeight.SM)
        .no_value("none")
    )
    for expr, letter in zip(exprs, "AB", strict=False):
        panel.with_target(snapshot(expr, letter))
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    return panel.with_transformation(
        DataTransformerConfig(id_val="organize", options={"excludeByName": dict.fromkeys(hidden, True)})
    )


def spread(title: str, about: str, metric: str, unit: str = "short", span: int = 8) -> Heatmap:
    """How the values of a histogram are spread, over time."""
    return (
        Heatmap()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .span(span)
        .height(8)
        .unit(unit)
        .calculate(False)
        .color(HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64).exponent(0.5))
        .with_target(
            Dataquery()
            .ref_id("A")
            .expr(f"sum by (le) (increase(camserve_{metric}_bucket{{{OF}}}[$__rate_interval]))")
            .format(PromQueryFormat.HEATMAP)
            .legend_format("{{le}}")
            .range()
            .datasource(SOURCE)
        )
    )


def cells(title: str, about: str, expr: str, colours: FieldColorModeId, low: float, high: float) -> Table:
    """Seven rows of seven cells, lying as in the picture."""

    def arranged(id_val: str, **options: object) -> DataTransformerConfig:
        return DataTransformerConfig(id_val=id_val, options=options)

    return (
        Table()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .span(8)
        .height(11)
        .cell_height(TableCellHeight.SM)
        .unit("percentunit")
        .decimals(1)
        .min(low)
        .max(high)
        .color_scheme(FieldColor().mode(colours))
        .cell_options(TableColoredBackgroundCellOptions(mode=TableCellBackgroundDisplayMode.BASIC))
        .with_target(snapshot(expr))
        # The matrix takes rows and columns as they come; both sorts keep the order of what they find equal.
        .with_transformation(arranged("sortBy", fields={}, sort=[{"field": "column"}]))
        .with_transformation(arranged("sortBy", fields={}, sort=[{"field": "row"}]))
        .with_transformation(arranged("groupingToMatrix", rowField="row", columnField="column", valueField="Value"))
        .override_by_name(
            "row\\column",
            [
                DynamicConfigValue("custom.cellOptions", TableAutoCellOptions()),
                DynamicConfigValue("custom.width", 45),
                DynamicConfigValue("unit", "none"),
                DynamicConfigValue("displayName", " "),
            ],
        )
    )


def rate(metric: str, by: str, labels: str = OF) -> str:
    """How often a second, by labels."""
    return f"sum by ({by}) (rate(camserve_{metric}{{{labels}}}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram, by labels."""
    by = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', by)})"


def mean(metric: str, by: str) -> str:
    """The mean of a histogram, by labels."""
    return f"{rate(f'{metric}_sum', by)} / {rate(f'{metric}_count', by)}"


def service() -> list[Graph | Heatmap | Stat | Table]:
    """Does it answer, how fast, and if not, why."""
    ratio = "model_witness:camserve_request_errors:ratio_rate"
    seconds = "model_explained:camserve_request_seconds"
    times = ("p50", "p95", "p99")
    answered = "model_explained_outcome:camserve_requests:rate5m"
    alerts = 'ALERTS{alertstate="firing", model=~"$model|"}'
    return [
        stat(
            "Requests a second",
            "Requests answered, plain and explained, errors included.",
            Query(f"sum(rate(camserve_requests_total{{{OF}}}[$__rate_interval]))", "requests"),
            unit="reqps",
        ),
        stat(
            "Server errors, 1 h",
            "Share of the last hour's requests that ended in a server error; the objective allows 0.1 %.",
            Query(f"max({ratio}1h{{{OF}}} or {ratio}1h{{witness='torchserve'}})", "errors"),
            unit="percentunit",
            steps=[Threshold(None, GREEN), Threshold(0.001, YELLOW), Threshold(0.0144, RED)],
        ),
        stat(
            "Workers",
            "Workers alive, and how many there should be.",
            Query(f"sum(camserve_workers{{{OF}}})", "alive"),
            Query(f"sum(camserve_workers_expected{{{OF}}})", "expected"),
        ),
        table(
            "Alerts",
            "The alerts that fire now; each has a section of its own in docs/operations.md.",
            f"max by (alertname, severity, group, flag, job) ({alerts})",
            span=6,
            height=5,
            hidden=("Time", "Value"),
        ),
        table(
            "What runs",
            "The model and the software of the workers.",
            f"max by (version, architecture, layer, exact, device) (camserve_model_info{{{OF}}})",
            f"max by (version, camserve, torch, python) (camserve_build_info{{{OF}}})",
            span=9,
            height=5,
            hidden=("Time", "Value", "Value #A", "Value #B"),
        ),
        stacked(
            graph(
                "Requests by outcome",
                "Requests a second, plain and explained, by how they ended.",
                Query(f"sum by (outcome) ({answered}{{{PLAIN}}})", "plain, {{outcome}}"),
                Query(f"sum by (outcome) ({answered}{{{EXPLAINED}}})", "explained, {{outcome}}"),
                unit="reqps",
            )
        ),
        limited(
            graph(
                "Server errors against the objective",
                "Share of requests that ended in a server error, as the handler and as TorchServe count; the lines are "
                "where the alerts look.",
                *(
                    Query(
                        f"{ratio}{window}{{{OF}}} or {ratio}{window}{{witness='torchserve'}}",
                        f"{{{{witness}}}} {window}",
                    )
                    for window in ("5m", "30m", "1h", "6h")
                ),
                unit="percentunit",
            ),
            (0.006, YELLOW),
            (0.0144, RED),
        ),
        graph(
            "Errors by type",
            "Pictures answered with an error, by the type that stands in the answer.",
            Query(rate("errors_total", "type"), "{{type}}"),
            unit="reqps",
        ),
        limited(
            graph(
                "Time to answer, plain",
                "From the gateway to the answer, for requests without an explanation.",
                *(Query(f"{seconds}:{q}_rate5m{{{PLAIN}}}", f"{q} {{{{version}}}}") for q in times),
                unit="s",
            ),
            (1, RED),
        ),
        graph(
            "Time to answer, explained",
            "The same for requests with an explanation.",
            *(Query(f"{seconds}:{q}_rate5m{{{EXPLAINED}}}", f"{q} {{{{version}}}}") for q in times),
            unit="s",
        ),
        graph(
            "Waiting and working, p95",
            "How long requests wait for a worker, beside how long a forward pass takes.",
            Query(f"model:camserve_queue_seconds:p95_rate5m{{{OF}}}", "queue {{version}}"),
            Query(
                f'model_stage:camserve_stage_seconds:p95_rate5m{{{OF}, stage="forward"}}', "forward pass {{version}}"
            ),
            unit="s",
        ),
        graph(
            "As TorchServe counts",
            "Answers a second on all of TorchServe's ports, pings and scrapes included.",
            Query("sum(rate(Requests2XX[$__rate_interval]))", "2xx"),
            # TorchServe has no series before the first such answer; that is none, and not unknown.
            *(
                Query(
                    f"sum(rate(Requests{n}XX[$__rate_interval])) or 0 * sum(rate(Requests2XX[$__rate_interval]))",
                    f"{n}xx",
                )
                for n in (4, 5)
            ),
            unit="reqps",
        ),
        graph(
            "Size of answers",
            "The median and the largest hundredth of answers, beside the limit where pictures are dropped.",
            Query(quantile(0.5, "response_bytes", "explained"), "p50, explained: {{explained}}"),
            Query(quantile(0.99, "response_bytes", "explained"), "p99, explained: {{explained}}"),
            Query(f"max(camserve_response_limit_bytes{{{OF}}})", "limit"),
            unit="bytes",
        ),
        graph(
            "Pictures left out",
            "Pictures and grids a second that were left out of answers because these would have been too large.",
            Query(rate("dropped_total", "version"), "{{version}}"),
            unit="ops",
        ),
    ]


def cost() -> list[Graph | Heatmap | Stat | Table]:
    """What explaining costs."""
    return [
        stacked(
            graph(
                "Time by stage",
                "The mean time of a picture in each stage it went through.",
                *(
                    Query(
                        f'avg by (stage) (model_stage:camserve_stage_seconds:mean_rate5m{{{OF}, stage="{stage}"}})',
                        "{{stage}}",
                    )
                    for stage in ("decode", "preprocess", "forward", "explain", "render", "encode")
                ),
                unit="s",
                span=12,
            )
        ),
        limited(
            graph(
                "Explaining over predicting",
                "Time for maps, drawing and encoding, in units of the forward pass that is needed anyway.",
                Query(f"model:camserve_explain_overhead:ratio_rate5m{{{OF}}}", "{{version}}"),
                span=6,
            ),
            (1, YELLOW),
        ),
        graph(
            "Share explained",
            "Share of requests that were explained.",
            Query(
                f"{rate('requests_total', 'model', EXPLAINED)} / {rate('requests_total', 'model')}",
                "explained",
            ),
            unit="percentunit",
            span=6,
        ),
        stacked(
            graph(
                "Explanations by method",
                "Classes explained a second, by method.",
                Query(rate("explanations_total", "method", f'{OF}, status!="shed"'), "{{method}}"),
                unit="ops",
                span=12,
            )
        ),
        graph(
            "Explanations by what became of them",
            "Share of explained classes by status: a map, an empty map, none because it failed, none because of load.",
            Query(
                f"sum by (status) (model_status:camserve_explanations:ratio_rate5m{{{OF}}})",
                "{{status}}",
            ),
            unit="percentunit",
            span=12,
        ),
    ]


def machine() -> list[Graph | Heatmap | Stat | Table]:
    """What the workers have, and how full it is."""
    return [
        spread("Pictures in a batch", "How many pictures share a forward pass.", "batch_rows"),
        graph(
            "Explained in a batch",
            "Mean share of a batch's pictures that are explained.",
            Query(mean("batch_explained_ratio", "version"), "{{version}}"),
            unit="percentunit",
        ),
        graph(
            "Time in a stage, p95",
            "The slowest twentieth of pictures, stage by stage.",
            Query(f"model_stage:camserve_stage_seconds:p95_rate5m{{{OF}}}", "{{stage}} {{version}}"),
            unit="s",
        ),
        graph(
            "Memory of the workers",
            "Resident memory of all workers together, and the least that one of them held within the hour.",
            Query(f"sum by (version) (camserve_worker_memory_bytes{{{OF}}})", "all {{version}}"),
            Query(f"model:camserve_worker_memory_bytes:min1h{{{OF}}}", "one, least of the hour {{version}}"),
            unit="bytes",
        ),
        graph(
            "Memory on the GPU",
            "What torch holds on each GPU; empty without one.",
            Query(f"sum by (device) (camserve_gpu_memory_bytes{{{OF}}})", "{{device}}"),
            unit="bytes",
        ),
        graph(
            "Use of the GPU",
            "How busy each GPU is; empty without one.",
            Query(f"max by (device) (camserve_gpu_utilization_ratio{{{OF}}})", "{{device}}"),
            unit="percentunit",
        ).max(1),
    ]


def behaviour() -> list[Graph | Heatmap | Stat | Table]:
    """What the model says, whether or not anybody asks why."""
    return [
        stacked(
            graph(
                "Predictions by class group",
                "Share of predictions by the group of the likeliest class.",
                Query(rate("predictions_total", "group"), "{{group}}"),
                unit="ops",
                span=6,
            ),
            StackingMode.PERCENT,
        ),
        spread(
            "Probability of the likeliest class",
            "How sure the model is.",
            "prediction_probability",
            "percentunit",
            span=6,
        ),
        graph(
            "Distance of the two likeliest",
            "By how much the likeliest class beats the second: the median, and the closest tenth.",
            Query(quantile(0.5, "prediction_margin"), "p50"),
            Query(quantile(0.1, "prediction_margin"), "p10"),
            unit="percentunit",
            span=6,
        ),
        graph(
            "Size of pictures",
            "Pixels of the pictures as they arrive: the median and the largest twentieth.",
            Query(quantile(0.5, "picture_pixels"), "p50"),
            Query(quantile(0.95, "picture_pixels"), "p95"),
            unit="short",
            span=6,
        ),
    ]


def quality() -> list[Graph | Heatmap | Stat | Table]:
    """What the maps are worth."""
    return [
        limited(
            graph(
                "Flags",
                "Share of maps that raise a flag.",
                Query(f"avg by (flag) (model_flag:camserve_flags:ratio_rate15m{{{OF}}})", "{{flag}}"),
                unit="percentunit",
            ),
            (0.02, YELLOW),
        ),
        graph(
            "How far the evidence spreads",
            "Entropy of the maps, from 0 for one cell to 1 for all cells alike, by method: the median.",
            Query(quantile(0.5, "map_entropy_ratio", "method"), "{{method}}"),
            unit="percentunit",
        ),
        graph(
            "Evidence at the border",
            "Share of a map's evidence in its outer ring of cells: the median and the highest twentieth.",
            Query(quantile(0.5, "map_border_ratio", "method"), "p50 {{method}}"),
            Query(quantile(0.95, "map_border_ratio", "method"), "p95 {{method}}"),
            unit="percentunit",
        ),
        graph(
            "What speaks for the class",
            "Share of a map that is positive, by method: the median.",
            Query(quantile(0.5, "map_positive_ratio", "method"), "{{method}}"),
            unit="percentunit",
        ),
        graph(
            "Centre of the evidence",
            "Where the middle of the evidence lies on average, from the left and from the upper edge of the map.",
            Query(mean("map_center_x_ratio", "method"), "from the left, {{method}}"),
            Query(mean("map_center_y_ratio", "method"), "from above, {{method}}"),
            unit="percentunit",
        ).max(1),
        graph(
            "Hiding what the map points at",
            "Mean fall in probability when the map's highest cells are hidden, beside as many cells elsewhere, over "
            "six hours.",
            Query(
                f"avg by (place) (model_place:camserve_verified_drop_ratio:mean_rate6h{{{OF}}})",
                "{{place}}",
            ),
            unit="percentunit",
        ),
    ]


def drift() -> list[Graph | Heatmap | Stat | Table]:
    """Whether the model still looks where it used to."""
    return [
        limited(
            graph(
                "Likeness with the reference",
                "How alike the mean evidence of a group is to its reference: of the last hour, and since the start.",
                Query(f"model_group:camserve_evidence:similarity1h{{{OF_GROUP}}}", "{{group}}, last hour"),
                Query(f"min by (group) (camserve_evidence_similarity_ratio{{{OF_GROUP}}})", "{{group}}, since start"),
            ).max(1),
            (0.9, YELLOW),
        ),
        limited(
            graph(
                "The strongest cell",
                "The largest share of a group's evidence that lies in one of the 49 cells, over six hours.",
                Query(f"max by (group) (model_group_cell:camserve_evidence:mean6h{{{OF_GROUP}}})", "{{group}}"),
                unit="percentunit",
            ),
            (0.3, YELLOW),
        ),
        graph(
            "Maps that count",
            "Maps whose evidence was summed within the last hour, by group.",
            Query(f"sum by (group) (model_group:camserve_evidence_maps:increase1h{{{OF_GROUP}}})", "{{group}}"),
        ),
    ]


def evidence() -> list[Graph | Heatmap | Stat | Table]:
    """Where the model looks for one group."""
    now = f"avg by (row, column) (model_group_cell:camserve_evidence:mean1h{{{OF_GROUP}}})"
    before = f"avg by (row, column) (model_group_cell:camserve_evidence:reference{{{OF_GROUP}}})"
    warm, both = FieldColorModeId.CONTINUOUS_YL_RD, FieldColorModeId.CONTINUOUS_BL_YL_RD
    return [
        cells(
            "Mean evidence, last hour",
            "Share of the evidence in each cell of the picture, over the last hour's maps.",
            now,
            warm,
            0,
            0.15,
        ),
        cells("Reference", "The same as it should be.", before, warm, 0, 0.15),
        cells("Difference", "The last hour less the reference.", f"{now} - {before}", both, -0.08, 0.08),
    ]


def variable(name: str, label: str, labels_of: str, several: bool) -> QueryVariable:
    """A choice above the dashboard, from the values of a label."""
    choice = (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": labels_of, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .multi(several)
        .include_all(several)
    )
    return choice.current(VariableOption(text=["All"], value=["$__all"])) if several else choice


def build() -> Dashboard:
    """The whole dashboard."""
    dashboard = (
        Dashboard("camserve")
        .uid("camserve")
        .description("The classifier, what explaining costs, and whether its explanations deserve trust.")
        .tags(["camserve"])
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data").type("prometheus"))
        .with_variable(variable("model", "Model", "label_values(camserve_model_info, model)", False))
        .with_variable(variable("version", "Version", VERSIONS, True))
        .with_variable(
            variable("group", "Class group", f"label_values(camserve_evidence_maps_total{{{OF}}}, group)", True)
        )
    )
    rows = [
        (Row("Service"), service()),
        (Row("What explaining costs"), cost()),
        (Row("Machine"), machine()),
        (Row("What the model says"), behaviour()),
        (Row("What the maps are worth"), quality()),
        (Row("Whether it still looks where it used to"), drift()),
        (Row("Evidence for $group").repeat("group"), evidence()),
    ]
    ids = count(1)
    for row, panels in rows:
        dashboard.with_row(row.id(next(ids)))
        for panel in panels:
            dashboard.with_panel(panel.id(next(ids)))
    return dashboard


def text() -> str:
    """The dashboard as Grafana reads it."""
    return json.dumps(build().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
