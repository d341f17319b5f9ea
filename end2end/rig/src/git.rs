//! A Git host of one's own: `git http-backend` behind a small HTTP server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::home::{Server, at_home, keep_running, scratch_folder};
use crate::process::output;

#[derive(Debug, Clone)]
pub struct GitOptions {
    /// Asked for as the password of any user; without it, everybody may read.
    pub token: Option<String>,
    /// Whether partial clones (`--filter`) are offered.
    pub filter: bool,
    /// Instead of a free one.
    pub port: Option<u16>,
    /// Instead of a temporary folder; kept when the server is dropped.
    pub root: Option<PathBuf>,
}

impl Default for GitOptions {
    fn default() -> Self {
        Self { token: None, filter: true, port: None, root: None }
    }
}

/// How the whole server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitFault {
    /// Answers everything with this status (401, 403, 404, 500 …).
    Status(u16),
    /// Takes requests and never answers.
    Hang,
}

/// Serves the repositories below one folder.
pub struct GitServer {
    host: Arc<Host>,
    port: u16,
    filter: bool,
    _server: Server,
    _folder: Option<TempDir>,
}

struct Host {
    root: PathBuf,
    token: Option<String>,
    fault: Mutex<Option<GitFault>>,
}

impl GitServer {
    pub async fn start(options: GitOptions) -> Result<Self> {
        let (root, folder) = match options.root {
            Some(root) => (root, None),
            None => {
                let folder = scratch_folder()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        std::fs::create_dir_all(&root)?;
        let port = options.port.unwrap_or(0);
        let listener = at_home(async move { Ok(TcpListener::bind(("127.0.0.1", port)).await?) }).await?;
        let port = listener.local_addr()?.port();
        let host = Arc::new(Host { root, token: options.token, fault: Mutex::new(None) });
        let app = Router::new().fallback(answer).with_state(host.clone());
        let server = keep_running(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { host, port, filter: options.filter, _server: server, _folder: folder })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn token(&self) -> Option<&str> {
        self.host.token.as_deref()
    }

    pub fn set_fault(&self, fault: Option<GitFault>) {
        *self.host.fault.lock().expect("no holder panics") = fault;
    }

    /// An empty repository, or the one of that name which the folder already holds.
    pub async fn new_repo(&self, name: &str) -> Result<Repo> {
        let repo = self.repo(name);
        if !repo.folder.exists() {
            let mut init = git();
            init.args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(&repo.folder);
            output(init).await?;
            // As GitLab and GitHub do; nothing vanishes unless `prune` is called.
            for (name, value) in [("gc.auto", "0"), ("uploadpack.allowReachableSHA1InWant", "true")] {
                repo.git(["config", name, value]).await?;
            }
            repo.git(["config", "uploadpack.allowFilter", &self.filter.to_string()]).await?;
        }
        Ok(repo)
    }

    /// A repository made before.
    pub fn repo(&self, name: &str) -> Repo {
        Repo { folder: self.host.root.join(format!("{name}.git")), url: format!("{}/{name}.git", self.url()) }
    }
}

/// A bare repository, changed behind the server's back.
#[derive(Debug, Clone)]
pub struct Repo {
    folder: PathBuf,
    url: String,
}

impl Repo {
    /// Without a credential in it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds or replaces files on a branch, which is made if it is not there; gives back the commit.
    /// A file that starts with `#!` is executable.
    pub async fn commit(&self, branch: &str, files: &[(&str, &[u8])], message: &str) -> Result<String> {
        let mut changes = Vec::new();
        for (path, content) in files {
            let mode = if content.starts_with(b"#!") { "100755" } else { "100644" };
            changes.extend(format!("M {mode} inline {path}\ndata {}\n", content.len()).bytes());
            changes.extend_from_slice(content);
            changes.push(b'\n');
        }
        self.import(branch, &changes, message).await
    }

    /// Takes files away.
    pub async fn remove(&self, branch: &str, paths: &[&str], message: &str) -> Result<String> {
        let changes: String = paths.iter().map(|path| format!("D {path}\n")).collect();
        self.import(branch, changes.as_bytes(), message).await
    }

    /// Adds the repository at `url` as a submodule that stands at `commit`.
    pub async fn add_submodule(&self, branch: &str, path: &str, url: &str, commit: &str) -> Result<String> {
        let modules = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
        let changes =
            format!("M 100644 inline .gitmodules\ndata {}\n{modules}\nM 160000 {commit} {path}\n", modules.len());
        self.import(branch, changes.as_bytes(), "Add a submodule").await
    }

    /// One process for any number of files, and no work tree.
    async fn import(&self, branch: &str, changes: &[u8], message: &str) -> Result<String> {
        let parent = self.head(branch).await.map(|head| format!("from {head}\n")).unwrap_or_default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let mut stream = format!(
            "commit refs/heads/{branch}\ncommitter Rig <rig@example.org> {now} +0000\ndata {}\n{message}\n{parent}",
            message.len()
        )
        .into_bytes();
        stream.extend_from_slice(changes);
        stream.extend_from_slice(b"\ndone\n");

        let mut command = tokio::process::Command::from(git());
        command.arg("--git-dir").arg(&self.folder).args(["fast-import", "--quiet", "--force", "--done"]);
        let mut import = command.stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        // A failed import closes the pipe early; its own words come below.
        let _ = import.stdin.take().context("a pipe")?.write_all(&stream).await;
        let ended = import.wait_with_output().await?;
        ensure!(ended.status.success(), "git fast-import: {}", String::from_utf8_lossy(&ended.stderr));
        self.head(branch).await
    }

    /// The commit of a branch.
    pub async fn head(&self, branch: &str) -> Result<String> {
        self.git(["rev-parse", "--verify", "--quiet", &format!("refs/heads/{branch}^{{commit}}")]).await
    }

    /// Makes a branch at a commit, or at another branch.
    pub async fn branch(&self, name: &str, from: &str) -> Result<()> {
        self.git(["branch", "--force", name, from]).await.map(drop)
    }

    /// Moves a branch to any commit, as a force-push does. The old commits stay until `prune`.
    pub async fn reset(&self, branch: &str, to: &str) -> Result<()> {
        self.git(["update-ref", &format!("refs/heads/{branch}"), to]).await.map(drop)
    }

    pub async fn delete_branch(&self, name: &str) -> Result<()> {
        self.git(["update-ref", "-d", &format!("refs/heads/{name}")]).await.map(drop)
    }

    pub async fn tag(&self, name: &str, at: &str) -> Result<()> {
        self.git(["tag", "--force", name, at]).await.map(drop)
    }

    pub async fn annotated_tag(&self, name: &str, at: &str, message: &str) -> Result<()> {
        self.git(["tag", "--force", "--annotate", "--message", message, name, at]).await.map(drop)
    }

    /// Forgets every commit that no branch or tag holds.
    pub async fn prune(&self) -> Result<()> {
        self.git(["gc", "--quiet", "--prune=now"]).await.map(drop)
    }

    async fn git<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let mut command = git();
        command.arg("--git-dir").arg(&self.folder).args(arguments);
        output(command).await
    }
}

/// Git as it comes, whatever this machine and user have configured.
fn git() -> Command {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir("/");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Rig").env(format!("GIT_{role}_EMAIL"), "rig@example.org");
    }
    command
}

async fn answer(State(host): State<Arc<Host>>, request: Request) -> axum::response::Response {
    let fault = *host.fault.lock().expect("no holder panics");
    match fault {
        Some(GitFault::Hang) => std::future::pending().await,
        Some(GitFault::Status(401)) => refused(),
        Some(GitFault::Status(status)) => {
            StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT).into_response()
        }
        None if !host.lets_in(&request) => refused(),
        None => bridge(&host.root, request)
            .await
            .unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response()),
    }
}

