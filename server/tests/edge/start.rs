//! Starts that must be refused, with a sentence that says what to do.

use crate::processes::{Wanted, descendants};
use crate::support::{PASSWORD, TestServer, config, server_program, service};
use kiops_rig::{GitFault, GitOptions, GitServer, Postgres};
use kiops_server::config::{Config, RunnerKind, Secret};
use serde_json::json;
use sqlx::{Connection, Executor};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn refusal(folder: &Path, change: impl FnOnce(&mut Config)) -> String {
    let mut config = config(folder);
    change(&mut config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = kiops_server::run(config, listener, CancellationToken::new()).await.unwrap_err();
    format!("{error:#}")
}

#[tokio::test]
async fn a_second_server_on_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = TestServer::on(folder.path(), |_| ()).await;
    let said = refusal(folder.path(), |_| ()).await;
    assert!(said.contains("Another server") && said.contains("KIOPS_DATA"), "{said}");
    first.stop().await.unwrap();
    TestServer::on(folder.path(), |_| ()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_server_on_the_same_database_file() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = TestServer::on(one.path(), |_| ()).await;
    let file = one.path().join("data/kiops.db");
    let link = two.path().join("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let on = |file: &Path| Some(format!("sqlite:{}", file.display()).parse().unwrap());
    for name in [&file, &link] {
        let said = refusal(two.path(), |config| config.secrets.database_url = on(name)).await;
        assert!(said.contains("Another server") && said.contains("KIOPS_DATABASE_URL"), "{said}");
        assert!(said.contains(&std::process::id().to_string()), "{said}");
    }
    let key = std::fs::read_to_string(one.path().join("data/secret.key")).unwrap();
    first.stop().await.unwrap();
    let second = TestServer::on(two.path(), |config| {
        config.secrets.database_url = on(&link);
        config.secrets.secret_key = Some(Secret::new(key));
    });
    second.await.stop().await.unwrap();
}

/// How many sessions hold the lock by which a server keeps others away.
const HOLDERS: &str = "SELECT COUNT(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.granted AND a.application_name = 'kiops-lock'";
const BREAK: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kiops-lock'";

#[tokio::test]
async fn a_second_server_on_the_same_postgres() {
    let postgres = Postgres::start().await.unwrap();
    let (address, beside) = (postgres.create_database().await.unwrap(), postgres.create_database().await.unwrap());
    let key = || Some(Secret::new("ab".repeat(32)));
    let on = |address: &str| {
        let url = address.replace("postgres@", "postgres:hunter22@").parse().unwrap();
        move |config: &mut Config| {
            config.secrets.database_url = Some(url);
            config.secrets.secret_key = key();
        }
    };
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let first = TestServer::on(folders[0].path(), on(&address)).await;
    let refused = async || {
        let said = refusal(folders[1].path(), on(&address)).await;
        assert!(said.contains("Another server uses the database postgres://127.0.0.1"), "{said}");
        assert!(said.contains("KIOPS_DATABASE_URL") && !said.contains("hunter22"), "{said}");
    };
    refused().await;
    TestServer::on(folders[2].path(), on(&beside)).await.stop().await.unwrap();

    // A connection that breaks is made anew, and the lock with it.
    postgres.psql(BREAK).await.unwrap();
    for waited in 0.. {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if postgres.psql(HOLDERS).await.unwrap() == "1" {
            break;
        }
        assert!(waited < 100, "the lock is never taken again");
    }
    refused().await;
    first.stop().await.unwrap();

    // Who was too late to take it again ends by itself.
    let second = TestServer::on(folders[1].path(), on(&address)).await;
    let mut other = sqlx::PgConnection::connect(&address).await.unwrap();
    let waits = tokio::spawn(async move {
        let lock = "SELECT pg_advisory_lock(classid::int, objid::int) FROM pg_locks WHERE locktype = 'advisory' \
             AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        other.execute(lock).await.unwrap();
        other
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    postgres.psql(BREAK).await.unwrap();
    let _other = waits.await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), second.ended()).await.expect("it ends");
    let said = format!("{:#}", ended.unwrap_err());
    assert!(said.contains("Another server uses the database"), "{said}");
}

#[tokio::test]
async fn a_killed_server_starts_again_at_once() {
    let postgres = Postgres::start().await.unwrap();
    for address in [None, Some(postgres.create_database().await.unwrap())] {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let mut program = program(folder.path());
            program.env("KIOPS_LISTEN", "127.0.0.1:0").env("KIOPS_ADMIN_PASSWORD", PASSWORD).stderr(Stdio::piped());
            if let Some(address) = &address {
                program.env("KIOPS_DATABASE_URL", address);
            }
            program.spawn().unwrap()
        };
        let mut child = start();
        for _ in 0..3 {
            listening(&mut child);
            child.kill().unwrap();
            child.wait().unwrap();
            let killed = Instant::now();
            child = start();
            listening(&mut child);
            assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
            child.kill().unwrap();
            child.wait().unwrap();
            child = start();
        }
        listening(&mut child);
        stop(&mut child);
    }
}

/// Waits until a server says so; gives its address.
fn listening(child: &mut std::process::Child) -> String {
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut said = String::new();
    let found = lines.find_map(|line| {
        let line = line.unwrap();
        said.push_str(&line);
        let address = line.split_once("listening on ")?.1.trim_end_matches(['"', '}']).to_owned();
        Some(address)
    });
    // The rest of what it says must go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("{said}"))
}

#[tokio::test]
async fn a_wrong_key() {
    let folder = tempfile::tempdir().unwrap();
    TestServer::on(folder.path(), |_| ()).await.stop().await.unwrap();
    let key = folder.path().join("data/secret.key");
    let right = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    let said = refusal(folder.path(), |_| ()).await;
    assert!(said.contains("key does not fit"), "{said}");
    std::fs::remove_file(&key).unwrap();
    let said = refusal(folder.path(), |_| ()).await;
    assert!(said.contains("missing"), "{said}");
    // The same key by the environment is as good.
    let by_value = TestServer::on(folder.path(), |config| config.secrets.secret_key = Some(Secret::new(right))).await;
    by_value.stop().await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_version() {
    let folder = tempfile::tempdir().unwrap();
    TestServer::on(folder.path(), |_| ()).await.stop().await.unwrap();
    let url = format!("sqlite:{}", folder.path().join("data/kiops.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, x'00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let said = refusal(folder.path(), |_| ()).await;
    assert!(said.contains("newer version") && said.contains("9999"), "{said}");
}

#[tokio::test]
async fn the_demo_is_registered_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.json");
    std::fs::write(&file, service("hello", "http://127.0.0.1:1/hello.git").to_string()).unwrap();
    for _ in 0..2 {
        let demo = file.clone();
        let mut server = TestServer::on(folder.path(), |config| config.demo_service = Some(demo)).await;
        server.sign_in().await;
        let services = server.get("services").await.ok();
        assert_eq!(services.as_array().unwrap().len(), 1);
        assert_eq!(services[0]["name"], "hello");
        server.stop().await.unwrap();
    }
    std::fs::write(&file, "{\"token\": \"git-token-4711\"").unwrap();
    let said = refusal(folder.path(), |config| config.demo_service = Some(file)).await;
    assert!(said.contains("KIOPS_DEMO_SERVICE") && !said.contains("4711"), "{said}");
}

#[tokio::test]
async fn the_demo_follows_its_servers_to_other_ports() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.json");
    let at = |git: &str, registry: &str, token: &str| {
        let mut demo = service("hello", git);
        demo["source"]["token"] = json!(token);
        demo["registry_config"]["url"] = json!(registry);
        std::fs::write(&file, demo.to_string()).unwrap();
    };
    // What the service then says: its repository, its registry, and whether a change was written down.
    let shown = async || {
        let demo = file.clone();
        let mut server = TestServer::on(folder.path(), |config| config.demo_service = Some(demo)).await;
        server.sign_in().await;
        let services = server.get("services").await.ok();
        assert_eq!(services.as_array().unwrap().len(), 1);
        let id = services[0]["id"].as_str().unwrap().to_owned();
        let one = server.get(&format!("services/{id}")).await.ok();
        (server, id, one["source"]["url"].clone(), one["registry_config"]["host"].clone())
    };
    at("http://127.0.0.1:5001/hello.git", "127.0.0.1:5000", "git-token-4711");
    let (server, ..) = shown().await;
    server.stop().await.unwrap();

    at("http://127.0.0.1:5003/hello.git", "127.0.0.1:5002", "git-token-4712");
    let (server, id, git, registry) = shown().await;
    assert_eq!((git, registry), (json!("http://127.0.0.1:5003/hello.git"), json!("127.0.0.1:5002")));
    // Somebody takes it for work of their own.
    let own = json!({ "kind": "private", "url": "127.0.0.1:9", "path": "mine", "image_name": "hello",
        "username": "me", "password": "registry-password", "plain_http": true });
    server.put(&format!("services/{id}/registry_config"), own).await.ok();
    server.stop().await.unwrap();

    at("http://127.0.0.1:5005/hello.git", "127.0.0.1:5004", "git-token-4712");
    let (server, _, git, registry) = shown().await;
    assert_eq!((git, registry), (json!("http://127.0.0.1:5005/hello.git"), json!("127.0.0.1:9")));
    server.stop().await.unwrap();
}

fn program(folder: &Path) -> Command {
    let mut program = Command::new(server_program());
    program.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).current_dir(folder).stdin(Stdio::null());
    program
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn bad_settings_name_their_variable() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("KIOPS_LISTEN", "3000"),
        ("KIOPS_PUBLIC_URL", "builds"),
        ("KIOPS_BUILDS_AT_ONCE", "0"),
        ("KIOPS_MIN_FREE_BYTES", "2GB"),
        ("KIOPS_LOG_CAP_BYTES", "1"),
        ("KIOPS_HOLD_S", "-1"),
        ("KIOPS_RETENTION_DAYS", "-1"),
        ("KIOPS_RETENTION_BUILDS", "many"),
        ("KIOPS_SESSION_S", "0"),
        ("KIOPS_ALLOW_LOOPBACK", "maybe"),
        ("KIOPS_DOCKERHUB_MIRROR", "http://x"),
        ("KIOPS_INSECURE_REGISTRIES", "a b"),
        ("KIOPS_ALLOWED_HOSTS", "a/b"),
        ("KIOPS_LOG", "loud"),
        ("KIOPS_LOG_FORMAT", "xml"),
        ("KIOPS_DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("KIOPS_AGENT", "/nonexistent"),
    ] {
        let output = program(folder.path()).env("KIOPS_LISTEN", "127.0.0.1:0").env(name, value).output().unwrap();
        let text = said(&output);
        assert!(!output.status.success() && text.contains(name) && text.contains("should be"), "{name}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("panicked"), "{text}");
    }
    let secret = program(folder.path()).env("KIOPS_SECRET_KEY", "hunter2").env("KIOPS_LISTEN", "127.0.0.1:0").output();
    let text = said(&secret.unwrap());
    assert!(text.contains("KIOPS_SECRET_KEY") && !text.contains("hunter2"), "{text}");
}

#[test]
fn builds_in_pods_need_the_products_image() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = program(folder.path());
    let output = program.env("KIOPS_LISTEN", "127.0.0.1:0").env("KIOPS_RUNNER", "kubernetes").output().unwrap();
    assert!(!output.status.success() && said(&output).contains("KIOPS_IMAGE should name"), "{}", said(&output));
}

/// A server whose cluster cannot be used shows what there is, and says on its page what to do.
#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("of-the-cluster");
    let server = TestServer::with(|config| {
        config.runner = RunnerKind::Kubernetes;
        config.kubernetes.own_image = Some("registry.example/kiops:1".into());
        config.kubernetes.kubeconfig = Some(kubeconfig.clone());
    })
    .await;
    assert_eq!(server.get("services").await.status, 200);
    let elsewhere = "{\"current-context\": \"gone\", \"contexts\": [], \"clusters\": [], \"users\": []}";
    for content in [None, Some("{ not yaml"), Some("apiVersion: v1\nkind: Config\n"), Some(elsewhere)] {
        if let Some(content) = content {
            std::fs::write(&kubeconfig, content).unwrap();
        }
        let report = server.post("check", json!({})).await.ok();
        let found = &report["findings"][0];
        assert_eq!((&found["name"], &found["outcome"]), (&json!("api"), &json!("failed")), "{content:?}: {report:#}");
        let message = found["message"].as_str().unwrap();
        assert!(message.contains("KIOPS_KUBECONFIG") && message.contains("of-the-cluster"), "{content:?}: {message}");
    }
}

