//! A real server as a process of its own, driven through its JSON API, that can be killed at any moment.
//!
//! No expectation of any one test lives here.
#![allow(dead_code)] // Each test binary uses another part of it.

use crate::builds_rig::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use kiops_events::chain::Chain;
use kiops_rig::{Authority, Furnished, buildkit_bins, free_port};
use kiops_server::outgoing::https_client;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for every moment to be met, and not much longer.
pub const STEP: &str = "FROM alpine:3\nARG ONCE\nCOPY . /\nRUN for i in $(seq 1 50); do echo line $i; sleep 0.02; done; echo done $(cat /n)\n";

const NAMESPACE: &str = "kiwi-builds";

/// Where the server's builds run.
enum Place {
    /// On this machine, by an agent that writes down who was started for what.
    Here {
        agent: PathBuf,
    },
    Pods(&'static Furnished),
}

/// The program `kiops` on a data folder of its own.
pub struct Server {
    pub data: Data,
    port: u16,
    place: Place,
    child: Option<Child>,
    token: String,
    pub hosts: &'static Hosts,
    database: Option<String>,
    /// A file of certificates in place of the machine's own.
    authorities: Option<PathBuf>,
}

impl Server {
    /// With the SQLite database of its data folder.
    pub async fn new() -> Self {
        Self::on(None).await
    }

    pub async fn on(database: Option<String>) -> Self {
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
        Self::of(Place::Here { agent }, data, hosts, database)
    }

    /// With its builds in a cluster that can reach the hosts.
    pub async fn in_pods(furnished: &'static Furnished) -> Self {
        Self::of(Place::Pods(furnished), Data::new(), hosts().await, None)
    }

    fn of(place: Place, data: Data, hosts: &'static Hosts, database: Option<String>) -> Self {
        let (port, token) = (free_port(), String::new());
        Self { data, port, place, child: None, token, hosts, database, authorities: None }
    }

    /// An address of this machine as its builds see it.
    fn seen(&self, address: &str) -> String {
        match &self.place {
            Place::Here { .. } => address.to_owned(),
            Place::Pods(furnished) => address.replace("127.0.0.1", &furnished.cluster.host_address()),
        }
    }

