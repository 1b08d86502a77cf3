// The API page: the routes of the OpenAPI document by tag, each with a form to try it.

import { ask, byId, call, element, page } from "./page.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const SHOWN = 200_000; // characters of an answer in the page
const FORM = "multipart/form-data";

page(
  async () => (await ask("openapi.json")).json(),
  (document) => {
    const known = document.tags ?? [];
    const groups = new Map(known.map((tag) => [tag.name, []])); // in the document's order
    for (const [path, operations] of Object.entries(document.paths)) {
      for (const method of METHODS) {
        const operation = operations[method];
        if (!operation) continue;
        const tag = operation.tags?.[0] ?? "Routes";
        if (!groups.has(tag)) groups.set(tag, []);
        groups.get(tag).push(entry(document, path, method, operation));
      }
    }
    const sections = [...groups]
      .filter(([, entries]) => entries.length)
      .map(([tag, entries]) => section(tag, known.find((one) => one.name === tag)?.description, entries));
    byId("content").replaceChildren(...sections, section("Schemas", "", schemas(document)));
  },
);

function section(title, description, entries) {
  const heading = [element("h2", { text: title })];
  if (description) heading.push(element("p", { text: description, className: "quiet" }));
  return element("section", {}, ...heading, ...entries);
}

function schemas(document) {
  return Object.entries(document.components?.schemas ?? {}).map(([name, schema]) =>
    unfolding([element("code", { text: name })], () => [code(schema)]),
  );
}

function entry(document, path, method, operation) {
  const heading = [element("b", { text: method.toUpperCase() }), element("code", { text: path })];
  if (operation.summary) heading.push(` ${operation.summary}`);
  return unfolding(heading, () => {
    const parts = operation.description ? [element("p", { text: operation.description })] : [];
    const said = { parameters: operation.parameters, requestBody: operation.requestBody, responses: operation.responses };
    parts.push(unfolding(["What it takes and returns"], () => [code(said)]), trial(document, path, method, operation));
    return parts;
  });
}

// Details whose content is made when opened: a document may describe hundreds of routes.
function unfolding(heading, make) {
  const details = element("details", {}, element("summary", {}, ...heading));
  details.addEventListener("toggle", () => details.append(...make()), { once: true });
  return details;
}

const code = (value) => element("pre", { text: JSON.stringify(value, null, 2), tabIndex: 0 });

// A schema with its references resolved, merged with its own keywords.
function resolved(document, schema = {}) {
  const name = schema.$ref?.replace("#/components/schemas/", "");
  return name === undefined ? schema : { ...document.components?.schemas?.[name], ...schema };
}

function labelled(text, field) {
  return element("label", { text: `${text} ` }, field);
}

// A field for a value of this schema: a select for an enum.
function fieldFor(schema, isRequired) {
  const value = schema.example ?? schema.default ?? "";
  if (!schema.enum) return element("input", { value, required: isRequired });
  const options = schema.enum.map((item) => element("option", { text: item, value: item }));
  if (!isRequired) options.unshift(element("option", { value: "" }));
  const field = element("select", { required: isRequired }, ...options);
  if (value !== "") field.value = value;
  return field;
}

function trial(document, path, method, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) => {
    const schema = resolved(document, parameter.schema);
    const field = fieldFor({ ...schema, example: parameter.example ?? schema.example }, Boolean(parameter.required));
    return { ...parameter, field, label: labelled(parameter.name, field) };
  });
  const [kind, media] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const body = media === undefined ? null : kind === FORM ? formBody(document, media) : textBody(document, kind, media);
  const kinds = Object.keys(operation.responses?.["200"]?.content ?? {});
  const accept = fieldFor({ enum: ["*/*", ...kinds] }, true);
  const send = element("button", { text: "Send" });
  const stop = element("button", { text: "Stop", type: "button", disabled: true });
  const answer = answerArea();
  const fields = parameters.map((parameter) => parameter.label).concat(body?.labels ?? []);
  if (kinds.length > 1) fields.push(labelled("Accept", accept));
  const form = element("form", {}, ...fields, send, " ", stop);
  let controller = null;
  stop.addEventListener("click", () => controller?.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    controller = new AbortController();
    [send.disabled, stop.disabled] = [true, false];
    const options = { method: method.toUpperCase(), signal: controller.signal, headers: { accept: accept.value } };
    if (body !== null) {
      options.body = body.value();
      if (kind !== FORM) options.headers["content-type"] = kind; // a form sets its own, with the boundary
    }
    await answer.show(address(path, parameters), options);
    [send.disabled, stop.disabled] = [false, true];
  });
  return element("div", {}, form, answer.element);
}

