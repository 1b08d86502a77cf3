// The start page: the models that the visitor's key may see, and how to call them.

import { ask, byId, element, page } from "./page.js";

async function read() {
  const [models, examples] = await Promise.all([ask("v1/models"), ask("docs/examples")]);
  return { models: (await models.json()).data, examples: await examples.text() };
}

function row(model) {
  const state = element("td", {}, element("span", { text: model.status, className: model.status }));
  if (model.status_reason) state.append(element("div", { text: model.status_reason }));
  const routes = model.capabilities.routes.map((route) => element("code", { text: route }));
  return element("tr", {}, element("td", { text: model.id }), state, element("td", {}, ...routes));
}

page(read, ({ models, examples }) => {
  byId("models").replaceChildren(...models.map(row));
  byId("examples").textContent = examples || "No model is ready yet.";
});
