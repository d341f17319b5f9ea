//! Running one build through buildctl: its arguments, its progress, its end.
//!
//! buildctl's exit code decides; what the steps say only explains. Neither the daemon's life nor what a failure means to
//! a person is decided here.

use crate::daemon::Daemon;
use crate::preflight::Plan;
use crate::process::{bind_to_our_life, environment};
use crate::proxy;
use crate::record::{Ending, Recorder};
use crate::stop::{Stop, Why};
use kiops_events::event::{AgentEnd, EventKind, Phase, Place};
use kiops_events::rawjson::Converter;
use kiops_events::spec::AgentSpec;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::Instant;

/// After its SIGTERM buildctl has this long to end by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// What buildctl has not printed by then, after its end, does not come.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The pipe from buildctl: large, so that it never waits while a burst is converted.
const PIPE_BYTES: usize = 1024 * 1024;
/// How much of what buildctl printed beside its progress is looked at.
const TAIL_BYTES: usize = 16 * 1024;

/// The whole command line after the program's name.
pub fn arguments(spec: &AgentSpec, plan: &Plan, socket: &Path, metadata: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let joined = |name: &str, path: &Path| {
        let mut text = OsString::from(name);
        text.push(path);
        text
    };
    args.extend([OsString::from("--addr"), joined("unix://", socket)]);
    args.extend(["build", "--progress=rawjson", "--frontend", "dockerfile.v0"].map(OsString::from));
    let mut opt = |text: String| args.extend([OsString::from("--opt"), text.into()]);
    // The frontend that is built in, whatever a `# syntax=` line asks for.
    opt("cmdline=dockerfile.v0".into());
    opt(format!("filename={}", plan.filename));
    opt(format!("build-arg:BUILDKIT_CACHE_MOUNT_NS={}", spec.cache.mount_namespace));
    if let Some(platform) = &spec.image.platform {
        opt(format!("platform={platform}"));
    }
    if let Some(cgroup) = &spec.limits.cgroup {
        opt(format!("cgroup-parent={}", cgroup.parent));
    }
    for (name, value) in &spec.labels {
        opt(format!("label:{name}={value}"));
    }
    if spec.cache.no_cache {
        args.push("--no-cache".into());
    }
    args.extend([OsString::from("--local"), joined("context=", &plan.context)]);
    args.extend([OsString::from("--local"), joined("dockerfile=", &plan.dockerfile_folder)]);
    let insecure = if spec.image.plain_http { ",registry.insecure=true" } else { "" };
    if let Some(reference) = &spec.cache.reference {
        let reference = csv(&format!("ref={reference}"));
        if !spec.cache.no_cache {
            args.extend(["--import-cache".into(), format!("type=registry,{reference}{insecure}").into()]);
        }
        let how = "mode=max,image-manifest=true,oci-mediatypes=true,compression=zstd,ignore-error=true";
        args.extend(["--export-cache".into(), format!("type=registry,{reference},{how}{insecure}").into()]);
    }
    let names = csv(&format!("name={}", spec.image.references.join(",")));
    args.extend(["--output".into(), format!("type=image,{names},push=true{insecure}").into()]);
    args.extend([OsString::from("--metadata-file"), metadata.into()]);
    args
}

/// One field of a comma-separated list.
fn csv(field: &str) -> String {
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "containerimage.digest")]
    digest: String,
}

