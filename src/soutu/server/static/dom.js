/** Make elements. Text always goes in as text: no file name can become markup. */

export const $ = (id) => document.getElementById(id);

/** Show characters that change a line's direction, or print nothing, as �; line breaks as spaces. */
export function plain(text) {
  const printable = String(text).replace(/[\t\r\n]+/g, " ").replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  return printable.toWellFormed?.() ?? printable;
}

export const fileName = (path) => path.split("/").pop();

/** Make an element (hyperscript); children are nodes or strings. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const button = (props, ...children) => h("button", { type: "button", ...props }, ...children);

export function label(element, text) {
  element.setAttribute("aria-label", text);
  element.title = text;
  return element;
}

export const iconButton = (path, text, onclick, props = {}) =>
  label(button({ class: "icon", onclick, ...props }, icon(path)), text);

const SVG = "http://www.w3.org/2000/svg";

export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export const CROSS = "M6 6l12 12M18 6L6 18";
export const LIKE = "M13 18H4V5h14v6M4 15l4-4 3 3M20 21l-2-2M15 16.5a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0";
export const TICK = "M5 12.5l4.5 4.5L19 7.5";
export const DOWN = "M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 20h14";
export const LEFT = "M15 5l-7 7 7 7";
export const RIGHT = "M9 5l7 7-7 7";
