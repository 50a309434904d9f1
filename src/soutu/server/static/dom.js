/** Elements. Text always goes in as text: nothing that a file is called can become markup. */

export const $ = (id) => document.getElementById(id);

/** Characters that command a line's direction, or stand for nothing, are shown as �. */
export function plain(text) {
  const found = String(text).replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  return found.toWellFormed?.() ?? found;
}

/** @param {string} tag @param {Object} props @param {...(Node|string)} inside */
export function make(tag, props = {}, ...inside) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name === "class") found.className = value;
    else if (name in found && name !== "list" && name !== "form") found[name] = value;
    else found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...inside.filter((one) => one !== null && one !== undefined && one !== false));
  return found;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line drawing on 24 × 24. */
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
export const LIKE = "M4 5h9v9H4zM11 10h9v9h-9z";
export const TICK = "M5 12.5l4.5 4.5L19 7.5";
export const DOWN = "M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 20h14";
export const LEFT = "M15 5l-7 7 7 7";
export const RIGHT = "M9 5l7 7-7 7";
