"use strict";
// The queue as the server renders it, brought up to date as things happen; curves as trials train.

const api = "/api/v1";
const queue = document.getElementById("queue");
const alertLine = document.getElementById("error");
const curves = new Map(); // by the number of a job that runs
const mostTrials = 60; // drawn
const mostCurves = 3; // each holds a connection, of which a browser has six

function show(message) {
  alertLine.textContent = message;
  alertLine.hidden = !message;
}

async function call(path, body) {
  const answer = await fetch(api + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok) return show("");
  const told = await answer.json().catch(() => null);
  show(told?.error?.message ?? `A call must be answered in words, but the server answered ${answer.status}; try again.`);
  return Promise.reject(new Error("refused"));
}

let isRefreshing = false;
let isDue = false;

async function refresh() {
  if (isRefreshing) {
    isDue = true;
    return;
  }
  isRefreshing = true;
  try {
    const answer = await fetch("/queue");
    if (answer.ok) {
      queue.innerHTML = await answer.text();
      follow();
    }
  } catch {
    show("The server does not answer; this page tries again.");
  } finally {
    isRefreshing = false;
    if (isDue) {
      isDue = false;
      refresh();
    }
  }
}

// --- Curves ---

function follow() {
  const running = new Set();
  for (const article of [...queue.querySelectorAll("[data-running]")].slice(0, mostCurves)) {
    const number = article.dataset.running;
    running.add(number);
    if (!curves.has(number)) curves.set(number, open(number, Number(article.dataset.epochs)));
    draw(number);
  }
  for (const [number, curve] of curves) {
    if (running.has(number)) continue;
    curve.source.close();
    curves.delete(number);
  }
}

function open(number, epochs) {
  const curve = { epochs, trials: new Map(), running: new Set(), source: null };
  const source = new EventSource(`${api}/jobs/${number}/events`);
  const on = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  on("study", () => {
    curve.trials.clear();
    curve.running.clear();
  });
  on("trial", (event) => {
    curve.trials.set(event.trial, []);
    curve.running.add(event.trial);
  });
  on("epoch", (event) => {
    curve.trials.get(event.trial)?.push(event.validation_accuracy);
    draw(number);
  });
  on("trial_end", (event) => {
    curve.running.delete(event.trial);
    draw(number);
    refreshSoon();
  });
  on("job", (job) => {
    if (job.state !== "running") source.close();
    refreshSoon();
  });
  curve.source = source;
  return curve;
}

function draw(number) {
  const svg = queue.querySelector(`[data-running="${number}"] svg`);
  const curve = curves.get(number);
  if (!svg || !curve) return;
  const shown = [...curve.trials].slice(-mostTrials);
  const errors = shown.flatMap(([, accuracies]) => accuracies.map((each) => Math.log(Math.max(1 - each, 1e-4))));
  svg.replaceChildren();
  if (!errors.length) return;
  const low = Math.min(...errors);
  const high = Math.max(...errors, low + 1e-9);
  const x = (index) => 40 + (275 * index) / Math.max(1, curve.epochs - 1);
  const y = (accuracy) => 6 + (76 * (Math.log(Math.max(1 - accuracy, 1e-4)) - low)) / (high - low);
  for (const [trial, accuracies] of shown) {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const points = accuracies.length === 1 ? [accuracies[0], accuracies[0]] : accuracies;
    line.setAttribute("points", points.map((each, i) => `${x(i)},${y(each)}`).join(" "));
    if (curve.running.has(trial)) line.setAttribute("class", "running");
    svg.append(line);
  }
  const levels = high - low > 1e-6 ? [[low, 9], [high, 86]] : [[low, 9]]; // of a flat curve, one
  for (const [level, height] of levels) {
    const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    text.setAttribute("x", 0);
    text.setAttribute("y", height);
    text.textContent = `${(100 * (1 - Math.exp(level))).toFixed(1)} %`;
    svg.append(text);
  }
}

// --- What a person does ---

queue.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  button.disabled = true;
  const { do: what, job } = button.dataset;
  try {
    await (what === "first" ? call(`/jobs/${job}/move`, { to: "first" }) : call(`/jobs/${job}/${what}`));
  } catch {
    button.disabled = false;
  }
  refresh();
});

document.querySelector("#submit form")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const given = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  const options = { ...given, first: form.first.checked };
  for (const name of ["budget", "epochs", "n_trials", "n_workers"]) {
    if (name in options) options[name] = Number(options[name]);
  }
  if ("minutes" in options) {
    options.timeout_seconds = 60 * Number(options.minutes);
    delete options.minutes;
  }
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await call("/jobs", options);
  } catch {
    // what is wrong is shown
  }
  button.disabled = false;
  refresh();
});

let timer = null;
function refreshSoon() {
  timer ??= setTimeout(() => {
    timer = null;
    refresh();
  }, 500);
}

new EventSource(`${api}/events`).addEventListener("job_event", refreshSoon);
setInterval(() => document.hidden || refresh(), 5000);
follow();
