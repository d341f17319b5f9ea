//! Pages, their server functions and files.

use crate::support::{PASSWORD, Reply, TestServer, repository, service};
use reqwest::Method;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, ORIGIN};
use serde_json::json;

const FORM: &str = "application/x-www-form-urlencoded";
const SIGN_IN: &str = "/api/fn/kiops_app/accounts/api/sign_in";

#[tokio::test]
async fn a_browser_signs_in_and_sees_its_services() {
    let server = TestServer::start().await;
    server.register(service("주문 서비스", repository().await).tap("orders")).await;
    let nobody = server.send(server.request(Method::GET, "/services").header("accept", "text/html")).await;
    assert_eq!((nobody.status, nobody.header("location")), (302, "/sign-in?next=/services"));
    let door = server.send(server.request(Method::GET, "/sign-in")).await;
    assert_eq!(door.status, 200);
    assert!(door.text.contains("Sign in") && door.text.contains("action=\"/api/fn"), "{}", door.text);

    // A form, as a browser without script posts it.
    let post = |password: &str| {
        let body = format!("user=admin&password={}&next=%2Fservices", password.replace(' ', "+"));
        let request = server.request(Method::POST, SIGN_IN).header(ORIGIN, &server.url).header("accept", "text/html");
        request.header(CONTENT_TYPE, FORM).body(body)
    };
    let wrong = server.send(post("wrong")).await;
    assert_eq!(wrong.status, 302);
    assert!(wrong.header("location").starts_with("/sign-in") && wrong.header("set-cookie").is_empty(), "{wrong:?}");
    let right = server.send(post(PASSWORD)).await;
    assert_eq!((right.status, right.header("location")), (302, "/services"));
    let cookie = right.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && cookie.contains("Path=/"), "{cookie}");

    let session = cookie.split(';').next().unwrap();
    let page = server.send(server.request(Method::GET, "/services").header("cookie", session)).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("주문 서비스"), "the page is rendered with its data");
    let token = session.split_once('=').unwrap().1;
    assert!(!page.text.contains(token) && !right.text.contains(token));
    server.never_said(&[PASSWORD, "git-token-4711", "push-password-4711"]);
}

trait Tap {
    fn tap(self, image: &str) -> Self;
}

impl Tap for serde_json::Value {
    /// With an image name that is one, whatever the service's name.
    fn tap(mut self, image: &str) -> Self {
        self["registry_config"]["image_name"] = image.into();
        self
    }
}

/// A form of a signed-in browser without script.
async fn post_form(server: &TestServer, function: &str, body: &str) -> Reply {
    let path = format!("/api/fn/kiops_app/{function}");
    server.send(server.browser(Method::POST, &path).header(CONTENT_TYPE, FORM).body(body.to_owned())).await
}

#[tokio::test]
async fn a_form_that_is_given_back_holds_no_credential() {
    let server = TestServer::start().await;
    let id = server.register(service("orders", repository().await)).await;
    const REGISTRY: &str = "kind=private&image_name=new&username=u&password=push-word-4711&registry_url=";
    let pasted = "https%3A%2F%2Fbot%3Aglpat-pasted-4711%40git.example.com%2Fshop%2Forders.git";
    for (function, body) in [
        ("services/api/register_service", format!("name=new&token=git-word-4711&url={pasted}&{REGISTRY}x.example")),
        ("services/api/save_source", format!("id={id}&token=git-word-4711&url={pasted}")),
        ("services/api/register_service", format!("name=new&url=x&{REGISTRY}bot%3Aglpat-pasted-4711%40r.example")),
        ("services/api/save_registry", format!("id={id}&{REGISTRY}https%3A%2F%2Fbot%3Aglpat-pasted-4711%40r.example")),
    ] {
        let back = post_form(&server, function, &body).await;
        let to = back.header("location").to_owned();
        assert_eq!(back.status, 302, "{back:?}");
        assert!(to.contains("p=") && to.contains("example"), "{to}");
        let page = server.send(server.browser(Method::GET, &to)).await;
        assert_eq!(page.status, 200, "{to}");
    }
    server.never_said(&["glpat-pasted-4711", "git-word-4711", "push-word-4711"]);
}

