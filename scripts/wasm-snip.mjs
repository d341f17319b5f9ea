// wasm-snip.mjs FILE NAME: takes out the bodies of functions that can never run, in place, before wasm-bindgen reads the
// file. Leptos gives every view a way to be hydrated bit by bit (`hydrate_async`), for programs that load parts while they
// hydrate; this one loads them before, so nothing calls it, but it hangs in every view's table and the linker has to keep it.
//
// A body is exchanged for the one instruction that stops the program: should anything ever call it, that is loud. What
// only such bodies had need of goes when wasm-opt looks for what is used.
//
// Of functions that are alike the compiler keeps one, under any of their names: what is called after NAME may be in use as
// something else. Alike are small ones, drop glue, and twins that differ in a constant only; so those that are taken out are
// called NAME themselves (or are closures of it), are not small, and NAME must have no twin.
import { readFileSync, writeFileSync } from "node:fs";
import { ownName } from "./rust-names.mjs";

const [file, name] = process.argv.slice(2);
const SMALL = 64;
const module = readFileSync(file);
const CODE = 10;
const UNREACHABLE = Buffer.from([0x03, 0x00, 0x00, 0x0b]);

/** The unsigned number at a place, and the place after it (LEB128). */
function number(at) {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = module[at++];
    value += (byte & 127) * 2 ** shift;
    if (byte < 128) return [value, at];
  }
}

function encoded(value) {
  const bytes = [];
  do {
    bytes.push((value % 128) | (value > 127 ? 128 : 0));
    value = Math.floor(value / 128);
  } while (value > 0);
  return Buffer.from(bytes);
}

function text(at) {
  const [length, from] = number(at);
  return [module.toString("utf8", from, from + length), from + length];
}

function sections() {
  const found = [];
  for (let at = 8; at < module.length; ) {
    const [size, from] = number(at + 1);
    found.push({ id: module[at], at, from, to: from + size });
    at = from + size;
  }
  return found;
}

/** How many functions come from outside: they are counted first. */
function imported({ from }) {
  let functions = 0;
  let [count, at] = number(from);
  while (count-- > 0) {
    [, at] = text(at);
    [, at] = text(at);
    const kind = module[at++];
    if (kind === 0) {
      functions++;
      [, at] = number(at);
    } else if (kind === 3) {
      at += 2;
    } else {
      // A table begins with its type; it and a memory have limits.
      if (kind === 1) at++;
      const bounded = module[at++] & 1;
      [, at] = number(at);
      if (bounded) [, at] = number(at);
    }
  }
  return functions;
}

/** Numbers of the functions whose name is wanted. */
function named({ from, to }) {
  const numbers = new Set();
  let [, at] = text(from);
  while (at < to) {
    const kind = module[at++];
    const [size, start] = number(at);
    at = start + size;
    if (kind !== 1) continue;
    let [count, place] = number(start);
    while (count-- > 0) {
      const [index, rest] = number(place);
      const [symbol, next] = text(rest);
      place = next;
      if (symbol.includes(name) && ownName(symbol) === name) numbers.add(index);
    }
  }
  return numbers;
}

const all = sections();
const imports = all.find(({ id }) => id === 2);
const names = all.find(({ id, from }) => id === 0 && text(from)[0] === "name");
const code = all.find(({ id }) => id === CODE);
if (!names || !code) throw new Error(`${file} has no names: nothing can be found in it`);
const first = imports ? imported(imports) : 0;
const snipped = named(names);

const bodies = [];
let [count, at] = number(code.from);
bodies.push(encoded(count));
let bytes = 0;
let functions = 0;
for (let i = 0; i < count; i++) {
  const [size, from] = number(at);
  if (snipped.has(first + i) && size >= SMALL) {
    functions++;
    bodies.push(UNREACHABLE);
    bytes += size;
  } else {
    bodies.push(module.subarray(at, from + size));
  }
  at = from + size;
}
if (bytes === 0) throw new Error(`no function of ${file} is called ${name}`);
const content = Buffer.concat(bodies);
writeFileSync(
  file,
  Buffer.concat([module.subarray(0, code.at), Buffer.from([CODE]), encoded(content.length), content, module.subarray(code.to)]),
);
console.error(`${functions} functions with ${Math.round(bytes / 1000)} kB taken out`);
