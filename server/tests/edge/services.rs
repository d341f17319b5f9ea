//! Services: registered, read, changed; what is wrong is named, and secrets go in only.

use crate::support::{COMMIT, TestServer, refused, service};
use serde_json::{Value, json};

const SECRETS: [&str; 2] = ["git-token-4711", "push-password-4711"];

#[tokio::test]
async fn a_service_is_registered_and_read_without_its_secrets() {
    let server = TestServer::start().await;
    let mut new = service("orders", "https://git.example.com/shop/orders.git");
    new["settings"] = json!({ "dockerfile": { "mode": "path", "path": "./docker/Dockerfile" }, "profile": "small",
        "no_cache": true, "time_limit_s": 600 });
    let id = server.register(new).await;

    let detail = server.get(&format!("services/{id}")).await.ok();
    assert_eq!(detail["name"], "orders");
    assert_eq!(detail["source"]["url"], "https://git.example.com/shop/orders.git");
    assert_eq!(detail["source"]["has_token"], true);
    assert_eq!(detail["registry_config"]["host"], "127.0.0.1:1");
    assert_eq!(detail["registry_config"]["has_password"], true);
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
    server.register(service("taken", "https://git.example.com/a.git")).await;
    let good = || service("orders", "https://git.example.com/shop/orders.git");
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
        (with("/registry_config/kind", json!("ecr")), 422, "field_form", "registry_config"),
        (with("/source/url", json!("file:///etc")), 422, "git_url_scheme", "source.url"),
        (with("/source/url", json!("https://u:p@h/x")), 422, "git_url_credential", "source.url"),
        (with("/source/url", json!("--upload-pack=x")), 422, "git_url_scheme", "source.url"),
        (with("/source/token", json!("short")), 422, "secret_too_short", "source.token"),
        (with("/source/token", json!("two words")), 422, "token_form", "source.token"),
        (with("/source/default_branch", json!("-x")), 422, "ref_form", "source.default_branch"),
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
}

#[tokio::test]
async fn settings_are_saved_and_a_lost_race_is_told() {
    let server = TestServer::start().await;
    let id = server.register(service("orders", "https://git.example.com/shop/orders.git")).await;
    let path = format!("services/{id}/settings");
    let saved = server.put(&path, json!({ "profile": "large", "no_cache": true, "version": 0 })).await.ok();
    assert_eq!((&saved["profile"], &saved["version"]), (&json!("large"), &json!(1)));
    let late = server.put(&path, json!({ "profile": "small", "version": 0 })).await;
    assert_eq!(late.refusal(), refused(409, "settings_conflict", ""));
    assert_eq!(server.get(&format!("services/{id}")).await.ok()["settings"]["profile"], "large");
    assert_eq!(server.put(&path, json!({})).await.ok()["version"], 2, "without a version the save wins");
    for (bad, code, field) in [
        (json!({ "dockerfile": { "mode": "path", "path": "../x" } }), "path_outside", "settings.dockerfile.path"),
        (json!({ "dockerfile": { "mode": "path" } }), "required", "settings.dockerfile.path"),
        (json!({ "time_limit_s": 1 }), "time_limit_range", "settings.time_limit_s"),
        (json!({ "profile": "huge" }), "field_form", "profile"),
        (json!({ "build_args": {} }), "field_unknown", "build_args"),
    ] {
        assert_eq!(server.put(&path, bad.clone()).await.refusal(), refused(422, code, field), "{bad}");
    }
}

#[tokio::test]
async fn a_secret_stays_with_the_host_it_was_entered_for() {
    let server = TestServer::start().await;
    let id = server.register(service("orders", "https://git.example.com/shop/orders.git")).await;
    let source = |url: &str| json!({ "kind": "git", "url": url, "default_branch": "main" });
    let registry = |url: &str| {
        json!({ "kind": "private", "url": url, "path": "demo", "image_name": "orders", "username": "pusher",
            "plain_http": true })
    };
    let (sources, registries) = (format!("services/{id}/source"), format!("services/{id}/registry_config"));
    let kept = server.put(&sources, source("https://git.example.com/shop/other.git")).await.ok();
    assert_eq!(kept["has_token"], true);
    let moved = server.put(&sources, source("https://evil.example/shop/other.git")).await;
    assert_eq!(moved.refusal(), refused(422, "required", "source.token"));
    let mut without = source("https://evil.example/shop/other.git");
    without["token"] = json!("");
    assert_eq!(server.put(&sources, without).await.ok()["has_token"], false);

    assert_eq!(server.put(&registries, registry("127.0.0.1:1")).await.ok()["has_password"], true);
    let moved = server.put(&registries, registry("evil.example")).await;
    assert_eq!(moved.refusal(), refused(422, "required", "registry_config.password"));
    server.never_said(&SECRETS);
}

#[tokio::test]
async fn the_image_name_is_fixed_by_the_first_build() {
    let server = TestServer::start().await;
    server.pause().await;
    let id = server.register(service("orders", "https://git.example.com/shop/orders.git")).await;
    let registry = |name: &str| {
        json!({ "kind": "private", "url": "127.0.0.1:1", "path": "demo", "image_name": name, "username": "pusher",
            "plain_http": true })
    };
    let path = format!("services/{id}/registry_config");
    server.put(&path, registry("renamed")).await.ok();
    server.post(&format!("services/{id}/builds"), json!({ "branch": "main", "commit": COMMIT })).await.ok();
    let late = server.put(&path, registry("again")).await;
    assert_eq!(late.refusal(), refused(409, "image_name_fixed", "registry_config.image_name"));
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
