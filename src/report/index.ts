// What users see of results: charts and tables, drawn without a browser, without the fonts of the machine and without libtorch.
export { confusionChart, type Confusion } from './confusion-chart.js'
export { lineChart, type Lines } from './line-chart.js'
export type { Point } from './points.js'
export { markdownTable } from './markdown-table.js'
export type { Chart } from './draw.js'
export { factTable, html, page, picture, type Content, type Html } from './page.js'