/// Runs the build to its end, or to the attempt's.
pub async fn run(
    spec: &AgentSpec,
    plan: &Plan,
    places: &Places<'_>,
    daemon: &Daemon,
    recorder: &Recorder,
    stop: &Stop,
) -> Ending {
    recorder.enter(Phase::Build);
    let mut command = Command::new(&spec.buildkit.buildctl);
    command
        .args(arguments(spec, plan, daemon.socket(), places.metadata))
        .args(proxy::options(&environment()))
        .env_clear()
        .envs(environment())
        .env("HOME", places.home)
        .env("DOCKER_CONFIG", &spec.files.docker_config)
        .current_dir(places.home);
    let (status, tail) = match converse(command, recorder, stop).await {
        Ok(ended) => ended,
        Err(error) => return Ending::trouble("agent", "buildctl cannot be run", &error),
    };
    let exit_code = Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
    let metadata = std::fs::read(places.metadata).ok().and_then(|m| serde_json::from_slice::<Metadata>(&m).ok());
    // A pushed image stays pushed, also where somebody has asked to stop meanwhile.
    let mut ending = match (status.success(), metadata, stop.why()) {
        (true, Some(Metadata { digest }), _) => Ending { digest: Some(digest), ..Ending::of(AgentEnd::Success) },
        (true, None, _) => Ending::infrastructure("agent", "buildctl told no digest"),
        (false, _, Some(why)) => Ending::stopped(why),
        (false, _, None) if daemon_lost(&tail) || !daemon.is_alive() => {
            daemon.tell_last_words(recorder);
            Ending::infrastructure("daemon", "the daemon was lost while it was building")
        }
        (false, _, None) if state_unreadable(&tail) => {
            daemon.distrust_state();
            Ending::infrastructure("daemon", "the daemon cannot read its state")
        }
        (false, _, None) => Ending::of(AgentEnd::Failure),
    };
    ending.exit_code = exit_code;
    ending
}

/// The files that a run of buildctl needs beside the plan.
pub struct Places<'a> {
    pub metadata: &'a Path,
    pub home: &'a Path,
}

