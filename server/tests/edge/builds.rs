//! Builds as scripts see them: queued while the queue is paused, so that nothing needs to run.

use crate::support::{COMMIT, TestServer, count, execute, refused, repository, service};
use kiops_rig::{GitOptions, GitServer};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

async fn paused_server() -> (TestServer, String) {
    let server = TestServer::start().await;
    server.pause().await;
    let id = server.register(service("orders", repository().await)).await;
    (server, id)
}

#[tokio::test]
async fn a_build_is_queued_listed_read_and_cancelled() {
    let (server, service) = paused_server().await;
    let builds = format!("services/{service}/builds");
    let start = json!({ "branch": "main", "commit": COMMIT, "request_key": "click-1" });
    let started = server.post(&builds, start.clone()).await;
    assert_eq!(started.status, 201);
    let started = started.ok();
    assert_eq!(started["number"], 1);
    assert_eq!(server.post(&builds, start).await.ok(), started, "a double click is one build");
    let second = server.post(&builds, json!({ "branch": "refs/tags/v1", "commit": COMMIT })).await.ok();
    assert_eq!(second["number"], 2);
    let question = "SELECT COUNT(*) FROM audit a JOIN builds b ON b.id = a.subject WHERE a.action = 'build.start' \
                    AND a.user_id = b.created_by AND a.detail LIKE '%\"number\":' || b.number || '%'";
    assert_eq!(count(&server.folder, question).await, 2, "one trace each, none of the second click");

    let id = started["id"].as_str().unwrap();
    let build = server.get(&format!("builds/{id}")).await.ok();
    assert_eq!(
        (&build["status"], &build["branch"], &build["commit"]),
        (&json!("queued"), &json!("main"), &json!(COMMIT))
    );
    assert_eq!(build["queue_reason"], "paused");
    for null in ["started_at", "finished_at", "image_tag", "digest", "image_size_bytes", "log_verified", "diagnosis"] {
        assert_eq!(build.get(null), Some(&Value::Null), "{null}");
    }
    assert_eq!((&build["steps"], &build["cached_steps"]), (&json!([]), &json!(0)));

    let page = server.get(&builds).await.ok();
    let numbers = |page: &Value| {
        page["builds"].as_array().unwrap().iter().map(|b| b["number"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&page), [2, 1]);
    assert_eq!(numbers(&server.get(&format!("{builds}?before=2")).await.ok()), [1]);
    assert_eq!(numbers(&server.get(&format!("{builds}?limit=1")).await.ok()), [2]);
    assert_eq!(numbers(&server.get(&format!("{builds}?status=in_progress&branch=main")).await.ok()), [1]);
    assert_eq!(numbers(&server.get(&format!("{builds}?status=success")).await.ok()), Vec::<i64>::new());
    assert_eq!(server.get(&format!("{builds}?status=fine")).await.refusal(), refused(422, "query_form", ""));

    assert_eq!(server.api(Method::POST, &format!("builds/{id}/cancel"), None).await.status, 202);
    let build = server.get(&format!("builds/{id}")).await.ok();
    assert_eq!(build["status"], "cancelled");
    let again = server.api(Method::POST, &format!("builds/{id}/cancel"), None).await;
    assert_eq!(again.refusal(), refused(409, "build_is_over", ""));

    let log = server.get(&format!("builds/{id}/log")).await;
    assert_eq!((log.status, log.header("content-type")), (200, "text/plain; charset=utf-8"));
    assert!(log.text.contains("queued"), "{}", log.text);
    let events = server.get(&format!("builds/{id}/events")).await;
    assert_eq!(events.header("content-type"), "application/x-ndjson");
    let events: Vec<Value> = events.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["pos"], 1);
    assert_eq!(events[0]["k"], "note");
    let last = events.last().unwrap()["pos"].as_u64().unwrap();
    assert_eq!(server.get(&format!("builds/{id}/events?after={last}")).await.text, "");
}

#[tokio::test]
async fn a_start_with_another_size_makes_it_the_services() {
    let (server, service) = paused_server().await;
    let settings =
        json!({ "dockerfile": { "mode": "path", "path": "a/Dockerfile" }, "no_cache": true, "time_limit_s": 99 });
    server.put(&format!("services/{service}/settings"), settings).await.ok();
    // As a browser posts it from the page of a build that ran out of memory.
    let form = server.browser(Method::POST, "/api/fn/kiops_app/builds/api/begin_build");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let body = format!("service={service}&pick={COMMIT}%3Amain&profile=large&request_key=larger");
    let begun = server.send(form.body(body)).await;
    assert_eq!(begun.status, 302);
    assert!(begun.header("location").contains("build=run&id=bld-"), "{begun:?}");
    let detail = server.get(&format!("services/{service}")).await.ok();
    let settings = &detail["settings"];
    assert_eq!((&settings["profile"], &settings["version"]), (&json!("large"), &json!(2)));
    assert_eq!(settings["dockerfile"]["path"], "a/Dockerfile");
    assert_eq!((&settings["no_cache"], &settings["time_limit_s"]), (&json!(true), &json!(99)));
    let build = &detail["last_build"];
    assert_eq!((&build["profile"], &build["profile_reason"]["code"]), (&json!("large"), &json!("chosen")));
}

