//! Services: registered, read, changed; what is wrong is named, and secrets go in only.

use crate::support::{COMMIT, TestServer, count, refused, repository, service};
use kiops_rig::{GitOptions, GitServer};
use reqwest::Method;
use serde_json::{Value, json};

const SECRETS: [&str; 2] = ["git-token-4711", "push-password-4711"];

#[tokio::test]
async fn a_service_is_registered_and_read_without_its_secrets() {
    let server = TestServer::start().await;
    let mut new = service("orders", repository().await);
    new["settings"] = json!({ "dockerfile": { "mode": "path", "path": "./docker/Dockerfile" }, "profile": "small",
        "no_cache": true, "time_limit_s": 600 });
    let id = server.register(new).await;

    let detail = server.get(&format!("services/{id}")).await.ok();
    assert_eq!(detail["name"], "orders");
    assert_eq!(detail["source"]["url"], repository().await);
    assert_eq!(detail["source"]["has_token"], true);
    assert_eq!(detail["registry_config"]["host"], "127.0.0.1:1");
    assert_eq!(detail["registry_config"]["has_password"], true);
    assert_eq!((&detail["source"]["version"], &detail["registry_config"]["version"]), (&json!(1), &json!(1)));
    assert_eq!(detail["settings"]["dockerfile"], json!({ "mode": "path", "path": "docker/Dockerfile" }));
    assert_eq!(detail["settings"]["profile"], "small");
    assert_eq!(detail["image_name_fixed"], false);

    let cards = server.get("services").await.ok();
    assert_eq!(cards.as_array().unwrap().len(), 1);
    assert_eq!(
        (&cards[0]["id"], &cards[0]["name"], &cards[0]["default_branch"]),
        (&json!(id), &json!("orders"), &json!("main"))
    );
    server.never_said(&SECRETS);
}

#[tokio::test]
async fn what_is_wrong_with_a_service_is_named() {
    let server = TestServer::start().await;
    server.register(service("taken", repository().await)).await;
    let url = repository().await;
    let good = || service("orders", url);
    let with = |path: &str, value: Value| {
        let mut new = good();
        *new.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        new
    };
    for (new, status, code, field) in [
        (with("/name", json!("")), 422, "required", "name"),
        (with("/name", json!("taken")), 409, "name_taken", "name"),
        (with("/name", json!("a\nb")), 422, "name_form", "name"),
        (with("/registry_config/image_name", json!("taken")), 409, "image_taken", "registry_config.image_name"),
        (
            with("/registry_config/image_name", json!("Not An Image")),
            422,
            "repository_form",
            "registry_config.image_name",
        ),
        (with("/registry_config/password", json!("short")), 422, "secret_too_short", "registry_config.password"),
        (with("/registry_config/password", Value::Null), 422, "required", "registry_config.password"),
        (with("/registry_config/url", json!("no host")), 422, "registry_url_form", "registry_config.url"),
        (with("/registry_config/kind", json!("ecr")), 422, "field_form", "registry_config.kind"),
        (with("/source/url", json!("file:///etc")), 422, "git_url_scheme", "source.url"),
        (with("/source/url", json!("https://u:p@h/x")), 422, "git_url_credential", "source.url"),
        (with("/source/url", json!("--upload-pack=x")), 422, "git_url_scheme", "source.url"),
        (with("/source/token", json!("short")), 422, "secret_too_short", "source.token"),
        (with("/source/token", json!("two words")), 422, "token_form", "source.token"),
        (with("/source/default_branch", json!("-x")), 422, "ref_form", "source.default_branch"),
        (with("/source/default_branch", json!("gone")), 422, "git_ref", "source.default_branch"),
        (with("/source/token", json!("not-the-token")), 502, "git_auth", "source.token"),
        (with("/source/token", Value::Null), 502, "git_auth", "source.token"),
        (with("/source/url", json!(url.replace("orders", "none"))), 502, "git_not_found", "source.url"),
        (with("/source/url", json!("http://127.0.0.1:1/a.git")), 502, "network", "source.url"),
        (with("/source/url", json!("http://nosuch.invalid/a.git")), 502, "dns", "source.url"),
        (with("/source/url", json!("http://169.254.169.254/a.git")), 422, "address_refused", "source.url"),
        (with("/source/url", json!(format!("{}/a.git", not_git().await))), 502, "git_not_found", "source.url"),
        (json!({}), 422, "required", "name"),
        (json!([]), 422, "field_form", ""),
    ] {
        let reply = server.post("services", new.clone()).await;
        assert_eq!(reply.refusal(), refused(status, code, field), "{new}");
    }
    let mut unknown = good();
    unknown["context"] = json!(".");
    assert_eq!(server.post("services", unknown).await.refusal(), refused(422, "field_unknown", "context"));
    assert_eq!(server.get("services").await.ok().as_array().unwrap().len(), 1, "nothing was registered by halves");
    server.never_said(&SECRETS);
    assert_eq!(count(&server.folder, "SELECT COUNT(*) FROM secrets").await, 2, "nor its secrets");
}