fn refused() -> axum::response::Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"rig\"")]).into_response()
}

impl Host {
    fn lets_in(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return true };
        let given = || {
            let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
            let decoded = BASE64_STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
            Some(String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned())
        };
        given().is_some_and(|given| given == *token)
    }
}

/// CGI (RFC 3875): the request as environment and standard input, the reply as headers and body.
async fn bridge(root: &Path, request: Request) -> Result<axum::response::Response> {
    let (parts, body) = request.into_parts();
    let mut backend = tokio::process::Command::from(git());
    backend
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default());
    // The backend unpacks gzip itself when it is told of it.
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = parts.headers.get(name) {
            backend.env(variable, value.to_str()?);
        }
    }
    // Not kept: it ends with its pipes.
    let mut backend = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut input = backend.stdin.take().context("a pipe")?;
    let mut output = BufReader::new(backend.stdout.take().context("a pipe")?);
    // Beside the reply: the backend may answer before it has read everything.
    tokio::spawn(async move {
        let mut body = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
        let _ = tokio::io::copy(&mut body, &mut input).await;
    });

    let mut response = Response::builder();
    loop {
        let mut line = String::new();
        ensure!(output.read_line(&mut line).await? > 0, "git http-backend ended without an answer");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").with_context(|| format!("not a header: {line}"))?;
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap_or_default()),
            _ => response.header(HeaderName::try_from(name)?, HeaderValue::try_from(value)?),
        };
    }
    Ok(response.body(Body::from_stream(ReaderStream::new(output)))?)
}
