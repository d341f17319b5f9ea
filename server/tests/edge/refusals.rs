//! Whatever is sent: an error of the JSON API always has the same shape, in the reader's language.

use crate::support::{COMMIT, TestServer, refused, repository, service};
use reqwest::Method;
use reqwest::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, HOST, ORIGIN};
use serde_json::json;

/// Small, repeatable randomness: a failure prints its seed.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.next(from.len())]
    }
}

#[tokio::test]
async fn errors_always_have_their_shape() {
    let server = TestServer::start().await;
    server.pause().await;
    let service = server.register(service("orders", repository().await)).await;
    let started =
        server.post(&format!("services/{service}/builds"), json!({ "branch": "main", "commit": COMMIT })).await.ok();
    let build = started["id"].as_str().unwrap();
    let paths = [
        "",
        "/",
        "sessions",
        "services",
        "services/",
        "nope",
        "services/x",
        "services/%2e%2e",
        "services/{s}",
        "services/{s}/settings",
        "services/{s}/refs",
        "services/{s}/builds",
        "services/{s}/builds?before=x",
        "services/{s}/nope",
        "builds/{b}",
        "builds/{b}/log",
        "builds/{b}/events?after=-1",
        "builds/{b}/events?after=99999999999999999999",
        "builds/{b}/cancel/x",
        "builds/x/cancel",
        "system",
        "system/queue",
        "services/{s}/source",
        "services/{s}/registry_config",
        "services/%ff",
    ];
    let bodies = [
        "",
        "{",
        "{}",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{\"paused\":\"yes\"}",
        "{\"user\":1}",
        "{\"branch\":{}}",
        "{\"a\":1,\"a\":2}",
        "{\"name\":\"\\u0000\"}",
        "\u{feff}{}",
        "{\"profile\":null}",
        "{\"dockerfile\":[]}",
        "\0",
        "{\"kind\":\"git\"}",
    ];
    let kinds =
        ["application/json", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=x", ""];
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
    let seed = 0x5eed_u64;
    let mut random = Random(seed);
    let mut failures = 0;
    for round in 0..600 {
        let path = random.pick(&paths).replace("{s}", &service).replace("{b}", build);
        let method = methods[random.next(methods.len())].clone();
        let kind = random.pick(&kinds);
        let mut request = server.request(method.clone(), &format!("/api/v1/{path}")).body(random.pick(&bodies));
        if !kind.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        if random.next(4) > 0 {
            request = request.bearer_auth(server.token());
        }
        // What follows a build that runs does not end here.
        if method == Method::GET && path.ends_with("events") {
            continue;
        }
        let reply = server.send(request).await;
        let what = format!("seed {seed:#x}, round {round}: {method} {path} gave {reply:?}");
        if reply.status < 400 {
            continue;
        }
        failures += 1;
        assert_ne!(reply.status, 500, "{what}");
        assert_eq!(reply.header("content-type"), "application/json", "{what}");
        let told = reply.json();
        let code = told["code"].as_str().unwrap_or_default();
        let message = told["message"].as_str().unwrap_or_default();
        assert!(!code.is_empty() && message.len() > code.len() && !message.contains("problem."), "{what}");
        let known = told.as_object().unwrap().keys().all(|key| matches!(key.as_str(), "code" | "message" | "field"));
        assert!(known, "{what}");
    }
    assert!(failures > 200, "{failures}");
    server.never_said(&[server.token(), "git-token-4711", "push-password-4711"]);
}

#[tokio::test]
async fn the_statuses_of_http_itself() {
    let server = TestServer::start().await;
    let api = async |method: Method, path: &str, kind: &'static str, body: String| {
        let request = server.request(method, &format!("/api/v1/{path}")).bearer_auth(server.token());
        server.send(request.header(CONTENT_TYPE, kind).body(body)).await
    };
    const JSON: &str = "application/json";
    assert_eq!(api(Method::POST, "services", JSON, "{".into()).await.refusal(), refused(400, "json_syntax", ""));
    assert_eq!(
        api(Method::POST, "services", "text/plain", "{}".into()).await.refusal(),
        refused(415, "json_expected", "")
    );
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(300 << 10));
    assert_eq!(api(Method::POST, "services", JSON, huge.clone()).await.refusal(), refused(413, "body_too_large", ""));
    // Without a length beforehand.
    let pieces = futures::stream::iter(
        huge.into_bytes().chunks(8 << 10).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>(),
    );
    let request = server.request(Method::POST, "/api/v1/services").bearer_auth(server.token());
    let streamed = request.header(CONTENT_TYPE, JSON).body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(server.send(streamed).await.refusal(), refused(413, "body_too_large", ""));
    let wrong = api(Method::PATCH, "services", JSON, "{}".into()).await;
    assert_eq!(wrong.refusal(), refused(405, "method_not_allowed", ""));
    assert!(wrong.header("allow").contains("POST"), "{wrong:?}");
    assert_eq!(api(Method::GET, "nope", JSON, String::new()).await.refusal(), refused(404, "not_found", ""));
}

