// Curves, alerts and samples of the chosen runs; asks for what is new every two seconds.
"use strict";
const COLOURS = ["#1f6feb", "#d1490c", "#1a7f37", "#8250df", "#bf3989", "#0a7a8a", "#9a6700", "#57606a"];
const USUAL = ["loss", "reward", "rewards/", "eval_reward", "eval_rewards/", "kl", "objective/kl", "eval_kl", "entropy",
  "grad_norm", "completions/mean_length", "eval_loss", "eval_accuracy", "accuracy", "clip_ratio/region_mean",
  "val/explained_variance", "vi/explained_variance", "frac_reward_zero_std", "replay/ess"];
const NOT_METRICS = new Set(["step", "max_steps", "epoch"]);
const known = new Map(); // name -> {rows, next, alerts, colour}
let chosen = null, listed = [];
const $ = id => document.getElementById(id);
const escaped = text => String(text).replace(/[&<>"']/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}[c]));
const short = x => Math.abs(x) >= 1e5 || (x && Math.abs(x) < 1e-3) ? x.toExponential(1) : String(+x.toPrecision(3));
const ask = async path => { const answer = await fetch(path); if (!answer.ok) throw new Error(await answer.text()); return answer.json(); };
const ago = s => s < 90 ? `${s} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : s < 172800 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} days ago`;

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

function draw() {
  const shown = [...(chosen || [])].filter(name => known.has(name));
  $("runs").innerHTML = listed.map(run => `<label class="run"><input type="checkbox" data-run="${escaped(run.name)}" ${chosen.has(run.name) ? "checked" : ""}>
    <span class="chip" style="${chosen.has(run.name) && known.has(run.name) ? `background:${known.get(run.name).colour}` : ""}"></span>
    <span>${escaped(run.name)}<small><span class="${run.status}">${run.status}</span>, step ${run.step} of ${run.max_steps}, ${ago(run.age)}${run.alerts ? `<span class="alerted">, ${run.alerts} alert${run.alerts > 1 ? "s" : ""}</span>` : ""}${run.problem ? `<span class="alerted">, ${escaped(run.problem)}</span>` : ""}</small></span></label>`).join("") || "none yet";
  const words = $("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const metrics = new Set();
  for (const name of shown) for (const row of known.get(name).rows) for (const key of Object.keys(row)) if (!NOT_METRICS.has(key)) metrics.add(key);
  const rank = key => USUAL.findIndex(usual => usual.endsWith("/") ? key.startsWith(usual) && key.endsWith("/mean") : key === usual);
  const wanted = [...metrics].filter(key => words.length ? words.every(word => key.toLowerCase().includes(word)) : rank(key) >= 0)
    .sort((a, b) => words.length ? a.localeCompare(b) : rank(a) - rank(b) || a.localeCompare(b));
  $("charts").innerHTML = wanted.map(key => chart(key, shown)).join("") || '<p class="note">No metrics yet: choose a run.</p>';
  const alerts = shown.flatMap(name => known.get(name).alerts.map(alert => ({...alert, name}))).sort((a, b) => b.step - a.step);
  $("alerts").innerHTML = table(["run", "step", "rule", "what"], alerts.slice(0, 50).map(a => [a.name, a.step, a.rule, `${a.metric} is ${a.message}`]))
    || '<p class="note">None. Rules watch runs with monitor=standard.</p>';
  const samples = shown.flatMap(name => known.get(name).samples.map(sample => ({...sample, name})));
  $("samples").innerHTML = table(["run", "step", "prompt", "completion", "rewards"], samples.slice(0, 40).map(s =>
    [`${s.name} (${s.of})`, s.step ?? "", s.prompt, s.completion, Object.entries(s.rewards).map(([k, v]) => `${k} ${short(v)}`).join("\n")]))
    || '<p class="note">None. Training samples come with args.log_completions=true, those of alerts with monitor=standard.</p>';
}

const table = (heads, rows) => rows.length && `<table><tr>${heads.map(h => `<th>${h}</th>`).join("")}</tr>${rows.map(row =>
  `<tr>${row.map(cell => `<td class="${typeof cell === "number" ? "number" : "text"}">${escaped(cell)}</td>`).join("")}</tr>`).join("")}</table>`;

function smoothed(points) {
  const weight = +$("smooth").value;
  let mean = 0, mass = 0;
  return points.map(([x, y]) => { mean = weight * mean + (1 - weight) * y; mass = weight * mass + 1 - weight; return [x, mean / mass]; });
}

function chart(key, names) {
  const width = 360, height = 190, left = 52, right = 8, top = 8, bottom = 32;
  const curves = names.map(name => [name, smoothed(known.get(name).rows.filter(row => key in row && "step" in row).map(row => [row.step, row[key]]))]).filter(([, points]) => points.length);
  const all = curves.flatMap(([, points]) => points);
  let [x0, x1, y0, y1] = [0, 1].flatMap(axis => all.reduce(([low, high], p) => [Math.min(low, p[axis]), Math.max(high, p[axis])], [Infinity, -Infinity]));
  if (x0 === x1) { x0 -= 1; x1 += 1; }
  if (y0 === y1) { const room = Math.abs(y0) / 2 || 1; y0 -= room; y1 += room; }
  const x = value => left + (value - x0) / (x1 - x0) * (width - left - right);
  const y = value => height - bottom - (value - y0) / (y1 - y0) * (height - top - bottom);
  const marks = [0, 1, 2, 3].map(i => y0 + (y1 - y0) * i / 3).map(v =>
    `<line x1="${left}" x2="${width - right}" y1="${y(v)}" y2="${y(v)}" stroke="#e6e9ee"/><text x="${left - 5}" y="${y(v) + 4}" text-anchor="end">${short(v)}</text>`);
  const steps = [x0, (x0 + x1) / 2, x1].map((v, i) => `<text x="${x(v)}" y="${height - bottom + 14}" text-anchor="${["start", "middle", "end"][i]}">${Math.round(v)}</text>`);
  const lines = curves.map(([name, points]) => {
    const {colour, alerts} = known.get(name);
    const last = points[points.length - 1];
    const flags = alerts.map(a => `<line x1="${x(a.step)}" x2="${x(a.step)}" y1="${top}" y2="${height - bottom}" stroke="#b42318" stroke-dasharray="3 3"><title>${escaped(`${a.rule} at step ${a.step}: ${a.message}`)}</title></line>`);
    return `<polyline fill="none" stroke="${colour}" stroke-width="1.6" points="${points.map(p => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ")}"><title>${escaped(name)}</title></polyline>
      <circle cx="${x(last[0])}" cy="${y(last[1])}" r="2.6" fill="${colour}"><title>${escaped(`${name}: ${short(last[1])} at step ${last[0]}`)}</title></circle>${flags.join("")}`;
  });
  return `<figure><figcaption>${escaped(key)}</figcaption><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(key)} by step">
    ${marks.join("")}${steps.join("")}${lines.join("")}<text x="${(left + width - right) / 2}" y="${height - 4}" text-anchor="middle">optimizer step</text></svg></figure>`;
}

$("runs").addEventListener("change", async event => {
  const name = event.target.dataset.run;
  if (event.target.checked) { chosen.add(name); await update(name); } else chosen.delete(name);
  draw();
});
for (const id of ["filter", "smooth"]) $(id).addEventListener("input", draw);
refresh();
