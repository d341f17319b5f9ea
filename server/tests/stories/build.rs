//! Builds from the click to the image, on the real store, agent, BuildKit, registry and Git host.

use super::Place;
use crate::builds_rig::*;
use futures::StreamExt;
use kiops_app::backend::Builds as _;
use kiops_app::model::*;
use kiops_events::{BuildView, EventKind, Marker, Row, StoredEvent};
use std::borrow::Cow;

pub const HELLO: &str = "FROM alpine:3\nRUN echo hello from a step\nCOPY . /app\n";

pub async fn a_click_becomes_an_image_in_the_registry(place: &impl Place) {
    let world = place.world().await;
    // Nobody chose its size.
    let repo = world.hosts.repo(HELLO).await;
    let settings = BuildSettings::default();
    let service = world.service_with(&repo, settings, world.registry_config(), Credentials::default()).await;
    let started = world.builds.start(&world.caller, &service, on("main")).await.unwrap();
    assert_eq!(started.number, 1);
    let row = world.over(&started.id).await;
    assert_eq!(row.status, BuildStatus::Success, "{}\n{}", world.log(&started.id).await, world.agent_logs());

    let detail = world.detail(&started.id).await;
    let image = detail.head.image_tag.clone().unwrap();
    let (repository, tag) = image.split_once('/').unwrap().1.rsplit_once(':').unwrap();
    assert_eq!(tag, format!("main-1-{}", detail.head.short_commit()));
    let manifest = world.hosts.registry.manifest(repository, tag).await.unwrap().unwrap();
    assert_eq!(detail.head.digest.as_deref(), Some(manifest.digest.as_str()));
    let sizes = manifest.body["layers"].as_array().unwrap().iter().chain([&manifest.body["config"]]);
    let sum: i64 = sizes.map(|part| part["size"].as_i64().unwrap()).sum();
    assert_eq!(detail.head.image_size_bytes, Some(sum));
    let config = world.hosts.registry.image_config(repository, tag).await.unwrap();
    let labels = &config["config"]["Labels"];
    assert_eq!(
        (labels["io.kiops.build"].as_str(), labels["io.kiops.attempt"].as_str()),
        (Some(started.id.as_str()), Some("1"))
    );

    assert_eq!(
        (detail.log_verified, detail.diagnosis.clone(), detail.head.failure_code.clone()),
        (Some(true), None, None)
    );
    assert!(detail.steps.iter().all(|step| step.marker != Marker::Running && step.marker != Marker::Waiting));
    assert!(detail.steps.iter().any(|step| step.name.contains("RUN echo hello") && step.marker == Marker::Done));
    assert_eq!(detail.head.resolved_profile, Some(Profile::Medium));
    let log = world.log(&started.id).await;
    assert!(log.starts_with("--- queued\n"), "{log}");
    assert!(log.lines().any(|line| line.starts_with('#') && line.ends_with(" hello from a step")), "{log}");
    assert!(log.contains("--- pushed "), "{log}");

    // What is stored follows without a hole, and folds to what is shown.
    let mut view = BuildView::default();
    for (i, (pos, attempt, _, kind)) in (1u64..).zip(world.events(&started.id).await) {
        assert_eq!(i, pos);
        view.apply(pos, attempt, 0, &kind);
    }
    let stored = world.store.progress(&started.id).await.unwrap().view;
    assert_eq!((view.pos, view.rows, &view.steps), (stored.pos, stored.rows, &stored.steps));
    world.released(&started.id).await;

    // The same again takes every step from the cache.
    let again = world.start(&service).await;
    assert_eq!(world.over(&again).await.status, BuildStatus::Success);
    let detail = world.detail(&again).await;
    assert!(detail.cached_steps >= 2, "{:#?}", detail.steps);
}

pub async fn a_failure_says_why_and_where(place: &impl Place) {
    let world = place.world().await;
    let service = world.service_of("FROM alpine:3\nRUN echo one && echo npm error code E404 && exit 3\n").await;
    let id = world.start(&service).await;
    assert_eq!(world.over(&id).await.status, BuildStatus::Failure);
    let detail = world.detail(&id).await;
    assert_eq!((detail.log_verified, detail.head.digest, detail.head.image_tag), (Some(true), None, None));
    assert_eq!(detail.head.failure_code.as_deref(), Some("npm"));
    let diagnosis = detail.diagnosis.unwrap();
    assert_eq!((diagnosis.group.as_str(), diagnosis.code.as_str()), ("build_failure", "npm"));
    assert_eq!(diagnosis.arguments["exit_code"], "3");
    // The evidence is an address: the row that it names is the line.
    let line = &diagnosis.evidence[0];
    let page = world.builds.rows(&world.caller, &id, line.row, 1).await.unwrap();
    assert_eq!((page.rows[0].text.as_str(), page.rows[0].line), ("npm error code E404", Some(line.line)));

    let syntax = world.service_of("FROM alpine:3\nRUNN x\n").await;
    let id = world.start(&syntax).await;
    assert_eq!(world.over(&id).await.failure_code.as_deref(), Some("dockerfile_syntax"));
    assert_eq!(world.detail(&id).await.diagnosis.unwrap().arguments["line"], "2");

    let base = world.service_of("FROM no/such/image:1\n").await;
    let id = world.start(&base).await;
    assert_eq!(world.over(&id).await.failure_code.as_deref(), Some("base_not_found"));

    let copy = world.service_of("FROM alpine:3\nCOPY missing.txt /\n").await;
    let id = world.start(&copy).await;
    let code = world.over(&id).await.failure_code;
    assert_eq!(code.as_deref(), Some("copy_missing"), "{}", world.log(&id).await);
}

