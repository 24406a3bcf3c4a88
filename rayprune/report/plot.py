"""A chart with its words, and how it becomes an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt

from rayprune.report.marks import theme

PNG_SCALE = 2.0


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A chart with the words around it; `name` is its file's."""

    name: str
    title: str
    caption: str
    chart: Any  # an Altair chart: these have no common type that has properties()

    def spec(self) -> dict[str, Any]:
        """Vega-Lite as JSON; the page writes the title."""
        return self.chart.to_dict()

    def png(self) -> bytes:
        """The chart as an image, its title in it."""
        import vl_convert

        spec = self.chart.properties(title=self.title).to_dict()
        return vl_convert.vegalite_to_png(
            spec, vl_version=vega_lite_version(), scale=PNG_SCALE, config=theme()
        )


def vega_lite_version() -> str:
    """The version that Altair writes for, as vl-convert names it: 6.4."""
    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