/// Answers like a web site that holds no repository.
async fn not_git() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 8192]).await;
            let page =
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";
            let _ = connection.write_all(page.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn a_source_is_asked_before_it_is_saved() {
    let server = TestServer::start().await;
    let url = repository().await;
    let id = server.register(service("orders", url)).await;
    let path = format!("services/{id}/source");
    let source = |url: &str, branch: &str| json!({ "kind": "git", "url": url, "default_branch": branch });
    let with_token = |token: &str| {
        let mut source = source(url, "main");
        source["token"] = json!(token);
        source
    };
    for (bad, status, code, field) in [
        (source(url, "gone"), 422, "git_ref", "default_branch"),
        (source(&url.replace("orders", "none"), "main"), 502, "git_not_found", "url"),
        (with_token("not-the-token"), 502, "git_auth", "token"),
        (with_token("short"), 422, "secret_too_short", "token"),
        (source("ftp://x/y", "main"), 422, "git_url_scheme", "url"),
    ] {
        let reply = server.put(&path, bad.clone()).await;
        assert_eq!(reply.refusal(), refused(status, code, field), "{bad}");
    }
    let saved = server.put(&path, source(url, "")).await.ok();
    assert_eq!((&saved["default_branch"], &saved["has_token"]), (&json!("main"), &json!(true)), "HEAD's own");
    server.never_said(&SECRETS);
}

#[tokio::test]
async fn a_token_that_is_forgotten_or_replaced_is_deleted() {
    let server = TestServer::start().await;
    let url = repository().await;
    let id = server.register(service("orders", url)).await;
    let secrets = async || count(&server.folder, "SELECT COUNT(*) FROM secrets").await;
    assert_eq!(secrets().await, 2, "the token and the password");
    let source = |token: &str| json!({ "kind": "git", "url": url, "token": token, "default_branch": "main" });
    let path = format!("services/{id}/source");
    assert_eq!(server.put(&path, source("git-token-4711")).await.ok()["has_token"], true);
    assert_eq!(secrets().await, 2, "the same one, sealed anew");
    // The host would refuse whoever comes without it; to take it away is allowed all the same.
    assert_eq!(server.put(&path, source("")).await.ok()["has_token"], false);
    assert_eq!(secrets().await, 1);
}

#[tokio::test]
async fn a_lost_race_for_source_or_registry_is_told() {
    let server = TestServer::start().await;
    let url = repository().await;
    let id = server.register(service("orders", url)).await;
    let mut source = json!({ "kind": "git", "url": url, "default_branch": "main", "version": 1 });
    let mut registry = json!({ "kind": "private", "url": "127.0.0.1:1", "path": "demo", "image_name": "orders",
        "username": "pusher", "plain_http": true, "version": 1 });
    for (path, body) in [("source", &mut source), ("registry_config", &mut registry)] {
        let path = format!("services/{id}/{path}");
        assert_eq!(server.put(&path, body.clone()).await.ok()["version"], 2, "{path}");
        assert_eq!(server.put(&path, body.clone()).await.refusal(), refused(409, "settings_conflict", ""), "{path}");
        body.as_object_mut().unwrap().remove("version");
        assert_eq!(server.put(&path, body.clone()).await.ok()["version"], 3, "{path}: without a version the save wins");
    }
    let detail = server.get(&format!("services/{id}")).await.ok();
    assert_eq!((&detail["source"]["version"], &detail["registry_config"]["version"]), (&json!(3), &json!(3)));
}

#[tokio::test]
async fn settings_are_saved_and_a_lost_race_is_told() {
    let server = TestServer::start().await;
    let id = server.register(service("orders", repository().await)).await;
    let path = format!("services/{id}/settings");
    let saved = server.put(&path, json!({ "profile": "large", "no_cache": true, "version": 0 })).await.ok();
    assert_eq!((&saved["profile"], &saved["version"]), (&json!("large"), &json!(1)));
    let late = server.put(&path, json!({ "profile": "small", "version": 0 })).await;
    assert_eq!(late.refusal(), refused(409, "settings_conflict", ""));
    assert_eq!(server.get(&format!("services/{id}")).await.ok()["settings"]["profile"], "large");
    assert_eq!(server.put(&path, json!({})).await.ok()["version"], 2, "without a version the save wins");
    for (bad, code, field) in [
        (json!({ "dockerfile": { "mode": "path", "path": "../x" } }), "path_outside", "dockerfile.path"),
        (json!({ "dockerfile": { "mode": "path" } }), "required", "dockerfile.path"),
        (json!({ "time_limit_s": 1 }), "time_limit_range", "time_limit_s"),
        (json!({ "profile": "huge" }), "field_form", "profile"),
        (json!({ "build_args": {} }), "field_unknown", "build_args"),
    ] {
        assert_eq!(server.put(&path, bad.clone()).await.refusal(), refused(422, code, field), "{bad}");
    }
}

#[tokio::test]
async fn a_secret_stays_with_the_host_it_was_entered_for() {
    let server = TestServer::start().await;
    let url = repository().await;
    let id = server.register(service("orders", url)).await;
    let elsewhere = GitServer::start(GitOptions::default()).await.unwrap();
    let other = elsewhere.new_repo("orders").await.unwrap();
    other.commit("main", &[("a", b"1")], "First").await.unwrap();
    let source = |url: &str| json!({ "kind": "git", "url": url, "default_branch": "main" });
    let registry = |url: &str, plain_http: bool| {
        json!({ "kind": "private", "url": url, "path": "demo", "image_name": "orders", "username": "pusher",
            "plain_http": plain_http })
    };
    let (sources, registries) = (format!("services/{id}/source"), format!("services/{id}/registry_config"));
    let kept = server.put(&sources, source(url)).await.ok();
    assert_eq!(kept["has_token"], true);
    let moved = server.put(&sources, source(other.url())).await;
    assert_eq!(moved.refusal(), refused(422, "required", "token"));
    let mut without = source(other.url());
    without["token"] = json!("");
    assert_eq!(server.put(&sources, without).await.ok()["has_token"], false);

    assert_eq!(server.put(&registries, registry("127.0.0.1:1", true)).await.ok()["has_password"], true);
    let moved = server.put(&registries, registry("evil.example", true)).await;
    assert_eq!(moved.refusal(), refused(422, "required", "password"));
    server.never_said(&SECRETS);
}

#[tokio::test]
async fn a_stored_password_is_not_sent_in_the_clear_unasked() {
    let server = TestServer::start().await;
    let id = server.register(service("orders", repository().await)).await;
    let registry = |plain_http: bool, password: Option<&str>| {
        json!({ "kind": "private", "url": "127.0.0.1:1", "path": "demo", "image_name": "orders", "username": "pusher",
            "plain_http": plain_http, "password": password })
    };
    let path = format!("services/{id}/registry_config");
    let check = async |registry: Value| {
        let request = server.browser(Method::POST, "/api/fn/kiops_app/services/api/check_registry");
        let body = json!({ "id": id, "registry": registry }).to_string();
        let request = request.header("content-type", "application/json").header("accept", "application/json");
        server.send(request.body(body)).await.refusal()
    };
    assert_eq!(server.put(&path, registry(false, None)).await.ok()["has_password"], true, "on to off");
    let refusal = |field: &str| refused(422, "password_for_plain_http", field);
    assert_eq!(server.put(&path, registry(true, None)).await.refusal(), refusal("password"), "off to on");
    assert_eq!(check(registry(true, None)).await, refusal("registry_config.password"));
    assert_eq!(check(registry(false, None)).await.1, "network", "as it is stored it may be used");
    assert_eq!(server.get(&format!("services/{id}")).await.ok()["registry_config"]["plain_http"], false);
    let again = server.put(&path, registry(true, Some("push-password-4712"))).await.ok();
    assert_eq!((&again["plain_http"], &again["has_password"]), (&json!(true), &json!(true)));
    server.never_said(&SECRETS);
}

#[tokio::test]
async fn the_image_name_is_fixed_by_the_first_build() {
    let server = TestServer::start().await;
    server.pause().await;
    let id = server.register(service("orders", repository().await)).await;
    let registry = |name: &str| {
        json!({ "kind": "private", "url": "127.0.0.1:1", "path": "demo", "image_name": name, "username": "pusher",
            "plain_http": true })
    };
    let path = format!("services/{id}/registry_config");
    server.put(&path, registry("renamed")).await.ok();
    server.post(&format!("services/{id}/builds"), json!({ "branch": "main", "commit": COMMIT })).await.ok();
    let late = server.put(&path, registry("again")).await;
    assert_eq!(late.refusal(), refused(409, "image_name_fixed", "image_name"));
    assert_eq!(server.get(&format!("services/{id}")).await.ok()["image_name_fixed"], true);
}

#[tokio::test]
async fn what_is_not_there() {
    let server = TestServer::start().await;
    for path in ["services/svc-aaaaaaaaaaaaaaaaaaaa", "services/nonsense", "services/svc-aaaaaaaaaaaaaaaaaaaa/refs"] {
        assert_eq!(server.get(path).await.refusal(), refused(404, "not_found", ""), "{path}");
    }
    let reply = server.put("services/svc-aaaaaaaaaaaaaaaaaaaa/settings", json!({})).await;
    assert_eq!(reply.refusal(), refused(404, "not_found", ""));
}
