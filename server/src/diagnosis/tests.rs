//! Texts as BuildKit v0.32.2, registries and tools printed them.

use super::*;

fn lines(place: Place, texts: &[&str]) -> Vec<LogLine> {
    (1u64..).zip(texts).map(|(line, text)| LogLine { place, line, row: 100 + line, text: (*text).to_owned() }).collect()
}

fn step(number: u32, name: &str, error: &str, output: &[&str]) -> FailedStep {
    FailedStep { number, name: name.into(), error: error.into(), lines: lines(Place::Step(number), output) }
}

fn trailing(texts: &[&str]) -> Vec<LogLine> {
    lines(Place::Phase(Phase::Buildctl), texts)
}

fn failed(steps: Vec<FailedStep>, last: &[&str]) -> Failure {
    Failure {
        attempt: 1,
        phase: Some(Phase::Build),
        failed_steps: steps,
        trailing: trailing(last),
        ..Failure::default()
    }
}

const EXPORT: &str = "exporting to image";

fn pushed(error: &str) -> Failure {
    let last = format!("error: failed to solve: {error}");
    Failure { phase: Some(Phase::Push), ..failed(vec![step(7, EXPORT, error, &[])], &[&last]) }
}

fn based(reference: &str, error: &str) -> Failure {
    let name = format!("[internal] load metadata for {reference}");
    let last =
        format!("error: failed to solve: {reference}: failed to resolve source metadata for {reference}: {error}");
    failed(vec![step(2, &name, error, &[])], &[&last])
}

fn ran(command: &str, code: i32, output: &[&str]) -> Failure {
    let error = format!("process \"/bin/sh -c {command}\" did not complete successfully: exit code: {code}");
    let last = format!("error: failed to solve: {error}");
    failed(vec![step(5, &format!("[2/3] RUN {command}"), &error, output)], &["Dockerfile:2", "--------", &last])
}

