//! Takes away what a cluster leaves outside of its namespaces (a bridge, control groups, its folder) when its owner ends
//! without having done so: killed, or with the cluster in a `static`.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Waits until nobody holds its pipe any more. The processes in the namespaces end by themselves, a moment later.
const SCRIPT: &str = "trap '' INT TERM HUP; cat >/dev/null
    bridge=$1 folder=$2; shift 2
    for _ in $(seq 100); do
        left=
        for group in \"$@\"; do
            [ ! -d \"$group\" ] || { find \"$group\" -depth -type d -exec rmdir {} + 2>/dev/null; }
            [ ! -d \"$group\" ] || left=1
        done
        [ -n \"$left\" ] || break
        sleep 0.1
    done
    ip link delete \"$bridge\" 2>/dev/null
    rm -rf \"$folder\"";

pub(super) struct Guard(Option<(Child, ChildStdin)>);

impl Guard {
    pub fn start(bridge: &str, folder: PathBuf, groups: Vec<PathBuf>) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "guard", bridge]).arg(folder).args(groups);
        // Ctrl-C is for the tests, and not for who cleans up after them.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self(Some((child, pipe))))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((mut child, pipe)) = self.0.take() {
            drop(pipe);
            let _ = child.wait();
        }
    }
}