pub async fn what_git_and_the_registry_refuse_is_told_apart(place: &impl Place) {
    let world = place.world().await;
    let repo = world.hosts.repo(HELLO).await;
    let service = world.service(&repo).await;
    // A branch that is not there is noticed before anything is queued.
    assert_eq!(code(world.builds.start(&world.caller, &service, on("nowhere")).await), "git_ref");
    // A commit that can no longer be fetched is noticed by the agent.
    let gone = StartBuild { commit: Some("1".repeat(40)), ..on("main") };
    let id = world.builds.start(&world.caller, &service, gone).await.unwrap().id;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.failure_code.as_deref()), (BuildStatus::Failure, Some("git_ref")));
    assert_eq!(row.diagnosis.unwrap().group, "clone");
    // A commit that the branch has left behind is built exactly.
    let old = repo.head("main").await.unwrap();
    repo.commit("main", &[("new", b"x")], "Moved on").await.unwrap();
    let seen = StartBuild { commit: Some(old.clone()), ..on("main") };
    let id = world.builds.start(&world.caller, &service, seen).await.unwrap().id;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.commit), (BuildStatus::Success, old));

    let mut registry = world.registry_config();
    registry.host = world.seen(&format!("127.0.0.1:{}", kiops_rig::free_port()));
    let service = world.service_with(&repo, world.settings(), registry, Credentials::default()).await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!(row.status, BuildStatus::Failure);
    assert_eq!(
        (row.failure_code.as_deref(), row.diagnosis.unwrap().group.as_str()),
        (Some("network"), "image_push_failure")
    );
}

pub async fn a_live_page_sees_everything_once(place: &impl Place) {
    let world = place.world().await;
    let service =
        world.service_of("FROM alpine:3\nRUN for i in $(seq 1 40); do echo line $i; sleep 0.05; done\n").await;
    let id = world.start(&service).await;
    let mut stream = Box::pin(world.builds.watch(&world.caller, &id).await.unwrap());
    let Some(LiveMessage::Snapshot(first)) = stream.next().await else { panic!("no snapshot") };
    assert_eq!(first.tail.total, first.view.rows);
    let (mut view, mut rows) = (first.view, first.tail.rows);
    let mut statuses = vec![first.build.head.status];
    let mut messages = 0;
    while let Some(message) = stream.next().await {
        let LiveMessage::Patch(patch) = message else { panic!("a second snapshot") };
        messages += 1;
        assert!(patch.view.pos >= view.pos);
        if let Some(tail) = patch.tail {
            assert_eq!(tail.first, rows.len() as u64, "a hole or a repeat in a short log");
            rows.extend(tail.rows);
            assert_eq!(tail.total, patch.view.rows);
        }
        view.apply_patch(patch.view);
        assert_eq!(view.rows, rows.len() as u64);
        if let Some(build) = patch.build
            && statuses.last() != Some(&build.head.status)
        {
            statuses.push(build.head.status);
        }
    }
    assert_eq!(statuses.last(), Some(&BuildStatus::Success), "{statuses:?}");
    assert!(statuses.windows(2).all(|w| w[0].rank() < w[1].rank()), "{statuses:?}");
    assert!(messages > 5, "only {messages} messages");
    assert_eq!(view, world.store.progress(&id).await.unwrap().view);
    let stored = world.builds.rows(&world.caller, &id, 0, 2_000).await.unwrap();
    assert_eq!(stored.rows, rows);
    // Somebody who comes later sees the end and nothing more.
    let late: Vec<_> = world.builds.watch(&world.caller, &id).await.unwrap().collect().await;
    assert_eq!(late.len(), 1);
}

