//! What goes wrong around a build, or in the middle of it: nothing of it may lose a line or leave a build without an end.

mod common;

use common::{KEY, Lab, lab};
use kiops_events::event::{AgentEnd, EventKind, Outcome};
use kiops_events::wire::Frame;
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

const SLOW: &str = "FROM alpine:3\nRUN echo begun; sleep 300\n";

fn begun(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Lines(l) if l.text.contains("begun"))
}

#[tokio::test]
async fn the_time_limit_ends_a_build_that_hangs() {
    let lab = lab().await;
    let mut attempt = lab.attempt_of(SLOW).await;
    attempt.spec.limits.time_limit_s = 10;
    let since = Instant::now();
    let story = attempt.run().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::TimeLimit, "timeout"), "{}", story.text());
    assert_eq!((story.exit.code(), story.outcome("RUN echo begun")), (Some(5), Outcome::Canceled));
    assert_eq!(story.lines_of("RUN echo begun"), ["begun"]);
    assert!(since.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_signal_ends_a_build_as_terminated() {
    let lab = lab().await;
    let mut agent = lab.attempt_of(SLOW).await.start();
    let mut follow = agent.follow(0).await;
    follow.until(begun).await;
    agent.signal(Signal::TERM);
    let events = agent.follow_to_end(0).await;
    let story = agent.story(events).await;
    assert_eq!((story.result().end, story.exit.code()), (AgentEnd::Terminated, Some(6)));
    assert_eq!(story.outcome("RUN echo begun"), Outcome::Canceled);
}

#[tokio::test]
async fn a_signal_does_not_end_the_relay_before_the_server_has_everything() {
    let lab = lab().await;
    let mut agent = lab.attempt_of("FROM alpine:3\nRUN echo quick\n").await.start();
    let mut follow = agent.follow(0).await;
    let last = follow.until(|k| matches!(k, EventKind::Result(_))).await.seq;
    agent.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(follow);
    let mut follow = agent.follow(last - 1).await;
    assert_eq!(follow.event().await.unwrap().0.seq, last);
    follow.send(Frame::Ack(last)).await;
    assert_eq!(agent.wait().await.code(), Some(0));
}

#[tokio::test]
async fn an_agent_that_was_killed_leaves_a_spool_that_the_next_one_ends() {
    let lab = lab().await;
    let mut agent = lab.attempt_of(SLOW).await.start();
    let mut follow = agent.follow(0).await;
    let seen = follow.until(begun).await.seq;
    agent.signal(Signal::KILL);
    agent.wait().await;
    agent.again();
    let events = agent.follow_to_end(0).await;
    assert!(events.len() as u64 > seen);
    let story = agent.story(events).await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Infrastructure, "agent"));
    assert_eq!(story.lines_of("RUN echo begun"), ["begun"]);
    assert!(!story.result().push_began);
}

#[tokio::test]
async fn an_attempt_that_ended_is_only_served_again() {
    let lab = lab().await;
    let mut agent = lab.attempt_of("FROM alpine:3\nRUN echo quick\n").await.start();
    let mut follow = agent.follow(0).await;
    follow.until(|k| matches!(k, EventKind::Result(_))).await;
    agent.signal(Signal::KILL);
    agent.wait().await;
    agent.again();
    let events = agent.follow_to_end(0).await;
    let story = agent.story(events).await;
    assert_eq!(story.result().end, AgentEnd::Success);
    assert_eq!(story.exit.code(), Some(0));
}

