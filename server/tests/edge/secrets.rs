//! Where the secrets of a real build are not: while it runs, in any process's arguments and environment; in the end in
//! logs, files, database, streams, downloads and pages. The build does what it can to print them.

use crate::builds_rig::{Data, PATIENCE, agent_program, hosts};
use crate::processes::{Wanted, processes};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kiops_rig::{GitOptions, GitServer, Login, Registry, RegistryOptions, buildkit_bins, free_port};
use kiops_server::problems::random_hex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

struct Server {
    child: Child,
    url: String,
    client: reqwest::Client,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    async fn ask(&self, method: reqwest::Method, path: &str, body: Value) -> (u16, String) {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).header("origin", &self.url);
        if !self.token.is_empty() {
            request = request.header("cookie", format!("kiops_session={}", self.token));
        }
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        match request.send().await {
            Ok(reply) => {
                (reply.status().as_u16(), format!("{:?}\n{}", reply.headers().clone(), reply.text().await.unwrap()))
            }
            Err(_) => (0, String::new()),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.ask(reqwest::Method::POST, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        serde_json::from_str(text.split_once('\n').unwrap().1).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        let (status, text) = self.ask(reqwest::Method::GET, path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {text}");
        text
    }
}

/// What was seen of processes and of an attempt's own files while they were there.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    held: BTreeSet<String>,
    files: Vec<(PathBuf, File)>,
}

/// Looks again and again, for a process may live for a moment only.
fn watch(data: PathBuf, server: u32, wanted: Vec<Wanted>, over: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let program = std::fs::read_link(format!("/proc/{server}/exe")).ok();
    while !over.load(Ordering::Relaxed) {
        for process in processes() {
            for secret in &wanted {
                // What the server was started with stays readable to whoever may look into its own memory. A child has
                // the same until it becomes another program.
                let is_server = process.pid == server
                    || (process.parent == server && process.program.is_some() && process.program == program);
                let own = is_server && secret.what.starts_with("the server's");
                for (place, bytes) in [("arguments", &process.arguments), ("environment", &process.environment)] {
                    if secret.is_in(bytes) && !(own && place == "environment") {
                        seen.held.insert(format!("{}'s {place} hold {}", process.name, secret.what));
                    }
                }
            }
            seen.names.insert(process.name);
        }
        for attempt in std::fs::read_dir(data.join("local")).into_iter().flatten().flatten() {
            for name in ["spool", "agent.log", "spec.json"] {
                let path = attempt.path().join(name);
                if !seen.files.iter().any(|(known, _)| *known == path)
                    && let Ok(file) = File::open(&path)
                {
                    // Open, it can be read to its end after it was removed.
                    seen.files.push((path, file));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    seen
}

/// What programs make of a secret before they print it, by name: all that `agent/src/redact.rs` looks for.
fn disguises(secret: &str) -> [(&'static str, String); 9] {
    let percent = |encoded: fn(u8) -> String| -> String {
        let plain = |byte: u8| char::from(byte).to_string();
        secret.bytes().map(|byte| if byte.is_ascii_alphanumeric() { plain(byte) } else { encoded(byte) }).collect()
    };
    let json = serde_json::to_string(secret).unwrap();
    let json = json[1..json.len() - 1].to_owned();
    let after = |before: &str| BASE64_STANDARD.encode(format!("{before}{secret}"));
    [
        ("raw", secret.to_owned()),
        ("url", percent(|byte| format!("%{byte:02X}"))),
        ("url-small", percent(|byte| format!("%{byte:02x}"))),
        // As Go writes it, and as PHP does.
        ("json-html", json.replace('<', "\\u003c").replace('&', "\\u0026")),
        ("json-slash", json.replace('/', "\\/")),
        ("json", json),
        // At each place in a group of three that it can begin at.
        ("base64-0", after("")),
        ("base64-1", after("x")),
        ("base64-2", after("xy")),
    ]
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_a_build_stand_nowhere() {
    let (git_heart, password_heart) = (random_hex::<12>(), random_hex::<12>());
    // Each encoding makes something else of them, around a heart that only base64 changes.
    let git_token = format!("gt+\"&{git_heart}</x");
    let password = format!("rp+\"&{password_heart}</y");
    let admin = format!("admin {}", random_hex::<12>());
    let key = random_hex::<32>();
    let wanted = vec![
        Wanted::new("the Git token", &git_token),
        Wanted::new("the registry's password", &password),
        // Also found where what was escaped is escaped again, as a log's line is in an event and in a page.
        Wanted::new("the Git token's heart", &git_heart),
        Wanted::new("the registry's password's heart", &password_heart),
        Wanted::new("the server's administrator password", &admin),
        Wanted::new("the server's key", &key),
    ];

    let login = Login { user: "pusher".into(), password: password.clone() };
    let registry = Registry::start(RegistryOptions { login: Some(login), ..Default::default() }).await.unwrap();
    let git = GitServer::start(GitOptions { token: Some(git_token.clone()), ..Default::default() }).await.unwrap();
    let repo = git.new_repo("secret").await.unwrap();
    // As themselves in every disguise, and as the header and the file in which they travel.
    let secrets = [("git", git_token.as_str()), ("registry", password.as_str())];
    let mut leaks: Vec<(String, String)> = secrets
        .iter()
        .flat_map(|(whose, secret)| disguises(secret).map(|(form, text)| (format!("{whose}-{form}"), text)))
        .collect();
    leaks.push(("git-header".into(), BASE64_STANDARD.encode(format!("oauth2:{git_token}"))));
    leaks.push(("registry-file".into(), BASE64_STANDARD.encode(format!("pusher:{password}"))));
    let forms: BTreeSet<&str> = leaks.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(forms.len(), leaks.len(), "two forms are the same: {leaks:?}");
    for (name, text) in &leaks {
        assert!(wanted.iter().any(|secret| secret.is_in(text.as_bytes())), "{name} would be missed: {text}");
    }
    let leak: String = leaks.iter().map(|(name, text)| format!("{name} {text}\n")).collect();
    let dockerfile = "FROM alpine:3\nCOPY leak /leak\nRUN cat /leak; sleep 1; cat /leak >&2; sleep 1; echo the end\n";
    let content: [(&str, &[u8]); 2] = [("Dockerfile", dockerfile.as_bytes()), ("leak", leak.as_bytes())];
    repo.commit("main", &content, "A leak").await.unwrap();

    let (data, hosts, bins) = (Data::new(), hosts().await, buildkit_bins().unwrap());
    let port = free_port();
    let log_file = data.path.join("server.log");
    let log = File::create(&log_file).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_kiops"))
        .env("KIOPS_DATA", &data.path)
        .env("KIOPS_LISTEN", format!("127.0.0.1:{port}"))
        .env("KIOPS_ADMIN_PASSWORD", &admin)
        .env("KIOPS_SECRET_KEY", &key)
        .env("KIOPS_AGENT", agent_program())
        .env("KIOPS_BUILDKITD", bins.buildkitd)
        .env("KIOPS_BUILDCTL", bins.buildctl)
        .env("KIOPS_DOCKERHUB_MIRROR", hosts.registry.address())
        .env("KIOPS_INSECURE_REGISTRIES", format!("{},{}", hosts.registry.address(), registry.address()))
        .env("KIOPS_MIN_FREE_BYTES", "0")
        .env("KIOPS_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (data, server, wanted, over) = (data.path.clone(), child.id(), wanted.clone(), over.clone());
        std::thread::spawn(move || watch(data, server, wanted, over))
    };
    let url = format!("http://127.0.0.1:{port}");
    let mut server = Server { child, url, client: reqwest::Client::new(), token: String::new() };
    let since = Instant::now();
    while server.ask(reqwest::Method::GET, "/readyz", Value::Null).await.0 != 200 {
        assert!(since.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log_file).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let session = server.post("/api/v1/sessions", json!({ "user": "admin", "password": admin })).await;
    server.token = session["token"].as_str().unwrap().to_owned();

    let service = server
        .post(
            "/api/v1/services",
            json!({
                "name": "secret",
                "source": { "kind": "git", "url": repo.url(), "token": git_token, "default_branch": "" },
                "registry_config": { "kind": "private", "url": registry.address(), "path": "test",
                    "image_name": "secret", "username": "pusher", "password": password, "plain_http": true },
            }),
        )
        .await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let build = server.post(&format!("/api/v1/services/{service}/builds"), json!({ "branch": "main" })).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    // To its end: the stream ends with the build.
    let mut said = vec![
        ("the stream", server.get(&format!("/builds/{build}/live")).await),
        ("the events", server.get(&format!("/api/v1/builds/{build}/events")).await),
        ("the download", server.get(&format!("/builds/{build}/log?download=1")).await),
        ("the log", server.get(&format!("/api/v1/builds/{build}/log")).await),
        ("the build", server.get(&format!("/api/v1/builds/{build}")).await),
        ("the service", server.get(&format!("/api/v1/services/{service}")).await),
        ("the branches", server.get(&format!("/api/v1/services/{service}/refs")).await),
        ("the services' page", server.get("/services").await),
    ];
    for (name, query) in [
        ("the service's page", String::new()),
        ("the build's page", format!("?build=run&id={build}")),
        ("the history's page", "?build=history".to_owned()),
        ("the registry's page", "?edit=registry".to_owned()),
        ("the source's page", "?edit=source".to_owned()),
    ] {
        said.push((name, server.get(&format!("/services/edit/{service}{query}")).await));
    }
    let finished: Value = serde_json::from_str(said[4].1.split_once('\n').unwrap().1).unwrap();
    let agent_log = || std::fs::read_to_string(&log_file).unwrap();
    assert_eq!(finished["status"], "success", "{}\n{}", said[3].1, agent_log());
    assert_eq!(finished["log_verified"], true);
    assert!(said[3].1.contains("the end"), "{}", said[3].1);
    for (name, _) in &leaks {
        let printed: Vec<&str> = said[3].1.lines().filter(|line| line.contains(&format!(" {name} "))).collect();
        assert!(printed.len() == 2 && printed.iter().all(|line| line.contains("***")), "{name}: {}", said[3].1);
    }

    over.store(true, Ordering::Relaxed);
    let mut seen = watcher.join().unwrap();
    for program in ["kiops", "git", "git-remote-http", "kiops-agent", "buildctl", "buildkitd"] {
        assert!(seen.names.contains(program), "{program} was never seen: {:?}", seen.names);
    }
    assert_eq!(seen.held, BTreeSet::new());
    for (name, text) in &said {
        for secret in &wanted {
            assert!(!secret.is_in(text.as_bytes()), "{name} holds {}", secret.what);
        }
    }
    let mut kept = Vec::new();
    for (path, file) in &mut seen.files {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        kept.push((path.clone(), bytes));
    }
    for name in ["spool", "agent.log", "spec.json"] {
        let read = kept.iter().find(|(path, _)| path.ends_with(name));
        assert!(read.is_some_and(|(_, bytes)| name == "agent.log" || !bytes.is_empty()), "{name} was never read");
    }
    // Of BuildKit's folders only what it says: the leak itself is in the image.
    let own = files(&data.path).into_iter().filter(|path| {
        let within = path.strip_prefix(&data.path).unwrap();
        !within.starts_with("buildkit") || within.starts_with("buildkit/run")
    });
    let mut names = BTreeSet::new();
    for path in own {
        names.insert(path.file_name().unwrap().to_string_lossy().into_owned());
        kept.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
    }
    assert!(names.contains("kiops.db") && names.contains("kiops.db-wal") && names.contains("server.log"), "{names:?}");
    for (path, bytes) in &kept {
        // A build that is not released yet still has its own folder, where secrets are files for their reader only.
        let name = path.file_name().unwrap().to_string_lossy();
        if path.starts_with(data.path.join("local")) && !["spool", "agent.log", "spec.json"].contains(&&*name) {
            continue;
        }
        for secret in &wanted {
            assert!(!secret.is_in(bytes), "{} holds {}", path.display(), secret.what);
        }
    }
}