pub async fn scripts_follow_the_events_and_search_the_log(place: &impl Place) {
    let world = place.world().await;
    let service = world.service_of("FROM alpine:3\nRUN echo NEEDLE in a stack; sleep 0.3; echo another needle\n").await;
    let id = world.start(&service).await;
    let followed = text_of(world.builds.events(&world.caller, &id, 0).await.unwrap()).await;
    let events: Vec<StoredEvent> = followed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stored = world.events(&id).await;
    assert_eq!(events.len(), stored.len());
    assert!(events.iter().zip(&stored).all(|(e, s)| (e.pos, e.attempt, e.seq, &e.kind) == (s.0, s.1, s.2, &s.3)));
    assert!(events.windows(2).all(|w| w[0].at_ms <= w[1].at_ms));
    let row = world.row(&id).await;
    assert!(events.iter().all(|e| e.at_ms >= row.queued_at - 50 && e.at_ms <= row.finished_at.unwrap() + 50));
    let half = text_of(world.builds.events(&world.caller, &id, events[4].pos).await.unwrap()).await;
    assert_eq!(half.lines().count(), events.len() - 5);

    fn as_written(row: &Row) -> Cow<'_, str> {
        Cow::Borrowed(&row.text)
    }
    let search = |text: &'static str, from| world.builds.search(&world.caller, &id, text, from, &as_written);
    let first = search("needle IN", 0).await.unwrap().unwrap().row;
    let row = |at| world.builds.rows(&world.caller, &id, at, 1);
    assert!(row(first).await.unwrap().rows[0].text.contains("NEEDLE in a stack"));
    let mut at = first;
    let mut hits = 0;
    while let Some(hit) = search("needle", at).await.unwrap() {
        assert!(row(hit.row).await.unwrap().rows[0].text.to_lowercase().contains("needle"));
        (at, hits) = (hit.row + 1, hits + 1);
    }
    assert!(hits >= 2);
    assert_eq!(search("not there", 0).await.unwrap(), None);
}