#[tokio::test]
async fn two_agents_never_run_one_folder() {
    let lab = lab().await;
    let mut agent = lab.attempt_of(SLOW).await.start();
    agent.follow(0).await.until(begun).await;
    let second = tokio::process::Command::new(common::agent_program())
        .args(["run", "--dir"])
        .arg(agent.attempt.folder.path())
        .status()
        .await
        .unwrap();
    assert_eq!(second.code(), Some(3));
    agent.signal(Signal::TERM);
    let events = agent.follow_to_end(0).await;
    agent.story(events).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_said_by_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let run = || async {
        let mut command = tokio::process::Command::new(common::agent_program());
        command.args(["run", "--dir"]).arg(folder.path()).status().await.unwrap().code()
    };
    assert_eq!(run().await, Some(2));
    let mut spec = lab().await.attempt("http://x/y.git", "0").spec;
    spec.version = u32::MAX;
    std::fs::write(folder.path().join("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    assert_eq!(run().await, Some(2));
    let log = std::fs::read_to_string(folder.path().join("agent.log")).unwrap();
    assert!(log.contains("newer than this agent"), "{log}");
}

#[tokio::test]
async fn who_does_not_know_the_key_gets_nothing() {
    let lab = lab().await;
    let mut agent = lab.attempt_of("FROM alpine:3\n").await.start();
    let spec = agent.attempt.spec.clone();
    let refused =
        async |spec, key: &[u8], after| common::Follow::greet(agent.connect().await, &spec, key, after).await.err();
    assert_eq!(refused(spec.clone(), b"another key", 0).await.as_deref(), Some("the proof is wrong"));
    let mut other = spec.clone();
    other.attempt = 2;
    assert_eq!(refused(other, KEY, 0).await.as_deref(), Some("this is another build's agent"));
    assert_eq!(refused(spec, KEY, 1 << 40).await.as_deref(), Some("the spool is shorter than that"));
    let events = agent.follow_to_end(0).await;
    agent.story(events).await;
}

#[tokio::test]
async fn a_lost_daemon_is_an_infrastructure_fault_and_the_next_build_gets_a_new_one() {
    let lab = Lab::new().await;
    let mut agent = lab.attempt_of(SLOW).await.start();
    let mut follow = agent.follow(0).await;
    follow.until(begun).await;
    kill_process(Pid::from_raw(lab.daemon.pid()).unwrap(), Signal::KILL).unwrap();
    let events = agent.follow_to_end(0).await;
    let story = agent.story(events).await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Infrastructure, "daemon"), "{}", story.text());
    assert_eq!(story.lines_of("RUN echo begun"), ["begun"]);
    // The step outlives its daemon, but not the start of the next.
    let left = || {
        let mut runc = std::process::Command::new("runc");
        runc.env("PATH", "/usr/sbin:/usr/bin").env("XDG_RUNTIME_DIR", lab.daemon.run_dir());
        let out = runc.args(["list", "--format", "json"]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().contains(lab.daemon.state_dir().to_str().unwrap())
    };
    assert!(left());
    let story = lab.attempt_of("FROM alpine:3\nRUN echo after\n").await.run().await;
    assert!(!left());
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    assert!(story.note("buildkit_state_wiped").is_none());
}

#[tokio::test]
async fn state_that_cannot_be_read_is_wiped_once_and_said() {
    let lab = Lab::new().await;
    let build = async || lab.attempt_of("FROM alpine:3\nRUN echo fine\n").await.run().await;
    assert_eq!(build().await.result().end, AgentEnd::Success);
    // Found when the daemon starts.
    lab.daemon.stop();
    let spoil = |name: &str| std::fs::write(lab.daemon.state_dir().join("runc-overlayfs").join(name), [0xff; 65536]);
    spoil("metadata_v2.db").unwrap();
    let story = build().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    let reason = &story.note("buildkit_state_wiped").unwrap()["reason"];
    assert!(reason.contains("invalid database"), "{reason}");
    assert!(build().await.note("buildkit_state_wiped").is_none());
    // Found only when it builds.
    lab.daemon.stop();
    spoil("snapshots/metadata.db").unwrap();
    let story = build().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Infrastructure, "daemon"), "{}", story.text());
    let story = build().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    assert!(story.note("buildkit_state_wiped").is_some());
}

#[tokio::test]
async fn a_daemon_that_cannot_start_is_said_with_its_words() {
    let lab = Lab::new().await;
    let mut attempt = lab.attempt_of("FROM alpine:3\n").await;
    attempt.spec.buildkit.dockerhub_mirrors = vec!["\u{1}".into()];
    attempt.spec.buildkit.buildkitd = "/bin/false".into();
    let story = attempt.run().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Infrastructure, "daemon"), "{}", story.text());
    let mut attempt = lab.attempt_of("FROM alpine:3\n").await;
    attempt.spec.buildkit.buildkitd = "/does/not/exist".into();
    let story = attempt.run().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Infrastructure, "daemon"), "{}", story.text());
}

#[tokio::test]
async fn a_daemon_with_other_settings_is_exchanged_when_nobody_builds_with_it() {
    let lab = Lab::new().await;
    let mut busy = lab.attempt_of(SLOW).await.start();
    busy.follow(0).await.until(begun).await;
    let first = lab.daemon.pid();
    let changed = async || {
        let mut attempt = lab.attempt_of("FROM alpine:3\nRUN echo x\n").await;
        attempt.spec.buildkit.insecure_registries.push("10.1.2.3:5000".into());
        attempt.run().await
    };
    let story = changed().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    assert!(story.note("buildkit_settings_later").is_some());
    assert_eq!(lab.daemon.pid(), first);
    busy.signal(Signal::TERM);
    let events = busy.follow_to_end(0).await;
    busy.story(events).await;
    let story = changed().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    assert!(story.note("buildkit_settings_later").is_none());
    assert_ne!(lab.daemon.pid(), first);
}

/// A folder of its own on a small file system, which only root can make.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn at(folder: &std::path::Path, size: &str) -> Self {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "small"])
            .arg(folder)
            .status();
        assert!(mount.unwrap().success());
        Self(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_does_not_cost_a_build_its_end() {
    if !rustix::process::geteuid().is_root() {
        println!("not as root: no file system of a chosen size can be made");
        return;
    }
    let lab = lab().await;
    let mut attempt = lab.attempt_of("FROM alpine:3\nRUN seq 1 3000000\n").await;
    let folder = attempt.at("small");
    std::fs::create_dir(&folder).unwrap();
    let _disk = SmallDisk::at(&folder, "2m");
    attempt.spec.files.spool = folder.join("spool");
    let story = attempt.run().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Infrastructure, "disk_full"));
    let lines = story.lines_of("RUN seq");
    assert!(lines.len() > 1000);
    assert!(lines.iter().enumerate().all(|(i, line)| *line == (i + 1).to_string()));
}