#[tokio::test]
async fn a_form_that_lost_a_race_keeps_its_version() {
    let server = TestServer::start().await;
    let url = repository().await;
    let id = server.register(service("orders", url)).await;
    server.put(&format!("services/{id}/settings"), json!({ "profile": "large" })).await.ok();
    server.put(&format!("services/{id}/settings"), json!({ "profile": "medium" })).await.ok();
    server.put(&format!("services/{id}/source"), json!({ "kind": "git", "url": url })).await.ok();
    let registry = json!({ "kind": "private", "url": "127.0.0.1:1", "path": "demo", "image_name": "orders",
        "username": "pusher", "plain_http": true });
    server.put(&format!("services/{id}/registry_config"), registry).await.ok();

    // Each was written from version 1, and somebody else has saved since.
    for (function, body, kept) in [
        ("builds/api/save_settings", "mode=path&path=docker%2FMine&profile=small".to_owned(), "docker/Mine"),
        ("services/api/save_source", format!("url={}&default_branch=mine", url.replace(':', "%3A")), "mine"),
        (
            "services/api/save_registry",
            "kind=private&registry_url=127.0.0.1%3A1&path=mine&image_name=orders&username=pusher&plain_http=true"
                .to_owned(),
            "mine",
        ),
    ] {
        let form = format!("id={id}&version=1&{body}");
        let mut to = String::new();
        for _ in 0..2 {
            let back = post_form(&server, function, &form).await;
            to = back.header("location").to_owned();
            assert!(back.status == 302 && to.contains("p=settings_conflict"), "{back:?}");
        }
        let page = server.send(server.browser(Method::GET, &to)).await.text;
        let version = page.split("name=\"version\"").nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default();
        assert!(version.contains("value=\"1\""), "{function}: {version}");
        assert!(page.contains(&format!("value=\"{kept}\"")), "{function}: what was typed is still there");
        assert!(page.contains("Somebody else") && page.contains("Load the newer settings"), "{function}");
    }
    let detail = server.get(&format!("services/{id}")).await.ok();
    assert_eq!((&detail["settings"]["version"], &detail["settings"]["profile"]), (&json!(2), &json!("medium")));
    assert_eq!((&detail["source"]["version"], &detail["registry_config"]["version"]), (&json!(2), &json!(2)));
    let fresh = server.send(server.browser(Method::GET, &format!("/services/edit/{id}?build=settings"))).await.text;
    let version = fresh.split("name=\"version\"").nth(1).unwrap().split('>').next().unwrap();
    assert!(version.contains("value=\"2\""), "{version}");
}

#[tokio::test]
async fn pages_carry_their_policy() {
    let server = TestServer::start().await;
    let page = server.send(server.browser(Method::GET, "/services")).await;
    let policy = page.header("content-security-policy");
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    assert!(nonce.len() >= 16 && page.text.contains(&format!("nonce=\"{nonce}\"")), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script-src 'unsafe"), "{policy}");
    for script in page.text.split("<script").skip(1) {
        let tag = script.split('>').next().unwrap();
        let data = tag.contains("application/json");
        assert!(data || tag.contains(nonce) || tag.contains(" src=\"/pkg/"), "<script{tag}> would not run");
    }
    let again = server.send(server.browser(Method::GET, "/services")).await;
    assert!(!again.header("content-security-policy").contains(nonce), "a nonce is used once");
    for reply in [&page, &server.get("services").await, &server.send(server.request(Method::GET, "/nope")).await] {
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "same-origin");
        assert!(reply.header("content-security-policy").contains("frame-ancestors 'none'"));
    }
}

#[tokio::test]
async fn a_window_that_another_site_opened_is_cut_off_from_it() {
    let server = TestServer::start().await;
    for (from, policy) in [("cross-site", Some("same-origin")), ("none", None), ("same-origin", None)] {
        let page = server.send(server.browser(Method::GET, "/services").header("sec-fetch-site", from)).await;
        let sent = page.headers.get("cross-origin-opener-policy").map(|value| value.to_str().unwrap());
        assert_eq!(sent, policy, "opened from {from}");
        let vary: Vec<_> = page.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
        assert!(vary.iter().any(|name| name.eq_ignore_ascii_case("sec-fetch-site")), "{vary:?}");
    }
}

