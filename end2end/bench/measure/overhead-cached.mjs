// overhead_cached_build_s: a build whose every step is cached, from the click on Start Build (the input event's own time
// stamp) to the frame that shows Success, less the time of bare buildctl for the same; the median of the pairs'
// differences. The baseline is bare buildctl's median in seconds.
import { bareBuild } from "../lib/bare.mjs";
import { Browser, clickStart } from "../lib/browser.mjs";
import { median } from "../lib/numbers.mjs";
import { Server } from "../lib/server.mjs";

const files = {
  Dockerfile: `FROM busybox:1
WORKDIR /app
COPY words.txt .
RUN sort words.txt > sorted.txt
RUN wc sorted.txt > count.txt
RUN mkdir out && cp *.txt out
`,
  "words.txt": "some\nwords\nto\nsort\n",
};

export function measure({ rig, pairs }) {
  return Server.with(
    rig,
    async (server) => {
      const service = await server.service(files);
      await server.build(service);
      return Browser.with(server, async ({ page }) => {
        const bare = [];
        const overheads = [];
        for (let pair = 0; pair < pairs; pair++) {
          const product = (await clickStart(page, service, "Success")) / 1000;
          const alone = (await bareBuild(server, files)) / 1000;
          bare.push(alone);
          overheads.push(product - alone);
        }
        const detail = { overheads };
        return [{ name: "overhead_cached_build_s", value: median(overheads), unit: "s", baseline: median(bare), detail }];
      });
    },
    { recordBuildctl: true },
  );
}
