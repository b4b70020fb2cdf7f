"use strict";
// The map is one canvas, because thousands of elements take a browser seconds. A single button, the cursor, lies
// over the chosen cell: it takes the keyboard, and says to a screen reader what it is on.
const STATES = {
  p: { name: "published", colour: "--green" },
  s: { name: "stale", colour: "--green" },
  r: { name: "running", colour: "--blue" },
  b: { name: "blocked", colour: "--red" },
  m: { name: "missing", colour: "--orange" },
};
const element = (id) => document.getElementById(id);
const states = JSON.parse(element("states").textContent);
const domains = Object.keys(states.domains);
const ROW = 18, HEAD = 22;
const map = element("map"), canvas = element("cells"), cursor = element("cursor"), panel = element("night");
let width = 18, chosen = { row: 0, column: states.days - 1 };

function day(column) {
  const moment = new Date(states.start + "T00:00:00Z");
  moment.setUTCDate(moment.getUTCDate() + column);
  return moment.toISOString().slice(0, 10);
}

function described({ row, column }) {
  const state = STATES[states.domains[domains[row]][column]];
  return `${domains[row]}, ${day(column)}: ${state ? state.name : "nothing expected"}`;
}

// Shapes differ too, for those who can't tell the colours.
function paint(pen, letter, x, y, w, h, colour) {
  pen.fillStyle = pen.strokeStyle = colour;
  if (letter === "p") pen.fillRect(x, y, w, h);
  else if (letter === "s") pen.fillRect(x, y + h / 2, w, h / 2);
  else if (letter === "m") pen.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
  else if (letter === "r") {
    pen.beginPath();
    pen.ellipse(x + w / 2, y + h / 2, w / 2, h / 2 - 1, 0, 0, 7);
    pen.fill();
  } else if (letter === "b") {
    pen.lineWidth = w < 8 ? 1.5 : 2.5;
    pen.beginPath();
    pen.moveTo(x + 1, y + 1), pen.lineTo(x + w - 1, y + h - 1);
    pen.moveTo(x + w - 1, y + 1), pen.lineTo(x + 1, y + h - 1);
    pen.stroke();
    pen.lineWidth = 1;
  }
}

function sized(surface, w, h) {
  const scale = window.devicePixelRatio || 1;
  surface.width = w * scale;
  surface.height = h * scale;
  surface.style.width = `${w}px`;
  surface.style.height = `${h}px`;
  const pen = surface.getContext("2d");
  pen.scale(scale, scale);
  return pen;
}

function draw() {
  const room = map.clientWidth - element("names").offsetWidth;
  width = Math.max(7, Math.min(24, Math.floor(room / Math.max(states.days, 1))));
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(Object.entries(STATES).map(([k, s]) => [k, style.getPropertyValue(s.colour)]));
  const pen = sized(canvas, width * states.days, HEAD + ROW * domains.length + 2);
  pen.font = "11px system-ui, sans-serif";
  let free = 0;
  for (let column = 0; column < states.days; column++) {
    const date = day(column), monday = new Date(date).getUTCDay() === 1;
    if (monday && column * width >= free && (states.days - column) * width > 70) {
      pen.fillStyle = style.getPropertyValue("--soft");
      pen.fillText(date, column * width, 14);
      free = column * width + 84;
    }
  }
  domains.forEach((domain, row) => {
    const letters = states.domains[domain];
    for (let column = 0; column < letters.length; column++) {
      const letter = letters[column];
      if (letter in STATES) paint(pen, letter, column * width + 1, HEAD + row * ROW + 2, width - 2, ROW - 4, colours[letter]);
    }
  });
  for (const swatch of document.querySelectorAll(".legend canvas")) {
    paint(sized(swatch, 14, 14), swatch.dataset.letter, 1, 1, 12, 12, colours[swatch.dataset.letter]);
  }
  place();
}

function place() {
  Object.assign(cursor.style, {
    left: `${chosen.column * width - 1}px`, top: `${HEAD + chosen.row * ROW}px`, width: `${width + 2}px`, height: `${ROW}px`,
  });
  cursor.setAttribute("aria-label", described(chosen));
}

