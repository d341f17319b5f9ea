use super::*;
use kiops_events::event::{AgentResult, Phase};

fn result(end: AgentEnd, code: Option<&str>) -> AgentResult {
    AgentResult {
        end,
        exit_code: Some(1),
        digest: None,
        code: code.map(str::to_owned),
        args: BTreeMap::new(),
        left_out_bytes: 0,
        push_began: false,
        count: 0,
        hash: String::new(),
    }
}

fn line(place: Place, n: u64, text: &str) -> TextLine {
    TextLine { attempt: 1, place, line: n, row: n + 10, text: text.into() }
}

/// Diagnoses a step's error with what the step and buildctl printed.
fn of(name: &str, error: &str, output: &[&str], trailing: &[&str]) -> Diagnosis {
    let mut lines: Vec<TextLine> = (1..).zip(output).map(|(n, t)| line(Place::Step(5), n, t)).collect();
    lines.extend((1..).zip(trailing).map(|(n, t)| line(Place::Phase(Phase::Buildctl), n, t)));
    let result = result(AgentEnd::Failure, None);
    diagnose(&Facts {
        result: Some(&result),
        failed_step: (!name.is_empty()).then_some(FailedStep { number: 5, name, error }),
        lines: &lines,
        oom_kills: 0,
        arguments: BTreeMap::new(),
    })
}

const RUN: &str = "[builder 3/4] RUN npm ci";
const EXPORT: &str = "exporting to image";
const EXIT_1: &str = r#"process "/bin/sh -c npm ci" did not complete successfully: exit code: 1"#;

