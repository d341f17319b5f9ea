// overhead_long_build_ratio: a CPU-bound build of about 30 s that prints 20,000 lines, as a ratio of times: the
// product's (queued to finished by the server's clock, without its checkout phase) to bare buildctl's. Both run on one
// daemon with the same arguments, in turn, each with a file of its own so that neither finds the other's steps in the
// cache. The median of the pairs' ratios; the baseline is bare buildctl's median in seconds.
import { bareBuild } from "../lib/bare.mjs";
import { median } from "../lib/numbers.mjs";
import { Server } from "../lib/server.mjs";

// One process that counts. `rounds` between two lines set how long it takes.
const dockerfile = (rounds) => `FROM busybox:1
COPY turn /turn
RUN awk 'BEGIN { x = 1; for (i = 0; i < 20000; i++) { for (j = 0; j < ${rounds}; j++) x = (x * 16807) % 2147483647; print "step " i " of the calculation has come to " x } }'
`;

export function measure({ rig, pairs, quick }) {
  const seconds = quick ? 8 : 30;
  return Server.with(
    rig,
    async (server) => {
      let turn = 0;
      const files = (rounds) => ({ Dockerfile: dockerfile(rounds), turn: `${(turn += 1)}\n` });
      const service = await server.service(files(100));
      await server.build(service);
      // How fast this machine counts: the time of a short run, without that of the same with hardly any work.
      const idle = await bareBuild(server, files(1));
      const rounds = Math.round((100 * (seconds * 1000 - idle)) / ((await bareBuild(server, files(100))) - idle));

      const bare = [];
      const ratios = [];
      for (let pair = 0; pair < pairs; pair++) {
        const product = async () => {
          const { repo } = service;
          const commit = await rig.command("commit", { repo, branch: "main", files: files(rounds) });
          const build = await server.build(service, commit);
          return build.finished_at - build.queued_at - (await checkoutMs(server, build.id));
        };
        const alone = () => bareBuild(server, files(rounds));
        // Whoever comes second may find a warmer machine: they take turns.
        const [ours, theirs] = pair % 2 === 0 ? [await product(), await alone()] : [await alone(), await product()].reverse();
        bare.push(theirs / 1000);
        ratios.push(ours / theirs);
      }
      return [{ name: "overhead_long_build_ratio", value: median(ratios), unit: "", baseline: median(bare), detail: { ratios } }];
    },
    { recordBuildctl: true },
  );
}

async function checkoutMs(server, id) {
  const phases = (await server.events(id)).filter((event) => event.k === "phase_entered");
  const at = phases.findIndex((event) => event.phase === "checkout");
  if (at < 0) throw new Error("the build has no checkout phase");
  return phases[at + 1].at - phases[at].at;
}
