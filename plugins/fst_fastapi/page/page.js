// The page of one model: it goes on from a text, or answers in a conversation.
// What a model or a server says is shown by textContent or value alone, never as markup.

const $ = (id) => document.getElementById(id);
const KEY = "fst-key"; // in sessionStorage

let model = {}; // as /v1/models tells it
let fields = []; // of the settings: {name, box, input, read, reset, initial}
let running = null; // the AbortController of the request that is being answered
let history = []; // of the chat: {role, content}
const drafts = { prompt: "", chat: "" }; // the text of the mode that is not shown
const sent = { prompt: null, chat: null }; // the request that was sent last
const taken = { prompt: [], chat: [] }; // what `Take back` does, the newest last

const mode = () => document.querySelector("[name=mode]:checked").value;
const chatting = () => mode() === "chat";

// ---- Requests

class Refusal extends Error {
  name = "Refusal";
}

async function ask(path, body, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = new Headers(body && { "Content-Type": "application/json" });
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
  const response = await fetch(address(path), { ...options, credentials: "omit", cache: "no-store" }).catch((error) => {
    throw error.name === "AbortError" ? error : new Refusal("The server cannot be reached.");
  });
  if (response.ok) return response;
  if (response.status === 401) {
    await askForKey(key !== null);
    return ask(path, body, signal);
  }
  const said = await response.json().catch(() => null);
  const after = response.headers.get("Retry-After");
  const message = said?.error?.message ?? `The server answered with status ${response.status}.`;
  const refusal = new Refusal(after && !/try again/i.test(message) ? `${message}. Try again in ${after} s.` : message);
  throw Object.assign(refusal, { code: said?.error?.code });
}

function askForKey(refused) {
  const dialog = $("ask");
  $("refused").textContent = refused ? "The server refused that key." : "";
  $("key").value = dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.onclose = () => {
      if (dialog.returnValue !== "given") return reject(new Refusal("This server asks for a key."));
      sessionStorage.setItem(KEY, $("key").value.trim());
      $("forget").hidden = false;
      resolve();
    };
  });
}

/** Yield the objects of a stream of server-sent events. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let next; !(next = await reader.read()).done; ) {
    const lines = (rest + next.value).split("\n");
    rest = lines.pop();
    for (const data of lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim())) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refusal(event.error.message);
      yield event;
    }
  }
  throw new Refusal("The server ended the answer too early.");
}

/** Return the path and the body of the request that the page would send now. */
async function prepare() {
  if (!model.id) await load();
  const chosen = fields.filter((field) => field.name === "max_tokens" || changed(field));
  const settings = Object.fromEntries(chosen.map(({ name, read }) => [name, read()]));
  const shared = { ...settings, stream: true, stream_options: { include_usage: true } };
  const text = $("text").value;
  if (chatting()) {
    const messages = await remembered([...history, { role: "user", content: text }], settings.max_tokens ?? 16);
    return ["v1/chat/completions", { model: model.id, messages, ...shared }];
  }
  const prompt = await fitting(text, settings.max_tokens ?? 16);
  return ["v1/completions", { model: model.id, prompt, ...shared }];
}

/** Return a text, or, where the context has no room for all of it, the ids of its end. */
async function fitting(text, tokens) {
  const room = model.max_model_len - tokens; // NaN where the length is not known
  if (!(room > 0) || new TextEncoder().encode(text).length < room) return text; // an id has a byte at least
  const ids = await idsOf({ prompt: text });
  return ids.length > room ? ids.slice(-room) : text;
}

/** Return a conversation, without its oldest turns where the context has no room for all of them. */
async function remembered(messages, tokens) {
  const length = model.max_model_len;
  if (!length) return messages;
  const room = Math.max(length - tokens, length >> 1); // a long max_tokens leaves half to the conversation
  while (messages.length > 2 && (await idsOf({ messages })).length > room) messages = messages.slice(2);
  return messages;
}

/** Return the ids of a prompt or of a conversation; none where the engine cannot tell them. */
async function idsOf(what) {
  try {
    return (await (await ask("tokenize", { model: model.id, ...what }, running?.signal)).json()).tokens;
  } catch (error) {
    if (error.code === "unsupported_parameter") return [];
    throw error;
  }
}