#[tokio::test]
async fn a_failure_for_want_of_memory_leads_to_the_next_size() {
    let (server, service) = paused_server().await;
    let builds = format!("services/{service}/builds");
    for (arguments, sentence, button) in [
        (json!({ "larger": "large" }), "Build Profile large is the next larger one.", Some("Build with large")),
        (json!({ "largest": "4x-large" }), "Build Profile 4x-large is the largest one: ask your administrator", None),
        // Stored before sizes were named.
        (json!({}), "Choose a larger Build Profile in the build settings.", None),
    ] {
        let started = server.post(&builds, json!({ "branch": "main", "commit": COMMIT })).await.ok();
        let id = started["id"].as_str().unwrap();
        let diagnosis = json!({ "group": "build_failure", "code": "oom", "arguments": arguments, "confidence": 0.95,
            "evidence": [], "actions": ["build_settings", "rebuild"] });
        let snapshot = "json_set(snapshot, '$.resolved_profile', 'medium', '$.profile_reason', \
             json('{\"code\":\"no_history\",\"arguments\":{\"profile\":\"medium\"}}'))";
        let failed = format!(
            "UPDATE builds SET status = 'failure', started_at = 1, finished_at = 2, released = 1, failure_code = 'oom', \
             diagnosis = '{diagnosis}', snapshot = {snapshot} WHERE id = '{id}'"
        );
        execute(&server.folder, &failed).await;

        let build = server.get(&format!("builds/{id}")).await.ok();
        assert!(build["diagnosis"]["message"].as_str().unwrap().contains(sentence), "{build}");
        assert_eq!((&build["profile"], &build["resolved_profile"]), (&json!("auto"), &json!("medium")));
        let reason = json!({ "code": "no_history", "arguments": { "profile": "medium" } });
        assert_eq!(build["profile_reason"], reason);
        // A script is told in its reader's language, too.
        let asked = server.request(Method::GET, &format!("/api/v1/builds/{id}")).bearer_auth(server.token());
        let told = server.send(asked.header("accept-language", "ko")).await.ok();
        let korean = told["diagnosis"]["message"].as_str().unwrap();
        assert!(korean.chars().any(|c| ('가'..='힣').contains(&c)), "{korean}");
        assert_ne!(told["diagnosis"]["message"], build["diagnosis"]["message"]);
        assert_eq!(told["diagnosis"]["code"], build["diagnosis"]["code"]);
        let page =
            server.send(server.browser(Method::GET, &format!("/services/edit/{service}?build=run&id={id}"))).await;
        let told = page.text.split("failure-why").nth(1).and_then(|rest| rest.split("failure-actions").next());
        assert!(told.is_some_and(|told| told.contains(sentence)), "{}", page.text);
        assert_eq!(page.text.contains("name=\"profile\" value=\"large\""), button.is_some(), "{}", page.text);
        assert!(button.is_none_or(|button| page.text.contains(button)), "{}", page.text);
        let history =
            server.send(server.browser(Method::GET, &format!("/services/edit/{service}?build=history"))).await;
        assert!(history.text.contains("title=\"Build Profile medium: nothing has been measured"), "{}", history.text);
    }
}

#[tokio::test]
async fn starts_that_are_refused() {
    let (server, service) = paused_server().await;
    let builds = format!("services/{service}/builds");
    for (start, code, field) in [
        (json!({ "branch": "" }), "required", "branch"),
        (json!({ "branch": "a..b" }), "ref_form", "branch"),
        (json!({ "branch": "main", "commit": "abc" }), "commit_form", "commit"),
        (json!({ "branch": "main", "request_key": "x".repeat(101) }), "request_key_form", "request_key"),
        (json!({ "commit": COMMIT }), "required", "branch"),
        (json!({ "branch": "main", "build_args": {} }), "field_unknown", "build_args"),
        (json!({ "branch": 7 }), "field_form", "branch"),
    ] {
        assert_eq!(server.post(&builds, start.clone()).await.refusal(), refused(422, code, field), "{start}");
    }
    let nowhere = server.post("services/svc-aaaaaaaaaaaaaaaaaaaa/builds", json!({ "branch": "main" })).await;
    assert_eq!(nowhere.refusal(), refused(404, "not_found", ""));
    for path in
        ["builds/bld-aaaaaaaaaaaaaaaaaaaa", "builds/x", "builds/bld-aaaaaaaaaaaaaaaaaaaa/log", "builds/x/events"]
    {
        assert_eq!(server.get(path).await.refusal(), refused(404, "not_found", ""), "{path}");
    }
}