#[test]
fn measured_texts_find_their_class() {
    let copy = |error: &str| {
        let last = format!("error: failed to solve: {error}");
        failed(vec![step(4, "[2/2] COPY missing.txt /", error, &[])], &[&last])
    };
    let cases: Vec<(&str, &str, Failure)> = vec![
        // Dockerfile: no step is marked.
        (
            "dockerfile_not_found",
            "dockerfile_missing",
            failed(
                vec![],
                &["error: failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory"],
            ),
        ),
        (
            "build_failure",
            "dockerfile_syntax",
            failed(vec![], &["error: failed to solve: dockerfile parse error on line 3: unknown instruction: RUNN"]),
        ),
        (
            "build_failure",
            "dockerfile_syntax",
            failed(vec![], &["error: failed to solve: the Dockerfile cannot be empty"]),
        ),
        (
            "build_failure",
            "dockerfile_syntax",
            failed(vec![], &["error: failed to solve: Dockerfile is not a regular file"]),
        ),
        (
            "build_failure",
            "dockerfile_syntax",
            failed(vec![], &["error: failed to solve: circular dependency detected on stage: a"]),
        ),
        (
            "build_failure",
            "dockerfile_syntax",
            failed(vec![], &["error: failed to solve: base name (${X}) should not be blank"]),
        ),
        ("build_failure", "dockerfile_syntax", failed(vec![], &["error: failed to solve: unterminated heredoc"])),
        (
            "build_failure",
            "frontend_blocked",
            failed(vec![], &["error: failed to solve: invalid frontend: gateway.v0"]),
        ),
        (
            "build_failure",
            "entitlement",
            failed(vec![], &["error: failed to solve: failed to load LLB: network.host is not allowed"]),
        ),
        (
            "build_failure",
            "policy",
            failed(
                vec![],
                &["error: failed to solve: source \"docker-image://x\" denied by policy: source denied by policy"],
            ),
        ),
        // Base images.
        ("build_failure", "base_not_found", based("docker.io/library/nope:1", "docker.io/library/nope:1: not found")),
        (
            "build_failure",
            "base_not_found",
            based(
                "docker.io/library/biulder:latest",
                "docker.io/library/biulder:latest: not found (did you mean builder?)",
            ),
        ),
        (
            "build_failure",
            "base_auth",
            based(
                "r.example/p/x:1",
                "unexpected status from HEAD request to https://r.example/v2/p/x/manifests/1: 401 Unauthorized",
            ),
        ),
        (
            "build_failure",
            "base_auth",
            based(
                "docker.io/a/b:1",
                "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
            ),
        ),
        (
            "build_failure",
            "rate_limited",
            based(
                "docker.io/library/node:20",
                "unexpected status from HEAD request to https://x: 429 Too Many Requests",
            ),
        ),
        (
            "build_failure",
            "tls",
            based(
                "r.example/x:1",
                "failed to do request: Head \"https://r.example/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
        ),
        (
            "build_failure",
            "dns",
            based(
                "r.invalid/x:1",
                "failed to do request: Head \"https://r.invalid/v2/\": dial tcp: lookup r.invalid: no such host",
            ),
        ),
        (
            "build_failure",
            "network",
            based(
                "127.0.0.1:1/x:1",
                "failed to do request: Head \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            ),
        ),
        // COPY and ADD.
        (
            "build_failure",
            "copy_missing",
            copy("failed to compute cache key: failed to calculate checksum of ref 8::x: \"/missing.txt\": not found"),
        ),
        (
            "build_failure",
            "copy_missing",
            failed(
                vec![step(
                    3,
                    "[2/2] ADD http://127.0.0.1/x /",
                    "failed to load cache key: invalid response status 404",
                    &[],
                )],
                &["error: failed to solve: failed to load cache key: invalid response status 404"],
            ),
        ),
        // A full disk in the words of a COPY.
        (
            "infrastructure",
            "disk_full",
            failed(
                vec![step(
                    3,
                    "[1/2] FROM docker.io/library/node:20",
                    "ResourceExhausted: failed to compute cache key: failed to copy: write /x: no space left on device",
                    &[],
                )],
                &[],
            ),
        ),
        // RUN.
        ("build_failure", "npm", ran("npm ci", 1, &["npm ERR! code ERESOLVE", "npm ERR! Could not resolve"])),
        ("build_failure", "npm", ran("npm ci", 1, &["npm error code E404", "npm error 404 'x' could not be found"])),
        ("build_failure", "npm", ran("yarn", 1, &["error Couldn't find package \"x\" on the \"npm\" registry."])),
        ("build_failure", "npm", ran("pnpm i", 1, &[" ERR_PNPM_OUTDATED_LOCKFILE  Cannot install"])),
        ("build_failure", "npm", ran("npm ci", 1, &["npm error code EACCES", "npm error permission denied"])),
        ("build_failure", "permission", ran("./run.sh", 126, &["/bin/sh: ./run.sh: Permission denied"])),
        ("build_failure", "permission", ran("mkdir /x", 1, &["mkdir: can't create directory '/x': Permission denied"])),
        (
            "build_failure",
            "permission",
            ran("x", 1, &["runc run failed: unable to start container process: exec: \"x\": permission denied"]),
        ),
        (
            "build_failure",
            "platform",
            ran("./arm", 126, &["/bin/sh: ./arm: cannot execute binary file: Exec format error"]),
        ),
        (
            "build_failure",
            "platform",
            ran(
                "./arm",
                1,
                &["runc run failed: unable to start container process: exec: \"./arm\": exec format error"],
            ),
        ),
        ("build_failure", "not_executable", ran("gcc x", 127, &["/bin/sh: gcc: not found"])),
        (
            "build_failure",
            "not_executable",
            ran(
                "x",
                1,
                &[
                    "runc run failed: unable to start container process: exec: \"x\": executable file not found in $PATH",
                ],
            ),
        ),
        ("build_failure", "run_failed", ran("false", 1, &["a test failed"])),
        ("build_failure", "run_failed", ran("kill -9 $$", 137, &[])),
        ("build_failure", "dns", ran("curl x", 6, &["curl: (6) Could not resolve host: x"])),
        (
            "build_failure",
            "secret_missing",
            failed(
                vec![step(4, "[2/2] RUN --mount=type=secret,id=x,required cat /x", "secret x: not found", &[])],
                &[],
            ),
        ),
        (
            "build_failure",
            "ssh_missing",
            failed(
                vec![step(
                    4,
                    "[2/2] RUN --mount=type=ssh ssh-add -l",
                    "no SSH key \"\" forwarded from the client",
                    &[],
                )],
                &[],
            ),
        ),
        ("build_failure", "oom", ran("make", 1, &[]).with_oom(1)),
        (
            "build_failure",
            "oom",
            failed(
                vec![step(
                    4,
                    "[2/2] RUN x",
                    "ResourceExhausted: process \"/bin/sh -c x\" did not complete successfully: cannot allocate memory",
                    &[],
                )],
                &[],
            ),
        ),
        // A step's own words about pushes and daemons are its own.
        (
            "build_failure",
            "run_failed",
            ran("deploy", 1, &["401 Unauthorized", "failed to push", "rpc error: code = Unavailable"]),
        ),
        ("build_failure", "run_failed", ran("echo 'no active session for x' && false", 1, &[])),
        // Push.
        (
            "image_push_failure",
            "push_auth",
            pushed(
                "failed to push r/x:1: failed to authorize: failed to fetch oauth token: unexpected status from POST request to https://a/token: 401 Unauthorized",
            ),
        ),
        (
            "image_push_failure",
            "push_auth",
            pushed(
                "failed to push r/x:1: unexpected status from HEAD request to http://r/v2/x/blobs/sha256:1: 401 Unauthorized",
            ),
        ),
        (
            "image_push_failure",
            "push_denied",
            pushed(
                "failed to push r/x:1: push access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
            ),
        ),
        (
            "image_push_failure",
            "push_denied",
            pushed(
                "failed to push r/x:1: unauthorized: unauthorized to access repository: P/R, action: push: unauthorized to access repository: P/R, action: push",
            ),
        ),
        (
            "image_push_failure",
            "push_denied",
            pushed(
                "failed to push r/x:1: unexpected status from POST request to http://r/v2/x/blobs/uploads/: 403 Forbidden: <html>",
            ),
        ),
        (
            "image_push_failure",
            "push_denied",
            pushed("failed to push r/x:1: denied: requested access to the resource is denied"),
        ),
        (
            "image_push_failure",
            "push_quota",
            pushed(
                "failed to push r/x:1: denied: adding 5.0 MiB of storage resource, which when updated to current usage of 9.0 MiB will exceed the configured upper limit of 10.0 MiB.",
            ),
        ),
        (
            "image_push_failure",
            "push_too_large",
            pushed(
                "failed to push r/x:1: unexpected status from PUT request to http://r/v2/x: 413 Request Entity Too Large",
            ),
        ),
        (
            "image_push_failure",
            "push_immutable",
            pushed("failed to push r/x:1: unknown: Failed to process request due to 'x:1' configured as immutable."),
        ),
        (
            "image_push_failure",
            "push_immutable",
            pushed("failed to push r/x:1: unknown: The image tag '1' already exists in the 'x' repository"),
        ),
        (
            "image_push_failure",
            "push_404",
            pushed("failed to push r/x:1: unknown: repository name not known to registry"),
        ),
        ("image_push_failure", "push_server", pushed("failed to push r/x:1: unknown: unknown error")),
        ("image_push_failure", "rate_limited", pushed("failed to push r/x:1: toomanyrequests: too many requests: x")),
        (
            "image_push_failure",
            "network",
            pushed(
                "failed to push r/x:1: failed to do request: Head \"http://r/v2/\": dial tcp: connect: connection refused",
            ),
        ),
        ("image_push_failure", "push_failed", pushed("failed to push r/x:1: something new")),
        // A refused token without a marked step.
        (
            "image_push_failure",
            "push_auth",
            Failure {
                phase: Some(Phase::Push),
                ..failed(
                    vec![],
                    &["error: failed to solve: failed to fetch oauth token: unexpected status: 401 Unauthorized"],
                )
            },
        ),
        // The daemon.
        (
            "infrastructure",
            "daemon",
            failed(
                vec![],
                &["error: listing workers for Build: failed to list workers: Unavailable: connection error: desc = x"],
            ),
        ),
        (
            "infrastructure",
            "daemon",
            failed(
                vec![],
                &[
                    "error: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF",
                ],
            ),
        ),
        // Nothing known.
        ("build_failure", "build_failed", failed(vec![], &["error: failed to solve: something new"])),
        ("build_failure", "build_failed", failed(vec![], &[])),
    ];
    for (group, code, failure) in cases {
        let found = diagnose(&failure);
        assert_eq!((found.group.as_str(), found.code.as_str()), (group, code), "{failure:#?}");
        assert!((0.0..=1.0).contains(&found.confidence));
    }
}

impl Failure {
    fn with_oom(mut self, kills: u32) -> Self {
        self.oom_kills = kills;
        self
    }
}

#[test]
fn what_the_agent_saw_itself_is_taken_as_it_is() {
    let agent = |code: &str, phase| Failure {
        attempt: 1,
        code: Some(code.into()),
        phase: Some(phase),
        phase_lines: lines(Place::Phase(phase), &["fatal: x", ""]),
        ..Failure::default()
    };
    for (code, phase, group, actions) in [
        ("git_auth", Phase::Checkout, "clone", vec!["source_settings"]),
        ("git_ref", Phase::Checkout, "clone", vec!["rebuild", "source_settings"]),
        ("git_tls", Phase::Checkout, "clone", vec!["source_settings"]),
        ("git_net", Phase::Checkout, "clone", vec!["rebuild", "source_settings"]),
        ("dockerfile_case", Phase::Preflight, "dockerfile_not_found", vec!["build_settings"]),
        ("disk_full", Phase::Checkout, "infrastructure", vec!["rebuild"]),
        ("daemon", Phase::Daemon, "infrastructure", vec!["rebuild"]),
    ] {
        let found = diagnose(&agent(code, phase));
        assert_eq!(
            (found.group.as_str(), found.code.as_str(), found.actions),
            (group, code, actions.iter().map(|a| (*a).to_owned()).collect())
        );
        assert_eq!(found.evidence[0].text, "fatal: x");
    }
    let slow = diagnose(&Failure { end: End::TimeLimit, ..ran("sleep", 1, &["…"]) });
    assert_eq!((slow.group.as_str(), slow.code.as_str()), ("timeout", "timeout"));
    let lost = diagnose(&Failure { end: End::Infrastructure, code: Some("new_code".into()), ..Failure::default() });
    assert_eq!(lost.group, "infrastructure");
}

#[test]
fn the_step_that_buildctl_names_counts() {
    let cache = step(
        2,
        "importing cache manifest from r/x:buildcache",
        "failed to configure registry cache importer: r/x:buildcache: not found",
        &[],
    );
    let sibling =
        step(4, "[b 2/2] RUN sleep 9", "process \"sleep\" did not complete successfully: context canceled", &[]);
    let mut failure = ran("npm ci", 1, &["npm error x"]);
    failure.failed_steps.insert(0, cache.clone());
    failure.failed_steps.push(sibling);
    assert_eq!(diagnose(&failure).code, "npm");
    assert_eq!(diagnose(&failure).arguments["step"], "5");
    // Alone, the missing cache explains nothing.
    assert_eq!(diagnose(&failed(vec![cache], &["error: failed to solve: new"])).code, "build_failed");
}

#[test]
fn evidence_is_an_address() {
    let found = diagnose(&ran("npm ci", 1, &["added 3", "npm error code E404", "", "bye"]));
    assert_eq!(found.evidence.len(), 1);
    let line = &found.evidence[0];
    assert_eq!((line.attempt, line.step, line.line, line.row), (1, Some(5), 2, 102));
    // Without a sign the last lines that say something.
    let found = diagnose(&ran("false", 1, &["one", "two", "three", "four", " "]));
    assert_eq!(found.evidence.iter().map(|e| e.text.as_str()).collect::<Vec<_>>(), ["two", "three", "four"]);
    let found =
        diagnose(&failed(vec![], &["Dockerfile:3", "error: failed to solve: dockerfile parse error on line 3: x"]));
    assert_eq!((found.evidence[0].phase.as_deref(), found.evidence[0].line), (Some("buildctl"), 2));
    let long = "é".repeat(1000);
    assert!(diagnose(&ran("false", 1, &[&long])).evidence[0].text.len() <= MAX_EVIDENCE_BYTES);
}

#[test]
fn arguments_name_what_a_sentence_needs() {
    let argument = |failure: &Failure, name: &str| diagnose(failure).arguments.get(name).cloned().unwrap_or_default();
    assert_eq!(argument(&ran("false", 3, &[]), "exit_code"), "3");
    assert_eq!(
        argument(&based("docker.io/library/nope:1", "docker.io/library/nope:1: not found"), "reference"),
        "docker.io/library/nope:1"
    );
    let from = failed(vec![step(3, "[a 1/2] FROM r/x:1@sha256:00", "r/x:1: not found", &[])], &[]);
    assert_eq!(argument(&from, "reference"), "r/x:1");
    let copy = failed(
        vec![step(
            4,
            "[2/2] COPY a b",
            "failed to compute cache key: failed to calculate checksum of ref x::y: \"/a\": not found",
            &[],
        )],
        &[],
    );
    assert_eq!(argument(&copy, "path"), "/a");
    let syntax = failed(vec![], &["error: failed to solve: dockerfile parse error on line 12: unknown instruction: X"]);
    assert_eq!(argument(&syntax, "line"), "12");
    let missing = failed(
        vec![],
        &["error: failed to solve: failed to read dockerfile: open a/Dockerfile: no such file or directory"],
    );
    assert_eq!(argument(&missing, "path"), "a/Dockerfile");
    assert_eq!(argument(&ran("x", 134, &["FATAL ERROR: JavaScript heap out of memory"]), "hint"), "heap");
    let own = Failure {
        code: Some("dockerfile_missing".into()),
        arguments: [("path".to_owned(), "x".to_owned())].into(),
        ..Failure::default()
    };
    assert_eq!(argument(&own, "path"), "x");
}
