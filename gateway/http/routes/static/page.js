// Shared by both pages: the visitor's key, calls with it, and elements. Data of the gateway, such as names of models and
// error messages, becomes text of an element, never markup.

const KEPT = "gateway-key";
let inMemory = ""; // if the browser stores nothing

export function key() {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return inMemory;
  }
}

function keep(value) {
  inMemory = value;
  try {
    if (value) sessionStorage.setItem(KEPT, value);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // the key then lasts as long as the page
  }
}

export const byId = (id) => document.getElementById(id);

export function element(name, { text = "", ...properties } = {}, ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Make a call with the key. Return the answer with any status.
export async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.authorization = `Bearer ${key()}`;
  return fetch(path, { ...options, headers });
}

// Return a successful answer. Throw an error of the gateway with its message.
export async function ask(path) {
  const response = await call(path);
  if (!response.ok) throw new Refused(response.status, messageOf(await response.text()));
  return response;
}

// Return the message of an error, in any of the gateway's formats.
function messageOf(body) {
  try {
    const error = JSON.parse(body)?.error;
    return String(error?.message ?? error ?? body);
  } catch {
    return body;
  }
}

// Show the result of `read` with `draw`, now and when the key changes. Without a valid key, show the key form.
export function page(read, draw) {
  const [form, field, forget] = [byId("key-form"), byId("key"), byId("forget")];
  let turn = 0;

  async function load() {
    const mine = ++turn;
    let found = null;
    let error = null;
    byId("said").textContent = "Loading …";
    try {
      found = await read();
    } catch (raised) {
      error = raised;
    }
    if (mine !== turn) return;
    const isLocked = error?.status === 401 && !key();
    byId("said").textContent = isLocked ? "This gateway needs an API key." : "";
    byId("wrong").textContent = error === null || isLocked ? "" : (error.status ? "" : "No answer: ") + error.message;
    byId("open").hidden = error !== null || key() !== "";
    form.hidden = error?.status !== 401 && error?.status !== 403 && !key();
    forget.hidden = !key();
    byId("content").hidden = found === null;
    if (found !== null) draw(found);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = field.value.trim();
    field.value = "";
    if (/^[\x21-\x7e]+$/.test(given)) {
      keep(given);
      load();
    } else {
      byId("wrong").textContent = "A key contains only ASCII characters without spaces.";
    }
  });
  forget.addEventListener("click", () => {
    keep("");
    load();
  });
  load();
}