#[tokio::test]
async fn without_a_commit_the_branch_is_looked_up() {
    let git = GitServer::start(GitOptions::default()).await.unwrap();
    let repo = git.new_repo("orders").await.unwrap();
    let head = repo.commit("main", &[("Dockerfile", b"FROM scratch\n")], "First").await.unwrap();
    let server = TestServer::start().await;
    server.pause().await;
    let id = server.register(service("orders", repo.url())).await;
    let builds = format!("services/{id}/builds");
    let started = server.post(&builds, json!({ "branch": "main" })).await.ok();
    let build = server.get(&format!("builds/{}", started["id"].as_str().unwrap())).await.ok();
    assert_eq!(build["commit"], head);
    let gone = server.post(&builds, json!({ "branch": "gone" })).await;
    assert_eq!(gone.refusal(), refused(422, "git_ref", "branch"));
    assert!(gone.json()["message"].as_str().unwrap().contains("gone"));
}

#[tokio::test]
async fn a_start_that_is_repeated_is_answered_whatever_has_changed_meanwhile() {
    let git = GitServer::start(GitOptions::default()).await.unwrap();
    let repo = git.new_repo("orders").await.unwrap();
    repo.commit("main", &[("Dockerfile", b"FROM scratch\n")], "First").await.unwrap();
    repo.branch("passing", "main").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::on(folder.path(), |_| ()).await;
    server.sign_in().await;
    server.pause().await;
    let id = server.register(service("orders", repo.url())).await;
    let builds = format!("services/{id}/builds");
    let start = |key: &str| json!({ "branch": "passing", "request_key": key });
    let started = server.post(&builds, start("first")).await.ok();

    repo.delete_branch("passing").await.unwrap();
    assert_eq!(server.post(&builds, start("second")).await.refusal(), refused(422, "git_ref", "branch"));
    assert_eq!(server.post(&builds, start("first")).await.ok(), started);

    server.stop().await.unwrap();
    let mut server = TestServer::on(folder.path(), |config| config.min_free_bytes = u64::MAX).await;
    server.sign_in().await;
    assert_eq!(server.post(&builds, start("second")).await.refusal(), refused(503, "disk_low", ""));
    assert_eq!(server.post(&builds, start("first")).await.ok(), started);
    assert_eq!(server.get(&builds).await.ok()["builds"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_builds_and_nothing_else() {
    let server = TestServer::with(|config| config.min_free_bytes = u64::MAX).await;
    let id = server.register(service("orders", repository().await)).await;
    let start = server.post(&format!("services/{id}/builds"), json!({ "branch": "main", "commit": COMMIT })).await;
    assert_eq!(start.refusal(), refused(503, "disk_low", ""));
    let said = start.json()["message"].as_str().unwrap().to_owned();
    assert!(said.contains("needs 16777216 TiB.") && !said.contains("only  of"), "{said}");
    let system = server.get("system").await.ok();
    assert_eq!(system["disk_low"], true);
    assert_eq!(system["needed_bytes"], u64::MAX);
    assert!(system["free_bytes"].as_u64().unwrap() > 0);
    // As a page's program asks.
    let page = server.browser(Method::POST, "/api/fn/kiops_app/services/api/get_status");
    let asked = server.send(page.header("content-type", "application/json").header("accept", "*/*").body("{}")).await;
    assert_eq!((&asked.json()["disk_low"], &asked.json()["queue_paused"]), (&true.into(), &false.into()));
}

#[tokio::test]
async fn the_queue_can_be_paused() {
    let server = TestServer::start().await;
    assert_eq!(server.get("system").await.ok()["queue_paused"], false);
    server.pause().await;
    let system = server.get("system").await.ok();
    assert_eq!(
        (&system["queue_paused"], &system["runner"], &system["builds_at_once"]),
        (&json!(true), &json!("local"), &json!(2))
    );
    server.resume().await;
    assert_eq!(server.get("system").await.ok()["queue_paused"], false);
    assert_eq!(server.put("system/queue", json!({})).await.refusal(), refused(422, "required", "paused"));
}

#[tokio::test]
async fn a_page_follows_a_build_to_its_end() {
    let (server, service) = paused_server().await;
    let started =
        server.post(&format!("services/{service}/builds"), json!({ "branch": "main", "commit": COMMIT })).await.ok();
    let id = started["id"].as_str().unwrap().to_owned();
    let nobody = server.request(Method::GET, &format!("/builds/{id}/live"));
    assert_eq!(server.send(nobody).await.status, 401);

    let live = server.browser(Method::GET, &format!("/builds/{id}/live"));
    let mut live = live.send().await.unwrap();
    let snapshot = live.chunk().await.unwrap().unwrap();
    server.api(Method::POST, &format!("builds/{id}/cancel"), None).await.ok();
    let stream = String::from_utf8_lossy(&snapshot).into_owned() + &live.text().await.unwrap();
    let messages: Vec<Value> = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect();
    assert_eq!(messages[0]["type"], "snapshot");
    assert_eq!(messages[0]["build"]["status"], "queued");
    assert_eq!(messages.last().unwrap()["type"], "patch");
    assert_eq!(messages.last().unwrap()["build"]["status"], "cancelled");
    assert!(stream.starts_with("id: ") || stream.contains("\nid: "), "{stream}");
    assert!(stream.trim_end().ends_with("event: end\ndata:") || stream.contains("event: end"), "{stream}");

    // Of a build that is over: a snapshot and the end.
    let over = server.send(server.browser(Method::GET, &format!("/builds/{id}/live?after=1"))).await;
    assert_eq!(over.header("content-type"), "text/event-stream");
    assert_eq!(over.text.matches("data: {").count(), 1);
    assert!(over.text.contains("event: end"));

    let download = server.send(server.browser(Method::GET, &format!("/builds/{id}/log?download=1"))).await;
    assert!(download.header("content-disposition").starts_with("attachment; filename=\"orders-1.log\""));
}

#[tokio::test]
async fn a_stopping_server_lets_go_of_streams() {
    let (server, service) = paused_server().await;
    let started =
        server.post(&format!("services/{service}/builds"), json!({ "branch": "main", "commit": COMMIT })).await.ok();
    let id = started["id"].as_str().unwrap();
    let streams = [format!("/builds/{id}/live"), format!("/api/v1/builds/{id}/events")].map(|path| {
        let request = server.browser(Method::GET, &path);
        async move {
            let mut stream = request.send().await.unwrap();
            // It is on its way.
            stream.chunk().await.unwrap().unwrap();
            stream
        }
    });
    let streams = futures::future::join_all(streams).await;
    tokio::time::timeout(Duration::from_secs(8), server.stop()).await.expect("lets go before it must").unwrap();
    for stream in streams {
        let text = stream.text().await.unwrap();
        assert!(!text.contains("event: end"), "the build goes on, so the page asks again");
    }
}

#[tokio::test]
async fn a_log_that_grew_old_is_removed_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::on(folder.path(), |_| ()).await;
    server.sign_in().await;
    server.pause().await;
    let service = server.register(service("orders", repository().await)).await;
    let builds = format!("services/{service}/builds");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let started = server.post(&builds, json!({ "branch": "main", "commit": COMMIT })).await.ok();
        ids.push(started["id"].as_str().unwrap().to_owned());
        server.api(Method::POST, &format!("builds/{}/cancel", ids.last().unwrap()), None).await;
    }
    server.stop().await.unwrap();
    let old = "UPDATE builds SET finished_at = finished_at - 100 * 86400000";
    let url = format!("sqlite:{}", folder.path().join("data/kiops.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query(old).execute(&pool).await.unwrap();
    pool.close().await;

    let mut server = TestServer::on(folder.path(), |config| config.retention_builds = 1).await;
    server.sign_in().await;
    let build = async |id: &str| server.get(&format!("builds/{id}")).await.ok();
    for waited in 0.. {
        if build(&ids[0]).await["log_removed_at"].is_i64() {
            break;
        }
        assert!(waited < 1200, "it is never removed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = server.get(&format!("builds/{}/log", ids[0])).await.text;
    assert!(log.lines().count() == 1 && log.contains("log_removed") && log.contains("90"), "{log}");
    assert_eq!(server.get(&format!("builds/{}/events", ids[0])).await.text.lines().count(), 1);
    for (language, said) in [("en", "The log was removed after 90 days"), ("ko", "90일이 지나 로그를 삭제했습니다")]
    {
        let page = server.browser(Method::GET, &format!("/services/edit/{service}?build=run&id={}", ids[0]));
        let page = server.send(page.header("accept-language", language)).await;
        assert!(page.text.contains(said), "{language}: the page does not say it");
    }
    assert_eq!(server.get(&builds).await.ok()["builds"].as_array().unwrap().len(), 2, "the builds stay");
    assert_eq!(build(&ids[1]).await["log_removed_at"], Value::Null, "the newest keeps its log");
    assert!(server.get(&format!("builds/{}/log", ids[1])).await.text.contains("queued"));
}
