//! The registry client against a real registry, one that misbehaves, and the token dance of Harbor and Docker Hub; and a
//! whole build where Git host and registry have certificates of an own authority.

mod builds_rig;
mod kill_rig;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use kiops_app::model::{RegistryConfig, RegistryKind};
use kiops_rig::{Fault, FaultyRegistry, GitOptions, GitServer, Login, On, Registry, RegistryOptions};
use kiops_server::git::AddressPolicy;
use kiops_server::registry::{RegistryClient, Repository};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

fn config(host: &str, username: &str) -> RegistryConfig {
    RegistryConfig {
        kind: RegistryKind::Private,
        host: host.to_owned(),
        path: "library".into(),
        image_name: "busybox".into(),
        username: username.into(),
        has_password: !username.is_empty(),
        plain_http: true,
        version: 1,
    }
}

fn client() -> RegistryClient {
    RegistryClient::new(AddressPolicy { loopback: true })
}

async fn push_code(at: &Repository) -> &'static str {
    match client().check_push(at).await {
        Ok(()) => "ok",
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn an_image_is_found_weighed_and_asked_whose_it_is() {
    let registry = Registry::start(RegistryOptions::default()).await.unwrap();
    registry.push_base_images().await.unwrap();
    let manifest = registry.manifest("library/busybox", "1").await.unwrap().unwrap();
    let at = Repository::of(&config(&registry.address(), ""), None);
    let client = client();
    let image = client.image(&at, "1").await.unwrap().unwrap();
    assert_eq!(image.digest, manifest.digest);
    let sizes = [&manifest.body["config"]["size"], &manifest.body["layers"][0]["size"]];
    assert_eq!(image.size_bytes, sizes.iter().map(|s| s.as_i64().unwrap()).sum::<i64>());
    assert_eq!(client.image(&at, &manifest.digest).await.unwrap(), Some(image.clone()));
    assert!(client.labels(&at, &image).await.unwrap().is_empty());
    assert_eq!(client.image(&at, "2").await.unwrap(), None);
    assert_eq!(push_code(&at).await, "ok");
}

#[tokio::test]
async fn a_login_is_needed_right_or_wrong() {
    let login = Login { user: "robot".into(), password: "right-password".into() };
    let registry = Registry::start(RegistryOptions { login: Some(login), ..Default::default() }).await.unwrap();
    registry.push_base_images().await.unwrap();
    let config = config(&registry.address(), "robot");
    let right = Repository::of(&config, Some("right-password"));
    assert_eq!(push_code(&right).await, "ok");
    assert!(client().image(&right, "1").await.unwrap().is_some());
    assert_eq!(push_code(&Repository::of(&config, Some("wrong-password"))).await, "registry_auth");
    assert_eq!(push_code(&Repository::of(&config, None)).await, "registry_auth");
    let problem =
        client().check_push(&Repository::of(&config, Some("wrong-password"))).await.unwrap_err().problem(&config.host);
    assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("registry_auth", Some("registry_config.password")));
    assert!(!serde_json::to_string(&problem).unwrap().contains("wrong-password"));
}

#[tokio::test]
async fn every_way_to_fail_has_its_code() {
    let mut registry = Registry::start(RegistryOptions::default()).await.unwrap();
    let faulty = FaultyRegistry::in_front_of(registry.address()).await.unwrap();
    let at = Repository::of(&config(faulty.address(), ""), None);
    assert_eq!(push_code(&at).await, "ok");
    for (fault, code) in [
        (Fault::Status(403), "registry_denied"),
        (Fault::Status(500), "registry_server"),
        (Fault::Status(503), "registry_server"),
        (Fault::Status(429), "registry_busy"),
        (Fault::Status(404), "registry_denied"),
        (Fault::Drop, "network"),
    ] {
        faulty.fail(On::Everything, fault);
        assert_eq!(push_code(&at).await, code, "{fault:?}");
    }
    faulty.recover();
    let address = registry.address();
    registry.stop();
    assert_eq!(push_code(&Repository::of(&config(&address, ""), None)).await, "network");
    let git = GitServer::start(GitOptions::default()).await.unwrap();
    let host = git.url().trim_start_matches("http://").to_owned();
    assert_eq!(push_code(&Repository::of(&config(&host, ""), None)).await, "registry_not_a_registry");
    assert_eq!(push_code(&Repository::of(&config("registry.invalid:5000", ""), None)).await, "dns");
    // TLS where there is none: by another spelling of the loopback, because 127.0.0.1 itself is never asked for it.
    let port = host.rsplit_once(':').unwrap().1;
    let secure = RegistryConfig { plain_http: false, ..config(&format!("[::ffff:127.0.0.1]:{port}"), "") };
    assert_eq!(push_code(&Repository::of(&secure, None)).await, "tls");
}

