//! An attempt's folder: what is in it, and what it says about the attempt.

use super::process::Who;
use crate::runner::{RunState, StartSpec};
use anyhow::{Context, bail};
use kiops_events::spec::FilesSpec;
use kiops_events::wire::SPOOL_HEADER_BYTES;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Ends the name of a folder that is still being filled.
pub const UNFINISHED: &str = ".new";

#[derive(Clone, Debug)]
pub struct Attempt {
    pub folder: PathBuf,
    pub socket: PathBuf,
}

impl Attempt {
    /// The process that wrote itself down there, alive or not.
    pub fn who(&self, file: &str) -> Option<Who> {
        Who::read(&self.folder.join(file))
    }

    pub fn state(&self) -> RunState {
        if self.who("agent.stat").is_some_and(Who::is_alive) {
            RunState::Alive
        } else if self.has_events() {
            RunState::Ended
        } else {
            RunState::Gone
        }
    }

    /// A spool that says nothing is none: an agent that found it would begin the build.
    fn has_events(&self) -> bool {
        std::fs::metadata(self.folder.join("spool")).is_ok_and(|spool| spool.len() > SPOOL_HEADER_BYTES as u64)
    }

    pub fn remove(&self) -> anyhow::Result<()> {
        if self.socket.parent() != Some(&self.folder) {
            let _ = std::fs::remove_file(&self.socket);
        }
        // What a crash leaves in the middle of this is a folder that says nothing of itself: it is removed the next time.
        remove_tree(&self.folder)?;
        remove_tree(&unfinished(&self.folder))
    }
}

fn unfinished(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

fn remove_tree(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("removing {}", folder.display())),
        _ => Ok(()),
    }
}

/// Makes a folder that only this user may enter, or makes sure that one is.
pub fn make_private(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("the folder {}", folder.display()))?;
    let found = std::fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        bail!("{} is not a folder of this user's", folder.display());
    }
    if found.mode() & 0o077 != 0 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Fills the folder; it gets its name last, so that one that is there is whole.
pub fn prepare(at: &Attempt, mut start: StartSpec) -> anyhow::Result<()> {
    let temporary = unfinished(&at.folder);
    remove_tree(&temporary)?;
    make_private(&temporary)?;
    make_private(&temporary.join("docker"))?;
    make_private(&temporary.join("redact"))?;
    let final_name = |name: &str| at.folder.join(name);

    write_secret(&temporary.join("key"), &start.relay_key)?;
    write_secret(&temporary.join("docker/config.json"), &start.docker_config)?;
    let git_credential = match &start.git_credential {
        Some((user, token)) => {
            write_secret(&temporary.join("git"), format!("{user}\n{token}\n").as_bytes())?;
            Some(final_name("git"))
        }
        None => None,
    };
    let mut redact = Vec::new();
    for (i, value) in start.redact.iter().enumerate() {
        let name = format!("redact/{i}");
        write_secret(&temporary.join(&name), value.as_bytes())?;
        redact.push(final_name(&name));
    }
    start.spec.files = FilesSpec {
        workspace: final_name("src"),
        spool: final_name("spool"),
        socket: Some(at.socket.clone()),
        key: final_name("key"),
        git_credential,
        docker_config: final_name("docker"),
        redact,
    };
    write_secret(&temporary.join("spec.json"), &serde_json::to_vec_pretty(&start.spec)?)?;
    std::fs::rename(&temporary, &at.folder)?;
    Ok(())
}

fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))
}
