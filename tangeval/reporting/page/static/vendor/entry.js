import { getInstanceByDom, init, use } from "echarts/core";
import { CustomChart, HeatmapChart, LineChart, ScatterChart } from "echarts/charts";
import { AriaComponent, GridComponent, MarkLineComponent, TooltipComponent, VisualMapContinuousComponent } from "echarts/components";
import { SVGRenderer } from "echarts/renderers";
use([AriaComponent, CustomChart, GridComponent, HeatmapChart, LineChart, MarkLineComponent, ScatterChart, SVGRenderer, TooltipComponent, VisualMapContinuousComponent]);
export { getInstanceByDom, init };