#[tokio::test]
async fn problems_are_told_in_the_readers_language() {
    let server = TestServer::start().await;
    let ask = async |language: &str| {
        let request = server.request(Method::GET, "/api/v1/services").header(ACCEPT_LANGUAGE, language);
        server.send(request).await.json()["message"].as_str().unwrap().to_owned()
    };
    let (english, korean) = (ask("en").await, ask("ko-KR,ko;q=0.9,en;q=0.5").await);
    assert!(english.is_ascii() && !korean.is_ascii(), "{english} {korean}");
    assert_eq!(ask("fr").await, english);
}

#[tokio::test]
async fn hosts_that_were_not_meant() {
    let server = TestServer::with(|config| config.allowed_hosts = vec!["builds".into()]).await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let ask =
        async |host: String| server.send(server.request(Method::GET, "/api/v1/services").header(HOST, host)).await;
    for strange in ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1.evil.example".into()] {
        assert_eq!(ask(strange.clone()).await.refusal(), refused(421, "host_refused", ""), "{strange}");
    }
    for own in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("builds:{port}"), "[::1]".into()] {
        assert_eq!(ask(own.clone()).await.status, 401, "{own}");
    }
    let page = server.send(server.request(Method::GET, "/").header(HOST, "evil.example")).await;
    assert_eq!(page.status, 421);
    assert!(!page.text.contains('<'), "{page:?}");
}

#[tokio::test]
async fn changes_from_other_sites() {
    let server = TestServer::start().await;
    let cookie = format!("kiops_session={}", server.token());
    let change = |origin: Option<&str>| {
        let request = server
            .request(Method::PUT, "/api/v1/system/queue")
            .header("cookie", &cookie)
            .header(CONTENT_TYPE, "application/json")
            .body("{\"paused\":true}");
        match origin {
            Some(origin) => request.header(ORIGIN, origin),
            None => request,
        }
    };
    for strange in ["http://evil.example", "null", "http://127.0.0.1:1", "https://evil.example:443"] {
        assert_eq!(server.send(change(Some(strange))).await.refusal(), refused(403, "origin", ""), "{strange}");
    }
    assert_eq!(server.send(change(None)).await.refusal(), refused(403, "origin", ""));
    assert_eq!(server.get("system").await.ok()["queue_paused"], false);
    assert_eq!(server.send(change(Some(&server.url))).await.status, 204);
    // A foreign page cannot sign its visitor in, either.
    let sign_in = server
        .request(Method::POST, "/api/v1/sessions")
        .header(ORIGIN, "http://evil.example")
        .header(CONTENT_TYPE, "application/json")
        .body(json!({ "user": "admin", "password": crate::support::PASSWORD }).to_string());
    assert_eq!(server.send(sign_in).await.refusal(), refused(403, "origin", ""));
}
