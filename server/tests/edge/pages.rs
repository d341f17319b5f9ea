//! Pages, their server functions and files.

use crate::support::{PASSWORD, TestServer, service};
use reqwest::Method;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, ORIGIN};

const FORM: &str = "application/x-www-form-urlencoded";
const SIGN_IN: &str = "/api/fn/kiops_app/accounts/api/sign_in";

#[tokio::test]
async fn a_browser_signs_in_and_sees_its_services() {
    let server = TestServer::start().await;
    server.register(service("주문 서비스", "https://git.example.com/shop/orders.git").tap("orders")).await;
    let nobody = server.send(server.request(Method::GET, "/services").header("accept", "text/html")).await;
    assert_eq!((nobody.status, nobody.header("location")), (302, "/sign-in?next=%2Fservices"));
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
