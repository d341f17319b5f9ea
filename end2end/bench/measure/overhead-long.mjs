// overhead_long_build_ratio: a CPU-bound build of about 30 s that prints 20,000 lines, as a ratio of times: the
// product's (queued to finished by the server's clock, without its checkout phase) to bare buildctl's. Both run on one
// daemon with the same arguments, in turn, each with a file of its own so that neither finds the other's steps in the
// cache. The median of the pairs' ratios; the baseline is bare buildctl's median in seconds, and the measurement fails when
// that is far from 30.
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
      // How fast this machine counts: the time of a run, without that of the same with hardly any work.
      const idle = await bareBuild(server, files(1));
      const work = async (rounds) => (await bareBuild(server, files(rounds))) - idle;
      const wanted = seconds * 1000 - idle;
      // What is scaled up is itself about a third of the whole: a short run's noise would be multiplied with it.
      let tried = 100;
      let took = await work(tried);
      while (took < (seconds * 1000 * 8) / 30) {
        // Aimed beyond that, and not too far: a very short run says little.
        tried = Math.round(tried * Math.min(40, Math.max(1.3, wanted / 3 / Math.max(took, 1))));
        took = await work(tried);
      }
      const rounds = Math.round((tried * wanted) / took);

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
      const length = median(bare);
      // A ratio is of builds of this length only. A quick run proves nothing about speed, and its shorter builds vary more.
      if (!quick && (length < 26 || length > 36)) {
        throw new Error(`the bare build took ${length.toFixed(1)} s, not about ${seconds} s (ratio ${median(ratios).toFixed(3)})`);
      }
      return [
        { name: "overhead_long_build_ratio", value: median(ratios), unit: "", baseline: length, detail: { seconds: length, ratios } },
      ];
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
