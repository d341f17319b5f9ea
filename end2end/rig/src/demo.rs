//! What `make run` shows: a registry, a Git host, and in it a small repository worth building.
//!
//! Everything lies in one folder and keeps its addresses, so that services registered in an
//! earlier run still find them. Where a port is taken meanwhile, the next free one is taken and
//! kept instead; the server then corrects the demo's own service.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::home::{is_free, next_free_port};
use crate::{Furnished, GitOptions, GitServer, Registry, RegistryOptions};

/// The running demo.
pub struct Demo {
    registry: Registry,
    git: GitServer,
    service_json: PathBuf,
    cluster: Option<Furnished>,
    // Last: everything else has stopped when another run may begin.
    _lock: File,
}

/// What must be the same in the next run.
#[derive(Serialize, Deserialize)]
struct Kept {
    registry_port: u16,
    git_port: u16,
    git_token: String,
}

impl Demo {
    /// In a new folder the ports are the first free ones from `first_port` on. With an `agent` builds run in Pods of a
    /// cluster that is the demo's own.
    pub async fn start(folder: &Path, first_port: u16, agent: Option<&Path>) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let folder = folder.canonicalize()?;
        let lock = lock(&folder)?;
        let (kept, registry, git) = servers(&folder, first_port).await?;
        let hello_url = fill(&git).await?;
        let cluster = match agent {
            Some(agent) => {
                let furnished = Furnished::start(agent, &[kept.registry_port, kept.git_port]).await?;
                Some(furnished.with_storage().await?)
            }
            None => None,
        };
        // Where Pods find what is on this machine.
        let seen = |address: String| match &cluster {
            Some(furnished) => address.replace("127.0.0.1", &furnished.cluster.host_address()),
            None => address,
        };
        let service_json = folder.join("service.json");
        let body = service(&seen(hello_url), &kept.git_token, &seen(registry.address()));
        write_private(&service_json, &body)?;
        Ok(Self { registry, git, service_json, cluster, _lock: lock })
    }

    /// The line that the program prints when everything is there.
    pub fn addresses(&self) -> Value {
        let mut addresses = json!({
            "registry": self.registry.address(),
            "git_url": self.git.url(),
            "token": self.git.token(),
            "service_json": self.service_json,
        });
        if let Some(furnished) = &self.cluster {
            let host = furnished.cluster.host_address();
            addresses["registry"] = self.registry.address().replace("127.0.0.1", &host).into();
            for (name, value) in furnished.addresses().as_object().into_iter().flatten() {
                addresses[name] = value.clone();
            }
        }
        addresses
    }
}

/// Between a look at a port and its being taken somebody else may have it: then the next one is looked for.
async fn servers(folder: &Path, first_port: u16) -> Result<(Kept, Registry, GitServer)> {
    const TRIES: u32 = 5;
    let mut tries = 0;
    loop {
        let kept = kept(&folder.join("demo.json"), first_port).await?;
        tries += 1;
        match serve_both(folder, &kept).await {
            Ok((registry, git)) => return Ok((kept, registry, git)),
            Err(error) if tries == TRIES => return Err(error),
            Err(_) => {}
        }
    }
}

async fn serve_both(folder: &Path, kept: &Kept) -> Result<(Registry, GitServer)> {
    let git = GitServer::start(GitOptions {
        token: Some(kept.git_token.clone()),
        port: Some(kept.git_port),
        root: Some(folder.join("git")),
        ..GitOptions::default()
    })
    .await?;
    let registry = Registry::start(RegistryOptions {
        login: None,
        port: Some(kept.registry_port),
        storage: Some(folder.join("registry")),
    })
    .await?;
    registry.push_base_images().await?;
    Ok((registry, git))
}

/// One demo a folder: a second one would move the first one's addresses away under it.
fn lock(folder: &Path) -> Result<File> {
    let file = folder.join("lock");
    let options = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file);
    let mut lock = options.with_context(|| format!("{} cannot be opened", file.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        lock.read_to_string(&mut holder)?;
        bail!(
            "Another `make run` (process {}) uses the demo in {}. Stop it, or give this one a folder of its own with \
             KIOPS_DATA",
            holder.trim(),
            folder.display()
        );
    }
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

async fn kept(file: &Path, first_port: u16) -> Result<Kept> {
    const NONE_FREE: &str = "no port is free";
    let mut kept = match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?,
        Err(_) => Kept { registry_port: first_port, git_port: first_port + 1, git_token: random_token()? },
    };
    for (port, what) in [(&mut kept.registry_port, "registry"), (&mut kept.git_port, "Git server")] {
        if !becomes_free(*port).await {
            let taken = std::mem::replace(port, next_free_port(*port).context(NONE_FREE)?);
            eprintln!("port {taken} is taken: the demo's {what} now listens on {port}");
        }
    }
    if kept.git_port == kept.registry_port {
        kept.git_port = next_free_port(kept.registry_port + 1).context(NONE_FREE)?;
    }
    write_private(file, &serde_json::to_value(&kept)?)?;
    Ok(kept)
}

/// A demo that was killed a moment ago may still hold its own ports; no other can, the folder is locked.
async fn becomes_free(port: u16) -> bool {
    let since = Instant::now();
    while !is_free(port) {
        if since.elapsed() > Duration::from_secs(5) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

fn write_private(file: &Path, content: &Value) -> Result<()> {
    let options = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    serde_json::to_writer_pretty(options.with_context(|| format!("writing {}", file.display()))?, content)?;
    Ok(())
}

/// The repository "hello", once; gives back its address.
async fn fill(git: &GitServer) -> Result<String> {
    let repo = git.new_repo("hello").await?;
    if repo.head("main").await.is_err() {
        let files: [(&str, &[u8]); 4] = [
            ("Dockerfile", include_bytes!("../demo/hello/Dockerfile")),
            ("README.md", include_bytes!("../demo/hello/README.md")),
            ("hello.sh", include_bytes!("../demo/hello/hello.sh")),
            ("words.txt", include_bytes!("../demo/hello/words.txt")),
        ];
        let first = repo.commit("main", &files, "Say hello").await?;
        repo.annotated_tag("v1.0", &first, "First release").await?;
        repo.branch("feature/more-words", "main").await?;
        let more = b"Hello\nHallo\nBonjour\nHola\nAnnyeong\nCiao\nMerhaba\nAhoj\n";
        repo.commit("feature/more-words", &[("words.txt", more)], "Learn two more languages").await?;
    }
    Ok(repo.url().to_owned())
}

/// The body of `POST /api/v1/services` that registers it.
fn service(url: &str, token: &str, registry: &str) -> Value {
    json!({
        "name": "hello",
        "source": { "kind": "git", "url": url, "token": token, "default_branch": "main" },
        "registry_config": {
            "kind": "private",
            "url": registry,
            "path": "demo",
            "image_name": "hello",
            // The demo's registry lets everybody in and ignores them.
            "username": "demo",
            "password": "demo-password",
            "plain_http": true,
        },
        "settings": {
            "dockerfile": { "mode": "auto", "path": null },
            "profile": "auto",
            "no_cache": false,
            "time_limit_s": 3600,
        },
    })
}
