//! Builds with the real Git, BuildKit and registry: what succeeds, and what a person has to put right.

mod common;

use common::lab;
use kiops_events::event::{AgentEnd, EventKind, Outcome, Phase};
use kiops_events::spec::DockerfileSpec;

#[tokio::test]
async fn a_build_ends_with_its_digest_in_the_registry() {
    let lab = lab().await;
    let attempt = lab
        .attempt_with(&[
            ("Dockerfile", "FROM alpine:3 AS base\nRUN echo hello && sleep 0.1\nFROM base\nCOPY . /app\n"),
            ("file.txt", "content"),
        ])
        .await;
    let reference = attempt.spec.image.references[0].clone();
    let repository = reference.split_once('/').unwrap().1.split_once(':').unwrap().0.to_owned();
    let (build, commit) = (attempt.spec.build.clone(), attempt.spec.source.commit.clone());
    let story = attempt.run().await;

    let result = story.result();
    assert_eq!((result.end, result.exit_code), (AgentEnd::Success, Some(0)), "{}", story.text());
    assert_eq!(story.exit.code(), Some(0));
    let manifest = lab.registry.manifest(&repository, "1").await.unwrap().unwrap();
    assert_eq!(result.digest.as_deref(), Some(manifest.digest.as_str()));
    let config = lab.registry.image_config(&repository, "1").await.unwrap();
    assert_eq!(config["config"]["Labels"]["kiops.build"], build.as_str());
    assert!(result.push_began);

    let phases: Vec<Phase> = story
        .events
        .iter()
        .filter_map(|e| match e.kind {
            EventKind::PhaseEntered { phase } => Some(phase),
            _ => None,
        })
        .collect();
    assert_eq!(phases, [Phase::Checkout, Phase::Preflight, Phase::Daemon, Phase::Build, Phase::Push]);
    assert_eq!(story.lines_of("RUN echo hello"), ["hello"]);
    let note = story.note("commit").unwrap();
    assert_eq!(
        (note["sha"].as_str(), note["subject"].as_str(), note["author"].as_str()),
        (commit.as_str(), "The subject", "Rig")
    );
    assert_eq!(story.note("dockerfile").unwrap()["path"], "Dockerfile");
    assert!(story.note("dockerignore_missing").is_some());
    assert!(story.events.windows(2).all(|w| w[0].offset_ms <= w[1].offset_ms));
}

#[tokio::test]
async fn the_same_commit_again_is_cached() {
    let lab = lab().await;
    let dockerfile = "FROM alpine:3\nCOPY . /app\nRUN echo $(cat /proc/sys/kernel/random/uuid) > /made\n";
    let first = lab.attempt_with(&[("Dockerfile", dockerfile), ("a", "a")]).await;
    let mut second = lab.attempt(&first.spec.source.url, &first.spec.source.commit);
    second.spec.cache.mount_namespace = first.spec.cache.mount_namespace.clone();
    assert_eq!(first.run().await.outcome("RUN echo"), Outcome::Done);
    let story = second.run().await;
    assert_eq!((story.outcome("COPY . /app"), story.outcome("RUN echo")), (Outcome::Cached, Outcome::Cached));
}

#[tokio::test]
async fn a_registry_cache_serves_and_no_cache_does_not_use_it() {
    let lab = lab().await;
    let dockerfile = "FROM alpine:3\nRUN echo the only step\n";
    let (repo, commit) = lab.repo(&[("Dockerfile", dockerfile)]).await;
    let attempt = |no_cache| {
        let mut attempt = lab.attempt(repo.url(), &commit);
        attempt.spec.cache.reference = Some(format!("{}/test/cache:svc", lab.registry.address()));
        attempt.spec.cache.mount_namespace = "cached-1".into();
        attempt.spec.cache.no_cache = no_cache;
        attempt
    };
    let first = attempt(false).run().await;
    assert_eq!(first.result().end, AgentEnd::Success);
    // A cache that is not there yet is no failure.
    assert_eq!(first.outcome("importing cache manifest"), Outcome::Error);
    let second = attempt(false).run().await;
    assert_eq!((second.result().end, second.outcome("RUN echo")), (AgentEnd::Success, Outcome::Cached));
    assert_eq!(second.outcome("importing cache manifest"), Outcome::Done);
    let third = attempt(true).run().await;
    assert_eq!((third.result().end, third.outcome("RUN echo")), (AgentEnd::Success, Outcome::Done));
}

#[tokio::test]
async fn a_failing_step_fails_the_build_with_its_exit_code() {
    let lab = lab().await;
    let story = lab.attempt_of("FROM alpine:3\nRUN echo before; echo why >&2; exit 42\n").await.run().await;
    let result = story.result();
    assert_eq!((result.end, result.exit_code, result.digest.as_deref()), (AgentEnd::Failure, Some(1), None));
    assert_eq!(story.exit.code(), Some(1));
    assert_eq!(story.outcome("RUN echo before"), Outcome::Error);
    let mut lines = story.lines_of("RUN echo before");
    lines.sort();
    assert_eq!(lines, ["before", "why"]);
    assert!(story.text().contains("exit code: 42"));
    assert!(!result.push_began);
}

#[tokio::test]
async fn a_dockerfile_with_a_mistake_is_told_by_buildctls_text() {
    let lab = lab().await;
    let story = lab.attempt_of("FROM alpine:3\nRUNN x\n").await.run().await;
    assert_eq!(story.result().end, AgentEnd::Failure);
    assert!(
        story.text().contains("error: failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN")
    );
    assert!(story.text().contains("   2 | >>> RUNN x"));
}