// ---- Writing

async function write() {
  const wrong = fields.find(({ input }) => !input.validity.valid && !input.validity.stepMismatch);
  if (running || (chatting() && !$("text").value.trim())) return;
  if (wrong) {
    $("settings").open = true;
    wrong.input.reportValidity();
    return;
  }
  running = new AbortController();
  busy(true);
  say("Writing…");
  try {
    const [path, body] = (sent[mode()] = await prepare());
    const response = await ask(path, body, running.signal);
    if (Array.isArray(body.prompt)) say(`Writing on from the last ${body.prompt.length} tokens of the text…`);
    const forgets = chatting() && body.messages.length <= history.length;
    const show = chatting() ? answering(body.messages) : continuing();
    const count = counting();
    let reason;
    for await (const { choices, usage } of events(response)) {
      const text = choices[0]?.delta?.content ?? choices[0]?.text ?? "";
      reason = choices[0]?.finish_reason ?? reason;
      show(text);
      hear(text);
      count(text, usage);
    }
    const whole = chatting() ? "The answer is complete." : "The text is complete.";
    const end = reason === "length" ? "Paused: max_tokens is reached, or the context is full." : whole;
    say(forgets ? `${end} The oldest turns no longer fit the context; the model forgets them.` : end);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else fail(error);
    running.abort(); // what the server may still send
  }
  hear("\n");
  running = null;
  busy(false);
}

/** Return what shows the pieces of a text behind the prompt. */
function continuing() {
  const text = $("text");
  const before = text.value;
  taken.prompt.push(() => (text.value = before));
  text.scrollTop = text.scrollHeight;
  return (piece) => {
    const following = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    text.value += piece;
    if (following) text.scrollTop = text.scrollHeight;
  };
}

/** Return what shows the pieces of a text as the assistant's turn in a conversation that was sent. */
function answering(messages) {
  const [asked, answer] = [messages.at(-1), { role: "assistant", content: "" }];
  const items = [asked, answer].map(turn);
  const turns = $("turns");
  history = [...messages, answer];
  turns.append(...items);
  [...turns.children].slice(0, -history.length).forEach((item) => item.classList.add("forgotten"));
  turns.scrollTop = turns.scrollHeight;
  $("text").value = "";
  taken.chat.push(() => {
    history = history.slice(0, -2);
    items.forEach((item) => item.remove());
    $("text").value = asked.content;
  });
  return (piece) => {
    const following = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 40;
    answer.content += piece;
    items[1].lastChild.textContent = answer.content;
    if (following) turns.scrollTop = turns.scrollHeight;
  };
}

function turn({ role, content }) {
  const item = make("li", { className: role });
  item.append(make("b", { textContent: role === "user" ? "You" : model.id }), content);
  return item;
}

/** Return what shows how many tokens there are and how fast they come. */
function counting() {
  let [pieces, first, last] = [0, 0, 0];
  return (text, usage) => {
    if (text) {
      last = performance.now();
      first ||= last;
      pieces += 1;
    }
    const count = usage?.completion_tokens ?? pieces; // a piece is about a token
    const speed = last > first ? `, ${((1000 * (count - 1)) / (last - first)).toFixed(1)} tokens/s` : "";
    $("figures").textContent = `${usage ? "" : "about "}${count} tokens${speed}`;
  };
}

// ---- What is said

function say(words) {
  $("error").textContent = "";
  $("status").textContent = words;
}

function fail(error) {
  say("");
  const message = error instanceof Refusal ? error.message : `The answer broke off: ${error.message}`;
  $("error").textContent = message.replace(/\s+/g, " ").trim();
}

let unheard = "";
/** Give a text to screen readers, a sentence or a line at a time. */
function hear(text) {
  unheard += text;
  const [sentences] = /^[^]*(?:\n|[.!?;](?=\s))/.exec(unheard) ?? [""];
  unheard = unheard.slice(sentences.length);
  if (sentences.trim()) $("heard").append(make("p", { textContent: sentences }));
  if ($("heard").childElementCount > 50) $("heard").firstChild.remove();
}

