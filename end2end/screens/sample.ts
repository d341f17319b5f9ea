// A service to look at: a small shop's order service, whose build takes long enough to be watched.

type Files = Record<string, string>;

const FILES: Files = {
  'packages.txt': ['express 5.1.0', 'pg 8.16.3', 'pino 9.7.0', 'zod 4.0.5', 'undici 7.12.0', 'dayjs 1.11.13'].join('\n'),
  'install.sh': `#!/bin/sh
count=0
while read -r name version; do
  count=$((count + 1))
  echo "fetching $name@$version"
  sleep 0.3
done < packages.txt
echo "added 214 packages, and audited 215 packages in \${1}s"
echo "found 0 vulnerabilities"
`,
  'compile.sh': `#!/bin/sh
echo "> orders@3.4.0 build"
echo "transforming 189 modules"
for part in api/orders api/refunds api/health domain/cart domain/price domain/tax store/postgres store/outbox jobs/mail jobs/export web/index web/admin; do
  echo "compiled src/$part.ts"
  sleep \${1:-0.4}
done
mkdir -p dist && echo "built $(date -u +%Y)" > dist/main.js
echo "dist/main.js   412.90 kB   gzip: 131.70 kB"
`,
  Dockerfile: `FROM alpine:3 AS builder
WORKDIR /app
COPY packages.txt install.sh ./
RUN ./install.sh 2
COPY compile.sh ./
RUN ./compile.sh

FROM alpine:3 AS production
WORKDIR /app
COPY --from=builder /app/dist ./dist
CMD ["cat", "dist/main.js"]
`,
};

export const ORDERS: Files = FILES;

/** A compiler that finds a mistake. */
export const BROKEN: Files = {
  ...FILES,
  'compile.sh': `#!/bin/sh
echo "> orders@3.4.0 build"
echo "transforming 189 modules"
for part in api/orders api/refunds; do
  echo "compiled src/$part.ts"
  sleep 0.2
done
echo "src/domain/price.ts:41:17 - error TS2339: Property 'vatRate' does not exist on type 'Country'." >&2
echo "Found 1 error in src/domain/price.ts:41" >&2
exit 2
`,
};

/** Takes its time, so that somebody can look. */
export const SLOW: Files = {
  'compile.sh': (FILES['compile.sh'] ?? '').replace('${1:-0.4}', '4'),
};

/** Takes memory until there is none. */
export const HUNGRY: Files = {
  Dockerfile: 'FROM alpine:3\nRUN echo "collecting orders of 2026"; tail /dev/zero\n',
};
