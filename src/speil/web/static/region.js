import { ago, byId, bytes, cell, duration, el, facts, follow, percent, post, rows, setClock, short, sums, svg } from "./show.js";
import { drawMap } from "./map.js";

const state = { names: [], regions: new Map(), crossings: [], steps: new Map() };

// the field, its class, and what it means
const SOURCES = [["own_bytes", "own", "own stores"], ["peer_bytes", "peer", "peers"], ["upstream_bytes", "upstream", "upstream"]];

const name = (region) => region || "(none)";

function showSummary(found) {
  setClock(found.now);
  state.names = found.regions;
  for (const gone of [...state.regions.keys()]) if (!found.regions.includes(gone)) state.regions.delete(gone);
  byId("looked").replaceChildren(`${found.nodes} nodes, read `, ago(found.at),
    found.look_seconds ? ` in ${duration(found.look_seconds)}` : "");
  byId("error").hidden = !found.error;
  byId("error").textContent = found.error ? `The regions can't be read now: ${found.error}` : "";
  draw();
}

function showRegion(found) {
  state.regions.set(found.region, found);
  draw();
}

let drawing = false;
function draw() {  // once for all events that came together
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const regions = state.names.map((one) => state.regions.get(one)).filter(Boolean);
    drawMap(byId("map"), regions, state.crossings);
    showCards(regions);
  });
}

// --- one card for each region --------------------------------------------------------------------------------------

function showCards(regions) {
  const box = byId("regions");
  const wanted = new Set(regions.map((one) => `region-${one.region}`));
  for (const card of [...box.children]) if (!wanted.has(card.id)) card.remove();
  for (const region of regions) {
    let card = byId(`region-${region.region}`);
    if (!card) {
      const title = `title-${region.region}`;
      card = el("section", { id: `region-${region.region}`, "aria-labelledby": title },
        el("h2", { id: title }, `Region ${name(region.region)}`), el("dl", { class: "facts" }), el("h3", {}, "The last hour"),
        el("div", { class: "sums" }), el("p", { class: "quiet legend" }, "Bytes for each minute: ",
          ...SOURCES.map(([, kind, meaning]) => el("span", { class: kind }, meaning))), svg("svg", { class: "chart", role: "img", viewBox: "0 0 600 60", preserveAspectRatio: "none" }));
      box.append(card);
    }
    fillCard(card, region);
  }
}

function zonesOf(region) {
  const counts = new Map();
  for (const node of region.nodes) counts.set(node.zone, (counts.get(node.zone) || 0) + 1);
  return [...counts].sort(([one], [other]) => one.localeCompare(other))
    .map(([zone, count]) => `${zone || "no zone"}: ${count}`).join(", ") || "none";
}

function fillCard(card, region) {
  const lease = region.lease, leaders = region.nodes.filter((one) => one.leads).map((one) => one.name);
  const ready = region.nodes.filter((one) => one.ready).length;
  const renewed = lease.age_seconds === null ? "" : `, renewed ${duration(lease.age_seconds)} before this look`;
  facts(card.querySelector("dl"), [
    ["Leader", el("span", { class: leaders.length === 1 ? "leader" : "leader bad" },
      leaders.length ? leaders.join(", ") : lease.holder ? `${lease.holder} holds the Lease` : "nobody leads")],
    ["Lease", `${lease.name || "none"}${lease.error ? `: ${lease.error}` : renewed}${
      lease.transitions ? `, ${lease.transitions} ${lease.transitions === 1 ? "change" : "changes"} of the leader` : ""}`],
    ["Nodes", el("span", { class: ready === region.nodes.length ? "good" : "bad" },
      `${ready} of ${region.nodes.length} ready${region.pending.length ? `, ${region.pending.length} pending` : ""}`)],
    ["Zones", zonesOf(region)],
    ...region.errors.map((one) => ["Can't be read", el("span", { class: "bad" }, one)]),
    ...(region.errors_total > region.errors.length ? [["", `and ${region.errors_total - region.errors.length} more`]] : []),
    ...region.pending.map((one) => ["Pending", one]),
    ...(region.labels.length > 1 ? [["Labels", el("span", { class: "bad" }, region.labels.join(", "))]] : []),
  ]);
  const hour = region.hour;
  sums(card.querySelector(".sums"), [
    ["hit ratio", percent(hour.hit_ratio)], ["from peers", bytes(hour.peer_bytes)],
    ["from own stores", bytes(hour.own_bytes)], ["from upstream", bytes(hour.upstream_bytes)],
    ["from peers, since the nodes started", bytes(region.total.peer_bytes)],
    ["kept out", region.rejected, region.rejected ? "warn" : "good"],
  ]);
  showChart(card.querySelector("svg"), state.steps.get(region.region));
}

function showSteps(found) {
  state.steps.set(found.region, found);
  const card = byId(`region-${found.region}`);
  if (card) showChart(card.querySelector("svg"), found);
}

function showChart(chart, found) {
  const steps = found ? found.steps : [];
  const sum = (step) => SOURCES.reduce((total, [field]) => total + step[field], 0);
  const most = Math.max(1, ...steps.map(sum)), last = steps.length ? steps[steps.length - 1].since : 0;
  const bars = steps.flatMap((step) => {
    const x = 590 - ((last - step.since) / found.step_seconds) * 10;
    let y = 60;
    return SOURCES.map(([field, kind]) => {
      const height = (58 * step[field]) / most;
      y -= height;
      return svg("rect", { class: kind, x, y, width: 8, height });
    });
  });
  chart.setAttribute("aria-label", `bytes by source for each minute of the last hour, at most ${bytes(most)} in a minute`);
  chart.replaceChildren(...bars);
}