#[test]
fn the_program_says_its_version_and_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let version = program(folder.path()).arg("--version").output().unwrap();
    assert_eq!(said(&version), format!("kiops {}\n", env!("CARGO_PKG_VERSION")));
    let help = said(&program(folder.path()).args(["serve", "--help"]).output().unwrap());
    for name in ["KIOPS_DATA", "KIOPS_LISTEN", "KIOPS_PUBLIC_URL", "KIOPS_SECRET_KEY", "KIOPS_ADMIN_PASSWORD"] {
        assert!(help.contains(name), "{name}");
    }
}

/// The whole program: its lines, its link, its end by a signal, and no secret left in its environment.
#[tokio::test]
async fn the_program_prints_a_link_that_works_once() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let mut program = program(folder.path());
        program
            .env("KIOPS_LISTEN", "127.0.0.1:0")
            .env("KIOPS_LOG_FORMAT", "json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A test's process may be ended at any moment.
        program.spawn().unwrap()
    };
    let mut links = Vec::new();
    for _ in 0..2 {
        let mut child = run();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let link =
            lines.find_map(|line| line.unwrap().trim().strip_prefix("http").map(|rest| format!("http{rest}"))).unwrap();
        assert!(link.starts_with("http://127.0.0.1:") && link.contains("/setup/"), "{link}");
        links.push((child, link));
        if links.len() == 1 {
            stop(&mut links[0].0);
        }
    }
    let (mut child, link) = links.pop().unwrap();
    let old = links.pop().unwrap().1;
    let token = |link: &str| link.rsplit('/').next().unwrap().to_owned();
    let base = link.split("/setup/").next().unwrap().to_owned();
    // The port is another one; only the newest link's token counts.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let set = async |token: &str, password: &str| {
        let form = format!("link={token}&password={password}&again={password}");
        let request = client
            .post(format!("{base}/api/fn/kiops_app/accounts/api/set_password"))
            .header("origin", &base)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    let password = PASSWORD.replace(' ', "+");
    assert!(set(&token(&old), &password).await.1.contains("link_used"), "every start makes a new one");
    assert!(set(&token(&link), "short").await.1.contains("password_short"));
    let (status, text) = set(&token(&link), &password).await;
    assert!(status == 200 || status == 302, "{status} {text}");
    assert!(set(&token(&link), &password).await.1.contains("link_used"), "it works once");
    let sign_in = client
        .post(format!("{base}/api/v1/sessions"))
        .header("content-type", "application/json")
        .body(json!({ "user": "admin", "password": PASSWORD }).to_string());
    assert_eq!(sign_in.send().await.unwrap().status().as_u16(), 201);
    stop(&mut child);
}

