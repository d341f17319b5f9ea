//! Everything but the agent itself is real here: a script stands in for it, because what is tested is who is alive.

use super::*;
use kiops_app::model::ID_LETTERS;
use kiops_events::spec::*;
use rustix::fs::{FlockOperation, flock};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const BUILDKITD: &str = "#!/bin/sh\necho buildkitd github.com/moby/buildkit v9.8.7 abc\n";
/// Says that it was started, makes a spool, and waits until it is told to stop.
const PATIENT: &str = "#!/bin/sh\necho \"$1\" >> starts; echo more than a header is > spool; trap 'exit 0' TERM; while :; do sleep 0.05; done\n";
const DEAF: &str = "#!/bin/sh\ntrap '' TERM; echo more than a header is > spool; while :; do sleep 0.05; done\n";
const BRIEF: &str = "#!/bin/sh\necho \"$1\" >> starts; echo more than a header is > spool\n";
const EMPTY: &str = "#!/bin/sh\necho \"$1\" >> starts; : > spool\n";

struct Place {
    folder: tempfile::TempDir,
    runner: LocalRunner,
}

impl Place {
    fn new(agent: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runner = LocalRunner::new(config(folder.path(), agent)).unwrap();
        Self { folder, runner }
    }

    fn attempt(&self, attempt: u32) -> Attempt {
        self.runner.attempt(&build(), attempt)
    }

    fn starts(&self, attempt: u32) -> String {
        std::fs::read_to_string(self.attempt(attempt).folder.join("starts")).unwrap_or_default()
    }