/// Follows buildctl from its start to its end; gives back how it ended and the last of its plain text.
async fn converse(mut command: Command, recorder: &Recorder, stop: &Stop) -> io::Result<(ExitStatus, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    bind_to_our_life(&mut command);
    let clock = recorder.clock();
    let redactor = recorder.redactor().clone();
    let mut converter = Converter::new(clock.zero_wall_ns(), Box::new(move || Box::new(redactor.stream())));
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
    let Some(mut stderr) = child.stderr.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let _ = rustix::pipe::fcntl_setpipe_size(&stderr, PIPE_BYTES);

    let mut buffer = vec![0; PIPE_BYTES];
    let mut out = Vec::new();
    let mut tail = String::new();
    let mut status = None;
    let mut signalled = false;
    let far = Duration::from_secs(365 * 86_400);
    let kill = tokio::time::sleep(far);
    tokio::pin!(kill);
    loop {
        let due = converter.due_ms().map(|ms| Duration::from_millis((ms - clock.now_ms()).max(0) as u64));
        tokio::select! {
            got = stderr.read(&mut buffer) => {
                let got = got?;
                if got == 0 {
                    break;
                }
                converter.feed(&buffer[..got], clock.now_ms(), &mut out);
            }
            () = tokio::time::sleep(due.unwrap_or(far)) => converter.tick(clock.now_ms(), &mut out),
            ended = child.wait(), if status.is_none() => {
                status = Some(ended?);
                kill.as_mut().reset(Instant::now() + LAST_WORDS);
            }
            why = stop.ordered(), if !signalled && status.is_none() => {
                signalled = true;
                // Where nothing can be written down any more there is nothing to wait for.
                let patience = match why {
                    Why::Spool | Why::DiskFull => Duration::ZERO,
                    Why::TimeLimit | Why::Terminated => PATIENCE,
                };
                kill.as_mut().reset(Instant::now() + patience);
                if let Some(pid) = pid {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            () = &mut kill => {
                if status.is_some() {
                    break;
                }
                child.start_kill()?;
                kill.as_mut().reset(Instant::now() + far);
            }
        }
        write_down(&mut out, &mut tail, recorder);
    }
    converter.finish(clock.now_ms(), &mut out);
    write_down(&mut out, &mut tail, recorder);
    let status = match status {
        Some(status) => status,
        None => child.wait().await?,
    };
    Ok((status, tail))
}

fn write_down(out: &mut Vec<EventKind>, tail: &mut String, recorder: &Recorder) {
    for kind in out.drain(..) {
        if let EventKind::Lines(lines) = &kind
            && lines.place == Place::Phase(Phase::Buildctl)
        {
            tail.push_str(&lines.text);
            tail.push('\n');
            let spare = tail.len().saturating_sub(TAIL_BYTES);
            tail.drain(..tail.ceil_char_boundary(spare));
        }
        recorder.record(kind);
    }
}

/// The line in which buildctl says why it failed, in lower case.
fn error_line(tail: &str) -> String {
    tail.lines().rev().find(|l| l.starts_with("error: ")).unwrap_or_default().to_lowercase()
}

/// Whether buildctl's last words say that one of the daemon's databases is broken. Some it opens only when it builds.
fn state_unreadable(tail: &str) -> bool {
    let error = error_line(tail);
    ["failed to open database file", "invalid database"].iter().any(|t| error.contains(t))
}

/// Whether buildctl's last words say that the daemon went away, and not that the build failed.
fn daemon_lost(tail: &str) -> bool {
    let error = error_line(tail);
    [
        "failed to list workers: unavailable",
        "failed to receive status: rpc error: code = unavailable",
        "error reading from server: eof",
        "error reading from server: read unix",
        "no active session for",
        "transport: error while dialing: dial unix",
        "connection error: desc = \"transport",
    ]
    .iter()
    .any(|t| error.contains(t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_for_tests::spec;
    use kiops_events::spec::CgroupSpec;

    fn plan() -> Plan {
        Plan { context: "/w/src".into(), dockerfile_folder: "/w/src".into(), filename: "web/Dockerfile".into() }
    }

    fn line(spec: &AgentSpec) -> String {
        arguments(spec, &plan(), Path::new("/r/buildkitd.sock"), Path::new("/w/metadata.json"))
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_plainest_build() {
        assert_eq!(
            line(&spec()),
            "--addr unix:///r/buildkitd.sock build --progress=rawjson --frontend dockerfile.v0 \
             --opt cmdline=dockerfile.v0 --opt filename=web/Dockerfile \
             --opt build-arg:BUILDKIT_CACHE_MOUNT_NS=svc-1 \
             --local context=/w/src --local dockerfile=/w/src \
             --output type=image,name=registry.example/p/hello:main-1-abc,push=true --metadata-file /w/metadata.json"
        );
    }

    #[test]
    fn everything_at_once() {
        let mut spec = spec();
        spec.image.references.push("registry.example/p/hello:main".into());
        spec.image.plain_http = true;
        spec.image.platform = Some("linux/arm64".into());
        spec.cache.reference = Some("registry.example/p/hello:cache".into());
        spec.limits.cgroup = Some(CgroupSpec { parent: "kiops/svc".into(), cpu_millicores: 1000, memory_bytes: 1 });
        spec.labels.insert("a.b".into(), "x=y, z".into());
        assert_eq!(
            line(&spec),
            "--addr unix:///r/buildkitd.sock build --progress=rawjson --frontend dockerfile.v0 \
             --opt cmdline=dockerfile.v0 --opt filename=web/Dockerfile \
             --opt build-arg:BUILDKIT_CACHE_MOUNT_NS=svc-1 --opt platform=linux/arm64 \
             --opt cgroup-parent=kiops/svc --opt label:a.b=x=y, z \
             --local context=/w/src --local dockerfile=/w/src \
             --import-cache type=registry,ref=registry.example/p/hello:cache,registry.insecure=true \
             --export-cache type=registry,ref=registry.example/p/hello:cache,mode=max,image-manifest=true,\
             oci-mediatypes=true,compression=zstd,ignore-error=true,registry.insecure=true \
             --output type=image,\"name=registry.example/p/hello:main-1-abc,registry.example/p/hello:main\",\
             push=true,registry.insecure=true --metadata-file /w/metadata.json"
        );
    }

    #[test]
    fn no_cache_imports_nothing_and_still_exports() {
        let mut spec = spec();
        spec.cache.reference = Some("r/c:x".into());
        spec.cache.no_cache = true;
        let line = line(&spec);
        assert!(line.contains(" --no-cache ") && !line.contains("--import-cache") && line.contains("--export-cache"));
    }

    #[test]
    fn a_lost_daemon_is_not_a_failed_build() {
        for lost in [
            "error: listing workers for Build: failed to list workers: Unavailable: connection error: desc = \"x\"",
            "error: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF",
            "noise\nerror: failed to solve: no active session for abc: context deadline exceeded\n",
        ] {
            assert!(daemon_lost(lost), "{lost}");
        }
        for failed in [
            "error: failed to solve: process \"/bin/sh -c x\" did not complete successfully: exit code: 1",
            "rpc error: code = Unavailable desc = error reading from server: EOF\nerror: failed to solve: exit code: 1",
            "",
        ] {
            assert!(!daemon_lost(failed), "{failed}");
        }
    }
}
