// A gRPC service and client on @grpc/grpc-js for the kit to meet. docs/interop.md says what is proved with it.
//
//   node peer.js serve PROTO [CERT KEY]           prints its port
//   node peer.js call PROTO ADDRESS CASE [CA]     plays one of gRPC's interoperability cases
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const { setTimeout: pause } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [mode, proto, ...rest] = process.argv.slice(2);
const { testing } = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true, defaults: true })).grpc;
const INITIAL = 'x-grpc-test-echo-initial';
const TRAILING = 'x-grpc-test-echo-trailing-bin';
const GZIP = 2;
const payload = (size) => ({ body: Buffer.alloc(size) });

// The server.

function echoed(call) {
  for (const value of call.metadata.get(INITIAL)) {
    const headers = new grpc.Metadata();
    headers.set(INITIAL, value);
    call.sendMetadata(headers);
  }
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get(TRAILING)) trailers.set(TRAILING, value);
  for (const value of call.metadata.get('x-details-bin')) trailers.set('grpc-status-details-bin', value);
  return trailers;
}

const failing = (status, metadata) => ({ code: status.code, details: status.message, metadata });

function answer(call, reply, request) {
  const trailers = echoed(call);
  if (request.response_status?.code) reply(failing(request.response_status, trailers));
  else reply(null, { payload: payload(request.response_size ?? 0) }, trailers);
}

async function pour(call, request) {
  for (const wanted of request.response_parameters) {
    if (wanted.interval_us) await pause(wanted.interval_us / 1000);
    call.write({ payload: payload(wanted.size) });
  }
}

const service = {
  EmptyCall: (call, reply) => reply(null, {}, echoed(call)),
  UnaryCall: (call, reply) => answer(call, reply, call.request),
  StreamingInputCall: (call, reply) => {
    let size = 0;
    call.on('data', (request) => { size += request.payload.body.length; });
    call.on('end', () => reply(null, { aggregated_payload_size: size }));
  },
  StreamingOutputCall: async (call) => {
    const trailers = echoed(call);
    await pour(call, call.request);
    call.end(trailers);
  },
  FullDuplexCall: (call) => {
    const trailers = echoed(call);
    let before = Promise.resolve(); // answers keep the order of what they answer
    call.on('data', (request) => {
      before = before.then(() => {
        if (request.response_status?.code) call.emit('error', failing(request.response_status, trailers));
        else return pour(call, request);
      });
    });
    call.on('end', () => before.then(() => call.end(trailers)));
  },
};

