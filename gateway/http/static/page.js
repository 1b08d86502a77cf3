// What both pages share: the visitor's key, calls that carry it, and elements. What comes from the gateway, names of
// models and texts of errors too, becomes text of an element and never markup.

const KEPT = "gateway-key";
let inMemory = ""; // where a browser keeps nothing

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
    // then it lasts as long as the page does
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

// A call with the key; the answer whatever its status.
export async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.authorization = `Bearer ${key()}`;
  return fetch(path, { ...options, headers });
}

// The answer to a question that has one; an error of the gateway is raised with its message.
export async function ask(path) {
  const response = await call(path);
  if (!response.ok) throw new Refused(response.status, messageOf(await response.text()));
  return response;
}

// The message of an error, in any of the gateway's shapes.
function messageOf(body) {
  try {
    const error = JSON.parse(body)?.error;
    return String(error?.message ?? error ?? body);
  } catch {
    return body;
  }
}

// Show what `read` brings by `draw`, now and whenever the key changes; without a key that will do, the form for one.
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
      byId("wrong").textContent = "A key has no spaces, and no characters beyond ASCII.";
    }
  });
  forget.addEventListener("click", () => {
    keep("");
    load();
  });
  load();
}