// --- border, roll-outs, kept out -----------------------------------------------------------------------------------

function showBorder(found) {
  state.crossings = found.crossings;
  const crossed = found.crossings.filter((one) => one.source !== "?").reduce((total, one) => total + one.total, 0);
  const unknown = found.crossings.filter((one) => one.source === "?").reduce((total, one) => total + one.total, 0);
  byId("border-sum").textContent = `${bytes(crossed)} crossed a border between these regions.${
    unknown ? ` ${bytes(unknown)} came from peers that are not among these nodes: nodes that are gone, or were not looked at.` : ""}`;
  byId("border-sum").className = crossed ? "bad" : "good";
  rows(byId("crossings"), found.crossings.map((one) => el("tr", {},
    cell(one.source === "?" ? "peers that were not looked at" : name(one.source)), cell(name(one.target)),
    cell(bytes(one.total), `number ${one.total && one.source !== "?" ? "bad" : ""}`), cell(bytes(one.minute), "number"))),
  "There is one region, so no border.", 4);
  draw();
}

const OPEN_NODES_MAX = 20;  // a roll-out with more nodes is closed at first
const DO = { fetching: "downloading from upstream", following: "following", getting: "getting it from a node that has it" };
const DOES = { fetching: "downloads from upstream", following: "follows", getting: "gets it", holds: "has it", "": "not looked at" };
function branch(one) {
  const part = one.total ? Math.min(one.offset / one.total, 1) : 0;
  const progress = one.role === "holds" || !one.role ? "" : el("span", {}, " ",
    el("progress", { max: 1, value: part, "aria-label": `${one.node} ${one.role}` }), ` ${bytes(one.offset)}`);
  return el("li", {}, el("b", {}, one.node), one.zone ? ` in ${one.zone}` : "", ` ${DOES[one.role] ?? one.role}`, progress,
    one.below.length ? el("ul", {}, ...one.below.map(branch)) : null);
}

// One element for each roll-out: what the user has opened stays open, and only that is drawn.
function showRollouts(found) {
  const box = byId("rollouts"), before = new Map([...box.children].map((one) => [one.dataset.key, one]));
  box.replaceChildren(...(found.rollouts.length ? found.rollouts.map((one) => {
    const key = `${one.region} ${one.key}`;
    const shown = before.get(key) || el("details", { "data-key": key, open: one.count <= OPEN_NODES_MAX }, el("summary"), el("div"));
    shown.ontoggle = () => fillRollout(shown, one);
    fillRollout(shown, one);
    return shown;
  }) : [el("p", { class: "quiet" }, "No node downloads anything now.")]));
}

function fillRollout(shown, one) {
  const roles = Object.entries(one.roles).map(([role, count]) => `${count} ${DO[role] ?? role}`).join(", ");
  const part = one.total ? `, ${percent(one.offset / one.total)} of all bytes` : "";
  shown.firstChild.replaceChildren(`${name(one.region)}: `, short(one.key),
    ` ${one.image}, ${one.count} ${one.count === 1 ? "node" : "nodes"}: ${roles}${part}`);
  shown.lastChild.replaceChildren(...(shown.open ? [el("ul", { class: "tree" }, ...one.trees.map(branch)),
    one.left_out ? el("p", { class: "quiet" }, `and ${one.left_out} more nodes below these`) : ""] : []));
}

function finding(one) {
  const kind = { ok: "good", warn: "warn", fail: "bad" }[one.level] || "";
  return el("li", {}, el("span", { class: `level ${kind}` }, one.level), ` ${one.check}: ${one.message}`,
    one.remedy ? el("div", { class: "quiet" }, `→ ${one.remedy}`) : null);
}

function showKeptOut(found) {
  const layers = Object.entries(found.layers), total = layers.reduce((sum, [, count]) => sum + count, 0);
  byId("kept-sums").textContent = total
    ? `${total} attempts, by layer: ${layers.map(([layer, count]) => `${layer} ${count}`).join(", ")}. Nothing crossed.` : "0 attempts.";
  byId("kept-sums").className = total ? "warn" : "good";
  byId("kept-findings").replaceChildren(...found.findings.map(finding));
  rows(byId("kept"), found.rows.map((one) => el("tr", {},
    cell(ago(one.time)), cell(`${one.node} of ${name(one.region)}`, "name"), cell(one.layer), cell(one.who, "name"),
    cell(one.why), cell(one.count, "number"), cell(one.what_to_do))), "Nobody was kept out.", 7);
}

// --- verify --------------------------------------------------------------------------------------------------------

function showVerify(found) {
  byId("verify-button").disabled = found.is_running;
  const failed = found.findings.filter((one) => one.level === "fail").length;
  const status = byId("verify-status");
  status.className = found.error || failed ? "bad" : found.at ? "good" : "";
  if (found.is_running) status.replaceChildren("reading the regions twice");
  else if (found.error) status.replaceChildren(found.error);
  else if (found.at) status.replaceChildren(failed ? `${failed} checks failed, ` : "isolated: no check failed, ", ago(found.at));
  else status.replaceChildren("not verified since this page's process started");
  byId("findings").replaceChildren(...found.findings.map(finding));
}

byId("verify-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("verify-button").disabled = true;
  try { await post("verify?observe=5s"); } catch (error) {
    byId("verify-status").className = "bad";
    byId("verify-status").textContent = error.message;
    byId("verify-button").disabled = false;
  }
});

addEventListener("resize", draw);
follow("events", {
  summary: showSummary, region: showRegion, steps: showSteps, border: showBorder, rollouts: showRollouts,
  kept_out: showKeptOut, verify: showVerify,
}, byId("link"));
