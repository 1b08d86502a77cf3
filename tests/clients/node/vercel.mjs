// What one scenario makes of Vercel's AI SDK, as a line of JSON: node vercel.mjs SCENARIO PROVIDER MODEL MESSAGES
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { resolve } = createRequire(join(process.env.CLIENTS_PLACE, 'package.json'));
const load = name => import(pathToFileURL(resolve(name)));
const { generateText, streamText, tool, jsonSchema, stepCountIs } = await load('ai');
const { createOpenAI } = await load('@ai-sdk/openai');
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible');
const { createAnthropic } = await load('@ai-sdk/anthropic');

const [scenario, provider, name, text] = process.argv.slice(2);
const told = JSON.parse(text);
const at = { baseURL: `${process.env.CLIENTS_URL}/v1`, apiKey: process.env.CLIENTS_KEY };
const model = {
  openai: () => createOpenAI(at)(name), // its default: responses
  chat: () => createOpenAI(at).chat(name),
  compatible: () => createOpenAICompatible({ name: 'gateway', ...at })(name),
  anthropic: () => createAnthropic(at)(name),
}[provider]();
const asked = { model, maxOutputTokens: 100, temperature: 0 };

const weather = tool({
  description: 'Tells the weather in a city.',
  inputSchema: jsonSchema({
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  }),
  execute: async ({ city }) => ({ weather: 'rainy', degrees: 7, city }),
});

async function turns(answer) {
  const messages = [];
  const texts = [];
  for (const content of told) {
    messages.push({ role: 'user', content });
    const result = await answer({ ...asked, messages, maxRetries: 0 });
    texts.push(await result.text);
    messages.push(...(await result.response).messages);
  }
  return { texts };
}

const scenarios = {
  whole: () => turns(generateText),
  streamed: () =>
    turns(async options => {
      const result = streamText({ ...options, onError: ({ error }) => { throw error; } });
      await result.consumeStream();
      return result;
    }),
  async loop() {
    const result = streamText({
      ...asked, tools: { get_weather: weather }, stopWhen: stepCountIs(4), prompt: told[0], maxRetries: 0,
    });
    const parts = [];
    for await (const part of result.fullStream) parts.push(part);
    return {
      text: await result.text,
      steps: (await result.steps).length,
      inputs: parts.filter(part => part.type === 'tool-call').map(part => part.input),
      errors: parts.filter(part => part.type === 'error').map(part => String(part.error)),
    };
  },
  async abort() {
    const stop = new AbortController();
    const result = streamText({ ...asked, prompt: told[0], abortSignal: stop.signal, maxRetries: 0 });
    let seen = '';
    const kinds = [];
    for await (const part of result.fullStream) {
      kinds.push(part.type);
      if (part.type === 'text-delta' && part.text) {
        seen += part.text;
        stop.abort();
      }
    }
    return { seen, aborted: kinds.includes('abort') };
  },
  async error() {
    try {
      await generateText({ ...asked, prompt: told[0] });
      return {};
    } catch (error) {
      const cause = error.lastError ?? error;
      return { name: error.name, status: cause.statusCode, message: cause.message, again: cause.isRetryable };
    }
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
process.exit(0);
