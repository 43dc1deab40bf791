// Helpers that create the page's elements.

const main = document.getElementById("main");

// Create an element. An attribute that starts with "on" is an event listener, `true` sets an empty
// attribute, and `false` or null sets none. Children may be nested arrays; null children are skipped.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...present(children));
  return element;
}

// Replace the children of an element; null children are skipped.
export const replaceContent = (element, ...children) => element.replaceChildren(...present(children));

// Replace the content of the page.
export const showContent = (...children) => replaceContent(main, ...children);

export const focusContent = () => main.focus();

export const stateBadge = (state) =>
  el("span", { class: `state ${state.toLowerCase()}` }, state.toLowerCase());

// A labelled value in the summary of a job or trial.
export const keyFigure = (label, ...value) =>
  el("div", {}, el("span", { class: "muted" }, label), el("b", {}, ...value));

export const errorMessage = (error) =>
  el("div", { class: "error", role: "alert" }, el("p", {}, error.message),
    el("ul", {}, (error.problems || []).map((problem) => el("li", {}, problem))));

// A text in which backticks enclose code.
export const withCode = (text) => text.split("`").map((part, number) => (number % 2 ? el("code", {}, part) : part));

const present = (children) => children.flat(2).filter((child) => child != null);