function choose(row, column) {
  const inside = (value, count) => Math.max(0, Math.min(count - 1, value));
  chosen = { row: inside(row, domains.length), column: inside(column, states.days) };
  place();
  cursor.focus({ preventScroll: true });
  cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
  element("hovered").textContent = described(chosen);
}

function cellAt(event) {
  const box = canvas.getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top - HEAD) / ROW), column = Math.floor((event.clientX - box.left) / width);
  return row in domains && column >= 0 && column < states.days ? { row, column } : null;
}

function list() {
  const count = Object.values(states.domains).join("");
  for (const [letter, state] of Object.entries(STATES)) {
    const item = document.createElement("li"), swatch = document.createElement("canvas");
    swatch.dataset.letter = letter;
    item.append(swatch, `${(count.split(letter).length - 1).toLocaleString("en")} ${state.name}`);
    element("legend").append(item);
  }
  const names = element("names");
  names.style.paddingTop = `${HEAD}px`;
  for (const domain of domains) {
    const name = document.createElement("div");
    name.textContent = name.title = domain;
    name.style.height = name.style.lineHeight = `${ROW}px`;
    names.append(name);
  }
}

// One night

async function show() {
  const asked = new URLSearchParams({ domain: domains[chosen.row], day: day(chosen.column) });
  const answer = await fetch(`night?${asked}`);
  if (panel.hidden) fit(false);
  if (answer.ok) panel.innerHTML = await answer.text();
  else panel.textContent = await reason(answer);
  const again = panel.querySelector("[data-dialog]");
  if (again) again.disabled = document.querySelector("nav [data-dialog]").disabled;
  panel.focus();
  const log = panel.querySelector("#log");
  if (log) findLog(log);
}

function hide() {
  fit(true);
  cursor.focus();
}

// A wide screen shows the night beside the map, which then has less room.
function fit(alone) {
  panel.hidden = alone;
  draw();
  cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
}

async function reason(answer) {
  if (answer.status === 401) return "You are no longer logged in: load the page again.";
  try {
    const { detail } = await answer.json();
    return typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch {
    return `Airflow answered ${answer.status}.`;
  }
}

// The task that ran when the load began. Batches are named after their domains; the names of large ones are cut off.
async function findLog(link) {
  const { began, domain } = link.dataset;
  const ended = new URLSearchParams({ start_date_lte: began, end_date_gte: began, limit: 100 });
  const alive = new URLSearchParams({ start_date_lte: began, state: "running", limit: 100 });
  for (const asked of [ended, alive]) {
    const answer = await fetch(`../api/v2/dags/~/dagRuns/~/taskInstances?${asked}`);
    if (!answer.ok) return;
    const tasks = (await answer.json()).task_instances.filter((task) =>
      (task.dag_id === "nightly_scoring" && ["score", "domain"].includes(task.task_id)) ||
      (task.dag_id === "backfill" && task.task_id === "fill"));
    const named = tasks.filter((task) => (task.rendered_map_index || "").split(", ").includes(domain));
    const cut = tasks.filter((task) => (task.rendered_map_index || "").endsWith("..."));
    const task = named[0] || (cut.length === 1 ? cut[0] : null);
    if (task) {
      const run = encodeURIComponent(task.dag_run_id);
      link.href = `../dags/${task.dag_id}/runs/${run}/tasks/${task.task_id}/mapped/${task.map_index}`;
      link.hidden = false;
      return;
    }
  }
}

// Links leave the frame that Airflow shows the page in, whose sandbox allows no other windows.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || link.closest("nav") || window.parent === window) return;
  event.preventDefault();
  const outer = window.parent.document.createElement("a");
  Object.assign(outer, { href: link.href, target: "_blank", rel: "noopener" });
  outer.click();
});

// Questions before a DAG is started

const ask = element("ask"), fields = element("fields"), start = element("start"), answer = element("answer");
let question = null;

