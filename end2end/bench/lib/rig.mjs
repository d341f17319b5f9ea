// The rig's parts (registry, Git server, Postgres), driven by JSON lines: see end2end/rig/README.md.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { program } from "./process.mjs";

export class Rig {
  static async start() {
    const child = spawn(program("KIOPS_RIG"), ["serve"], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) throw new Error("the rig did not start; its reason stands above");
    return Object.assign(new Rig(), { child, lines }, JSON.parse(first.value));
  }

  /** One command after the other: the rig answers in order. */
  async command(cmd, args = {}) {
    this.child.stdin.write(`${JSON.stringify({ cmd, ...args })}\n`);
    const { value } = await this.lines.next();
    const answer = JSON.parse(value);
    if (!answer.ok) throw new Error(`rig ${cmd}: ${answer.error}`);
    return answer.result;
  }

  stop() {
    // It ends with its standard input, and takes its servers along.
    this.child.stdin.end();
  }
}
