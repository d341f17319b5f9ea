//! The agent as the three containers of a Pod: processes that share a folder and nothing else, and may die one by one.

mod common;

use common::{Attempt, DaemonFolder, Follow, KEY, PATIENCE, lab};
use kiops_events::AgentEvent;
use kiops_events::event::{AgentEnd, AgentResult, EventKind};
use kiops_events::probe::{IdRange, root_of};
use kiops_events::wire::Frame;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A Pod of one's own: its daemon is nobody else's, and ends with it.
struct Pod {
    attempt: Attempt,
    _daemon: DaemonFolder,
    port: u16,
    containers: Vec<(&'static str, Child)>,
}

impl Pod {
    async fn of(dockerfile: &str) -> Self {
        let mut attempt = lab().await.attempt_of(dockerfile).await;
        let daemon = DaemonFolder::new();
        attempt.spec.buildkit.run_dir = daemon.run_dir();
        attempt.spec.buildkit.state_dir = daemon.state_dir();
        attempt.spec.files.socket = None;
        std::fs::write(attempt.at("spec.json"), serde_json::to_vec(&attempt.spec).unwrap()).unwrap();
        Self { attempt, _daemon: daemon, port: kiops_rig::free_port(), containers: Vec::new() }
    }

    fn start(&mut self, container: &'static str) {
        let mut command = Command::new(common::agent_program());
        command.arg(container).arg("--dir").arg(self.attempt.folder.path());
        if container == "relay" {
            command.arg("--port").arg(self.port.to_string());
        }
        let log = |end: &str| File::create(self.attempt.at(&format!("{container}.{end}"))).unwrap();
        command.stdin(Stdio::null()).stdout(log("out")).stderr(log("err"));
        self.containers.push((container, command.spawn().unwrap()));
    }

    fn start_all(&mut self) {
        // In no order that could be counted on.
        for container in ["build", "relay", "checkout"] {
            self.start(container);
        }
    }

    fn container(&mut self, name: &str) -> &mut Child {
        &mut self.containers.iter_mut().find(|(known, _)| *known == name).unwrap().1
    }