fn stop(child: &mut std::process::Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success(), "a signal is no failure");
}

/// While the server waits for a Git host that never answers, its children can be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn children_inherit_no_secret() {
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap().replace("postgres@", "postgres:database-word-4711@");
    let host =
        GitServer::start(GitOptions { token: Some("git-word-4711".into()), ..GitOptions::default() }).await.unwrap();
    host.set_fault(Some(GitFault::Hang));
    let key = "4711".repeat(16);
    let wanted = [
        Wanted::new("the administrator's password", PASSWORD),
        Wanted::new("the key", &key),
        Wanted::new("the database's password", "database-word-4711"),
        Wanted::new("the Git token", "git-word-4711"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut child = program(folder.path())
        .env("KIOPS_LISTEN", "127.0.0.1:0")
        .env("KIOPS_ADMIN_PASSWORD", PASSWORD)
        .env("KIOPS_SECRET_KEY", &key)
        .env("KIOPS_DATABASE_URL", database)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let url = listening(&mut child);
    let client = reqwest::Client::new();
    let post = |path: &str, token: &str, body: serde_json::Value| {
        let request = client.post(format!("{url}/api/v1/{path}")).bearer_auth(token);
        request.header("content-type", "application/json").body(body.to_string()).send()
    };
    let session = post("sessions", "", json!({ "user": "admin", "password": PASSWORD })).await.unwrap();
    let session: serde_json::Value = serde_json::from_str(&session.text().await.unwrap()).unwrap();
    let mut new = service("orders", &format!("{}/orders.git", host.url()));
    new["source"]["token"] = json!("git-word-4711");
    let asking = tokio::spawn(post("services", session["token"].as_str().unwrap(), new));

    let (begun, mut seen) = (Instant::now(), std::collections::BTreeSet::new());
    while !(seen.contains("git") && seen.contains("git-remote-http") && begun.elapsed() > Duration::from_secs(2)) {
        assert!(begun.elapsed() < Duration::from_secs(15), "seen were {seen:?}");
        for process in descendants(child.id()) {
            for secret in &wanted {
                let held = secret.is_in(&process.arguments) || secret.is_in(&process.environment);
                assert!(!held, "{} is told {}", process.name, secret.what);
            }
            // One that has only just been made cannot be read yet.
            if process.environment.windows(5).any(|five| five == b"PATH=") {
                seen.insert(process.name);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(host);
    let _ = asking.await;
    stop(&mut child);
}