    pub async fn start(&mut self, fault: Option<&str>) {
        let bins = buildkit_bins().unwrap();
        let registry = self.seen(&self.hosts.registry.address());
        let log = std::fs::File::options().create(true).append(true).open(self.data.path.join("server.log")).unwrap();
        let mut command = Command::new(server_program());
        command
            .arg("serve")
            .env("KIOPS_DATA", &self.data.path)
            .env("KIOPS_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("KIOPS_ADMIN_PASSWORD", "a password for tests")
            .env("KIOPS_DOCKERHUB_MIRROR", &registry)
            .env("KIOPS_INSECURE_REGISTRIES", &registry)
            .env("KIOPS_MIN_FREE_BYTES", "0")
            .env_remove("KIOPS_FAULT_AT")
            .env_remove("KIOPS_DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        match &self.place {
            Place::Here { agent } => command
                .env("KIOPS_AGENT", agent)
                .env("KIOPS_BUILDKITD", bins.buildkitd)
                .env("KIOPS_BUILDCTL", bins.buildctl),
            Place::Pods(furnished) => command
                .env("KIOPS_RUNNER", "kubernetes")
                .env("KIOPS_KUBECONFIG", &furnished.kubeconfig)
                .env("KIOPS_BUILDER_IMAGE", furnished.builder_image)
                .env("KIOPS_IMAGE", furnished.own_image),
        };
        if let Some(file) = &self.authorities {
            // Whatever this machine's own are.
            command.env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR").env_remove("GIT_SSL_CAINFO");
        }
        if let Some(url) = &self.database {
            command.env("KIOPS_DATABASE_URL", url);
        }
        if let Some(point) = fault {
            command.env("KIOPS_FAULT_AT", point);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it and waits until it answers.
    pub async fn up(&mut self, fault: Option<&str>) {
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

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// `kiops build …` against this server. A restart takes neither address nor session from it.
    pub fn client(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(server_program());
        command
            .arg("build")
            .args(arguments)
            .env("KIOPS_URL", format!("http://127.0.0.1:{}", self.port))
            .env("KIOPS_TOKEN", &self.token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until the server has killed itself.
    pub async fn dies(&mut self) {
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

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.path.join("server.log")).unwrap_or_default()
    }

    pub async fn try_ask(&self, method: Method, path: &str, body: Value) -> Option<(u16, Bytes)> {
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

    pub async fn api(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, reply) = self.try_ask(method, &format!("/api/v1{path}"), body).await.expect("an answer");
        let text = String::from_utf8_lossy(&reply).into_owned();
        assert!((200..300).contains(&status), "{path}: {status} {text}\n{}", self.log());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A service of its own, whose step has never been built before.
    pub async fn service(&self) -> String {
        self.service_of(STEP).await
    }

    pub async fn service_of(&self, dockerfile: &str) -> String {
        let wanted = self.wanted(dockerfile, &self.hosts.git.url(), &self.hosts.registry.address(), true).await;
        self.api(Method::POST, "/services", wanted).await["id"].as_str().unwrap().to_owned()
    }

    /// A service to be registered, with a repository of its own; the hosts by these addresses of this machine's loopback.
    async fn wanted(&self, dockerfile: &str, git: &str, registry: &str, plain_http: bool) -> Value {
        let name = self.hosts.name("kill");
        let repo = self.hosts.git.new_repo(&name).await.unwrap();
        repo.commit("main", &[("Dockerfile", dockerfile.as_bytes()), ("n", name.as_bytes())], "x").await.unwrap();
        let url = repo.url().replace(&self.hosts.git.url(), git);
        json!({
            "name": name,
            "source": { "kind": "git", "url": self.seen(&url), "default_branch": "main" },
            "registry_config": { "kind": "private", "url": self.seen(registry), "path": "kill",
                "image_name": name, "plain_http": plain_http },
            // Several Pods at once fit on a node.
            "settings": { "dockerfile": { "mode": "auto", "path": null }, "profile": "small", "no_cache": false,
                "time_limit_s": 3600 },
        })
    }

    pub async fn build(&self, service: &str) -> String {
        let started = self.api(Method::POST, &format!("/services/{service}/builds"), json!({ "branch": "main" })).await;
        started["id"].as_str().unwrap().to_owned()
    }

    pub async fn over(&self, id: &str) -> Value {
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

    /// How many agents were started for a build.
    pub async fn starts(&self, id: &str) -> usize {
        match &self.place {
            Place::Here { .. } => {
                let starts = std::fs::read_to_string(self.data.path.join("starts")).unwrap_or_default();
                starts.lines().filter(|line| line.contains(id)).count()
            }
            // A Pod that comes and goes leaves this behind.
            Place::Pods(furnished) => {
                let question = ["-n", NAMESPACE, "get", "events", "--field-selector", "reason=Scheduled", "-o"];
                let names = "jsonpath={range .items[*]}{.involvedObject.name}{'\\n'}{end}";
                let said = furnished.cluster.kubectl(&[&question[..], &[names]].concat()).await.unwrap();
                said.lines().filter(|name| name.starts_with(id)).count()
            }
        }
    }

    /// What the runner holds of builds.
    pub async fn held(&self) -> Vec<String> {
        match &self.place {
            Place::Here { .. } => {
                let held = std::fs::read_dir(self.data.path.join("local")).unwrap().flatten();
                held.map(|e| e.file_name().into_string().unwrap()).filter(|name| name != "lock").collect()
            }
            Place::Pods(furnished) => {
                let question = ["-n", NAMESPACE, "get", "pods,secrets", "-l", "kiops.io/build", "-o", "name"];
                furnished.cluster.kubectl(&question).await.unwrap().lines().map(str::to_owned).collect()
            }
        }
    }

    /// One kill at `point`, then a server that is left alone.
    pub async fn survives_a_kill_at(mut self, point: &str) {
        self.up(Some(point)).await;
        let service = self.service().await;
        let start = format!("/services/{service}/builds");
        let once = json!({ "branch": "main", "request_key": "once" });
        // The server may die before it has answered.
        self.try_ask(Method::POST, &format!("/api/v1{start}"), once.clone()).await;
        self.dies().await;
        self.up(None).await;
        let id = self.api(Method::POST, &start, once).await["id"].as_str().unwrap().to_owned();
        self.assert_whole(&id).await;
    }

    /// One in mid-build, and another one while the next server takes that build up.
    pub async fn survives_a_kill_during_recovery(mut self) {
        self.up(Some("mid_append:5")).await;
        let service = self.service().await;
        let id = self.build(&service).await;
        self.dies().await;
        self.start(Some("during_recovery")).await;
        self.dies().await;
        self.up(None).await;
        self.assert_whole(&id).await;
    }

    /// Git host and, in Pods, registry have certificates of an authority that no machine knows.
    pub async fn trusts_whom_one_variable_names(mut self) {
        let authority = Authority::for_addresses(&["127.0.0.1", &self.seen("127.0.0.1")]).await.unwrap();
        let [git, registry] = [self.hosts.git.url(), self.hosts.registry.address()].map(|address| port_of(&address));
        let (git, door) = (authority.in_front_of(git).await.unwrap(), authority.in_front_of(registry).await.unwrap());
        let registry = match &self.place {
            Place::Pods(furnished) => {
                for door in [&git, &door] {
                    furnished.cluster.let_in(port_of(&door.address())).await.unwrap();
                }
                door.address()
            }
            // To the loopback BuildKit speaks without TLS, whatever it is told.
            Place::Here { .. } => self.hosts.registry.address(),
        };
        self.up(None).await;
        let plain_http = registry != door.address();
        let wanted = self.wanted(STEP, &format!("https://{}", git.address()), &registry, plain_http).await;
        let (status, said) = self.try_ask(Method::POST, "/api/v1/services", wanted.clone()).await.unwrap();
        let said: Value = serde_json::from_slice(&said).unwrap();
        assert_eq!((status, said["code"].as_str()), (502, Some("tls")), "{said:#}");

        self.kill();
        self.authorities = Some(authority.file());
        self.up(None).await;
        let service = self.api(Method::POST, "/services", wanted).await["id"].as_str().unwrap().to_owned();
        let id = self.build(&service).await;
        self.assert_whole(&id).await;
        let build = self.over(&id).await;
        assert!(build["image_size_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{build:#}");
    }

    /// The build is a success in its first attempt, its agent was started once, and its log is whole.
    pub async fn assert_whole(&self, id: &str) {
        let build = self.over(id).await;
        let context = format!("{build:#}\n{}", self.log());
        assert_eq!((build["status"].as_str(), build["attempt"].as_u64()), (Some("success"), Some(1)), "{context}");
        assert_eq!(build["log_verified"], true, "{context}");
        assert_eq!(self.starts(id).await, 1, "{context}");
        let story = self.story(id).await;
        assert!(story.attempts.values().all(|attempt| attempt.complete) && story.attempts.len() == 1, "{context}");
        let text = self.text(id).await;
        for i in 1..=50 {
            assert_eq!(text.lines().filter(|l| l.ends_with(&format!(" line {i}"))).count(), 1, "line {i} in\n{text}");
        }
    }

    pub async fn text(&self, id: &str) -> String {
        let (_, text) = self.try_ask(Method::GET, &format!("/api/v1/builds/{id}/log"), Value::Null).await.unwrap();
        String::from_utf8(text.into()).unwrap()
    }

    /// What is stored of a build that is over. Asserts that there is no hole in it, and that what an agent stated as its
    /// last word is true.
    pub async fn story(&self, id: &str) -> Story {
        let (_, events) = self.try_ask(Method::GET, &format!("/api/v1/builds/{id}/events"), Value::Null).await.unwrap();
        let mut story = Story::default();
        let mut chains: BTreeMap<u64, Chain> = BTreeMap::new();
        for (pos, line) in (1u64..).zip(std::str::from_utf8(&events).unwrap().lines()) {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["pos"].as_u64(), Some(pos), "a hole in the positions");
            if event["seq"] == 0 {
                let note = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                story.notes.push((note(&event["code"]), note(&event["args"]["attempt"])));
                continue;
            }
            let number = event["attempt"].as_u64().unwrap();
            let (chain, attempt) = (chains.entry(number).or_default(), story.attempts.entry(number).or_default());
            assert!(!attempt.complete, "something after the last word");
            assert_eq!(event["seq"].as_u64(), Some(chain.count + 1), "a hole in the agent's events");
            if event["k"] == "result" {
                assert_eq!(event["count"].as_u64(), Some(chain.count), "the agent's count");
                assert_eq!(event["hash"].as_str(), Some(chain.hex().as_str()), "the agent's hash");
                attempt.complete = true;
                continue;
            }
            // What the agent wrote, out of what the server put in front of it.
            let at = line.find(",\"at\":").unwrap() + 6;
            let own = &line[at + line[at..].find(',').unwrap() + 1..];
            chain.push(format!("{{{own}").as_bytes());
        }
        story
    }
}

/// A build's stored events, read through the API.
#[derive(Debug, Default)]
pub struct Story {
    /// Those of which an agent has written something.
    pub attempts: BTreeMap<u64, AttemptStory>,
    /// Code of each of the server's notes, and the attempt that it is about.
    pub notes: Vec<(String, String)>,
}

#[derive(Debug, Default)]
pub struct AttemptStory {
    /// Up to the agent's last word, which fits what came before.
    pub complete: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
