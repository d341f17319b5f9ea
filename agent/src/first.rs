//! A file that appears complete, made by the first of several who may come at the same time.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Made ready by `prepare` before anybody can see it. None where somebody was first.
pub fn first(path: &Path, prepare: impl FnOnce(&File) -> io::Result<()>) -> io::Result<Option<File>> {
    // Process ids say nothing: every container has a process 1.
    let mut own = [0; 8];
    getrandom::fill(&mut own).map_err(io::Error::other)?;
    let new = path.with_extension(hex::encode(own));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    // Of a Pod's containers the one that builds may be root; what they share is their group, which their folder gives on.
    let shared = file.set_permissions(Permissions::from_mode(0o660));
    let made = shared.and_then(|()| prepare(&file)).and_then(|()| std::fs::hard_link(&new, path));
    std::fs::remove_file(&new)?;
    match made {
        Ok(()) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}
