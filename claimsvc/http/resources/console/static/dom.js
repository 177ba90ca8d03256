// Helpers. Data from the service is inserted as text, never as markup.

const number = new Intl.NumberFormat("en");
const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const byId = (id) => document.getElementById(id);

/** Create an element with a class and children: nodes or text. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Create an SVG element with attributes. */
export function draw(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Set the text, if it differs, because setting it costs the browser time even if it does not change. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute `data-…`, if it differs. */
export function mark(element, name, value) {
  if (element.dataset[name] !== value) element.dataset[name] = value;
}

/** Set the width of the filled part of a bar; `share` is from 0 to 1. */
export function fill(element, share) {
  const width = `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
  if (element.style.width !== width) element.style.width = width;
}

export const count = (value) => number.format(Math.round(value));
export const rate = (value) => (value === 0 || value >= 10 ? number.format(Math.round(value)) : small.format(value));
export const percent = (share) => `${Math.round(share * 100)} %`;

/** Format milliseconds with a readable number of digits. */
export function duration(milliseconds) {
  if (milliseconds >= 1000) return `${small.format(milliseconds / 1000)} s`;
  if (milliseconds >= 10) return `${Math.round(milliseconds)} ms`;
  return `${small.format(milliseconds)} ms`;
}

/** Format seconds in the two largest units. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** Keep one element for each key, in the order of the keys. `create(key)` creates the element of a new key. */
export function keepRows(parent, kept, keys, create) {
  for (const [key, element] of kept) {
    if (!keys.includes(key)) {
      element.remove();
      kept.delete(key);
    }
  }
  keys.forEach((key, place) => {
    if (!kept.has(key)) kept.set(key, create(key));
    const element = kept.get(key);
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
  });
}

/** A cell of a table. On small screens, rows are shown as cards, and `label` in front of the cell. */
export function cell(label, className, ...children) {
  const element = make("td", className, ...children);
  element.setAttribute("role", "cell");
  element.dataset.label = label;
  return element;
}

/** The heading cell of a row. */
export function rowHeading(className, ...children) {
  const element = make("th", className, ...children);
  element.setAttribute("role", "rowheader");
  element.scope = "row";
  return element;
}

/** A row of a table. */
export function row(...cells) {
  const element = make("tr", "", ...cells);
  element.setAttribute("role", "row");
  return element;
}

/** The short name of an instance: A, B, C, … */
export const letter = (place) => (place < 26 ? String.fromCharCode(65 + place) : String(place + 1));
