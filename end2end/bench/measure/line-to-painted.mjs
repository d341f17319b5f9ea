// line_to_painted_ms_p50, _p99: a RUN step writes 240 lines, one every 50 ms, each with the machine's clock at that
// moment (busybox adjtimex tells microseconds; the stamp is taken just before the line is written). The page, on the
// same machine and clock, notes the time just after the first frame in which the line stands inside the visible log.
import { Browser, buildUrl } from "../lib/browser.mjs";
import { percentile } from "../lib/numbers.mjs";
import { Server } from "../lib/server.mjs";

const count = 240;
// Pure shell but for adjtimex itself, so that little time passes between the stamp and the line.
const files = {
  Dockerfile: "FROM busybox:1\nCOPY stamps.sh /\nRUN sh /stamps.sh\n",
  "stamps.sh": `sleep 3 # until the page watches
i=0
while [ $i -lt ${count} ]; do
  i=$((i + 1))
  set -- $(adjtimex)
  while [ "$1" != time.tv_sec: ]; do shift; done
  echo "stamp $i $2 $4 end"
  usleep 50000
done
`,
};

export function measure({ rig }) {
  return Server.with(rig, async (server) => {
    // The daemon is started and the base image fetched beforehand.
    await server.build(await server.service({ Dockerfile: "FROM busybox:1\nRUN true\n" }));
    const service = await server.service(files);
    const { id } = await server.api("POST", `services/${service.id}/builds`, { branch: "main", commit: service.head });
    const delays = await Browser.with(server, async ({ page }) => {
      await page.goto(buildUrl(service, id));
      await page.evaluate(watch);
      await server.finished(id);
      await page.waitForTimeout(2_000);
      return page.evaluate(() => [...window.delays.values()]);
    });
    if (delays.length < count) throw new Error(`only ${delays.length} of ${count} lines were ever seen`);
    return [
      { name: "line_to_painted_ms_p50", value: percentile(delays, 0.5), unit: "ms" },
      { name: "line_to_painted_ms_p99", value: percentile(delays, 0.99), unit: "ms" },
    ];
  });
}

function watch() {
  window.delays = new Map();
  const look = () =>
    window.visibleRows().map((row) => /stamp (\d+) (\d+) (\d+) end/.exec(row.textContent)).filter(Boolean);
  const note = (stamps) => {
    const now = Date.now();
    for (const [, number, seconds, micros] of stamps) {
      if (!window.delays.has(number)) window.delays.set(number, now - (Number(seconds) * 1e3 + Number(micros) / 1e3));
    }
  };
  new MutationObserver(() => window.nextFrame(look, note)).observe(document, {
    subtree: true,
    childList: true,
    characterData: true,
  });
}