    fn signal(&mut self, name: &str, signal: Signal) {
        let pid = self.container(name).id() as i32;
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    async fn wait(&mut self, name: &str) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.container(name).try_wait().unwrap() {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "{name} does not end: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn follow(&self, after: u64) -> Follow {
        let since = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)).await {
                Ok(stream) => return Follow::greet(stream, &self.attempt.spec, KEY, after).await.unwrap(),
                Err(error) => assert!(since.elapsed() < PATIENCE, "no relay: {error}; {}", self.logs()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The whole story, as a server hears it.
    async fn hear(&mut self) -> Vec<AgentEvent> {
        let mut follow = self.follow(0).await;
        let events = follow.until_result().await;
        assert!(events.iter().zip(1..).all(|((event, _), seq)| event.seq == seq), "{}", self.logs());
        follow.send(Frame::Ack(events.len() as u64)).await;
        follow.send(Frame::Release).await;
        events.into_iter().map(|(event, _)| event).collect()
    }

    fn logs(&self) -> String {
        let read = |(name, _): &(&str, Child)| {
            let text =
                |end: &str| std::fs::read_to_string(self.attempt.at(&format!("{name}.{end}"))).unwrap_or_default();
            format!("== {name}\n{}{}", text("err"), text("out"))
        };
        self.containers.iter().map(read).collect()
    }

    fn printed(&self, container: &str) -> String {
        std::fs::read_to_string(self.attempt.at(&format!("{container}.out"))).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for (_, container) in &mut self.containers {
            let _ = container.kill();
            let _ = container.wait();
        }
    }
}

fn result(events: &[AgentEvent]) -> &AgentResult {
    match &events.last().unwrap().kind {
        EventKind::Result(result) => result,
        other => panic!("no result but {other:?}"),
    }
}

fn begun(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Lines(lines) if lines.text.contains("begun"))
}

const SLOW: &str = "FROM alpine:3\nRUN echo begun; sleep 300\n";

#[tokio::test]
async fn three_containers_make_one_build() {
    let mut pod = Pod::of("FROM alpine:3\nRUN echo hello\n").await;
    pod.start_all();
    let events = pod.hear().await;
    assert_eq!(result(&events).end, AgentEnd::Success, "{}", pod.logs());
    assert!(result(&events).digest.is_some());
    for container in ["checkout", "build", "relay"] {
        assert_eq!(pod.wait(container).await.code(), Some(0), "{container}: {}", pod.logs());
    }
    // What people see who look at the Pod itself.
    let printed = pod.printed("relay");
    assert!(printed.lines().any(|line| line.starts_with('#') && line.ends_with(" hello")), "{printed}");
    // The daemon was the Pod's.
    assert!(!pod.attempt.spec.buildkit.run_dir.join("buildkitd.json").exists());
}

/// As on a node that leaves out the user namespace that its Pod asked for.
#[tokio::test]
async fn a_build_that_was_to_be_in_a_user_namespace_is_not_the_nodes_root() {
    let mut pod = Pod::of("FROM alpine:3\nRUN echo begun\n").await;
    pod.attempt.spec.buildkit.in_user_namespace = true;
    std::fs::write(pod.attempt.at("spec.json"), serde_json::to_vec(&pod.attempt.spec).unwrap()).unwrap();
    pod.start_all();
    let events = pod.hear().await;
    // These processes have the ids of whoever runs the test.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let within = root_of(&IdRange::parse(&map)).is_some_and(|root| root > 0);
    let wanted = if within { (AgentEnd::Success, None) } else { (AgentEnd::Infrastructure, Some("isolation_ignored")) };
    assert_eq!((result(&events).end, result(&events).code.as_deref()), wanted, "{}", pod.logs());
    assert_eq!(events.iter().any(|e| begun(&e.kind)), within);
}

#[tokio::test]
async fn a_checkout_that_fails_is_the_end_and_nothing_is_built() {
    let mut pod = Pod::of("FROM alpine:3\n").await;
    pod.attempt.spec.source.commit = "1".repeat(40);
    std::fs::write(pod.attempt.at("spec.json"), serde_json::to_vec(&pod.attempt.spec).unwrap()).unwrap();
    pod.start_all();
    let events = pod.hear().await;
    assert_eq!((result(&events).end, result(&events).code.as_deref()), (AgentEnd::Failure, Some("git_ref")));
    assert_eq!(pod.wait("checkout").await.code(), Some(1));
    assert_eq!(pod.wait("build").await.code(), Some(4), "{}", pod.logs());
    assert_eq!(pod.wait("relay").await.code(), Some(0));
}

#[tokio::test]
async fn whoever_is_killed_has_a_last_word_and_all_that_was_written() {
    for victim in ["build", "checkout"] {
        let mut pod = Pod::of(SLOW).await;
        if victim == "checkout" {
            // Hangs until it is killed.
            let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            pod.attempt.spec.source.url = format!("http://{}/x.git", deaf.local_addr().unwrap());
            std::fs::write(pod.attempt.at("spec.json"), serde_json::to_vec(&pod.attempt.spec).unwrap()).unwrap();
            pod.start_all();
            let mut follow = pod.follow(0).await;
            follow.until(|kind| matches!(kind, EventKind::PhaseEntered { .. })).await;
            pod.signal(victim, Signal::KILL);
            drop(deaf);
        } else {
            pod.start_all();
            pod.follow(0).await.until(begun).await;
            pod.signal(victim, Signal::KILL);
        }
        let events = pod.hear().await;
        let end = (result(&events).end, result(&events).code.as_deref());
        assert_eq!(end, (AgentEnd::Infrastructure, Some("agent")), "{victim}: {}", pod.logs());
        assert_eq!(result(&events).count, events.len() as u64 - 1);
        assert!(victim == "checkout" || events.iter().any(|event| begun(&event.kind)));
        assert_eq!(pod.wait("relay").await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_pod_that_is_told_to_go_ends_its_build_and_keeps_the_relay_until_it_is_heard() {
    let mut pod = Pod::of(SLOW).await;
    pod.start_all();
    pod.follow(0).await.until(begun).await;
    for container in ["build", "relay"] {
        pod.signal(container, Signal::TERM);
    }
    assert_eq!(pod.wait("build").await.code(), Some(6), "{}", pod.logs());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(pod.container("relay").try_wait().unwrap().is_none(), "nobody has heard the end yet");
    let events = pod.hear().await;
    assert_eq!(result(&events).end, AgentEnd::Terminated);
    assert_eq!(pod.wait("relay").await.code(), Some(0));
}

#[tokio::test]
async fn a_build_that_was_told_to_go_before_it_began_does_not_begin() {
    let mut pod = Pod::of(SLOW).await;
    // The image of `build` is still on its way.
    for container in ["relay", "checkout"] {
        pod.start(container);
    }
    assert_eq!(pod.wait("checkout").await.code(), Some(0), "{}", pod.logs());
    pod.signal("relay", Signal::TERM);
    let mut follow = pod.follow(0).await;
    let events: Vec<_> = follow.until_result().await.into_iter().map(|(event, _)| event).collect();
    assert_eq!(result(&events).end, AgentEnd::Terminated);
    pod.start("build");
    assert_eq!(pod.wait("build").await.code(), Some(3), "{}", pod.logs());
    follow.send(Frame::Ack(events.len() as u64)).await;
    follow.send(Frame::Release).await;
    assert_eq!(pod.wait("relay").await.code(), Some(0));
}

#[tokio::test]
async fn the_time_limit_is_the_whole_pods() {
    let mut pod = Pod::of(SLOW).await;
    pod.attempt.spec.limits.time_limit_s = 4;
    std::fs::write(pod.attempt.at("spec.json"), serde_json::to_vec(&pod.attempt.spec).unwrap()).unwrap();
    for container in ["relay", "checkout"] {
        pod.start(container);
    }
    pod.wait("checkout").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = Instant::now();
    pod.start("build");
    let events = pod.hear().await;
    assert_eq!((result(&events).end, result(&events).code.as_deref()), (AgentEnd::TimeLimit, Some("timeout")));
    assert!(events.last().unwrap().offset_ms < 60_000 && since.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn the_program_goes_where_other_images_can_run_it() {
    let folder = tempfile::tempdir().unwrap();
    let to: PathBuf = folder.path().join("kiops-agent");
    assert!(Command::new(common::agent_program()).arg("install").arg(&to).status().unwrap().success());
    let said = Command::new(&to).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("kiops-agent "));
    let elsewhere = folder.path().join("no/folder");
    assert!(!Command::new(common::agent_program()).arg("install").arg(elsewhere).output().unwrap().status.success());
}

/// What mounts needs root, and is left out for an ordinary user.
mod needs_root {
    use super::*;
    use std::path::Path;

    /// A file system of its own, of so many bytes.
    struct Volume(PathBuf);

    impl Volume {
        fn at(folder: &Path, bytes: u64) -> Self {
            std::fs::create_dir_all(folder).unwrap();
            let size = format!("size={bytes}");
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", &size, "kiops"]).arg(folder).status().unwrap();
            assert!(mounted.success());
            Self(folder.to_owned())
        }
    }

    impl Drop for Volume {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }

    #[tokio::test]
    async fn a_volume_that_is_nearly_full_has_room_again_and_keeps_what_others_cannot_give() {
        const MB: u64 = 1_000_000;
        let dockerfile = |fill: &str| {
            format!(
                "FROM alpine:3\nRUN {fill}\nRUN --mount=type=cache,target=/c if [ -e /c/kept ]; then echo was there; else echo was not there; fi; touch /c/kept; echo {fill} >/dev/null\n"
            )
        };
        let mut first = Pod::of(&dockerfile("head -c 170000000 /dev/urandom > /big")).await;
        let state = first.attempt.spec.buildkit.state_dir.parent().unwrap().join("volume");
        let _volume = Volume::at(&state, 600 * MB);
        let said = async |pod: &mut Pod| {
            pod.attempt.spec.buildkit.state_dir = state.join("state");
            pod.attempt.spec.cache.mount_namespace = "same-1".to_owned();
            std::fs::write(pod.attempt.at("spec.json"), serde_json::to_vec(&pod.attempt.spec).unwrap()).unwrap();
            pod.start_all();
            let events = pod.hear().await;
            assert_eq!(result(&events).end, AgentEnd::Success, "{}", pod.logs());
            pod.wait("build").await;
            events
        };
        let lines = |events: &[AgentEvent], text: &str| {
            events.iter().any(|e| matches!(&e.kind, EventKind::Lines(lines) if lines.text.lines().any(|l| l == text)))
        };
        let pruned = |events: &[AgentEvent]| {
            let note = events.iter().find_map(|e| match &e.kind {
                EventKind::Note { code, args } if code == "state_pruned" => Some(args.clone()),
                _ => None,
            });
            note.map(|args| args["freed_bytes"].parse::<u64>().unwrap())
        };
        let events = said(&mut first).await;
        assert!(lines(&events, "was not there") && pruned(&events).is_none(), "{}", first.logs());
        // What is left is less than a fifth of it.
        let room = rustix::fs::statvfs(&state).unwrap();
        let ballast = (room.f_bavail * room.f_frsize).saturating_sub(60 * MB);
        std::fs::write(state.join("ballast"), vec![0_u8; ballast as usize]).unwrap();

        let mut second = Pod::of(&dockerfile("echo small")).await;
        let events = said(&mut second).await;
        assert!(pruned(&events).is_some_and(|bytes| bytes > 150 * MB), "{:?}\n{}", pruned(&events), second.logs());
        assert!(lines(&events, "was there"), "{}", second.logs());
    }
}
