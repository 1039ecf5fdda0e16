// The official openai client for JavaScript, in its two current lines, against us.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

const { ADDRESS: baseURL, KEY: apiKey } = process.env;
const options = { baseURL, apiKey, maxRetries: 0, timeout: 60_000 };
const model = 'apprentice';
const hello = { model, messages: [{ role: 'user', content: 'Hello' }], temperature: 0 };
const counted = Array.from({ length: 40 }, (_, i) => i + 1).join(', ');
const count = { ...hello, messages: [{ role: 'user', content: 'Count to forty.' }] };
const JOKE = { setup: 'What do cats read?', punchline: 'The mewspaper.' };
const weather = {
  name: 'get_weather',
  description: 'Get the weather at a location.',
  parameters: { properties: { location: { type: 'string' } }, required: ['location'], type: 'object' },
};
const joke = {
  type: 'object',
  properties: { setup: { type: 'string' }, punchline: { type: 'string' } },
  required: ['setup', 'punchline'],
  additionalProperties: false,
};

async function all(pages) {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
}

for (const name of ['openai', 'openai-next']) {
  const { default: OpenAI, toFile } = await import(name);
  const client = new OpenAI(options);

  describe(name, () => {
    test('models are listed and retrieved', async () => {
      const ids = (await all(client.models.list())).map((one) => one.id);
      assert.ok(ids.includes(model), ids.join());
      assert.equal((await client.models.retrieve(model)).object, 'model');
    });

    test('a wrong key, a wrong model and a wrong value are its own kinds of error', async () => {
      const wrong = new OpenAI({ ...options, apiKey: 'gw-wrong' });
      await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
      await assert.rejects(client.chat.completions.create({ ...hello, model: 'nobody' }), (error) => {
        assert.ok(error instanceof OpenAI.NotFoundError);
        assert.equal(error.code, 'model_not_found');
        assert.ok(error.requestID);
        return true;
      });
      await assert.rejects(client.chat.completions.create({ ...hello, temperature: 9 }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError);
        assert.equal(error.param, 'temperature');
        return true;
      });
    });

    test('a chat is answered, whole and streamed alike', async () => {
      const whole = await client.chat.completions.create(count);
      assert.equal(whole.choices[0].message.content, counted);
      assert.ok(whole.usage.total_tokens > 0);
      const chunks = await all(
        await client.chat.completions.create({ ...count, stream: true, stream_options: { include_usage: true } }),
      );
      const words = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.delta.content ?? '');
      assert.equal(words.join(''), counted);
      assert.deepEqual(chunks.at(-1).usage, whole.usage);
    });

    test("the client's own gathering of a stream works, and can be given up", async () => {
      const stream = client.chat.completions.stream(hello);
      assert.equal(await stream.finalContent(), 'Hello, how may I help?');
      const long = await client.chat.completions.create({ ...count, stream: true, n: 4 });
      for await (const _ of long) break;
      assert.ok(long.controller.signal.aborted);
    });

    test('an answer keeps to a schema', async () => {
      const done = await client.chat.completions.parse({
        ...hello,
        messages: [{ role: 'user', content: 'Tell me a joke about cats.' }],
        response_format: { type: 'json_schema', json_schema: { name: 'joke', schema: joke, strict: true } },
      });
      assert.deepEqual(JSON.parse(done.choices[0].message.content), JOKE);
    });

    test('a tool is called and its answer used', async () => {
      const runner = client.chat.completions.runTools({
        model,
        temperature: 0,
        messages: [{ role: 'user', content: 'What is the weather in San Francisco, CA?' }],
        tools: [
          {
            type: 'function',
            function: { ...weather, function: () => "It's sunny.", parse: JSON.parse },
          },
        ],
      });
      assert.equal(await runner.finalContent(), 'It is sunny in San Francisco.');
    });

    test('a response is streamed, kept, gone on with and deleted', async () => {
      const events = await all(await client.responses.create({ model, input: 'Hello', stream: true, temperature: 0 }));
      assert.equal(events[0].type, 'response.created');
      const said = events.filter((one) => one.type === 'response.output_text.delta').map((one) => one.delta);
      assert.equal(said.join(''), 'Hello, how may I help?');
      const done = events.at(-1);
      assert.equal(done.type, 'response.completed');
      const kept = await client.responses.retrieve(done.response.id);
      assert.equal(kept.output_text, 'Hello, how may I help?');
      const next = await client.responses.create({ model, input: 'hi', previous_response_id: kept.id });
      assert.equal(next.status, 'completed');
      const items = await all(client.responses.inputItems.list(next.id));
      assert.ok(items.length >= 1);
      await client.responses.delete(kept.id);
      await assert.rejects(client.responses.retrieve(kept.id), OpenAI.NotFoundError);
    });

    test('a response calls a tool', async () => {
      const done = await client.responses.create({
        model,
        temperature: 0,
        input: 'What is the weather in San Francisco, CA?',
        tools: [{ type: 'function', ...weather, strict: false }],
      });
      const call = done.output.find((item) => item.type === 'function_call');
      assert.equal(call.name, 'get_weather');
      assert.deepEqual(JSON.parse(call.arguments), { location: 'San Francisco, CA' });
    });

    test('texts become vectors, packed (the default of this client) or plain', async () => {
      const asked = { model: 'universal-sentence-encoder', input: ['a cat', 'a kitten', 'tax law'] };
      const packed = await client.embeddings.create(asked);
      const plain = await client.embeddings.create({ ...asked, encoding_format: 'float' });
      const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
      const [cat, kitten, law] = packed.data.map((one) => one.embedding);
      assert.ok(dot(cat, kitten) > dot(cat, law));
      packed.data.forEach((one, i) =>
        one.embedding.forEach((x, j) => assert.ok(Math.abs(x - plain.data[i].embedding[j]) < 1e-6)),
      );
    });

    test('what is said is looked at by the moderators', async () => {
      const done = await client.moderations.create({ input: ['Good morning.', 'Write to me at ann@example.org'] });
      assert.deepEqual(
        done.results.map((one) => one.flagged),
        [false, true],
      );
    });

    test('a file is sent, listed, read and deleted', async () => {
      const text = '{"messages":[{"role":"user","content":"猫"},{"role":"assistant","content":"cat"}]}\n';
      const file = await client.files.create({ file: await toFile(Buffer.from(text), '猫.jsonl'), purpose: 'fine-tune' });
      assert.equal(file.filename, '猫.jsonl');
      assert.equal(file.bytes, Buffer.byteLength(text));
      const ids = (await all(client.files.list({ purpose: 'fine-tune' }))).map((one) => one.id);
      assert.ok(ids.includes(file.id));
      assert.equal(await (await client.files.content(file.id)).text(), text);
      assert.equal((await client.files.delete(file.id)).deleted, true);
      await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
    });

    test('an upload in parts becomes a file', async () => {
      const parts = ['{"a":', '1}\n'];
      const upload = await client.uploads.create({
        filename: 'a.jsonl',
        purpose: 'batch',
        bytes: 8,
        mime_type: 'application/jsonl',
      });
      const sent = [];
      for (const part of parts)
        sent.push(await client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(part), 'part') }));
      const done = await client.uploads.complete(upload.id, { part_ids: sent.map((one) => one.id) });
      assert.equal(done.status, 'completed');
      assert.equal(await (await client.files.content(done.file.id)).text(), parts.join(''));
      await client.files.delete(done.file.id);
    });

    test('pictures are painted, streamed, changed and varied', async () => {
      const png = (one) => Buffer.from(one.b64_json, 'base64').subarray(1, 4).toString() === 'PNG';
      const asked = { model: 'painter', prompt: 'a red hat' };
      const made = await client.images.generate({ ...asked, n: 2, size: '64x64' });
      assert.equal(made.size, '64x64');
      assert.ok(made.data.length === 2 && made.data.every(png));
      const events = await all(await client.images.generate({ ...asked, quality: 'max', stream: true, partial_images: 2 }));
      assert.deepEqual(
        events.map((event) => event.type),
        [...Array(2).fill('image_generation.partial_image'), 'image_generation.completed'],
      );
      assert.ok(events.every(png));
      assert.ok(events.at(-1).usage.total_tokens > 0);
      const image = await toFile(Buffer.from(made.data[0].b64_json, 'base64'), 'hat.png', { type: 'image/png' });
      assert.ok(png((await client.images.edit({ ...asked, image })).data[0]));
      assert.ok(png((await client.images.edit({ ...asked, image: [image, image] })).data[0]));
      const edited = await all(await client.images.edit({ ...asked, image, mask: image, stream: true }));
      assert.equal(edited.at(-1).type, 'image_edit.completed');
      const { url } = (await client.images.createVariation({ model: 'painter', image, response_format: 'url' })).data[0];
      const answer = await fetch(url, { headers: { Authorization: `Bearer ${apiKey}` } });
      assert.equal(answer.headers.get('content-type'), 'image/png');
      assert.equal((await fetch(url)).status, 401);
      await assert.rejects(client.images.generate({ ...asked, model }), OpenAI.BadRequestError);
    });

    test('tuning jobs are listed; one that names no file is refused', async () => {
      assert.ok(Array.isArray(await all(client.fineTuning.jobs.list({ limit: 5 }))));
      const asked = { model, training_file: 'file-nobody', method: { type: 'supervised' } };
      await assert.rejects(client.fineTuning.jobs.create(asked), (error) => error.status === 404 || error.status === 400);
    });
  });
}

