// Child processes, and what the kernel says about them.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export { sleep };

/** A program of this build, named by the environment that scripts/lib.sh exports. */
export function program(variable) {
  const path = process.env[variable];
  if (!path) throw new Error(`${variable} is not set: start this with make bench`);
  return path;
}

/** Runs a program to its end; gives its standard output. `input` goes to its standard input. */
export async function run(command, args, { input, ...options } = {}) {
  const child = spawn(command, args, { stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"], ...options });
  const out = [];
  const err = [];
  child.stdout.on("data", (part) => out.push(part));
  child.stderr.on("data", (part) => err.push(part));
  if (input !== undefined) child.stdin.end(input);
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${Buffer.concat(err).toString().slice(-2000)}`);
  return Buffer.concat(out).toString();
}

/** Waits until `look` gives something true. */
export async function until(what, look, { patience = 30_000, pause = 20 } = {}) {
  const deadline = performance.now() + patience;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`${what}: not after ${patience / 1000} s`);
    await sleep(pause);
  }
}

/** A figure of /proc/PID/status (`VmRSS`, `VmHWM`), in MB of 1,000,000 bytes. */
export function memoryMb(pid, field) {
  const line = readFileSync(`/proc/${pid}/status`, "utf8").match(new RegExp(`^${field}:\\s+(\\d+) kB`, "m"));
  return (Number(line[1]) * 1024) / 1e6;
}

/** Memory that only this process has and that would come back if it ended, in MB. */
export function privateMb(pid) {
  const lines = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8").matchAll(/^Private_\w+:\s+(\d+) kB/gm);
  return ([...lines].reduce((sum, line) => sum + Number(line[1]), 0) * 1024) / 1e6;
}

/**
 * A temporary folder. When it is removed, or when this process dies however that happens, everything that works below it
 * ends: the daemon and agents that outlive a server.
 */
export function keptFolder(prefix) {
  const folder = mkdtempSync(join(tmpdir(), prefix));
  const script = fileURLToPath(new URL("../../fixtures/keeper.sh", import.meta.url));
  // In a session of its own: Ctrl-C is not for it.
  const keeper = spawn("bash", [script, folder], { detached: true, stdio: ["pipe", "ignore", "inherit"] });
  const gone = once(keeper, "exit");
  const remove = async () => {
    keeper.stdin.end();
    await gone;
  };
  return { folder, remove };
}