function serve(cert, key) {
  const server = new grpc.Server();
  server.addService(testing.TestService.service, service);
  const pair = cert && [{ cert_chain: fs.readFileSync(cert), private_key: fs.readFileSync(key) }];
  const identity = cert ? grpc.ServerCredentials.createSsl(null, pair) : grpc.ServerCredentials.createInsecure();
  server.bindAsync('127.0.0.1:0', identity, (error, port) => {
    if (error) throw error;
    console.log(port);
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}

// The client. Each case is that of gRPC's published list unless it says otherwise.

const REQUESTED = [27182, 8, 1828, 45904];
const ANSWERED = [31415, 9, 2653, 58979];
const SPECIAL = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
const asking = (sizes, body) => ({ response_parameters: sizes.map((size) => ({ size })), payload: payload(body) });
const metadata = (pairs) => {
  const made = new grpc.Metadata();
  for (const [key, value] of pairs) made.set(key, value);
  return made;
};

// Gives reply, status and initial metadata of a unary call, whatever its outcome.
function unary(client, method, request, { sent = new grpc.Metadata(), options = {} } = {}) {
  return new Promise((resolve) => {
    const seen = {};
    let left = 2;
    const part = () => { if (--left === 0) resolve(seen); };
    const call = client[method](request, sent, options, (error, reply) => { Object.assign(seen, { error, reply }); part(); });
    call.on('metadata', (headers) => { seen.headers = headers; });
    call.on('status', (status) => { seen.status = status; part(); });
  });
}

// Gives the messages and the status of a call that streams answers.
async function streamed(call) {
  const messages = [];
  const status = await new Promise((resolve) => {
    call.on('data', (message) => messages.push(message.payload.body.length));
    call.on('error', () => {});
    call.on('status', resolve);
  });
  return { messages, status };
}

async function failsWith(client, message) {
  const response_status = { code: 2, message };
  const { status } = await unary(client, 'UnaryCall', { response_status });
  assert.deepEqual([status.code, status.details], [2, message]);
  const call = client.FullDuplexCall();
  call.end({ response_status });
  const seen = await streamed(call);
  assert.deepEqual([seen.status.code, seen.status.details], [2, message]);
}

async function large(client) {
  const { error, reply } = await unary(client, 'UnaryCall', { response_size: 314159, payload: payload(271828) });
  assert.equal(error, null);
  assert.deepEqual(reply.payload.body, Buffer.alloc(314159));
}

const cases = {
  async empty_unary(client) {
    const { error, reply } = await unary(client, 'EmptyCall', {});
    assert.equal(error, null);
    assert.deepEqual({ ...reply }, {});
  },
  large_unary: large,
  async client_streaming(client) {
    const reply = await new Promise((resolve, reject) => {
      const call = client.StreamingInputCall((error, value) => (error ? reject(error) : resolve(value)));
      for (const size of REQUESTED) call.write({ payload: payload(size) });
      call.end();
    });
    assert.equal(reply.aggregated_payload_size, 74922);
  },
  async server_streaming(client) {
    const { messages, status } = await streamed(client.StreamingOutputCall(asking(ANSWERED, 0)));
    assert.equal(status.code, 0);
    assert.deepEqual(messages, ANSWERED);
  },
  async ping_pong(client) {
    const call = client.FullDuplexCall();
    let turn = 0;
    const next = () => (turn < 4 ? call.write(asking([ANSWERED[turn]], REQUESTED[turn++])) : call.end());
    call.on('data', next);
    const ended = streamed(call);
    next();
    assert.deepEqual((await ended).messages, ANSWERED);
  },
  async empty_stream(client) {
    const call = client.FullDuplexCall();
    call.end();
    const { messages, status } = await streamed(call);
    assert.deepEqual([messages, status.code], [[], 0]);
  },
  async timeout_on_sleeping_server(client) {
    const call = client.FullDuplexCall({ deadline: Date.now() + 50 });
    call.write(asking([], 27182));
    assert.equal((await streamed(call)).status.code, grpc.status.DEADLINE_EXCEEDED);
  },
  async cancel_after_begin(client) {
    const status = await new Promise((resolve) => {
      const call = client.StreamingInputCall(resolve);
      call.cancel();
    });
    assert.equal(status.code, grpc.status.CANCELLED);
  },
  async cancel_after_first_response(client) {
    const call = client.FullDuplexCall();
    call.on('data', () => call.cancel());
    call.write(asking([31415], 27182));
    assert.equal((await streamed(call)).status.code, grpc.status.CANCELLED);
    await cases.empty_unary(client);
  },
  status_code_and_message: (client) => failsWith(client, 'test status message'),
  special_status_message: (client) => failsWith(client, SPECIAL),
  async custom_metadata(client) {
    const sent = metadata([[INITIAL, 'test_initial_metadata_value'], [TRAILING, Buffer.from('ababab', 'hex')]]);
    const check = (headers, status) => {
      assert.deepEqual(headers.get(INITIAL), ['test_initial_metadata_value']);
      assert.deepEqual(status.metadata.get(TRAILING), [Buffer.from('ababab', 'hex')]);
    };
    const one = await unary(client, 'UnaryCall', { response_size: 314159, payload: payload(271828) }, { sent });
    check(one.headers, one.status);
    const call = client.FullDuplexCall(sent);
    let headers;
    call.on('metadata', (found) => { headers = found; });
    call.end(asking([314159], 271828));
    check(headers ?? await new Promise((resolve) => call.on('metadata', resolve)), (await streamed(call)).status);
  },
  async unimplemented_method(client) {
    assert.equal((await unary(client, 'UnimplementedCall', {})).status.code, grpc.status.UNIMPLEMENTED);
  },
  async unimplemented_service(_client, other) {
    assert.equal((await unary(other, 'UnimplementedCall', {})).status.code, grpc.status.UNIMPLEMENTED);
  },
  // All that the client sends is compressed.
  client_compressed_unary: large,
  async client_compressed_streaming(client) {
    await cases.client_streaming(client);
  },
  // Not of the list: the details of a status, printed for who compares them.
  async status_details(client) {
    const { status } = await unary(client, 'EmptyCall', {}, { sent: metadata([['x-test-reason', 'TAKEN']]) });
    const [details] = status.metadata.get('grpc-status-details-bin');
    console.log(JSON.stringify({ code: status.code, message: status.details, details: details.toString('hex') }));
  },
  // Not of the list: nearly 4 MiB each way, and more than that.
  async large_messages(client) {
    const size = (4 << 20) - 100;
    const { reply } = await unary(client, 'UnaryCall', { response_size: size, payload: payload(size) });
    assert.equal(reply.payload.body.length, size);
    const { status } = await unary(client, 'UnaryCall', { payload: payload((4 << 20) + 1) });
    assert.equal(status.code, grpc.status.RESOURCE_EXHAUSTED);
  },
  // Not of the list: 300 calls at once.
  async calls_at_once(client) {
    const numbers = Array.from({ length: 300 }, (_, number) => number);
    const seen = await Promise.all(numbers.map((number) => unary(client, 'UnaryCall', { response_size: number })));
    assert.deepEqual(seen.map(({ reply }) => reply.payload.body.length), numbers);
  },
};

async function call(address, name, ca) {
  const identity = ca ? grpc.credentials.createSsl(fs.readFileSync(ca)) : grpc.credentials.createInsecure();
  const options = {};
  if (ca) options['grpc.ssl_target_name_override'] = 'peer.test';
  if (name.startsWith('client_compressed')) options['grpc.default_compression_algorithm'] = GZIP;
  const client = new testing.TestService(address, identity, options);
  const other = new testing.UnimplementedService(address, identity, options);
  await cases[name](client, other);
  client.close();
  other.close();
}

if (mode === 'serve') serve(...rest);
else if (mode === 'cases') console.log(Object.keys(cases).join(' '));
else call(...rest).catch((error) => { console.error(error); process.exit(1); });