pub async fn secrets_stay_out_of_spool_store_and_text(place: &impl Place) {
    const TOKEN: &str = "glpat-Zx9\"quoted\\and-long";
    const PASSWORD: &str = "registry-pass-word-77";
    let world = place.world().await;
    let registry = kiops_rig::Registry::start(kiops_rig::RegistryOptions {
        login: Some(kiops_rig::Login { user: "robot".into(), password: PASSWORD.into() }),
        ..Default::default()
    })
    .await
    .unwrap();
    let git = kiops_rig::GitServer::start(kiops_rig::GitOptions { token: Some(TOKEN.into()), ..Default::default() })
        .await
        .unwrap();
    world.let_in(&registry.address()).await;
    world.let_in(&git.url()).await;
    let repo = git.new_repo("secret").await.unwrap();
    let dockerfile =
        format!("FROM alpine:3\nCOPY t /t\nRUN cat /t; base64 /t; echo {PASSWORD}; echo {PASSWORD} | base64\n");
    repo.commit("main", &[("Dockerfile", dockerfile.as_bytes()), ("t", TOKEN.as_bytes())], "x").await.unwrap();
    let config = RegistryConfig {
        host: world.seen(&registry.address()),
        username: "robot".into(),
        has_password: true,
        ..world.registry_config()
    };
    let credentials = Credentials { git_token: Some(TOKEN), registry_password: Some(PASSWORD) };
    let service = world.service_with(&repo, world.settings(), config, credentials).await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!(row.status, BuildStatus::Success, "{}", world.log(&id).await);
    assert_eq!(row.log_verified, Some(true));
    let log = world.log(&id).await;
    assert!(log.contains("***"), "{log}");
    let events = text_of(world.builds.events(&world.caller, &id, 0).await.unwrap()).await;
    let spelled = serde_json::to_string(TOKEN).unwrap();
    for text in [&log, &events] {
        for secret in [TOKEN, PASSWORD, spelled.trim_matches('"'), "cmVnaXN0cnktcGFzcy13b3JkLTc3"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

pub async fn the_cache_keeps_what_has_not_changed(place: &impl Place) {
    let world = place.world().await;
    let dockerfile = "FROM alpine:3\nCOPY wanted /wanted\nRUN echo installing $(cat /wanted)\n\
                      COPY source /source\nRUN echo compiling $(cat /source)\n";
    let repo = world.hosts.repo(dockerfile).await;
    // Nobody has built that before.
    let [wanted, one, two] = ["wanted", "one", "two"].map(|part| world.hosts.name(part));
    repo.commit("main", &[("wanted", wanted.as_bytes()), ("source", one.as_bytes())], "One").await.unwrap();
    let service = world.service(&repo).await;
    let markers = async || {
        let id = world.start(&service).await;
        assert_eq!(world.over(&id).await.status, BuildStatus::Success, "{}", world.log(&id).await);
        let steps = world.detail(&id).await.steps;
        ["COPY wanted", "RUN echo installing", "COPY source", "RUN echo compiling"].map(|name| {
            let step = steps.iter().find(|step| step.name.contains(name));
            step.unwrap_or_else(|| panic!("no {name} in {steps:#?}")).marker
        })
    };
    assert_eq!(markers().await, [Marker::Done; 4], "nothing is there for a first build");
    assert_eq!(markers().await, [Marker::Cached; 4], "the same again");
    repo.commit("main", &[("source", two.as_bytes())], "Two").await.unwrap();
    let changed = [Marker::Cached, Marker::Cached, Marker::Done, Marker::Done];
    assert_eq!(markers().await, changed, "only the source has changed");
}

pub async fn no_cache_reuses_nothing_and_later_builds_go_on_from_it(place: &impl Place) {
    let world = place.world().await;
    let repo =
        world.hosts.repo("FROM alpine:3\nRUN --mount=type=cache,target=/c date +%N >> /c/runs && cat /c/runs\n").await;
    let settings = BuildSettings { no_cache: true, ..world.settings() };
    let service = world.service_with(&repo, settings.clone(), world.registry_config(), Credentials::default()).await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let id = world.start(&service).await;
        assert_eq!(world.over(&id).await.status, BuildStatus::Success, "{}", world.log(&id).await);
        let detail = world.detail(&id).await;
        assert!(detail.head.no_cache);
        assert!(detail.steps.iter().filter(|s| s.name.contains("RUN")).all(|s| s.marker == Marker::Done));
        let step = detail.steps.iter().find(|s| s.name.contains("RUN")).unwrap().number;
        let of_step = |e: &EventKind| match e {
            EventKind::Lines(l) if l.place == kiops_events::Place::Step(step) => l.count(),
            _ => 0,
        };
        runs.push(world.events(&id).await.iter().map(|e| of_step(&e.3)).sum::<u64>());
    }
    // Each found an empty cache mount.
    assert_eq!(runs, [1, 1]);
    let generation = world.store.service(&world.caller.org_id, &service).await.unwrap().cache_generation;
    assert_eq!(generation, 3);
    let settings = BuildSettings { no_cache: false, ..settings };
    world.store.save_settings(&world.caller.org_id, &service, &settings, None).await.unwrap();
    let id = world.start(&service).await;
    assert_eq!(world.row(&id).await.snapshot.cache_generation, 3);
    assert_eq!(world.over(&id).await.status, BuildStatus::Success);
}

pub async fn a_registry_that_refuses_the_login_is_told_as_such(place: &impl Place) {
    let world = place.world().await;
    let login = kiops_rig::Login { user: "robot".into(), password: "the-right-password".into() };
    let options = kiops_rig::RegistryOptions { login: Some(login), ..Default::default() };
    let registry = kiops_rig::Registry::start(options).await.unwrap();
    world.let_in(&registry.address()).await;
    let repo = world.hosts.repo(HELLO).await;
    let config = RegistryConfig {
        host: world.seen(&registry.address()),
        username: "robot".into(),
        has_password: true,
        ..world.registry_config()
    };
    let credentials = Credentials { registry_password: Some("a-wrong-password"), ..Credentials::default() };
    let service = world.service_with(&repo, world.settings(), config, credentials).await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.failure_code.as_deref()), (BuildStatus::Failure, Some("push_auth")));
    let diagnosis = row.diagnosis.unwrap();
    assert_eq!(
        (diagnosis.group.as_str(), diagnosis.actions),
        ("image_push_failure", vec!["registry_settings".to_owned()])
    );
    assert!(!world.log(&id).await.contains("a-wrong-password"));
}

pub async fn everybody_who_watches_sees_the_same(place: &impl Place) {
    let world = place.world().await;
    let service =
        world.service_of("FROM alpine:3\nRUN for i in $(seq 1 60); do echo line $i; sleep 0.03; done\n").await;
    let id = world.start(&service).await;
    let watch = async |from_line: Option<&str>| {
        if let Some(line) = from_line {
            world.until_log(&id, line).await;
        }
        let mut stream = Box::pin(world.builds.watch(&world.caller, &id).await.unwrap());
        let Some(LiveMessage::Snapshot(first)) = stream.next().await else { panic!("no snapshot") };
        let (mut view, mut rows) = (first.view, first.tail.rows);
        while let Some(message) = stream.next().await {
            let LiveMessage::Patch(patch) = message else { panic!("a second snapshot") };
            if let Some(tail) = patch.tail {
                assert_eq!(tail.first, rows.len() as u64);
                rows.extend(tail.rows);
            }
            view.apply_patch(patch.view);
        }
        (view, rows)
    };
    let (early, late, later) = tokio::join!(watch(None), watch(Some("line 10")), watch(Some("line 30")));
    assert!(early.1.iter().any(|row| row.text == "line 60"));
    assert!(early == late && late == later, "they saw different things");
}
