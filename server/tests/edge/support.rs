//! A server of a test's own, and requests to it.

use clap::Parser;
use kiops_rig::{GitOptions, GitServer, Repo};
use kiops_server::config::{Config, Secret};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PASSWORD: &str = "correct horse battery";

/// The server's program: the scripts' copy, else the one that cargo has built for this test.
pub fn server_program() -> OsString {
    std::env::var_os("KIOPS_SERVER").unwrap_or_else(|| env!("CARGO_BIN_EXE_kiops").into())
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

/// Settings of a server in this folder, with the administrator's password set.
pub fn config(folder: &Path) -> Config {
    let data = folder.join("data");
    let site = folder.join("site");
    let args =
        ["test", "--data", data.to_str().unwrap(), "--site-root", site.to_str().unwrap(), "--min-free-bytes", "0"];
    let mut config = Arguments::parse_from(args).config;
    config.secrets.admin_password = Some(Secret::new(PASSWORD));
    config
}

pub struct TestServer {
    pub url: String,
    pub folder: PathBuf,
    client: Client,
    token: Option<String>,
    /// Everything that was ever answered.
    said: Mutex<String>,
    stop: CancellationToken,
    task: Option<JoinHandle<anyhow::Result<()>>>,
    _own: Option<TempDir>,
}

/// One answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Status, code and field of a refusal.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("field"))
    }
}

pub fn refused(status: u16, code: &str, field: &str) -> (u16, String, String) {
    (status, code.to_owned(), field.to_owned())
}

impl TestServer {
    /// A new server with somebody signed in.
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut server = Self::on(own.path(), change).await;
        server._own = Some(own);
        server.sign_in().await;
        server
    }

    /// On a folder that outlives it, with nobody signed in.
    pub async fn on(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(folder);
        change(&mut config);
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(kiops_server::run(config, listener, stop.clone()));
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let folder = folder.to_owned();
        let server =
            Self { url, folder, client, token: None, said: Mutex::default(), stop, task: Some(task), _own: None };
        server.become_ready().await;
        server
    }

    async fn become_ready(&self) {
        for _ in 0..200 {
            if self.task.as_ref().is_some_and(JoinHandle::is_finished) {
                return;
            }
            let asked = self.client.get(format!("{}/readyz", self.url)).timeout(Duration::from_secs(1)).send().await;
            if asked.is_ok_and(|reply| reply.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server does not become ready");
    }

    /// Waits until it ends by itself; gives what `run` gave.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        self.task.take().unwrap().await.unwrap()
    }

    /// Ends it as a signal does; gives what `run` gave.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap()
    }

    pub async fn sign_in(&mut self) {
        let reply = self.post("sessions", json!({ "user": "admin", "password": PASSWORD })).await;
        self.token = Some(reply.ok()["token"].as_str().unwrap().to_owned());
        // The one reply that may hold it.
        self.said.lock().unwrap().clear();
    }

    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.api(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.api(Method::POST, path, Some(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.api(Method::PUT, path, Some(body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.api(Method::DELETE, path, None).await
    }

    pub async fn api(&self, method: Method, path: &str, body: Option<String>) -> Reply {
        let mut request = self.request(method, &format!("/api/v1/{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.send(request).await
    }

    /// A request without anything that says who asks.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).timeout(Duration::from_secs(60))
    }

    /// As a browser that is signed in.
    pub fn browser(&self, method: Method, path: &str) -> RequestBuilder {
        let cookie = format!("kiops_session={}", self.token());
        self.request(method, path).header("cookie", cookie).header("origin", &self.url).header("accept", "text/html")
    }

    pub async fn send(&self, request: RequestBuilder) -> Reply {
        let reply = request.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let text = reply.text().await.unwrap();
        let mut said = self.said.lock().unwrap();
        said.push_str(&format!("{headers:?}\n{text}\n"));
        Reply { status, headers, text }
    }

    /// None of these was in any reply so far, nor in a file of the data folder.
    pub fn never_said(&self, secrets: &[&str]) {
        let said = self.said.lock().unwrap();
        for secret in secrets {
            assert!(!said.contains(secret), "a reply held {secret}");
        }
        for file in walk(&self.folder.join("data")) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            for secret in secrets {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds {secret}", file.display());
            }
        }
    }

    pub async fn pause(&self) {
        self.put("system/queue", json!({ "paused": true })).await.ok();
    }

    pub async fn resume(&self) {
        self.put("system/queue", json!({ "paused": false })).await.ok();
    }

    /// Registers a service and gives its id.
    pub async fn register(&self, service: Value) -> String {
        self.post("services", service).await.ok()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

pub const GIT_TOKEN: &str = "git-token-4711";

/// Address of a repository with a branch `main`, on a host that asks for [`GIT_TOKEN`].
pub async fn repository() -> &'static str {
    static HOST: OnceCell<(GitServer, Repo)> = OnceCell::const_new();
    let (_, repo) = HOST
        .get_or_init(|| async {
            let options = GitOptions { token: Some(GIT_TOKEN.to_owned()), ..GitOptions::default() };
            let host = GitServer::start(options).await.unwrap();
            let repo = host.new_repo("shop/orders").await.unwrap();
            repo.commit("main", &[("Dockerfile", b"FROM scratch\n")], "First").await.unwrap();
            (host, repo)
        })
        .await;
    repo.url()
}

/// A number from the database of a server's data folder.
pub async fn count(folder: &Path, question: &str) -> i64 {
    let url = format!("sqlite:{}", folder.join("data/kiops.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let count = sqlx::query_scalar(sqlx::AssertSqlSafe(question)).fetch_one(&pool).await.unwrap();
    pool.close().await;
    count
}

/// A statement behind the server's back.
pub async fn execute(folder: &Path, statement: &str) {
    let url = format!("sqlite:{}", folder.join("data/kiops.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    pool.close().await;
}

/// A service as it is registered; its registry need not be there.
pub fn service(name: &str, url: &str) -> Value {
    json!({
        "name": name,
        "source": { "kind": "git", "url": url, "token": GIT_TOKEN, "default_branch": "main" },
        "registry_config": {
            "kind": "private",
            "url": "127.0.0.1:1",
            "path": "demo",
            "image_name": name,
            "username": "pusher",
            "password": "push-password-4711",
            "plain_http": true,
        },
    })
}

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
