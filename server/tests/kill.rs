//! `kill -9` of a real server, at exactly the moments where something could be lost, and at random ones.
//!
//! Afterwards every build is a success in its first attempt, its agent was started once, and the stored log, read
//! through the API, has the count and the hash that the agent wrote down as its last word. `KIOPS_SOAK=1` adds two
//! hundred random kills with a printed seed; `KIOPS_SEED` repeats one.

mod builds_rig;

use builds_rig::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use kiops_events::chain::Chain;
use kiops_rig::{buildkit_bins, free_port};
use kiops_server::outgoing::https_client;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for every moment to be met, and not much longer.
const STEP: &str = "FROM alpine:3\nARG ONCE\nCOPY . /\nRUN for i in $(seq 1 50); do echo line $i; sleep 0.02; done; echo done $(cat /n)\n";

struct Server {
    data: Data,
    port: u16,
    agent: PathBuf,
    child: Option<Child>,
    token: String,
    hosts: &'static Hosts,
}

impl Server {
    async fn new() -> Self {
        let (data, hosts) = (Data::new(), hosts().await);
        // The agent, with every start written down by who was started for what.
        let agent = data.path.join("agent");
        let script = format!(
            "#!/bin/sh\necho \"$3\" >> {}\nexec {} \"$@\"\n",
            data.path.join("starts").display(),
            agent_program().display()
        );
        std::fs::write(&agent, script).unwrap();
        std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { data, port: free_port(), agent, child: None, token: String::new(), hosts }
    }

    async fn start(&mut self, fault: Option<&str>) {
        let bins = buildkit_bins().unwrap();
        let registry = self.hosts.registry.address();
        let log = std::fs::File::options().create(true).append(true).open(self.data.path.join("server.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiops"));
        command
            .arg("serve")
            .env("KIOPS_DATA", &self.data.path)
            .env("KIOPS_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("KIOPS_ADMIN_PASSWORD", "a password for tests")
            .env("KIOPS_AGENT", &self.agent)
            .env("KIOPS_BUILDKITD", bins.buildkitd)
            .env("KIOPS_BUILDCTL", bins.buildctl)
            .env("KIOPS_DOCKERHUB_MIRROR", &registry)
            .env("KIOPS_INSECURE_REGISTRIES", &registry)
            .env("KIOPS_MIN_FREE_BYTES", "0")
            .env_remove("KIOPS_FAULT_AT")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(point) = fault {
            command.env("KIOPS_FAULT_AT", point);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it and waits until it answers.
    async fn up(&mut self, fault: Option<&str>) {
        self.start(fault).await;
        let since = Instant::now();
        while self.try_ask(Method::GET, "/readyz", Value::Null).await.is_none_or(|(status, _)| status != 200) {
            assert!(since.elapsed() < PATIENCE, "the server is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let user = json!({ "user": "admin", "password": "a password for tests" });
        let session = self.api(Method::POST, "/sessions", user).await;
        self.token = session["token"].as_str().unwrap().to_owned();
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Waits until the server has killed itself.
    async fn dies(&mut self) {
        let since = Instant::now();
        let child = self.child.as_mut().unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(since.elapsed() < PATIENCE, "the server does not die");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "it ended otherwise:\n{}", self.log());
        self.child = None;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path.join("server.log")).unwrap_or_default()
    }

    async fn try_ask(&self, method: Method, path: &str, body: Value) -> Option<(u16, Bytes)> {
        let client = https_client().unwrap();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(if body.is_null() { String::new() } else { body.to_string() })))
            .unwrap();
        let response = client.request(request).await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.into_body().collect().await.ok()?.to_bytes()))
    }

    async fn api(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, reply) = self.try_ask(method, &format!("/api/v1{path}"), body).await.expect("an answer");
        let text = String::from_utf8_lossy(&reply).into_owned();
        assert!((200..300).contains(&status), "{path}: {status} {text}\n{}", self.log());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A service of its own, whose step has never been built before.
    async fn service(&self) -> String {
        let name = self.hosts.name("kill");
        let repo = self.hosts.git.new_repo(&name).await.unwrap();
        repo.commit("main", &[("Dockerfile", STEP.as_bytes()), ("n", name.as_bytes())], "x").await.unwrap();
        let service = json!({
            "name": name,
            "source": { "kind": "git", "url": repo.url(), "default_branch": "main" },
            "registry_config": { "kind": "private", "url": self.hosts.registry.address(), "path": "kill",
                "image_name": name, "plain_http": true },
        });
        self.api(Method::POST, "/services", service).await["id"].as_str().unwrap().to_owned()
    }

    async fn build(&self, service: &str) -> String {
        let started = self.api(Method::POST, &format!("/services/{service}/builds"), json!({ "branch": "main" })).await;
        started["id"].as_str().unwrap().to_owned()
    }

