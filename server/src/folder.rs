//! The data folder: one server at a time, readable by its own user only.

use crate::problems::random_hex;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder, locked. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder when it is not there, takes its lock, and clears away what an earlier server left in `tmp`.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("The data folder {shown} cannot be made; KIOPS_DATA names another"))?;
        let path = path.canonicalize().with_context(|| format!("The data folder {shown} cannot be read"))?;
        close_to_others(&path);
        let lock = lock_file(&path.join("lock"), &format!("the data folder {}", path.display()), "KIOPS_DATA")?;
        let folder = Self { path, _lock: lock };
        let tmp = folder.tmp();
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).with_context(|| format!("{} cannot be cleared", tmp.display()))?;
        }
        DirBuilder::new().mode(0o700).create(&tmp).with_context(|| format!("{} cannot be made", tmp.display()))?;
        Ok(folder)
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for whatever this folder's servers hold: the same after a restart, another one beside it.
    pub fn owner(&self) -> Result<String> {
        let file = self.path.join("owner");
        if let Ok(owner) = std::fs::read_to_string(&file)
            && !owner.trim().is_empty()
        {
            return Ok(owner.trim().to_owned());
        }
        let owner = random_hex::<8>();
        std::fs::write(&file, format!("{owner}\n")).with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(owner)
    }

    /// For files that live no longer than what they are for.
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }
}

/// Also a folder that was there before: an unpacked backup, or one that a script has made.
fn close_to_others(folder: &Path) {
    let open = std::fs::metadata(folder).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
    if open && let Err(error) = std::fs::set_permissions(folder, Permissions::from_mode(0o700)) {
        // It may belong to somebody else, as a mounted volume does. What is secret in it has a mode of its own.
        tracing::warn!(%error, "other users of this machine may look into the data folder {}", folder.display());
    }
}

/// A server that ends, and a child of its that is becoming another program, hold their locks a moment longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

fn lock_soon(lock: &File) -> bool {
    let since = Instant::now();
    loop {
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if since.elapsed() >= LOCK_PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Takes the lock in `file`, in which its holder's number stands. `what` is what it stands for, `settings` are those that
/// name another.
pub(crate) fn lock_file(file: &Path, what: &str, settings: &str) -> Result<File> {
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("{} cannot be opened", file.display()))?;
    if !lock_soon(&lock) {
        let mut holder = String::new();
        let _ = lock.read_to_string(&mut holder);
        let holder = match holder.trim() {
            "" => String::new(),
            pid => format!(" (process {pid})"),
        };
        bail!("Another server{holder} uses {what}. Stop it, or give this one its own with {settings}");
    }
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_a_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let first = DataFolder::open(&path).unwrap();
        std::fs::write(first.tmp().join("left"), "x").unwrap();
        let refused = DataFolder::open(&path).unwrap_err().to_string();
        assert!(refused.contains("Another server") && refused.contains("KIOPS_DATA"), "{refused}");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        let owner = first.owner().unwrap();
        drop(first);
        // Somebody has made it readable, or made it so in the first place.
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let second = DataFolder::open(&path).unwrap();
        assert!(!second.tmp().join("left").exists());
        assert_eq!(second.owner().unwrap(), owner);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