#[test]
fn texts_as_buildkit_prints_them_have_their_class() {
    for (name, error, output, trailing, code) in [
        (RUN, EXIT_1, "npm error code EUSAGE", "", "npm"),
        (RUN, EXIT_1, "npm ERR! code E404", "", "npm"),
        (RUN, EXIT_1, "sh: ./run.sh: Permission denied", "", "permission"),
        (RUN, EXIT_1, "HTTP 401 Unauthorized", "", "run_failed"),
        (RUN, EXIT_1, "error: denied: requested access to the resource is denied", "", "run_failed"),
        (
            RUN,
            r#"process "/bin/sh -c x" did not complete successfully: exit code: 127"#,
            "sh: x: not found",
            "",
            "not_executable",
        ),
        (
            RUN,
            r#"process "/bin/sh -c x" did not complete successfully: exit code: 126"#,
            "cannot execute binary file: Exec format error",
            "",
            "platform",
        ),
        (RUN, r#"process "/bin/sh -c x" did not complete successfully: exit code: 137"#, "", "", "run_failed"),
        (
            RUN,
            r#"process "/x" did not complete successfully: exit code: 1"#,
            r#"runc run failed: unable to start container process: exec: "x": executable file not found in $PATH"#,
            "",
            "not_executable",
        ),
        (RUN, EXIT_1, "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "", "oom"),
        (RUN, EXIT_1, "write /x: no space left on device", "", "disk_full"),
        (
            "[2/3] COPY missing /x",
            r#"failed to calculate checksum of ref abc::def: "/missing": not found"#,
            "",
            "",
            "copy_missing",
        ),
        (
            "[1/2] FROM docker.io/library/busybox",
            "ResourceExhausted: failed to compute cache key: failed to copy: write /a: no space left on device",
            "",
            "",
            "disk_full",
        ),
        (
            "[internal] load metadata for docker.io/library/nope:1",
            "docker.io/library/nope:1: not found",
            "",
            "",
            "base_not_found",
        ),
        (
            "[internal] load metadata for r.example/p:1",
            "unexpected status from HEAD request to https://r.example/v2/p/manifests/1: 401 Unauthorized",
            "",
            "",
            "base_auth",
        ),
        (
            "[internal] load metadata for r.example/p:1",
            "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
            "",
            "",
            "base_auth",
        ),
        (
            EXPORT,
            "failed to push r/x:1: unexpected status from POST request to http://r/v2/x/blobs/uploads/: 401 Unauthorized",
            "",
            "",
            "push_auth",
        ),
        (
            EXPORT,
            "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized",
            "",
            "",
            "push_auth",
        ),
        (
            EXPORT,
            "failed to push r/p/x:1: unauthorized: unauthorized to access repository: p/x, action: push: unauthorized to access",
            "",
            "",
            "push_denied",
        ),
        (EXPORT, "failed to push r/x:1: denied: requested access to the resource is denied", "", "", "push_denied"),
        (
            EXPORT,
            "failed to push r/x:1: denied: adding 1.0 MiB of storage resource, which when updated to current usage of 9 MiB will exceed the configured upper limit of 5 MiB.",
            "",
            "",
            "push_quota",
        ),
        (
            EXPORT,
            "failed to push r/x:1: unknown: Failed to process request due to 'x:1' configured as immutable.",
            "",
            "",
            "push_immutable",
        ),
        (
            EXPORT,
            "failed to push r/x:1: unexpected status from PUT request: 413 Request Entity Too Large: <html>",
            "",
            "",
            "push_too_large",
        ),
        (EXPORT, "failed to push r/x:1: unknown: repository name not known to registry", "", "", "push_404"),
        (EXPORT, "failed to push r/x:1: unknown: unknown error", "", "", "push_server"),
        (
            EXPORT,
            r#"failed to push 127.0.0.1:5000/x:1: failed to do request: Head "http://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused"#,
            "",
            "",
            "network",
        ),
        (
            EXPORT,
            r#"failed to do request: Head "https://r.example/v2/": dial tcp: lookup r.example on 127.0.0.53:53: no such host"#,
            "",
            "",
            "dns",
        ),
        (
            EXPORT,
            r#"failed to do request: Head "https://r.example/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority"#,
            "",
            "",
            "tls",
        ),
        (
            "",
            "",
            "",
            "error: failed to solve: dockerfile parse error on line 3: unknown instruction: RUNN",
            "dockerfile_syntax",
        ),
        (
            "",
            "",
            "",
            "error: failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory",
            "dockerfile_missing",
        ),
        ("", "", "", "error: failed to solve: failed to load LLB: network.host is not allowed", "entitlement"),
        (
            "",
            "",
            "",
            "error: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF",
            "daemon",
        ),
        ("", "", "", "error: failed to solve: invalid frontend: gateway.v0", "frontend_blocked"),
        ("", "", "", "something nobody has seen", "unknown"),
    ] {
        let output: Vec<&str> = output.lines().collect();
        let trailing: Vec<&str> = trailing.lines().collect();
        let found = of(name, error, &output, &trailing);
        assert_eq!(found.code, code, "{name}: {error} {output:?} {trailing:?}");
        assert!(!found.group.is_empty() && !found.actions.is_empty());
    }
}

#[test]
fn the_evidence_is_the_line_that_shows_it() {
    let found =
        of(RUN, EXIT_1, &["added 3", "npm error code EUSAGE", "npm error more", ""], &["error: failed to solve: x"]);
    assert_eq!(found.evidence.len(), 1);
    let evidence = &found.evidence[0];
    assert_eq!((evidence.step, evidence.line, evidence.row, evidence.attempt), (Some(5), 2, 12, 1));
    let plain = of(RUN, EXIT_1, &["first", "last words", " "], &["error: failed to solve"]);
    assert_eq!((plain.code.as_str(), plain.evidence[0].text.as_str()), ("run_failed", "last words"));
    assert_eq!(plain.arguments["exit_code"], "1");
}

#[test]
fn sentences_get_their_names() {
    let copy = of("[2/3] COPY a /x", r#"failed to calculate checksum of ref abc: "/src/app.js": not found"#, &[], &[]);
    assert_eq!(copy.arguments["path"], "src/app.js");
    let syntax =
        of("", "", &[], &["error: failed to solve: dockerfile parse error on line 12: unknown instruction: X"]);
    assert_eq!(syntax.arguments["line"], "12");
    let base = of(
        "[internal] load metadata for docker.io/library/nope:1",
        "failed to resolve source metadata for docker.io/library/nope:1: docker.io/library/nope:1: not found",
        &[],
        &[],
    );
    assert_eq!(base.arguments["image"], "docker.io/library/nope:1");
}

#[test]
fn what_the_agent_saw_is_taken_as_it_says() {
    fn found(result: Option<&AgentResult>) -> Diagnosis {
        diagnose(&Facts { result, failed_step: None, lines: &[], oom_kills: 0, arguments: BTreeMap::new() })
    }
    let mut git = result(AgentEnd::Failure, Some("git_auth"));
    git.args.insert("host".into(), "git.example".into());
    let clone = found(Some(&git));
    assert_eq!(
        (clone.code.as_str(), clone.group.as_str(), clone.arguments["host"].as_str()),
        ("git_auth", "clone", "git.example")
    );
    assert_eq!(found(Some(&result(AgentEnd::TimeLimit, None))).code, "timeout");
    assert_eq!(found(None).code, "interrupted");
}

#[test]
fn a_kill_is_out_of_memory_only_when_the_kernel_said_so() {
    let killed = r#"process "/bin/sh -c x" did not complete successfully: exit code: 137"#;
    let result = result(AgentEnd::Failure, None);
    let facts = |oom_kills| {
        diagnose(&Facts {
            result: Some(&result),
            failed_step: Some(FailedStep { number: 5, name: RUN, error: killed }),
            lines: &[],
            oom_kills,
            arguments: BTreeMap::new(),
        })
        .code
    };
    assert_eq!((facts(1).as_str(), facts(0).as_str()), ("oom", "run_failed"));
}