    async fn reach(&self, attempt: u32, wanted: RunState) {
        for _ in 0..1000 {
            if self.runner.state(&build(), attempt).await.unwrap() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("attempt {attempt} never was {wanted:?}");
    }

    /// The script has come as far as its spool.
    async fn running(&self, attempt: u32) {
        while !self.attempt(attempt).folder.join("spool").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for attempt in 1..4 {
            if let Some(who) = self.attempt(attempt).who("agent.stat") {
                who.kill();
            }
        }
    }
}

fn config(folder: &Path, agent: &str) -> LocalConfig {
    let script = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    LocalConfig {
        data: folder.join("data"),
        agent: script("agent", agent),
        buildkitd: script("buildkitd", BUILDKITD),
        buildctl: "buildctl".into(),
        dockerhub_mirrors: vec![],
        insecure_registries: vec![],
        addresses: AddressPolicy { loopback: true },
    }
}

fn build() -> BuildId {
    BuildId::from_random([3; ID_LETTERS])
}

fn start(attempt: u32) -> StartSpec {
    StartSpec {
        spec: AgentSpec {
            version: 1,
            build: build().to_string(),
            attempt,
            source: SourceSpec {
                url: "http://127.0.0.1/x.git".into(),
                commit: "a".repeat(40),
                reference: "refs/heads/main".into(),
                submodules: true,
                addresses: Default::default(),
            },
            dockerfile: DockerfileSpec::Auto,
            image: ImageSpec { references: vec!["r/x:1".into()], plain_http: true, platform: None },
            cache: CacheSpec { reference: None, no_cache: false, mount_namespace: "n".into() },
            buildkit: Default::default(),
            limits: LimitsSpec { time_limit_s: 60, log_cap_bytes: 1, hold_s: 1, cgroup: None },
            files: Default::default(),
            labels: Default::default(),
        },
        service: kiops_app::model::ServiceId::from_random([4; ID_LETTERS]),
        size: kiops_app::model::ProfileSize::MEDIUM,
        keeps_state: true,
        relay_key: b"key".to_vec(),
        git_credential: Some(("oauth2".into(), "git-token".into())),
        docker_config: br#"{"auths":{}}"#.to_vec(),
        redact: vec!["registry-password".into()],
    }
}

#[tokio::test]
async fn a_second_start_finds_the_first() {
    let place = Place::new(PATIENT);
    place.runner.start(start(1)).await.unwrap();
    place.running(1).await;
    place.runner.start(start(1)).await.unwrap();
    assert_eq!(place.starts(1), "run\n");
    assert_eq!(place.runner.state(&build(), 1).await.unwrap(), RunState::Alive);
    assert_eq!(place.runner.list().await.unwrap(), [(build(), 1)]);
    // Another attempt is another agent.
    place.runner.start(start(2)).await.unwrap();
    place.running(2).await;
    assert_eq!(place.runner.list().await.unwrap(), [(build(), 1), (build(), 2)]);
}

#[tokio::test]
async fn nobody_starts_an_attempt_again_that_is_over() {
    for (script, left) in [(BRIEF, RunState::Ended), (EMPTY, RunState::Gone)] {
        let place = Place::new(script);
        place.runner.start(start(1)).await.unwrap();
        while place.starts(1).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        place.reach(1, left).await;
        place.runner.start(start(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(place.starts(1), "run\n");
    }
}

#[tokio::test]
async fn another_server_finds_the_agent_and_only_one_server_is_let_in() {
    let place = Place::new(PATIENT);
    place.runner.start(start(1)).await.unwrap();
    place.running(1).await;
    let second = || LocalRunner::new(place.runner.config.clone());
    assert!(second().is_err());
    // The first one's process dies, and its lock with it.
    flock(&place.runner._lock, FlockOperation::Unlock).unwrap();
    let runner = second().unwrap();
    assert_eq!(runner.state(&build(), 1).await.unwrap(), RunState::Alive);
    runner.start(start(1)).await.unwrap();
    assert_eq!(place.starts(1), "run\n");
}

#[tokio::test]
async fn the_folder_is_private_and_the_specification_holds_no_secret() {
    let place = Place::new(PATIENT);
    place.runner.start(start(1)).await.unwrap();
    let at = place.attempt(1);
    assert_eq!(std::fs::metadata(&at.folder).unwrap().mode() & 0o777, 0o700);
    for (file, content) in [
        ("key", "key"),
        ("git", "oauth2\ngit-token\n"),
        ("docker/config.json", r#"{"auths":{}}"#),
        ("redact/0", "registry-password"),
    ] {
        let path = at.folder.join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{file}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), content);
    }
    let spec = std::fs::read_to_string(at.folder.join("spec.json")).unwrap();
    assert!(!spec.contains("git-token") && !spec.contains("registry-password"));
    let spec: AgentSpec = serde_json::from_str(&spec).unwrap();
    let data = place.folder.path().canonicalize().unwrap().join("data");
    assert_eq!(spec.files.spool, at.folder.join("spool"));
    assert_eq!(spec.files.socket.as_ref(), Some(&at.socket));
    assert_eq!(spec.buildkit.state_dir, data.join("buildkit/v9.8.7"));
    assert!(spec.buildkit.run_dir.is_dir());
}

#[tokio::test]
async fn a_cancelled_agent_is_told_and_a_deaf_one_is_killed_when_it_is_released() {
    let place = Place::new(PATIENT);
    place.runner.start(start(1)).await.unwrap();
    place.running(1).await;
    place.runner.cancel(&build(), 1).await.unwrap();
    place.reach(1, RunState::Ended).await;
    place.runner.cancel(&build(), 1).await.unwrap();
    place.runner.release(&build(), 1).await.unwrap();
    place.runner.release(&build(), 1).await.unwrap();
    assert_eq!(place.runner.state(&build(), 1).await.unwrap(), RunState::Gone);
    assert!(place.runner.list().await.unwrap().is_empty());

    let place = Place::new(DEAF);
    place.runner.start(start(1)).await.unwrap();
    place.running(1).await;
    let who = place.attempt(1).who("agent.stat").unwrap();
    place.runner.release(&build(), 1).await.unwrap();
    assert!(!who.is_alive());
    assert!(!place.attempt(1).folder.exists());
}

#[tokio::test]
async fn a_program_that_is_missing_is_a_refusal_and_no_start() {
    let place = Place::new(PATIENT);
    std::fs::remove_file(&place.runner.config.agent).unwrap();
    let refused = place.runner.start(start(1)).await.unwrap_err();
    assert!(matches!(refused, RunnerError::Refused { code: "agent_missing", .. }), "{refused}");
    assert_eq!(place.runner.state(&build(), 1).await.unwrap(), RunState::Gone);
    std::fs::write(&place.runner.config.agent, PATIENT).unwrap();
    std::fs::set_permissions(&place.runner.config.agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    place.runner.start(start(1)).await.unwrap();
    place.running(1).await;

    let other = Place::new(PATIENT);
    std::fs::write(&other.runner.config.buildkitd, "#!/bin/sh\n").unwrap();
    let refused = other.runner.start(start(1)).await.unwrap_err();
    assert!(matches!(refused, RunnerError::Refused { code: "buildkit_missing", .. }), "{refused}");
}

#[tokio::test]
async fn sockets_find_room_under_any_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), PATIENT);
    config.data = folder.path().join("d".repeat(120));
    let runner = LocalRunner::new(config).unwrap();
    let at = runner.attempt(&build(), u32::MAX);
    assert!(at.socket.as_os_str().len() <= MAX_SOCKET_PATH);
    let short = runner.sockets.clone().unwrap();
    assert_eq!(std::fs::metadata(&short).unwrap().mode() & 0o777, 0o700);
    assert!(runner.buildkit().await.unwrap().run_dir.starts_with(&short));
    std::fs::remove_dir_all(short).unwrap();
}

#[test]
fn versions_become_folder_names_only_when_they_are_versions() {
    assert_eq!(buildkit_version("buildkitd github.com/moby/buildkit v0.32.2 0123"), Some("v0.32.2"));
    for bad in ["", "buildkitd x", "buildkitd x ../../etc y", "buildkitd x .. y"] {
        assert_eq!(buildkit_version(bad), None, "{bad:?}");
    }
}
