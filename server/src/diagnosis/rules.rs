//! The rules, in the order in which they are tried. The texts are BuildKit 0.32's, as it really prints them, and those of
//! Git, registries and package managers; all in lower case.
//!
//! Two traps decide the order. A full disk at pull reads like a COPY error, so disks come first. JSON registry errors lose
//! their HTTP status, so words decide, not numbers, and push rules hold only where something was pushed.

/// Where a rule's texts are looked for, and when it is asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The failed step's error and buildctl's closing text.
    Error,
    /// Those and what a failed RUN step printed.
    ErrorOrOutput,
    /// Only what a failed RUN step printed.
    Output,
    /// The error, when the image's export failed.
    Push,
    /// The error, when a base image could not be had.
    Base,
    /// The error, when it can be about a COPY or ADD.
    Copy,
    /// The error, when no step failed: BuildKit marks none for a Dockerfile it cannot read.
    Dockerfile,
}

pub(super) struct Rule {
    pub code: &'static str,
    pub scope: Scope,
    pub confidence: f32,
    pub any: &'static [&'static str],
}

const fn rule(code: &'static str, scope: Scope, confidence: f32, any: &'static [&'static str]) -> Rule {
    Rule { code, scope, confidence, any }
}

pub(super) const RULES: &[Rule] = &[
    // The engine went away under the build.
    rule(
        "daemon",
        Scope::Error,
        0.9,
        &[
            "failed to list workers: unavailable",
            "error reading from server: eof",
            "no active session for",
            "could not connect to unix://",
            "another instance running",
        ],
    ),
    rule("disk_full", Scope::ErrorOrOutput, 0.95, &["no space left on device", "enospc", "disk quota exceeded"]),
    rule(
        "oom",
        Scope::Error,
        0.9,
        &["did not complete successfully: cannot allocate memory", "resourceexhausted: process"],
    ),
    rule(
        "oom",
        Scope::Output,
        0.7,
        &[
            "javascript heap out of memory",
            "java.lang.outofmemoryerror",
            "fatal error: killed signal terminated program",
        ],
    ),
    // What the Dockerfile asks for and this installation does not allow.
    rule("frontend_blocked", Scope::Error, 0.95, &["invalid frontend: gateway.v0", "is not an allowed gateway source"]),
    rule(
        "entitlement",
        Scope::Error,
        0.95,
        &[
            "network.host is not allowed",
            "security.insecure is not allowed",
            "is not allowed by build daemon configuration",
        ],
    ),
    rule("policy", Scope::Error, 0.95, &["denied by policy", "not allowed by policy", "policy deny:"]),
    rule("secret_missing", Scope::Error, 0.9, &[": not found: secret", "secret not found"]),
    rule("ssh_missing", Scope::Error, 0.9, &["no ssh key \""]),
    // The Dockerfile itself: no step is marked as failed.
    rule("dockerfile_missing", Scope::Error, 0.95, &["failed to read dockerfile: open"]),
    rule(
        "dockerfile_syntax",
        Scope::Error,
        0.95,
        &[
            "dockerfile parse error",
            "unknown instruction:",
            "the dockerfile cannot be empty",
            "file with no instructions",
            "no build stage in current context",
            "is not a regular file",
            "circular dependency detected on stage",
            "should not be blank",
            "unterminated heredoc",
            "failed to process \"",
        ],
    ),
    rule("dockerfile_syntax", Scope::Dockerfile, 0.8, &["target stage \"", "invalid reference format"]),
    // Pushing.
    rule(
        "push_quota",
        Scope::Push,
        0.95,
        &["of storage resource, which when", "will exceed the configured upper limit", "quota exceeded"],
    ),
    rule("push_immutable", Scope::Push, 0.95, &["configured as immutable", "already exists", "cannot be overwritten"]),
    rule("push_too_large", Scope::Push, 0.95, &["413 request entity too large", "request entity too large"]),
    rule(
        "push_denied",
        Scope::Push,
        0.9,
        &[
            "unauthorized to access repository:",
            "requested access to the resource is denied",
            "insufficient_scope",
            "push access denied",
            "403 forbidden",
            "denied:",
        ],
    ),
    rule(
        "push_auth",
        Scope::Push,
        0.9,
        &[
            "401 unauthorized",
            "failed to authorize",
            "failed to fetch oauth token",
            "failed to fetch anonymous token",
            "no basic auth credentials",
            "incorrect username or password",
            "authentication required",
            "unauthorized",
        ],
    ),
    rule("push_404", Scope::Push, 0.9, &["repository name not known to registry", "name unknown", "404 not found"]),
    rule("push_rate_limited", Scope::Push, 0.9, &["toomanyrequests", "429 too many requests"]),
    rule(
        "push_server",
        Scope::Push,
        0.7,
        &[
            "unknown: unknown error",
            "500 internal server error",
            "502 bad gateway",
            "503 service unavailable",
            "504 gateway",
        ],
    ),
    // Base images.
    rule("rate_limited", Scope::Error, 0.9, &["toomanyrequests", "429 too many requests", "pull rate limit"]),
    rule("platform", Scope::Error, 0.9, &["no match for platform in manifest"]),
    rule(
        "base_auth",
        Scope::Base,
        0.85,
        &[
            "401 unauthorized",
            "insufficient_scope",
            "pull access denied",
            "failed to fetch oauth token",
            "authentication required",
        ],
    ),
    rule("base_not_found", Scope::Base, 0.9, &[": not found", "manifest unknown", "name unknown"]),
    // Transport, wherever it broke.
    rule(
        "tls",
        Scope::Error,
        0.9,
        &[
            "x509:",
            "certificate has expired",
            "certificate is valid for",
            "server gave http response to https client",
            "tls: handshake failure",
            "tls: failed to verify",
        ],
    ),
    rule("dns", Scope::Error, 0.9, &["no such host", "temporary failure in name resolution", "server misbehaving"]),
    rule(
        "network",
        Scope::Error,
        0.8,
        &[
            "i/o timeout",
            "connection refused",
            "connection reset by peer",
            "unexpected eof",
            "502 bad gateway",
            "503 service unavailable",
            "no route to host",
        ],
    ),
    // COPY and ADD.
    rule("add_failed", Scope::Copy, 0.9, &["invalid response status"]),
    rule(
        "copy_missing",
        Scope::Copy,
        0.9,
        &["failed to calculate checksum of ref", "failed to compute cache key", "failed to walk"],
    ),
    // RUN: what the step printed says more than its exit code.
    rule(
        "npm",
        Scope::Output,
        0.9,
        &[
            "npm err!",
            "npm error",
            "err_pnpm_",
            "error an unexpected error occurred",
            "error couldn't find package",
            "your lockfile needs to be updated",
        ],
    ),
    rule("platform", Scope::Output, 0.9, &["exec format error"]),
    rule("not_executable", Scope::ErrorOrOutput, 0.9, &["executable file not found in $path", "exit code: 127"]),
    rule("permission", Scope::ErrorOrOutput, 0.8, &["permission denied", "eacces", "exit code: 126"]),
];

/// The guide's groups and the product's own.
pub(super) fn group(code: &str) -> &'static str {
    match code {
        "dockerfile_missing" | "dockerfile_case" | "dockerfile_outside" => "dockerfile_not_found",
        c if c.starts_with("git_") => "clone",
        c if c.starts_with("push_") => "image_push_failure",
        "timeout" => "timeout",
        "daemon" | "node_setup" | "agent" | "interrupted" | "terminated" | "disk_full" => "infrastructure",
        _ => "build_failure",
    }
}

/// What the product can offer, first the likeliest.
pub(super) fn actions(code: &str) -> &'static [&'static str] {
    match code {
        "push_auth" | "push_denied" | "push_404" | "push_quota" | "base_auth" => &["registry_settings", "rebuild"],
        "git_auth" | "git_not_found" | "git_tls" => &["source_settings", "rebuild"],
        "dockerfile_missing" | "dockerfile_case" | "dockerfile_outside" | "timeout" | "oom" => {
            &["build_settings", "rebuild"]
        }
        _ => &["rebuild"],
    }
}