#[tokio::test]
async fn a_syntax_line_pulls_no_frontend() {
    let lab = lab().await;
    let story = lab.attempt_of("# syntax=docker/dockerfile:1.99\nFROM alpine:3\n").await.run().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
}

#[tokio::test]
async fn a_missing_dockerfile_is_said_before_buildkit_starts() {
    let lab = lab().await;
    let story = lab.attempt_with(&[("README", "x"), ("Dockerfile.prod", "FROM scratch")]).await.run().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Failure, "dockerfile_missing"));
    assert_eq!(story.result().args["also"], "Dockerfile.prod");
    assert!(!story.text().contains("phase daemon"));

    let story = lab.attempt_with(&[("dockerfile", "FROM scratch")]).await.run().await;
    assert_eq!((story.code(), story.result().args["found"].as_str()), ("dockerfile_case", "dockerfile"));

    let mut attempt = lab.attempt_with(&[("web/Dockerfile", "FROM alpine:3\nCOPY top /\n"), ("top", "x")]).await;
    attempt.spec.dockerfile = DockerfileSpec::Path { path: "web/Dockerfile".into() };
    let story = attempt.run().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
}

#[tokio::test]
async fn a_generated_dockerfile_and_its_ignore_file_are_used() {
    let lab = lab().await;
    let mut attempt = lab.attempt_with(&[("keep", "x"), ("secret.md", "y")]).await;
    attempt.spec.dockerfile = DockerfileSpec::Inline {
        dockerfile: "FROM alpine:3\nCOPY . /app\nRUN ls /app\n".into(),
        dockerignore: "*.md\n".into(),
    };
    let story = attempt.run().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    assert_eq!(story.lines_of("RUN ls /app"), ["keep"]);
}

#[tokio::test]
async fn an_ignore_file_of_the_repository_is_honoured_and_git_stays_outside() {
    let lab = lab().await;
    let story = lab
        .attempt_with(&[
            ("Dockerfile", "FROM alpine:3\nCOPY . /app\nRUN ls -a /app\n"),
            (".dockerignore", "out\n"),
            ("out/x", "x"),
        ])
        .await
        .run()
        .await;
    assert_eq!(story.lines_of("RUN ls"), [".", "..", ".dockerignore", "Dockerfile"]);
    assert!(story.note("dockerignore_missing").is_none());
}

#[tokio::test]
async fn a_wrong_registry_password_fails_and_is_not_shown() {
    use base64::Engine;
    let lab = lab().await;
    let login = kiops_rig::Login { user: "robot".into(), password: "right-password".into() };
    let options = kiops_rig::RegistryOptions { login: Some(login), ..Default::default() };
    let registry = kiops_rig::Registry::start(options).await.unwrap();
    let auth = |password: &str| base64::engine::general_purpose::STANDARD.encode(format!("robot:{password}"));
    for (password, end) in [("wrong-password", AgentEnd::Failure), ("right-password", AgentEnd::Success)] {
        let mut attempt = lab.attempt_of("FROM alpine:3\nRUN echo pushed nowhere\n").await;
        attempt.spec.image.references = vec![format!("{}/p/image:1", registry.address())];
        let config = serde_json::json!({"auths": {registry.address(): {"auth": auth(password)}}});
        std::fs::write(attempt.at("docker/config.json"), config.to_string()).unwrap();
        let story = attempt.run().await;
        assert_eq!(story.result().end, end, "{}", story.text());
        assert!(!story.text().contains(password) && !story.text().contains(&auth(password)));
        if end == AgentEnd::Failure {
            assert!(story.text().contains("401 Unauthorized"), "{}", story.text());
        }
    }
}

#[tokio::test]
async fn a_registry_that_is_down_fails_the_build_and_not_the_infrastructure() {
    let lab = lab().await;
    let mut attempt = lab.attempt_of("FROM alpine:3\n").await;
    attempt.spec.image.references = vec![format!("127.0.0.1:{}/p/image:1", kiops_rig::free_port())];
    let story = attempt.run().await;
    assert_eq!(story.result().end, AgentEnd::Failure, "{}", story.text());
    assert!(story.text().contains("connection refused"), "{}", story.text());
}

#[tokio::test]
async fn output_of_every_kind_arrives_readable() {
    let lab = lab().await;
    let dockerfile = concat!(
        "FROM alpine:3\n",
        "RUN printf '\\033[31mred\\033[0m\\n'; printf 'bin\\000\\377\\376x\\n'; printf '10%%\\r50%%\\r100%%\\n'; ",
        "printf 'dos\\r\\n'; printf '\\355\\225\\234\\n'; printf 'no end'\n",
        "RUN head -c 10000000 /dev/zero | tr '\\000' x\n",
    );
    let story = lab.attempt_of(dockerfile).await.run().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    assert_eq!(
        story.lines_of("RUN printf"),
        ["\u{1b}[31mred\u{1b}[0m", "bin\u{FFFD}\u{FFFD}\u{FFFD}x", "100%", "dos", "한", "no end"]
    );
    let long = story.lines_of("RUN head");
    assert_eq!(long.iter().map(String::len).sum::<usize>(), 10_000_000);
    assert!(long.iter().all(|l| l.len() <= kiops_events::event::MAX_LINE_BYTES));
}