    async fn over(&self, id: &str) -> Value {
        let since = Instant::now();
        loop {
            let build = self.api(Method::GET, &format!("/builds/{id}"), Value::Null).await;
            if matches!(build["status"].as_str(), Some("success" | "failure" | "cancelled")) {
                return build;
            }
            assert!(since.elapsed() < PATIENCE, "never over: {build:#}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn starts(&self, id: &str) -> usize {
        let starts = std::fs::read_to_string(self.data.path.join("starts")).unwrap_or_default();
        starts.lines().filter(|line| line.contains(id)).count()
    }

    /// The build is whole: see the module's own words.
    async fn assert_whole(&self, id: &str) {
        let build = self.over(id).await;
        let context = format!("{build:#}\n{}", self.log());
        assert_eq!((build["status"].as_str(), build["attempt"].as_u64()), (Some("success"), Some(1)), "{context}");
        assert_eq!(build["log_verified"], true, "{context}");
        assert_eq!(self.starts(id), 1, "{context}");
        let (_, events) = self.try_ask(Method::GET, &format!("/api/v1/builds/{id}/events"), Value::Null).await.unwrap();
        let (mut chain, mut pos, mut result) = (Chain::default(), 0, None);
        for line in std::str::from_utf8(&events).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            pos += 1;
            assert_eq!(event["pos"].as_u64(), Some(pos), "a hole in the positions");
            if event["seq"] == 0 {
                continue;
            }
            assert_eq!(event["seq"].as_u64(), Some(chain.count + 1), "a hole in the agent's events");
            if event["k"] == "result" {
                result = Some((event["count"].as_u64().unwrap(), event["hash"].as_str().unwrap().to_owned()));
                continue;
            }
            // What the agent wrote, out of what the server put in front of it.
            let at = line.find(",\"at\":").unwrap() + 6;
            let own = &line[at + line[at..].find(',').unwrap() + 1..];
            chain.push(format!("{{{own}").as_bytes());
        }
        assert_eq!(result, Some((chain.count, chain.hex())), "{context}");
        let (_, text) = self.try_ask(Method::GET, &format!("/api/v1/builds/{id}/log"), Value::Null).await.unwrap();
        let text = String::from_utf8_lossy(&text);
        for i in 1..=50 {
            assert_eq!(text.lines().filter(|l| l.ends_with(&format!(" line {i}"))).count(), 1, "line {i} in\n{text}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One kill at `point`, then a server that is left alone.
async fn killed_at(point: &str) {
    let mut server = Server::new().await;
    server.up(Some(point)).await;
    let service = server.service().await;
    // The server may die before it has answered.
    let start = format!("/api/v1/services/{service}/builds");
    server.try_ask(Method::POST, &start, json!({ "branch": "main", "request_key": "once" })).await;
    server.dies().await;
    server.up(None).await;
    let again = json!({ "branch": "main", "request_key": "once" });
    let id = server.api(Method::POST, &start["/api/v1".len()..], again).await["id"].as_str().unwrap().to_owned();
    server.assert_whole(&id).await;
}

#[tokio::test]
async fn between_claim_and_start() {
    killed_at("after_claim").await;
}

#[tokio::test]
async fn during_checkout() {
    killed_at("during_checkout").await;
}

#[tokio::test]
async fn between_append_and_acknowledgement() {
    killed_at("mid_append:12").await;
}

#[tokio::test]
async fn between_result_and_finish() {
    killed_at("after_result_before_finish").await;
}

#[tokio::test]
async fn between_finish_and_release() {
    killed_at("after_finish_before_release").await;
}

#[tokio::test]
async fn during_recovery_itself() {
    let mut server = Server::new().await;
    server.up(Some("mid_append:5")).await;
    let service = server.service().await;
    let id = server.build(&service).await;
    server.dies().await;
    server.start(Some("during_recovery")).await;
    server.dies().await;
    server.up(None).await;
    server.assert_whole(&id).await;
}

#[tokio::test]
async fn two_hundred_times_at_random() {
    if std::env::var_os("KIOPS_SOAK").is_none() {
        return;
    }
    let seed = std::env::var("KIOPS_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_le_bytes(kiops_server::problems::random()));
    println!("KIOPS_SEED={seed}");
    let mut state = seed | 1;
    // xorshift64: repeatable is all it has to be.
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut server = Server::new().await;
    server.up(None).await;
    let (mut kills, mut builds) = (0, 0);
    while kills < 200 {
        let service = server.service().await;
        let id = server.build(&service).await;
        builds += 1;
        // Some builds meet several kills, and some kills meet the server that is only just coming up.
        for _ in 0..1 + next(4) {
            tokio::time::sleep(Duration::from_millis(next(900))).await;
            server.kill();
            kills += 1;
            if next(4) == 0 {
                server.start(None).await;
                tokio::time::sleep(Duration::from_millis(next(200))).await;
                server.kill();
                kills += 1;
            }
            server.up(None).await;
        }
        server.assert_whole(&id).await;
        println!("{kills} kills, {builds} builds");
    }
    let held = std::fs::read_dir(server.data.path.join("local")).unwrap().flatten();
    let left: Vec<_> = held.map(|e| e.file_name()).filter(|n| n != "lock").collect();
    assert!(left.len() <= 1, "attempts were left behind: {left:?}");
}
