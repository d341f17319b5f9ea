//! Telling classes apart by what BuildKit, registries and tools really print. The order within each place decides: the
//! more telling text stands first, because later ones also appear in its company.

use super::{CERTAIN, FailedStep, Failure, Finding, LIKELY, LogLine, UNSURE};
use std::collections::BTreeMap;

/// Texts (lower case) that mean a class wherever they are looked for.
type Table = &'static [(&'static str, &'static [&'static str])];

const DISK: Table = &[("disk_full", &["no space left on device", "enospc", "disk quota exceeded"])];

/// BuildKit marks no step for these: they stand in buildctl's trailing text only.
const BEFORE_STEPS: Table = &[
    ("frontend_blocked", &["invalid frontend: gateway.v0", "is not an allowed gateway source"]),
    ("policy", &["denied by policy", "not allowed by policy", "policy deny:"]),
    ("entitlement", &["network.host is not allowed", "security.insecure is not allowed"]),
    ("entitlement", &["is not allowed by build daemon configuration"]),
    (
        "dockerfile_syntax",
        &[
            "dockerfile parse error on line",
            "unknown instruction:",
            "the dockerfile cannot be empty",
            "file with no instructions",
            "no build stage in current context",
            "dockerfile is not a regular file",
            "circular dependency detected on stage",
            "should not be blank",
            "unterminated heredoc",
            "failed to process \"",
            "target stage \"",
        ],
    ),
    ("dockerfile_missing", &["failed to read dockerfile: open "]),
];

const DAEMON: Table = &[(
    "daemon",
    &[
        "listing workers for build",
        "rpc error: code = unavailable",
        "error reading from server: eof",
        "no active session for",
        "could not connect to unix://",
        "another instance running",
        "connection error: desc",
    ],
)];

const PUSH: Table = &[
    ("push_quota", &["of storage resource, which when", "will exceed the configured upper limit"]),
    ("push_immutable", &["configured as immutable", "cannot be overwritten", "the image tag '"]),
    ("push_too_large", &["request entity too large", "413 payload too large"]),
    ("rate_limited", &["toomanyrequests", "429 too many requests"]),
    (
        "push_denied",
        &[
            "unauthorized to access repository",
            "requested access to the resource is denied",
            "insufficient_scope",
            "push access denied",
            "403 forbidden",
            ": denied",
            "denied: ",
        ],
    ),
    (
        "push_auth",
        &[
            "401 unauthorized",
            "failed to fetch oauth token",
            "failed to fetch anonymous token",
            "no basic auth credentials",
            "incorrect username or password",
            "authentication required",
            "unauthorized: ",
        ],
    ),
    ("push_404", &["repository name not known", "name unknown", "name_unknown", "404 not found"]),
    (
        "push_server",
        &[
            "unknown: unknown error",
            "500 internal server error",
            "502 bad gateway",
            "503 service unavailable",
            "504 gateway",
        ],
    ),
];

const BASE: Table = &[
    ("rate_limited", &["toomanyrequests", "429 too many requests", "pull rate limit"]),
    ("base_not_found", &["(did you mean "]),
    (
        "base_auth",
        &[
            "401 unauthorized",
            "insufficient_scope",
            "pull access denied",
            "failed to fetch oauth token",
            "no basic auth credentials",
            "403 forbidden",
        ],
    ),
    ("base_not_found", &["no match for platform", "manifest unknown", "name unknown", ": not found"]),
];

const COPY: Table = &[(
    "copy_missing",
    &[
        "failed to calculate checksum of ref",
        "invalid response status 404",
        "no such file or directory",
        "failed to walk",
        "failed to compute cache key",
        "not found",
    ],
)];

const TRANSPORT: Table = &[
    (
        "tls",
        &[
            "x509:",
            "certificate is valid for",
            "certificate has expired",
            "server gave http response to https client",
            "tls: ",
        ],
    ),
    ("dns", &["no such host", "temporary failure in name resolution", "server misbehaving"]),
    (
        "network",
        &[
            "i/o timeout",
            "connection refused",
            "connection reset by peer",
            "unexpected eof",
            "502 bad gateway",
            "503 service unavailable",
            "no route to host",
            "network is unreachable",
        ],
    ),
];

/// What a RUN step's own last lines say. Only ever asked about that step.
const RUN_LINES: Table = &[
    ("platform", &["exec format error"]),
    ("npm", &["npm err!", "npm error", "err_pnpm_", "error an unexpected error occurred"]),
    ("npm", &["error couldn't find package", "your lockfile needs to be updated"]),
    ("not_executable", &["executable file not found in $path"]),
    ("permission", &["permission denied", "eacces"]),
    ("dns", &["could not resolve host", "temporary failure resolving", "temporary failure in name resolution"]),
    ("dns", &["eai_again"]),
];

