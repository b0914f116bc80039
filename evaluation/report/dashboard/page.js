// Curves, alerts and samples of the chosen runs, and production traffic; asks for what is new every two seconds.
"use strict";
const COLOURS = ["#1f6feb", "#d1490c", "#1a7f37", "#8250df", "#bf3989", "#0a7a8a", "#9a6700", "#57606a"];
const USUAL = ["loss", "reward", "rewards/", "eval_reward", "eval_rewards/", "kl", "objective/kl", "eval_kl", "entropy",
  "grad_norm", "completions/mean_length", "eval_loss", "eval_accuracy", "accuracy", "clip_ratio/region_mean",
  "val/explained_variance", "vi/explained_variance", "frac_reward_zero_std", "replay/ess"];
const NOT_METRICS = new Set(["step", "max_steps", "epoch"]);
const known = new Map(); // name -> {rows, next, alerts, samples, colour}
const plots = new Map(); // key of a chart -> {figure, plot, drawn}
let chosen = null, listed = [], traffic = [];
const $ = id => document.getElementById(id);
const escaped = text => String(text).replace(/[&<>"']/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}[c]));
const short = x => x == null ? "" : Math.abs(x) >= 1e5 || (x && Math.abs(x) < 1e-3) ? x.toExponential(1) : String(+x.toPrecision(3));
const ask = async path => { const answer = await fetch(path); if (!answer.ok) throw new Error(await answer.text()); return answer.json(); };
const ago = s => s < 90 ? `${s} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : s < 172800 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} days ago`;
const words = id => $(id).value.trim().toLowerCase().split(/\s+/).filter(Boolean);
const label = name => listed.find(run => run.name === name)?.label ?? name;
const show = (id, html) => { if ($(id).shown !== html) $(id).innerHTML = $(id).shown = html; }; // what is unchanged stays as the reader sorted it

async function refresh() {
  try {
    const found = await ask("runs");
    listed = found.runs;
    $("root").textContent = found.root;
    if (chosen === null && listed.length) {
      const linked = new URLSearchParams(location.search).getAll("run");
      chosen = new Set(linked.length ? linked : listed.slice(0, 4).map(run => run.name));
    }
    for (const name of chosen || []) await update(name);
    draw();
    traffic = await ask("traffic");
    draw();
    $("state").textContent = `updated ${new Date().toLocaleTimeString()}`;
  } catch (error) { $("state").textContent = `no answer: ${error.message}`; }
  setTimeout(refresh, 2000);
}

async function update(name) {
  if (!listed.some(run => run.name === name)) return;
  const run = known.get(name) || {rows: [], next: 0, alerts: [], samples: [], colour: COLOURS[known.size % COLOURS.length]};
  known.set(name, run);
  const query = `run=${encodeURIComponent(name)}`;
  const found = await ask(`logged?${query}&after=${run.next}`);
  run.rows = found.restarted ? found.rows : run.rows.concat(found.rows);
  Object.assign(run, {next: found.next, alerts: found.alerts, samples: await ask(`samples?${query}`)});
}

function item(run) {
  const colour = chosen?.has(run.name) && known.get(run.name)?.colour, count = known.get(run.name)?.alerts.length || run.alerts;
  const about = [run.data, run.model, run.learning_rate && `rate ${run.learning_rate}`].filter(Boolean).join(", ");
  return `<label class="run"><input type="checkbox" data-run="${escaped(run.name)}" ${chosen?.has(run.name) ? "checked" : ""}><span class="chip" style="${colour ? `background:${colour}` : ""}"></span>
    <span>${escaped(run.stage)}<small>${escaped(about)}</small><small><span class="${run.status === "running" ? "good" : ""}">${run.status}</span>, step ${run.step} of ${run.max_steps}, ${ago(run.age)}${count ? `<span class="bad">, ${count} alert${count > 1 ? "s" : ""}</span>` : ""}${run.problem ? `<span class="bad">, ${escaped(run.problem)}</span>` : ""}</small></span></label>`;
}

function draw() {
  const found = listed.filter(run => words("find").every(word => [run.name, run.label, run.data, run.model, run.learning_rate, run.status].join(" ").toLowerCase().includes(word)));
  const groups = Map.groupBy(found, run => run.group);
  show("runs", [...groups].map(([group, runs]) => `<h3 data-group="${escaped(group)}" title="choose all of it, or none">${escaped(group || "this folder")} (${runs.length})</h3>${runs.map(item).join("")}`).join("") || "none");
  const shown = [...(chosen || [])].filter(name => known.has(name)), metrics = new Set();
  for (const name of shown) for (const row of known.get(name).rows) for (const key of Object.keys(row)) if (!NOT_METRICS.has(key)) metrics.add(key);
  const rank = key => USUAL.findIndex(usual => usual.endsWith("/") ? key.startsWith(usual) && key.endsWith("/mean") : key === usual);
  const asked = words("filter");
  const wanted = [...metrics].filter(key => asked.length ? asked.every(word => key.toLowerCase().includes(word)) : rank(key) >= 0)
    .sort((a, b) => asked.length ? a.localeCompare(b) : rank(a) - rank(b) || a.localeCompare(b));
  charts("charts", wanted.map(key => [key, shown.map(name => {
    const {rows, colour, alerts} = known.get(name), own = rows.filter(row => key in row && "step" in row);
    return {name: label(name), colour, x: own.map(row => row.step), y: smoothed(own.map(row => row[key])), marks: alerts.map(alert => alert.step)};
  }).filter(curve => curve.x.length)]), "No metrics yet: choose a run.");
  const alerts = shown.flatMap(name => known.get(name).alerts.map(alert => [label(name), alert.step, alert.rule, `${alert.metric}: ${alert.message}`]));
  show("alerts", table(["run", "step", "rule", "what"], alerts.sort((a, b) => b[1] - a[1]).slice(0, 50), "None, by the rules of monitor=standard."));
  const samples = shown.flatMap(name => known.get(name).samples.slice(0, Math.ceil(12 / shown.length)).map(s => [label(name), s.of, s.step ?? "", s.prompt, s.completion, Object.entries(s.rewards).map(([k, v]) => `${k} ${short(v)}`).join("\n")]));
  show("samples", table(["run", "of", "step", "prompt", "completion", "rewards"], samples, "None. Training samples come with args.log_completions=true."));
  production();
}

function production() {
  const said = traffic.flatMap(file => file.in_words).map(text => `<p class="note">${escaped(text)}</p>`).join("");
  show("traffic", table(traffic[0]?.header, traffic.flatMap(file => file.rows), "None: launchers.serve records it.") + said);
  const curves = traffic.flatMap(file => Object.entries(file.points)).map(([name, points], i) => [name, points, COLOURS[i % 8]]);
  charts("served", ["reward", "latency", "length", "failures"].map(key => [key, curves.map(([name, points, colour]) => {
    const own = points.filter(point => key in point);
    return {name, colour, x: own.map(point => point.time), y: own.map(point => point[key]), marks: []};
  }).filter(curve => curve.x.length)]), "");
}

const table = (heads, rows, none) => rows.length ? `<table class="sortable n-last"><thead><tr>${heads.map(h => `<th>${h}</th>`).join("")}</tr></thead><tbody>${rows.map(row =>
  `<tr>${row.map(cell => `<td>${escaped(cell ?? "")}</td>`).join("")}</tr>`).join("")}</tbody></table>` : `<p class="note">${none}</p>`;

function smoothed(values) {
  const weight = +$("smooth").value;
  let mean = 0, mass = 0;
  return values.map(y => { mean = weight * mean + (1 - weight) * y; mass = weight * mass + 1 - weight; return mean / mass; });
}

function charts(place, wanted, none) { // wanted: [title, curves] of every chart; one is drawn anew where its numbers are others
  const full = wanted.filter(([, curves]) => curves.length), keys = full.map(([title]) => `${place} ${title}`);
  for (const key of plots.keys()) if (key.startsWith(`${place} `) && !keys.includes(key)) { plots.get(key).figure.remove(); plots.delete(key); }
  $(place).dataset.none = full.length ? "" : none;
  full.forEach(([title, curves], i) => {
    const key = keys[i], own = plots.get(key) ?? {figure: document.createElement("figure")}, drawn = JSON.stringify(curves.map(({name, x, y}) => [name, x.length, y.at(-1), y[0]]));
    plots.set(key, own);
    if ($(place).children[i] !== own.figure) $(place).insertBefore(own.figure, $(place).children[i] ?? null);
    if (own.drawn === drawn) return;
    own.drawn = drawn;
    own.figure.innerHTML = `<figcaption>${escaped(title.replace(/-[0-9a-f]{16}(?=\/|$)/, ""))}</figcaption>`;
    const style = name => getComputedStyle(document.documentElement).getPropertyValue(name), axis = {stroke: style("--soft"), grid: {stroke: style("--line"), width: 1}};
    const mark = u => { u.ctx.fillStyle = style("--bad"); for (const step of new Set(curves.flatMap(curve => curve.marks))) u.ctx.fillRect(u.valToPos(step, "x", true), u.bbox.top, 1, u.bbox.height); };
    const series = curves.map(({name, colour, x}) => ({label: name, stroke: colour, width: 1.6, spanGaps: true, points: {show: x.length < 3}, value: (u, v) => short(v)}));
    own.plot = new uPlot({width: own.figure.clientWidth - 20, height: 190, scales: {x: {time: place === "served"}}, axes: [axis, {...axis, size: 56, values: (u, ticks) => ticks.map(short)}],
      series: [place === "served" ? {} : {label: "step"}, ...series], hooks: {draw: [mark]}}, uPlot.join(curves.map(({x, y}) => [x, y])), own.figure);
  });
}

const choose = async (name, on) => { if (on) { chosen.add(name); await update(name); } else chosen.delete(name); };
$("runs").addEventListener("change", async event => { await choose(event.target.dataset.run, event.target.checked); draw(); });
$("runs").addEventListener("click", async event => {
  const own = listed.filter(run => run.group === event.target.dataset.group), on = own.some(run => !chosen.has(run.name));
  if (own.length) { for (const run of own) await choose(run.name, on); draw(); }
});
for (const id of ["find", "filter", "smooth"]) $(id).addEventListener("input", draw);
refresh();
