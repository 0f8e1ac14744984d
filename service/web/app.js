// The page at /: posts a picture to /v1/classify and shows the answer. Text from the answer is only ever set as text.
"use strict";

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

function headers() {
  const key = element("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// The JSON of an answer; a problem becomes an Error with its detail.
async function request(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  const document = await response.json();
  if (response.ok) return document;
  if (response.status === 401) element("key-label").hidden = false;
  throw new Error(document.detail ?? response.statusText);
}

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

async function listModels() {
  const { models } = await request("/v1/models");
  const options = models.map((model) => {
    const option = new Option(model.name, model.name, model.default, model.default);
    option.dataset.takesSequences = model.takes_sequences;
    return option;
  });
  element("model").replaceChildren(...options);
  fitMembers();
}

// A model without scale sequences has one member.
function fitMembers() {
  const chosen = element("model").selectedOptions[0];
  element("members").disabled = chosen?.dataset.takesSequences === "false";
}

function row(cells) {
  const line = document.createElement("tr");
  for (const content of cells) {
    const cell = document.createElement("td");
    cell.append(content);
    line.append(cell);
  }
  return line;
}

function meter(share) {
  const bar = document.createElement("meter");
  bar.value = share;
  return bar;
}

function show(answer, picture) {
  const [result] = answer.results;
  const members = answer.members ?? [];
  URL.revokeObjectURL(element("preview").src);
  element("preview").src = URL.createObjectURL(picture);
  element("label").textContent = result.label;
  const agreed = members.length ? `${percent(result.agreement)} of ${members.length} members agree; ` : "";
  element("summary").textContent =
    `${percent(result.probability)}; ${agreed}seed ${answer.seed}; ${answer.timing_ms.total.toFixed(0)} ms; ${answer.model}`;
  const top = result.top.map((entry) => row([entry.label, meter(entry.probability), percent(entry.probability)]));
  element("top").tBodies[0].replaceChildren(...top);
  const lines = members.map((member) =>
    row([
      member.labels[0],
      percent(member.probabilities[0]),
      member.sequence.vertical.join(" "),
      member.sequence.horizontal.join(" "),
    ]),
  );
  element("sequences").tBodies[0].replaceChildren(...lines);
  element("sequences").hidden = members.length === 0;
  element("answer").hidden = false;
}

async function classify(event) {
  event.preventDefault();
  const [picture] = element("picture").files;
  const query = new URLSearchParams({ include: "members" });
  if (element("model").value) query.set("model", element("model").value);
  if (!element("members").disabled) query.set("ensemble_size", element("members").value);
  if (element("seed").value) query.set("seed", element("seed").value);
  say("Classifying…");
  try {
    const body = new FormData();
    body.append("images", picture);
    show(await request(`/v1/classify?${query}`, { method: "POST", body }), picture);
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

element("form").addEventListener("submit", classify);
element("model").addEventListener("change", fitMembers);
element("key").addEventListener("change", () => listModels().then(() => say(""), (error) => say(error.message, true)));
listModels().catch((error) => say(error.message, true));