/// The application's own limit, not the build's: a hint beside the class.
const HEAP: [&str; 2] = ["javascript heap out of memory", "java.lang.outofmemoryerror"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Push,
    Base,
    Copy,
    Run,
    Other,
}

/// What a step does, by the name that BuildKit gives it.
fn kind(step: &FailedStep) -> Kind {
    let name = step.name.as_str();
    let instruction = instruction(name);
    // The scope stands behind the repository: `[auth] team/push-service:pull token for …` is no push.
    let pushes =
        |auth: &str| auth.split(' ').next().and_then(|r| r.rsplit_once(':')).is_some_and(|(_, s)| s.contains("push"));
    if name.starts_with("exporting to ") || name.strip_prefix("[auth] ").is_some_and(pushes) {
        Kind::Push
    } else if name.starts_with("[internal] load metadata for ") || name.starts_with("[auth]") {
        Kind::Base
    } else {
        match instruction.split(' ').next() {
            Some("FROM") => Kind::Base,
            Some("COPY" | "ADD") => Kind::Copy,
            Some("RUN") => Kind::Run,
            _ if name.starts_with("docker-image://") => Kind::Base,
            _ => Kind::Other,
        }
    }
}

/// `[builder 3/4] RUN npm ci` without its head.
fn instruction(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|n| n.split_once("] ")) {
        Some((_, rest)) => rest,
        None => name,
    }
}

/// Whether a step with an error can be why the build failed: not one that may fail, nor one that was ended because another
/// failed.
pub fn may_explain(name: &str, error: &str) -> bool {
    !kiops_events::view::may_fail(name) && !error.ends_with("context canceled")
}

/// Several steps may carry an error: a missing cache is one in builds that succeed, and siblings of a failed step end
/// early. The one that buildctl names at its end counts, else the last.
pub fn step_that_counts(failure: &Failure) -> Option<&FailedStep> {
    let candidates: Vec<&FailedStep> = failure.failed_steps.iter().filter(|s| may_explain(&s.name, &s.error)).collect();
    let last_word = failure.trailing.iter().rev().find(|l| l.text.starts_with("error: "));
    let named = last_word.and_then(|word| {
        candidates
            .iter()
            .find(|s| !s.error.is_empty() && word.text.contains(s.error.lines().next().unwrap_or_default()))
    });
    named.or(candidates.last()).copied()
}

pub fn classify(failure: &Failure, step: Option<&FailedStep>) -> Finding {
    let trailing = joined(&failure.trailing);
    let error = step.map(|s| s.error.to_lowercase()).unwrap_or_default();
    let said = format!("{error}\n{trailing}");
    let kind = step.map_or(Kind::Other, kind);

    // Before everything else: a full disk speaks in the words of whatever was being written.
    if let Some(found) = find(DISK, &said, CERTAIN) {
        return found;
    }
    if let Some(found) = memory(failure, kind, &said) {
        return found;
    }
    // A RUN step may print any of these words itself; they are looked for where only BuildKit speaks.
    if let Some(found) = find(BEFORE_STEPS, &trailing, CERTAIN).filter(|_| step.is_none() || kind == Kind::Other) {
        return found;
    }
    if let Some(found) = find(DAEMON, &without_commands(&said), CERTAIN).filter(|_| !exited(&error)) {
        return found;
    }
    let found = match kind {
        Kind::Push => find(PUSH, &said, CERTAIN),
        Kind::Base => find(BASE, &said, CERTAIN),
        Kind::Copy => find(COPY, &said, CERTAIN),
        Kind::Run => step.and_then(|step| run(step, &error)),
        // The push's own error may have no step: a refused token ends the build before one is marked.
        Kind::Other if trailing.contains("failed to push") => find(PUSH, &trailing, CERTAIN),
        Kind::Other if trailing.contains("failed to resolve source metadata") => find(BASE, &trailing, CERTAIN),
        Kind::Other if failure.phase == Some(kiops_events::Phase::Push) => find(PUSH, &trailing, LIKELY),
        Kind::Other => None,
    };
    if let Some(found) = found {
        return found;
    }
    if kind != Kind::Run
        && let Some(found) = find(TRANSPORT, &said, LIKELY)
    {
        return found;
    }
    match kind {
        Kind::Run => Finding { code: "run_failed", confidence: LIKELY, sign: None },
        Kind::Push => Finding { code: "push_failed", confidence: UNSURE, sign: None },
        _ => Finding { code: "build_failed", confidence: UNSURE, sign: None },
    }
}

