//! What a failed Git command's words mean to a person.

use kiops_app::error::{Problem, ProblemStatus};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Auth,
    NotFound,
    Ref,
    Redirect,
    Tls,
    Dns,
    Network,
    Other,
}

/// Looked for in this order, in lower case: a host's own words come with a general line of Git's behind them.
const TEXTS: [(Fault, &[&str]); 7] = [
    (Fault::Redirect, &["the requested url returned error: 30"]),
    (
        Fault::Auth,
        &[
            "could not read username for",
            "could not read password for",
            "terminal prompts disabled",
            "http basic: access denied",
            "authentication failed for",
            "invalid username or password",
            "invalid username or token",
            "support for password authentication was removed",
            "the requested url returned error: 401",
            "the requested url returned error: 403",
        ],
    ),
    (Fault::Dns, &["could not resolve host", "temporary failure in name resolution"]),
    (
        Fault::Tls,
        &[
            "ssl certificate problem",
            "server certificate verification failed",
            "certificate subject name",
            "x509:",
            "gnutls_handshake",
            "ssl_connect",
            "ssl connect error",
            "tls connect error",
            "wrong version number",
            "unsupported protocol version",
        ],
    ),
    (
        Fault::Network,
        &[
            "failed to connect to",
            "connection refused",
            "connection timed out",
            "connection reset",
            "operation timed out",
            "timed out",
            "empty reply from server",
            "network is unreachable",
            "no route to host",
            "unexpected disconnect",
            "early eof",
            "the requested url returned error: 429",
            "the requested url returned error: 5",
        ],
    ),
    (Fault::Ref, &["couldn't find remote ref", "remote branch", "not our ref", "unadvertised object"]),
    (
        Fault::NotFound,
        &[
            "not found",
            "could not be found",
            "does not appear to be a git repository",
            "is this a git repository?",
            "could not read from remote repository",
            "the requested url returned error: 4",
            "invalid server response",
            "bad line length",
        ],
    ),
];

pub(super) fn classify(stderr: &str) -> Fault {
    let text = stderr.to_lowercase();
    let found = TEXTS.iter().find(|(_, texts)| texts.iter().any(|t| text.contains(t)));
    found.map_or(Fault::Other, |(fault, _)| *fault)
}

impl Fault {
    pub fn code(self) -> &'static str {
        match self {
            Self::Auth => "git_auth",
            Self::NotFound => "git_not_found",
            Self::Ref => "git_ref",
            Self::Redirect => "git_redirect",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Network => "network",
            Self::Other => "git_failed",
        }
    }

    /// As a person meets it, at the field that is about it. `stderr` is what Git said.
    pub fn problem(self, host: &str, stderr: &str) -> Problem {
        let problem = |fault: Self| Problem::new(ProblemStatus::Upstream, fault.code()).with("host", host);
        match self {
            Self::Auth => problem(self).at("source.token"),
            // Nothing that is asked here names a ref: which one is missing is its caller's to say.
            Self::Ref | Self::Other => problem(Self::Other).with("detail", safe_line(stderr)).at("source.url"),
            _ => problem(self).at("source.url"),
        }
    }
}

/// The line that says most, short, and without anything that could be a credential.
pub(super) fn safe_line(stderr: &str) -> String {
    const MOST: usize = 300;
    let said = stderr.lines().rfind(|line| line.starts_with("fatal:") || line.starts_with("error:"));
    let line = said.or_else(|| stderr.lines().rfind(|line| !line.trim().is_empty())).unwrap_or_default();
    let mut safe = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        safe.push_str(before);
        safe.push_str("://");
        let end = after.find(['/', ' ', '\'', '"']).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => &after[at + 1..],
            None => after,
        };
    }
    safe.push_str(rest);
    safe.chars().filter(|c| !c.is_control()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_git_and_of_hosts() {
        for (fault, text) in [
            (Fault::Auth, "fatal: could not read Username for 'http://127.0.0.1:1': terminal prompts disabled"),
            (
                Fault::Auth,
                "remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://gitlab.com/x/'",
            ),
            (Fault::Auth, "fatal: unable to access 'http://h/x/': The requested URL returned error: 403"),
            (Fault::NotFound, "fatal: repository 'http://127.0.0.1:1/none.git/' not found"),
            (Fault::NotFound, "remote: The project you were looking for could not be found."),
            (Fault::NotFound, "fatal: http://127.0.0.1:1/b/info/refs not valid: is this a git repository?"),
            (Fault::Ref, "fatal: couldn't find remote ref refs/heads/gone"),
            (Fault::Redirect, "fatal: unable to access 'http://h/a/': The requested URL returned error: 302"),
            (Fault::Tls, "fatal: unable to access 'https://h/': server certificate verification failed. CAfile: none"),
            (Fault::Tls, "fatal: unable to access 'https://h/': SSL certificate problem: unable to get local issuer"),
            (Fault::Tls, "fatal: unable to access 'https://h/': gnutls_handshake() failed: An unexpected TLS packet"),
            (Fault::Dns, "fatal: unable to access 'http://nosuch/': Could not resolve host: nosuch"),
            (
                Fault::Network,
                "fatal: unable to access 'http://h:1/': Failed to connect to h port 1 after 0 ms: Couldn't connect to server",
            ),
            (Fault::Network, "fatal: unable to access 'http://h/': The requested URL returned error: 500"),
            (Fault::Network, "fatal: unable to access 'http://h/': Empty reply from server"),
            (Fault::Other, "fatal: something new"),
        ] {
            assert_eq!(classify(text), fault, "{text}");
        }
    }

    #[test]
    fn every_fault_has_its_words() {
        for (fault, _) in TEXTS.into_iter().chain([(Fault::Other, &[][..])]) {
            assert_eq!(kiops_app::locales::unmatched(&fault.problem("git.example", "fatal: x")), None, "{fault:?}");
        }
    }

    #[test]
    fn lines_are_shown_without_credentials() {
        let line = safe_line("x\nfatal: unable to access 'https://u:p@ss@host/a/': nothing\n");
        assert_eq!(line, "fatal: unable to access 'https://host/a/': nothing");
        assert_eq!(safe_line("fatal: a@b"), "fatal: a@b");
        assert_eq!(safe_line(""), "");
    }
}
