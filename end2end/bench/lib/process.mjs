// Child processes, and what the kernel says about them.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

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

/** Processes that name `folder` in their arguments or work in it: the daemon and agents that outlive a server. */
function processesOf(folder) {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(folder);
      } catch {
        return false; // It has ended meanwhile.
      }
    })
    .map(Number);
}

export async function endProcessesOf(folder) {
  for (const signal of ["SIGTERM", "SIGKILL"]) {
    for (const pid of processesOf(folder)) {
      try {
        process.kill(pid, signal);
      } catch {
        // It was faster.
      }
    }
    const deadline = performance.now() + 15_000;
    while (processesOf(folder).length > 0 && performance.now() < deadline) await sleep(50);
    if (processesOf(folder).length === 0) return;
  }
}