/// What Harbor and Docker Hub do, as their documentation has it: a challenge, a token for a login, a request with it.
struct Tokens {
    asked: Mutex<Vec<String>>,
    grants: &'static str,
}

async fn token(
    State(tokens): State<Arc<Tokens>>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    tokens.asked.lock().unwrap().push(format!("{} {}", query["service"], query["scope"]));
    match headers.get("authorization").and_then(|v| v.to_str().ok()) {
        // robot:right-password
        Some("Basic cm9ib3Q6cmlnaHQtcGFzc3dvcmQ=") => Json(json!({ "access_token": tokens.grants })).into_response(),
        Some(_) => StatusCode::UNAUTHORIZED.into_response(),
        None => Json(json!({ "token": "anonymous" })).into_response(),
    }
}

async fn uploads(headers: HeaderMap) -> Response {
    let host = headers["host"].to_str().unwrap();
    let challenge =
        format!(r#"Bearer realm="http://{host}/token",service="test",scope="repository:library/busybox:pull,push""#);
    match headers.get("authorization").and_then(|v| v.to_str().ok()) {
        Some("Bearer push") => {
            (StatusCode::ACCEPTED, [("location", "/v2/library/busybox/blobs/uploads/1")]).into_response()
        }
        Some("Bearer pull") => (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response(),
        Some("Bearer anonymous") => StatusCode::FORBIDDEN.into_response(),
        _ => (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response(),
    }
}

async fn token_registry(grants: &'static str) -> (String, Arc<Tokens>) {
    let tokens = Arc::new(Tokens { asked: Mutex::default(), grants });
    let app = axum::Router::new()
        .route("/token", get(token))
        .route("/v2/library/busybox/blobs/uploads/", any(uploads))
        .route("/v2/library/busybox/blobs/uploads/1", any(|| async { StatusCode::NO_CONTENT }))
        .with_state(tokens.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, tokens)
}

#[tokio::test]
async fn tokens_are_asked_for_with_the_scope_that_the_registry_names() {
    let (host, tokens) = token_registry("push").await;
    let config_of = |user| config(&host, user);
    assert_eq!(push_code(&Repository::of(&config_of("robot"), Some("right-password"))).await, "ok");
    assert_eq!(tokens.asked.lock().unwrap()[0], "test repository:library/busybox:pull,push");
    assert_eq!(push_code(&Repository::of(&config_of("robot"), Some("wrong-password"))).await, "registry_auth");
    assert_eq!(push_code(&Repository::of(&config_of(""), None)).await, "registry_denied");
    // A login that may only pull gets a token all the same: the refusal comes afterwards.
    let (host, _) = token_registry("pull").await;
    assert_eq!(push_code(&Repository::of(&config(&host, "robot"), Some("right-password"))).await, "registry_denied");
}

/// Where clouds keep their machines' credentials.
const METADATA: &str = "http://169.254.169.254/latest";

#[tokio::test]
async fn nobody_is_led_to_what_only_the_server_reaches() {
    let realm = format!(r#"Bearer realm="{METADATA}",service="x",scope="y""#);
    let app = axum::Router::new()
        .route(
            "/v2/library/busybox/blobs/uploads/",
            any(move || async move { (StatusCode::UNAUTHORIZED, [("www-authenticate", realm)]) }),
        )
        .route("/v2/library/busybox/manifests/1", any(|| async { (StatusCode::FOUND, [("location", METADATA)]) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let at = |host: &str| Repository::of(&config(&format!("{host}:{port}"), "robot"), Some("right-password"));
    assert_eq!(push_code(&at("127.0.0.1")).await, "address_refused", "a token service");
    let redirected = client().image(&at("127.0.0.1"), "1").await.map_err(|error| error.code());
    assert_eq!(redirected, Err("address_refused"));
    // As a server that others reach: neither by number nor by name.
    let strict = RegistryClient::new(AddressPolicy { loopback: false });
    for host in ["127.0.0.1", "localhost", "127.1"] {
        let refused = strict.check_push(&at(host)).await.map_err(|error| error.code());
        assert_eq!(refused, Err("address_refused"), "{host}");
    }
}

#[tokio::test]
async fn an_own_authority_is_trusted_by_all_that_builds() {
    kill_rig::Server::new().await.trusts_whom_one_variable_names().await;
}
