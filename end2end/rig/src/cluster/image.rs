//! Images for the node: the one every Pod begins with, the builder, and one with programs of the product.
//!
//! All but the first stand on one small Debian that `scripts/setup/images.sh` has made. The builder has the paths and the
//! user of BuildKit's own rootless image, whose registry tests cannot reach.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::buildkit::buildkit_bins;
use crate::home::{cache, scratch_folder};

pub(super) const PAUSE: &str = "rig.invalid/pause:1";
/// Of BuildKit's rootless image.
const USER: u64 = 1000;
/// What the image's own does: where control groups are of the second version, those of the steps come below the
/// container's.
const ENTRYPOINT: &str = "#!/bin/sh
set -e
if [ -f /sys/fs/cgroup/cgroup.controllers ] && [ -z \"$APART\" ]; then
  APART=1 exec unshare --cgroup --mount -- \"$0\" \"$@\"
fi
if [ -n \"$APART\" ]; then
  umount /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /sys/fs/cgroup/init
  xargs -rn1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs || true
fi
exec buildkitd \"$@\"
";

pub struct Image {
    name: String,
    layers: Vec<Layer>,
    config: Value,
}

#[derive(Clone)]
struct Layer {
    digest: String,
    size: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Image {
    /// Debian with BuildKit, as `moby/buildkit:…-rootless` is laid out.
    pub fn builder(name: &str) -> Result<Self> {
        let bins = buildkit_bins()?;
        let mut files = Files::new();
        files.program("usr/bin/buildkitd", &bins.buildkitd)?;
        files.program("usr/bin/buildctl", &bins.buildctl)?;
        for folder in ["home/user", "home/user/.local", "home/user/.local/share", "home/user/.local/share/buildkit"] {
            files.folder(folder, USER)?;
        }
        for folder in ["home/user/.local/tmp", "run/user/1000"] {
            files.folder(folder, USER)?;
        }
        let config = json!({
            "User": "1000:1000",
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/home/user", "USER=user", "XDG_RUNTIME_DIR=/run/user/1000", "TMPDIR=/home/user/.local/tmp",
                "BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock",
            ],
            "Entrypoint": ["rootlesskit", "buildkitd"],
        });
        Ok(Self { name: name.to_owned(), layers: vec![debian()?, files.layer()?], config })
    }

    /// Debian with BuildKit, as `moby/buildkit` is laid out: BuildKit is root in it.
    pub fn root_builder(name: &str) -> Result<Self> {
        let bins = buildkit_bins()?;
        let mut files = Files::new();
        files.program("usr/bin/buildkitd", &bins.buildkitd)?;
        files.program("usr/bin/buildctl", &bins.buildctl)?;
        files.script("usr/bin/buildkitd-entrypoint", ENTRYPOINT)?;
        files.folder("var/lib/buildkit", 0)?;
        let config = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": ["buildkitd-entrypoint"],
        });
        Ok(Self { name: name.to_owned(), layers: vec![debian()?, files.layer()?], config })
    }

    /// Debian with programs at their paths, or with none.
    pub fn of_programs(name: &str, programs: &[(&str, &Path)]) -> Result<Self> {
        let mut files = Files::new();
        for (path, program) in programs {
            files.program(path, program)?;
        }
        let config = json!({ "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] });
        Ok(Self { name: name.to_owned(), layers: vec![debian()?, files.layer()?], config })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration and its manifest.
    pub(crate) fn documents(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))?;
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", &layer.digest, layer.size))
            .collect();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        }))?;
        Ok((config, manifest))
    }

    /// Each layer's content.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = Result<Vec<u8>>> {
        self.layers.iter().map(|layer| match &layer.content {
            Content::Bytes(bytes) => Ok(bytes.clone()),
            Content::File(file) => fs::read(file).with_context(|| format!("{}", file.display())),
        })
    }

    /// As an OCI layout in one file.
    pub(super) fn write_archive(&self, path: &Path) -> Result<()> {
        let (config, manifest) = self.documents()?;
        let mut entry = described("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;

        let mut out = Builder::new(io::BufWriter::new(File::create(path)?));
        let mut put = |name: &str, size: u64, content: &mut dyn io::Read| -> Result<()> {
            let mut header = header(EntryType::Regular, 0o644, 0, size);
            Ok(out.append_data(&mut header, name, content)?)
        };
        put("oci-layout", 30, &mut &br#"{"imageLayoutVersion":"1.0.0"}"#[..])?;
        put("index.json", index.len() as u64, &mut &index[..])?;
        for bytes in [&config, &manifest] {
            put(&blob(&sha256(bytes)), bytes.len() as u64, &mut &bytes[..])?;
        }
        for layer in &self.layers {
            match &layer.content {
                Content::Bytes(bytes) => put(&blob(&layer.digest), layer.size, &mut &bytes[..])?,
                Content::File(file) => put(&blob(&layer.digest), layer.size, &mut File::open(file)?)?,
            }
        }
        out.into_inner()?.flush()?;
        Ok(())
    }
}

/// The image of the process that keeps a Pod's namespaces.
pub(super) fn pause() -> Result<Image> {
    const SOURCE: &str = "#include <signal.h>\n#include <unistd.h>\n#include <stdlib.h>\n\
        static void end(int s) { _exit(0); }\n\
        int main(void) { signal(SIGTERM, end); signal(SIGINT, end); signal(SIGCHLD, SIG_IGN); for (;;) pause(); }\n";
    let folder = scratch_folder()?;
    let (source, program) = (folder.path().join("pause.c"), folder.path().join("pause"));
    fs::write(&source, SOURCE)?;
    let compiled = Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(&source).output();
    let compiled = compiled.context("cc is missing: install the package gcc")?;
    ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut files = Files::new();
    files.program("pause", &program)?;
    let config = json!({ "Entrypoint": ["/pause"] });
    Ok(Image { name: PAUSE.to_owned(), layers: vec![files.layer()?], config })
}

/// Made once a machine.
fn debian() -> Result<Layer> {
    let file = cache()?.join("images").join("debian.tar");
    let digest = fs::read_to_string(file.with_extension("digest"))
        .with_context(|| format!("{} is missing: run `scripts/setup/images.sh`", file.display()))?;
    let size = file.metadata()?.len();
    Ok(Layer { digest: format!("sha256:{}", digest.trim()), size, content: Content::File(file) })
}

struct Files(Builder<Vec<u8>>);

impl Files {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn program(&mut self, path: &str, file: &Path) -> Result<()> {
        let bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
        Ok(self.0.append_data(&mut header(EntryType::Regular, 0o755, 0, bytes.len() as u64), path, &bytes[..])?)
    }

    fn script(&mut self, path: &str, text: &str) -> Result<()> {
        Ok(self.0.append_data(&mut header(EntryType::Regular, 0o755, 0, text.len() as u64), path, text.as_bytes())?)
    }

    fn folder(&mut self, path: &str, owner: u64) -> Result<()> {
        Ok(self.0.append_data(&mut header(EntryType::Directory, 0o755, owner, 0), path, &[][..])?)
    }

    fn layer(self) -> Result<Layer> {
        let bytes = self.0.into_inner()?;
        Ok(Layer { digest: sha256(&bytes), size: bytes.len() as u64, content: Content::Bytes(bytes) })
    }
}

fn header(kind: EntryType, mode: u32, owner: u64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(size);
    header
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    descriptor(media_type, &sha256(bytes), bytes.len() as u64)
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}