#[tokio::test]
async fn server_functions_are_checked_like_everything_else() {
    let server = TestServer::start().await;
    let call = |path: &str, cookie: bool, origin: &str| {
        let request =
            server.request(Method::POST, path).header(ORIGIN, origin).header(CONTENT_TYPE, "application/json");
        let request =
            if cookie { request.header("cookie", format!("kiops_session={}", server.token())) } else { request };
        request.body("{}")
    };
    const LIST: &str = "/api/fn/kiops_app/services/api/list_services";
    let listed = server.send(call(LIST, true, &server.url)).await;
    assert_eq!(listed.status, 200, "{listed:?}");
    let nobody = server.send(call(LIST, false, &server.url)).await;
    assert_eq!((nobody.status, nobody.json()["code"].as_str()), (401, Some("sign_in_needed")));
    let foreign = server.send(call(LIST, true, "http://evil.example")).await;
    assert_eq!((foreign.status, foreign.json()["code"].as_str()), (403, Some("origin")));
    assert_eq!(foreign.json()["status"], "forbidden", "as a page's program reads it");
    let nothing = server.send(call("/api/fn/nope", true, &server.url)).await;
    assert_eq!((nothing.status, nothing.json()["code"].as_str()), (404, Some("not_found")));
    let huge = call(LIST, true, &server.url).body("x".repeat(300 << 10));
    assert_eq!(server.send(huge).await.status, 413);
}

#[tokio::test]
async fn what_has_no_page() {
    let server = TestServer::start().await;
    let page = server.send(server.browser(Method::GET, "/no/such/page")).await;
    assert_eq!(page.status, 404);
    assert!(page.text.contains("<html"), "{page:?}");
    let script = server.send(server.request(Method::GET, "/no/such/file.js")).await;
    assert_eq!(script.status, 404);
    assert!(!script.text.contains("<html"));
    let strange = server.send(server.browser(Method::GET, "/services/edit/nonsense")).await;
    assert_eq!(strange.status, 404, "{strange:?}");
}

#[tokio::test]
async fn files_come_compressed_and_pages_too() {
    let own = tempfile::tempdir().unwrap();
    let pkg = own.path().join("site/pkg");
    std::fs::create_dir_all(&pkg).unwrap();
    std::fs::write(pkg.join("kiops.css"), "body{}").unwrap();
    std::fs::write(pkg.join("kiops.css.br"), "brotli").unwrap();
    std::fs::write(own.path().join("site/secret.txt"), "not public").unwrap();
    let mut server = TestServer::on(own.path(), |_| ()).await;
    server.sign_in().await;
    let file = |path: &str, encoding: &'static str| server.request(Method::GET, path).header(ACCEPT_ENCODING, encoding);
    let plain = server.send(file("/pkg/kiops.css", "identity")).await;
    assert_eq!((plain.status, plain.text.as_str(), plain.header("content-type")), (200, "body{}", "text/css"));
    let packed = server.send(file("/pkg/kiops.css", "br, gzip")).await;
    assert_eq!((packed.header("content-encoding"), packed.text.as_str()), ("br", "brotli"));
    for outside in ["/pkg/../secret.txt", "/pkg/%2e%2e/secret.txt", "/secret.txt", "/pkg/..%2fsecret.txt"] {
        assert_ne!(server.send(file(outside, "identity")).await.status, 200, "{outside}");
    }
    let page = server.browser(Method::GET, "/services").header(ACCEPT_ENCODING, "gzip").send().await.unwrap();
    assert_eq!(page.headers()["content-encoding"], "gzip");
}

#[tokio::test]
async fn whoever_watches_over_the_process() {
    let server = TestServer::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.send(server.request(Method::GET, path)).await.status, 200, "{path}");
    }
}
