// What both pages show things with. Text goes in by textContent alone: names of images, peers and errors are not ours.

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map(
    (child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return made;
}

export const byId = (id) => document.getElementById(id);

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

export const speed = (count, seconds) => (count > 0 && seconds > 0 ? `${bytes(Math.round(count / seconds))}/s` : "–");

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 && seconds % 1 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

export const percent = (ratio) => (ratio === null || ratio === undefined ? "–" : `${Math.round(ratio * 100)} %`);

// a digest or peer id, short, with all of it as its title
export function short(text) {
  const shown = text.startsWith("sha256:") ? text.slice(7, 19) : text.length > 20 ? `…${text.slice(-8)}` : text;
  return el("code", { title: text }, shown);
}

// a time in Unix seconds that is shown as its age; `tick` keeps all of them right
let clockSkew = 0;
export function setClock(serverSeconds) { clockSkew = serverSeconds - Date.now() / 1000; }
export const now = () => Date.now() / 1000 + clockSkew;
export function ago(seconds) {
  if (!seconds) return el("span", {}, "–");
  const shown = el("time", { "data-at": seconds, datetime: new Date(seconds * 1000).toISOString() });
  shown.title = new Date(seconds * 1000).toLocaleString();
  renew(shown);
  return shown;
}
function renew(shown) {
  const text = `${duration(Math.max(0, Math.round(now() - Number(shown.dataset.at))))} ago`;
  if (shown.textContent !== text) shown.textContent = text;
}
setInterval(() => { if (!document.hidden) document.querySelectorAll("time[data-at]").forEach(renew); }, 1000);

export function cell(content, kind = "") { return el("td", kind ? { class: kind } : {}, content); }

// Replaces the rows of a table's body; shows `none` where there is none.
export function rows(body, made, none, columns) {
  body.replaceChildren(...(made.length ? made : [el("tr", {}, el("td", { colspan: columns, class: "quiet" }, none))]));
}

export function facts(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

export function sums(box, pairs) {
  box.replaceChildren(...pairs.map(([name, value, kind]) => el("div", {}, el("b", kind ? { class: kind } : {}, value), name)));
}

// Server-sent events, only while somebody looks: a hidden page closes its stream, and opens a new one when it is seen.
export function follow(url, handlers, status) {
  let source = null, again = 0;
  const say = (text, kind) => { status.textContent = text; status.className = `state ${kind}`; };
  const close = () => { clearTimeout(again); if (source) source.close(); source = null; };
  const open = () => {
    close();
    source = new EventSource(url);
    source.onopen = () => say("live", "good");
    source.onerror = () => {
      say("not connected, trying again", "bad");
      if (source && source.readyState === EventSource.CLOSED) again = setTimeout(open, 5000);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); say("paused", "quiet"); } else { open(); }
  });
  addEventListener("pagehide", close);
  open();
}

// A POST to a route of this page: its JSON, or an Error with the line that the node answers.
export async function post(url) {
  const answer = await fetch(url, { method: "POST" });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim() || `the answer is ${answer.status}`);
  return JSON.parse(text);
}
