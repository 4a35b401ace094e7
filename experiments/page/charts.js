// Vega-Lite charts in the page's own colours: drawn once, then fed new data in place.

const FONT = "system-ui, sans-serif";

/** Colours are the page's custom properties, so that a change of theme needs no new drawing. */
export const THEME = {
  background: null,
  font: FONT,
  aria: false,
  padding: 4,
  view: { stroke: null },
  axis: {
    domainColor: "var(--line)",
    gridColor: "var(--grid)",
    tickColor: "var(--line)",
    labelColor: "var(--muted)",
    titleColor: "var(--ink)",
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: "normal",
    labelFlush: true,
  },
  text: { fill: "var(--ink)", fontSize: 12 },
};

/**
 * Draw a Vega-Lite spec with named data sets and signals (its params) into an element, as wide as this is; returned is
 * a function that replaces them in place. To a screen reader the chart is one image with the description given:
 * its numbers are in the page's tables.
 */
export async function chart(element, spec, data, signals, description) {
  const whole = {
    width: "container",
    autosize: { type: "fit-x", contains: "padding" },
    ...spec,
    config: THEME,
    datasets: data,
    params: Object.entries(signals).map(([name, value]) => ({ name, value })),
  };
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", description);
  const inner = element.appendChild(document.createElement("div"));
  inner.setAttribute("aria-hidden", "true"); // Vega gives it roles of its own
  const { view } = await window.vegaEmbed(inner, whole, {
    actions: false,
    ast: true, // expressions are interpreted: the page's policy allows no code from text
    defaultStyle: false,
    mode: "vega-lite",
    renderer: "svg",
    tooltip: false,
  });
  return (rows, values, text) => {
    element.setAttribute("aria-label", text);
    for (const [name, value] of Object.entries(values)) view.signal(name, value);
    for (const [name, each] of Object.entries(rows)) view.data(name, each);
    view.run();
  };
}

/** A continuous axis whose ends are expressions of signals, never the data's own: these may be none. */
export function scaled(low, high, more = {}) {
  return { domain: [{ expr: low }, { expr: high }], nice: false, ...more };
}