/// Out of memory only where something other than an exit code says so: a step may kill itself.
fn memory(failure: &Failure, kind: Kind, said: &str) -> Option<Finding> {
    let buildkit_says = find(
        &[("oom", &["did not complete successfully: cannot allocate memory", "resourceexhausted: process"])],
        said,
        CERTAIN,
    );
    let counted = kind == Kind::Run && failure.oom_kills > 0;
    // With a count of killed processes, a step that a signal ended is certain; any other failure is likely: compilers
    // die of a killed child with an exit code of their own.
    let by_signal = said.contains("exit code: 137") || said.contains("signal: killed");
    buildkit_says.or_else(|| {
        counted.then_some(Finding { code: "oom", confidence: if by_signal { CERTAIN } else { LIKELY }, sign: None })
    })
}

fn run(step: &FailedStep, error: &str) -> Option<Finding> {
    if error.contains("secret ") && error.contains(": not found") && !exited(error) {
        return Some(Finding { code: "secret_missing", confidence: CERTAIN, sign: Some("secret ") });
    }
    if error.contains("no ssh key \"") {
        return Some(Finding { code: "ssh_missing", confidence: CERTAIN, sign: Some("no ssh key") });
    }
    let lines = joined(&step.lines);
    if let Some(found) = find(DISK, &lines, LIKELY) {
        return Some(found);
    }
    let found = find(RUN_LINES, &lines, LIKELY);
    match (exit_code(error), found) {
        // The shell says it with its exit code; the text only confirms it.
        (Some(126), None) => Some(Finding { code: "permission", confidence: LIKELY, sign: None }),
        (Some(127), None | Some(Finding { code: "permission" | "dns", .. })) => {
            Some(Finding { code: "not_executable", confidence: CERTAIN, sign: Some("not found") })
        }
        (Some(126), Some(f)) if f.code != "npm" => Some(Finding { confidence: CERTAIN, ..f }),
        (_, Some(f)) if f.code == "npm" || f.code == "platform" => Some(Finding { confidence: CERTAIN, ..f }),
        (_, found) => found,
    }
}

fn find(table: Table, text: &str, confidence: f32) -> Option<Finding> {
    table.iter().find_map(|(code, signs)| {
        let sign = signs.iter().find(|sign| text.contains(**sign))?;
        Some(Finding { code, confidence, sign: Some(sign) })
    })
}

fn joined(lines: &[LogLine]) -> String {
    let mut out = String::new();
    for line in lines {
        out.push_str(&line.text.to_lowercase());
        out.push('\n');
    }
    out
}

/// buildctl quotes the Dockerfile around the failed instruction and the instruction itself in its error: the author's
/// words, not BuildKit's.
fn without_commands(text: &str) -> String {
    let quoted = |line: &&str| {
        let line = line.trim_start();
        let number = line.split(' ').next().unwrap_or_default();
        !(line.contains(" | ") && (number.parse::<u32>().is_ok() || number == "|"))
    };
    text.lines().filter(quoted).map(|line| format!("{line}\n")).collect()
}

fn exited(error: &str) -> bool {
    error.contains("did not complete successfully")
}

fn exit_code(error: &str) -> Option<i32> {
    number_after(error, "exit code: ")
}

fn number_after(text: &str, mark: &str) -> Option<i32> {
    let rest = text.split_once(mark)?.1;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found).filter(|found| !found.is_empty())
}

/// What a sentence about this class wants to name.
pub fn arguments(code: &str, failure: &Failure, step: Option<&FailedStep>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    let trailing = failure.trailing.iter().map(|l| l.text.as_str()).collect::<Vec<_>>().join("\n");
    if let Some(step) = step.filter(|_| failure.code.is_none() && !super::classes::is_before_the_build(code)) {
        put("step", Some(step.number.to_string()));
        put("step_name", Some(step.name.clone()));
        put("exit_code", exit_code(&step.error.to_lowercase()).map(|c| c.to_string()));
        match kind(step) {
            Kind::Base => {
                let name = instruction(&step.name);
                let reference = ["[internal] load metadata for ", "FROM "]
                    .iter()
                    .find_map(|head| step.name.strip_prefix(head).or(name.strip_prefix(head)));
                put("reference", reference.map(|r| r.split(['@', ' ']).next().unwrap_or(r).to_owned()));
            }
            Kind::Copy => put("path", between(&step.error, ": \"", "\"").map(str::to_owned)),
            Kind::Run => {
                let lines = joined(&step.lines);
                put("hint", HEAP.iter().any(|h| lines.contains(h)).then(|| "heap".to_owned()));
            }
            Kind::Push | Kind::Other => {}
        }
    }
    match code {
        "dockerfile_syntax" => {
            put("line", number_after(&trailing.to_lowercase(), "parse error on line ").map(|n| n.to_string()));
        }
        "dockerfile_missing" => {
            put("path", between(&trailing, "failed to read dockerfile: open ", ":").map(str::to_owned));
        }
        _ => {}
    }
    out
}
