// What a push would leave in the rig's registry.

const manifestTypes = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");

async function asked(method, url, options) {
  const answer = await fetch(url, { method, ...options });
  if (!answer.ok) throw new Error(`${method} ${url}: ${answer.status} ${await answer.text()}`);
  return answer;
}

/** The manifest `digest` of the repository `from`, and all that it names, into each of the repositories `to`. */
export async function copyImage(registry, from, digest, to) {
  const at = (repository) => `http://${registry}/v2/${repository}`;
  const answer = await asked("GET", `${at(from)}/manifests/${digest}`, { headers: { accept: manifestTypes } });
  const type = answer.headers.get("content-type");
  const body = await answer.text();
  const { manifests = [], config, layers = [] } = JSON.parse(body);
  for (const inner of manifests) await copyImage(registry, from, inner.digest, to);
  const blobs = new Set([config, ...layers].filter(Boolean).map((blob) => blob.digest));
  for (const repository of to) {
    for (const blob of blobs) {
      const { status } = await asked("POST", `${at(repository)}/blobs/uploads/?mount=${blob}&from=${from}`);
      if (status !== 201) throw new Error(`${repository} was to take over ${blob} from ${from}: ${status}`);
    }
    await asked("PUT", `${at(repository)}/manifests/${digest}`, { headers: { "content-type": type }, body });
  }
}