function busy(is) {
  const focused = document.activeElement;
  $("text").readOnly = is;
  $("write").hidden = is;
  $("stop").hidden = !is;
  $("back").disabled = is || !taken[mode()].length;
  $("new").disabled = is || !$("turns").childElementCount;
  $("modes").disabled = is;
  if (is && focused === $("write")) $("stop").focus();
  if (!is && focused === $("stop")) $("write").focus();
}

// ---- Settings

/** What is offered before the samplers' settings, described as they are. */
const own = (context) => ({
  max_tokens: {
    description: "The most tokens to write at a time.",
    type: "integer",
    minimum: 1,
    default: Math.min(128, context >> 1),
  },
  seed: {
    description: "Equal seeds give equal texts; without one, each is another.",
    type: "integer",
  },
  stop: {
    description: "What ends the text, one a line; \\n is a line's end.",
    type: "array",
    items: { type: "string" },
    default: [],
  },
});

/** Return a setting with its label and description, from its JSON Schema. */
function setting(name, schema) {
  const [input, read, write] = control({ ...schema, ...schema.anyOf?.find(({ type }) => type !== "null") });
  const label = make("label");
  const about = make("p", { className: "hint", id: `about-${name}`, textContent: schema.description ?? "" });
  const box = make("div", { className: "field" });
  label.append(name, input);
  box.append(label, about);
  input.id = `set-${name}`;
  input.setAttribute("aria-describedby", about.id);
  const field = { name, box, input, read };
  const mark = () => box.classList.toggle("changed", changed(field));
  input.addEventListener("input", mark);
  field.reset = () => {
    write(schema.default);
    field.initial = JSON.stringify(read());
    mark();
  };
  field.reset();
  return field;
}

/** Return an input for values of a kind, with what reads and what writes its value. */
function control(kind) {
  if (kind.type === "boolean") {
    const input = make("input", { type: "checkbox" });
    return [input, () => input.checked, (value) => (input.checked = value)];
  }
  if (kind.enum) {
    const input = make("select");
    input.append(...kind.enum.map((value) => new Option(value)));
    return [input, () => kind.enum[input.selectedIndex], (value) => (input.selectedIndex = kind.enum.indexOf(value))];
  }
  if (kind.type === "integer" || kind.type === "number") {
    const [min, max] = [kind.minimum ?? kind.exclusiveMinimum ?? "", kind.maximum ?? kind.exclusiveMaximum ?? ""];
    const input = make("input", { type: "number", step: kind.type === "integer" ? 1 : 0.01, min, max });
    return [input, () => (input.value ? input.valueAsNumber : undefined), (value) => (input.value = value ?? "")];
  }
  if (kind.type === "string") {
    const input = make("input", { type: "text" });
    return [input, () => input.value || undefined, (value) => (input.value = value ?? "")];
  }
  const input = make("textarea", { rows: 1, spellcheck: false });
  if (kind.type === "array" && kind.items?.type === "string") {
    const read = () => input.value.split("\n").filter(Boolean).map((line) => line.replaceAll("\\n", "\n"));
    const written = (value) => value.map((line) => line.replaceAll("\n", "\\n")).join("\n");
    return [input, read, (value) => (input.value = written(value ?? []))];
  }
  const read = () => {
    try {
      input.setCustomValidity("");
      return input.value ? JSON.parse(input.value) : undefined;
    } catch {
      input.setCustomValidity("This is not JSON.");
    }
  };
  return [input, read, (value) => (input.value = value == null ? "" : JSON.stringify(value))];
}

const changed = ({ read, initial }) => JSON.stringify(read()) !== initial;
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

// ---- The request as a program

const address = (path) => new URL(path, document.baseURI).href;