function address(path, parameters) {
  const query = new URLSearchParams();
  let filled = path.slice(1); // relative, so that it works behind a path prefix
  for (const { name, in: place, field } of parameters) {
    const value = field.value;
    if (place === "path") filled = filled.replace(`{${name}}`, () => value.split("/").map(encodeURIComponent).join("/"));
    else if (place === "query" && value !== "") query.set(name, value);
  }
  return query.size ? `${filled}?${query}` : filled;
}

function textBody(document, kind, media) {
  const schema = resolved(document, media.schema);
  const example = [media.example, Object.values(media.examples ?? {})[0]?.value, schema.example, schema.examples?.[0], {}];
  let value = example.find((item) => item !== undefined);
  const models = resolved(document, schema.properties?.model).enum ?? [];
  if (models.length && !models.includes(value.model)) value = { ...value, model: models[0] };
  const text = element("textarea", { spellcheck: false });
  const write = (found) => {
    text.value = JSON.stringify(found, null, 2);
    text.rows = Math.min(24, text.value.split("\n").length + 1);
  };
  write(value);
  const labels = [labelled("Body", text)];
  if (models.length) {
    const choice = fieldFor({ enum: models, example: value.model }, true);
    choice.addEventListener("change", () => {
      try {
        write({ ...JSON.parse(text.value), model: choice.value });
      } catch {
        write({ ...value, model: choice.value }); // the text was not JSON
      }
    });
    labels.unshift(labelled("Model", choice));
  }
  return { labels, value: () => text.value };
}

function exampleOf(media, name) {
  const example = media.example?.[name];
  return example === undefined ? {} : { example };
}

function formBody(document, media) {
  const schema = resolved(document, media.schema);
  const fields = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const of = { ...resolved(document, property), ...exampleOf(media, name) };
    const isRequired = schema.required?.includes(name) ?? false;
    const isFile = of.format === "binary";
    const field = isFile ? element("input", { type: "file", required: isRequired }) : fieldFor(of, isRequired || name === "model");
    return { name, field, label: labelled(name, field) };
  });
  const value = () => {
    const form = new FormData();
    for (const { name, field } of fields) {
      if (field.files?.length) form.append(name, field.files[0]);
      else if (!field.files && field.value !== "") form.append(name, field.value);
    }
    return form;
  };
  return { labels: fields.map((field) => field.label), value };
}

// Shows an answer as it arrives: status and time, its body, a link to save it.
function answerArea() {
  const status = element("p", { role: "status" });
  const wrong = element("p", { role: "alert" });
  const shown = element("pre", { role: "log", tabIndex: 0, ariaLabel: "Answer" });
  const save = element("a", { text: "Save the body", download: "answer", hidden: true });

  async function show(path, options) {
    const started = performance.now();
    const passed = () => `${Math.round(performance.now() - started)} ms`;
    URL.revokeObjectURL(save.href);
    save.hidden = true;
    status.textContent = "Waiting for the answer …";
    wrong.textContent = shown.textContent = "";
    shown.ariaBusy = "true";
    let head = "";
    let size = 0;
    try {
      const response = await call(path, options);
      const type = response.headers.get("content-type") ?? "";
      head = [`${response.status} ${response.statusText}`.trim(), type, `request ${response.headers.get("x-request-id")}`].join(" · ");
      status.textContent = `${head} · first after ${passed()}`;
      const parts = [];
      const view = textView(shown);
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        size += value.length;
        view.add(value);
      }
      const note = view.end();
      status.textContent = `${head} · ${passed()} · ${size} bytes${note}`;
      save.href = URL.createObjectURL(new Blob(parts, { type }));
      save.hidden = size === 0;
    } catch (error) {
      const isStopped = error.name === "AbortError";
      status.textContent = head ? `${head} · ${passed()} · ${size} bytes` : "";
      wrong.textContent = isStopped ? "Stopped." : head ? "The answer broke off: it is not complete." : `No answer: ${error.message}`;
    }
    shown.ariaBusy = "false";
  }

  return { show, element: element("div", {}, status, wrong, shown, save) };
}

// Shows bytes as text in an element, while they are text and there is room.
function textView(shown) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let room = SHOWN;
  let isText = true;

  function write(decode) {
    if (!isText) return;
    try {
      const text = decode();
      shown.append(text.slice(0, Math.max(0, room)));
      room -= text.length;
    } catch {
      isText = false;
      shown.textContent = "";
    }
  }

  return {
    add: (bytes) => write(() => decoder.decode(bytes, { stream: true })),
    end() {
      write(() => decoder.decode());
      if (!isText) return ", which are no text";
      return room < 0 ? `; the first ${SHOWN} characters are shown` : "";
    },
  };
}