function field(label, name, value, type) {
  const row = document.createElement("label");
  let input = document.createElement("input");
  if (type === "domains") {
    input = document.createElement("select");
    input.append(new Option("all domains", ""), ...domains.map((domain) => new Option(domain, domain)));
  } else input.type = type;
  Object.assign(input, { name, value, required: type === "date" });
  row.append(label, input);
  return row;
}

const QUESTIONS = {
  backfill: ({ domain, day: on }) => ({
    dag: "backfill",
    title: "Backfill nights that are missing, stale or failed?",
    fields: [
      field("Domain", "domain", domain || "", "domains"),
      field("First night", "start", on || day(states.days - 1), "date"),
      field("Last night", "end", on || day(states.days - 1), "date"),
    ],
    conf: (form) => ({ start: form.start, end: form.end, ...(form.domain && { domains: [form.domain] }) }),
  }),
  promote: ({ domain, champion, challenger }) => ({
    dag: "promotion",
    title: `Make ${challenger} the champion of ${domain || "all domains"}, instead of ${champion}?`,
    fields: [field("Reason", "why", "", "text")],
    conf: (form) => ({ action: "promote", model_version: challenger, ...(domain && { domain }), ...(form.why && { why: form.why }) }),
  }),
  rollback: ({ domain, champion }) => ({
    dag: "promotion",
    title: `Go back from ${champion} to the champion before it, for ${domain || "all domains"}?`,
    fields: [field("Reason", "why", "", "text")],
    conf: (form) => ({ action: "rollback", ...(domain && { domain }), ...(form.why && { why: form.why }) }),
  }),
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-dialog]");
  if (button) {
    const row = button.closest("tr");
    question = QUESTIONS[button.dataset.dialog]({ ...(row ? row.dataset : button.dataset) });
    element("question").textContent = question.title;
    fields.replaceChildren(...question.fields);
    answer.textContent = "";
    start.hidden = false;
    element("cancel").textContent = "Cancel";
    ask.showModal();
  }
  if (event.target.closest(".close")) hide();
});
element("cancel").addEventListener("click", () => ask.close());

ask.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  start.disabled = true;
  try {
    const conf = question.conf(Object.fromEntries(new FormData(event.target)));
    answer.replaceChildren(...(await trigger(question.dag, conf)));
  } catch (error) {
    answer.textContent = `Airflow doesn't answer: ${error.message}`;
  }
  start.disabled = false;
});

async function trigger(dag, conf) {
  const started = await fetch(`../api/v2/dags/${dag}/dagRuns`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ logical_date: null, conf }),
  });
  if (!started.ok) return [await reason(started)];
  start.hidden = true;
  element("cancel").textContent = "Close";
  const run = (await started.json()).dag_run_id, link = document.createElement("a");
  link.href = `../dags/${dag}/runs/${encodeURIComponent(run)}`;
  link.textContent = run;
  const told = await fetch(`../api/v2/dags/${dag}`);
  const waits = told.ok && (await told.json()).is_paused;
  return ["Started ", link, waits ? `. The DAG ${dag} is switched off: the run waits until it is switched on.` : "."];
}

// Start

canvas.addEventListener("click", (event) => {
  const cell = cellAt(event);
  if (cell) choose(cell.row, cell.column), show();
});
canvas.addEventListener("mousemove", (event) => {
  const cell = cellAt(event);
  element("hovered").textContent = cell ? described(cell) : "\u00a0";
});
cursor.addEventListener("click", show);
cursor.addEventListener("keydown", (event) => {
  const { row, column } = chosen;
  const target = {
    ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
    Home: [row, 0], End: [row, states.days - 1], PageUp: [row - 10, column], PageDown: [row + 10, column],
  }[event.key];
  if (target) event.preventDefault(), choose(...target);
});
panel.addEventListener("keydown", (event) => event.key === "Escape" && hide());
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
list();
map.hidden = !domains.length;
cursor.hidden = !domains.length;
draw();
map.scrollLeft = map.scrollWidth;
performance.mark("painted");
