//! A small base image, made of the machine's static busybox without BuildKit or a network.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A one-layer OCI image. The same on every run, so that a registry keeps it once.
#[derive(Clone)]
pub(crate) struct BaseImage {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Composed once a process.
pub(crate) fn base_image() -> Result<&'static BaseImage> {
    static IMAGE: OnceLock<BaseImage> = OnceLock::new();
    match IMAGE.get() {
        Some(image) => Ok(image),
        None => {
            let image = compose()?;
            Ok(IMAGE.get_or_init(|| image))
        }
    }
}

fn compose() -> Result<BaseImage> {
    let tar = root_filesystem(&busybox()?)?;
    let mut layer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    layer.write_all(&tar)?;
    let layer = layer.finish()?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
        "history": [{ "created_by": "kiops-rig" }],
    }))?;
    let described = |media_type: &str, bytes: &[u8]| -> Value {
        json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
    };
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": described(CONFIG_TYPE, &config),
        "layers": [described(LAYER_TYPE, &layer)],
    }))?;
    Ok(BaseImage { layer, config, manifest })
}

fn busybox() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/bin".into()])
        .map(|folder| folder.join("busybox"))
        .find(|file| file.exists())
        .context("busybox is missing: install the package busybox-static")
}

fn root_filesystem(busybox: &Path) -> Result<Vec<u8>> {
    let applets = Command::new(busybox).arg("--list-full").output().context("busybox --list-full")?;
    let applets = String::from_utf8(applets.stdout)?;
    let mut tar = Builder::new(Vec::new());
    for folder in
        ["bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/local"]
            .into_iter()
            .chain(["usr/local/bin", "usr/sbin", "var", "var/cache", "var/tmp"])
    {
        let mode = if folder.ends_with("tmp") { 0o1777 } else { 0o755 };
        tar.append_data(&mut header(EntryType::Directory, mode, 0), folder, &[][..])?;
    }
    let program = std::fs::read(busybox)?;
    for (path, mode, content) in [
        ("bin/busybox", 0o755, &program[..]),
        ("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n"),
    ] {
        tar.append_data(&mut header(EntryType::Regular, mode, content.len()), path, content)?;
    }
    for applet in applets.lines().filter(|applet| *applet != "bin/busybox") {
        tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), applet, "/bin/busybox")?;
    }
    Ok(tar.into_inner()?)
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}
