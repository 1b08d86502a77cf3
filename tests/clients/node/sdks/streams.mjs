// Reads one stream of each route with the SDKs for Node, and prints what they made of it as JSON.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, apiKey, texts] = process.argv.slice(2);
const content = JSON.parse(texts);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const claude = new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });
const found = {};

const ask = (name) => ({ model: "script", messages: [{ role: "user", content: content[name] }] });
const tried = async (name, read) => {
  try {
    found[name] = await read();
  } catch (error) {
    found[name] = `${error.constructor.name}: ${error.message}`;
  }
};

for (const name of Object.keys(content)) {
  await tried(`${name} chat`, async () => {
    let text = "";
    for await (const chunk of await openai.chat.completions.create({ ...ask(name), stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
    }
    return text;
  });
  await tried(`${name} completions`, async () => {
    let text = "";
    for await (const chunk of await openai.completions.create({ model: "script", prompt: content[name], max_tokens: 99, stream: true })) {
      text += chunk.choices[0].text;
    }
    return text;
  });
  await tried(`${name} responses`, async () => {
    const stream = openai.responses.stream({ model: "script", input: content[name] });
    const response = await stream.finalResponse(); // it does not throw when the response has failed
    return response.status === "completed" ? response.output_text : `Error: ${response.status} ${response.error?.message}`;
  });
  await tried(`${name} messages`, async () => {
    const stream = claude.messages.stream({ ...ask(name), max_tokens: 99 });
    return await stream.finalText();
  });
}
console.log(JSON.stringify(found));