function asCurl(path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = sessionStorage.getItem(KEY) ? ['-H "Authorization: Bearer $FST_KEY"'] : [];
  const data = ["-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`];
  return `${[`curl -N ${quoted(address(path))}`, ...key, ...data].join(" \\\n  ")}\n`;
}

const OPENAI = [
  "model", "messages", "prompt", "max_tokens", "seed", "stop", "stream", "stream_options",
  "temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias",
];

function asPython(path, body) {
  const keyed = sessionStorage.getItem(KEY) !== null;
  const known = Object.entries(body).filter(([name]) => OPENAI.includes(name));
  const more = Object.entries(body).filter(([name]) => !OPENAI.includes(name));
  if (more.length) known.push(["extra_body", Object.fromEntries(more)]);
  return `${keyed ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${literal(address("v1"))}, api_key=${keyed ? 'os.environ["FST_KEY"]' : '"none"'})
stream = client.${path.slice(3).replace("/", ".")}.create(
${known.map(([name, value]) => `    ${name}=${literal(value)},\n`).join("")})
for chunk in stream:
    for choice in chunk.choices:
        print(${body.messages ? 'choice.delta.content or ""' : "choice.text"}, end="", flush=True)
`;
}

/** Write a value of JSON in Python. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  return `{${Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${literal(part)}`).join(", ")}}`;
}

async function copy(written) {
  try {
    const over = running || (chatting() && !$("text").value.trim());
    const code = written(...((over && sent[mode()]) || (await prepare())));
    $("code").value = code;
    await navigator.clipboard.writeText(code);
    say("Copied.");
  } catch (error) {
    if (error instanceof Refusal) return fail(error);
    $("shown").showModal(); // a page of plain HTTP from another machine may not write to the clipboard
    $("code").select();
  }
}

// ---- The page

async function load() {
  [model] = (await (await ask("v1/models")).json()).data;
  const context = model.max_model_len;
  document.title = $("model").textContent = model.id;
  $("about").textContent = context ? `reads and writes up to ${context} tokens` : "";
  const schemas = { ...own(context ?? 256), ...model.sampling, ...own(context ?? 256) };
  fields = Object.entries(schemas).map(([name, schema]) => setting(name, schema));
  $("fields").replaceChildren(...fields.map(({ box }) => box));
  if (model.chat === "trained" && !$("text").value) choose("chat");
}

function choose(name) {
  const chat = name === "chat";
  const text = $("text");
  const before = document.body.dataset.mode;
  document.querySelector(`[name=mode][value=${name}]`).checked = true;
  if (before && before !== name) [drafts[before], text.value] = [text.value, drafts[name]];
  document.body.dataset.mode = name;
  $("turns").hidden = $("new").hidden = !chat;
  $("asks").textContent = chat ? "Your message" : "Your text, which the model continues";
  text.placeholder = chat ? "Your message" : "Begin a text. The model goes on from where you stop.";
  $("write").textContent = chat ? "Send" : "Continue";
  $("keys").textContent = `${chat ? "Enter sends, Shift+Enter begins a line" : "Ctrl+Enter continues"}, Escape stops.`;
  $("figures").textContent = "";
  say("");
  busy(false);
}

$("page").addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});
$("text").addEventListener("keydown", (event) => {
  const sends = event.ctrlKey || event.metaKey || (chatting() && !event.shiftKey);
  if (event.key !== "Enter" || event.isComposing || !sends) return;
  event.preventDefault();
  write();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) running?.abort();
});
$("modes").addEventListener("change", () => choose(mode()));
$("stop").addEventListener("click", () => running?.abort());
$("back").addEventListener("click", () => {
  taken[mode()].pop()();
  say("Taken back.");
  busy(false);
  $("text").focus();
});
$("new").addEventListener("click", () => {
  history = [];
  [taken.chat, sent.chat] = [[], null];
  $("turns").replaceChildren();
  $("figures").textContent = "";
  say("A new conversation.");
  busy(false);
  $("text").focus();
});
$("defaults").addEventListener("click", () => fields.forEach((field) => field.reset()));
$("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  $("forget").hidden = true;
  say("The key is forgotten.");
});
$("curl").addEventListener("click", () => copy(asCurl));
$("python").addEventListener("click", () => copy(asPython));
$("forget").hidden = sessionStorage.getItem(KEY) === null;
$("settings").open = matchMedia("(min-width: 56.01rem)").matches;
choose("prompt");
load().catch(fail);
