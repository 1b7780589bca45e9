// A device whose model always says the same takes part in one round; docs/client.md walks through it.
//
//     node constant.mjs FEDERATION DEVICE TASK [options of mosquitto_sub, such as -h, -p, --cafile, --cert, --key]
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { crc32, deflateSync, inflateSync } from 'node:zlib';

const [federation, device, task, ...options] = process.argv.slice(2), boot = Date.now();
const model = (probe, classes) => Array.from({ length: classes }, (_, k) => (k ? 0.4 / (classes - 1) : 0.6));

// CBOR <-> numbers (BigInt above 2^53), Float64Array of one float, Buffer, string, array, Map (in order of keys), boolean.
const head = (major, n) => {
  const info = n < 24 ? Number(n) : n < 256 ? 24 : n < 65536 ? 25 : n < 2 ** 32 ? 26 : 27;
  const hex = n < 24 ? '' : BigInt(n).toString(16).padStart(2 << (info - 24), '0');
  return Buffer.concat([Buffer.of((major << 5) | info), Buffer.from(hex, 'hex')]);
};
const encode = (v) => {
  if (typeof v === 'boolean') return Buffer.of(v ? 0xf5 : 0xf4);
  if (v instanceof Float64Array) return Buffer.concat([Buffer.of(0xfb), Buffer.from(v.slice().buffer).swap64()]);
  if (typeof v === 'string' || Buffer.isBuffer(v)) return Buffer.concat([head(Buffer.isBuffer(v) ? 2 : 3, Buffer.byteLength(v)), Buffer.from(v)]);
  if (v instanceof Map) return Buffer.concat([head(5, v.size), ...[...v].flat().map(encode)]);
  return Array.isArray(v) ? Buffer.concat([head(4, v.length), ...v.map(encode)]) : head(0, v);
};
const decode = (bytes, at = 0) => {
  const take = (n) => bytes.subarray(at, (at += n));
  const item = () => {
    const [byte] = take(1), [major, info] = [byte >> 5, byte & 31], many = (of) => Array.from({ length: n }, of);
    if (byte === 0xfb) return Float64Array.of(take(8).readDoubleBE());
    const wide = info < 24 ? info : BigInt(`0x${take(1 << (info - 24)).toString('hex')}`);
    const n = wide > Number.MAX_SAFE_INTEGER ? wide : Number(wide);
    return [() => n, () => -1 - n, () => take(n), () => `${take(n)}`, () => many(item), () => new Map(many(() => [item(), item()])),
      () => undefined, () => n === 21][major]();
  };
  return item();
};
const message = (fields) => encode(new Map(Object.entries(fields).map(([key, value]) => [Number(key), value])));

// One program at a time, all in one session: the broker knows a device by its certificate and lets it in once.
const mqtt = ['-V', 'mqttv5', '-q', '1', '-c', '-x', '3600', '-i', device, ...options];
const at = (leaf) => `fd/v1/${federation}/${leaf}`, mine = (leaf) => at(`dev/${device}/${leaf}`);
const say = (topic, input, ...more) => spawnSync('mosquitto_pub', [...mqtt, '-t', topic, '-s', ...more], { input, stdio: ['pipe', 1, 2] });
const hear = async (topic, fits, ...more) => {
  const child = spawn('mosquitto_sub', [...mqtt, '-t', topic, '-F', '%x', ...more], { stdio: ['ignore', 'pipe', 2] });
  for await (const line of createInterface(child.stdout)) {
    const heard = decode(Buffer.from(line, 'hex'));
    if (fits(heard)) return child.kill(), heard;
  }
};

say(mine('state'), message({ 0: 5, 1: boot, 2: true, 3: 'constant.mjs', 5: Buffer.from(task, 'hex'), 8: ['u8-sqrt'] }), '-r');
const offer = await hear(at('round'), (heard) => heard.get(0) === 1 && heard.get(10).toString('hex') === task);
const round = offer.get(1), slice = offer.get(9), [, start, count, classes] = [...slice.values()];
const rows = Array.from({ length: count }, (_, row) => model(start + row, classes).map((p) => Math.round(255 * Math.sqrt(p))));
const payload = message({ 0: 8, 1: slice, 2: offer.get(7), 3: 'u8-sqrt', 4: deflateSync(Buffer.from(rows.flat())) });
const sha256 = createHash('sha256').update(payload).digest();
const part = message({ 0: 2, 1: round, 2: 'contribution', 3: sha256, 4: payload.length, 5: payload });
await hear(mine('receipt'), () => false, '-E'); // subscribes, so that the session keeps what comes between two programs
let receipt; // a PUBACK is none: the same bytes again until the server has spoken
while (!receipt) {
  say(mine(`up/${crc32(device) % (offer.get(14) ?? 1)}`), part);
  receipt = await hear(mine('receipt'), (heard) => heard.get(0) === 3 && sha256.equals(heard.get(3)), '-W', '30');
}
console.log(...['receipt', receipt.get(4), receipt.get(5)].filter(Boolean));
if (receipt.get(4) === 'refused') process.exit(1);
const block = await hear(at('consensus/0'), (heard) => heard.get(0) === 4 && heard.get(1).get(3) >= round.get(3));
console.log('consensus', ...inflateSync(block.get(8)).subarray(0, classes));
say(mine('report'), message({ 0: 7, 1: round, 2: block.get(2), 3: false, 4: 'nothing to train' }));
say(mine('state'), message({ 0: 5, 1: boot, 2: false }), '-r');
